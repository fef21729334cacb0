use std::sync::atomic::{AtomicU64, Ordering};

use heddle_control::{Leases, Status};
use heddle_http::{Hosts, respond};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{Request, Response};
use tokio::time::Instant;

use super::*;

/// Counts the status requests.
#[derive(Default)]
struct Daemon(AtomicU64, bool);

impl Handler for Daemon {
    async fn status(&self) -> Result<Status, Unavailable> {
        if self.1 {
            return Err(Unavailable("it starts".to_owned()));
        }
        let uptime = self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Status { network: "<b>".to_owned(), uptime, ..Status::default() })
    }

    async fn leases(&self) -> Result<Leases, Unavailable> {
        Err(Unavailable("nobody asks".to_owned()))
    }
}

type Reply = Response<Full<Bytes>>;

async fn ask(site: &impl Site, method: &str, path: &str, host: &str) -> (u16, Reply) {
    let request = Request::builder().method(method).uri(path).header(header::HOST, host);
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let answer = respond(site, Hosts::Own, true, &request).await;
    (answer.status().as_u16(), answer)
}

async fn text(answer: Reply) -> String {
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

fn site(daemon: Daemon) -> impl Site {
    pages(Documents::new(daemon), Timings::default())
}

const HERE: &str = "127.0.0.1:9981";

#[tokio::test]
async fn endpoints_are_read_only() {
    let site = site(Daemon::default());
    for path in ["/", "/status.json", "/metrics", "/elsewhere"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
            let (status, answer) = ask(&site, method, path, HERE).await;
            assert_eq!(status, 405, "{method} {path}");
            assert_eq!(answer.headers()[header::ALLOW], "GET, HEAD");
        }
        let expected = if path == "/elsewhere" { 404 } else { 200 };
        for method in ["GET", "HEAD"] {
            let (status, answer) = ask(&site, method, path, HERE).await;
            assert_eq!(status, expected, "{method} {path}");
            let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'"), "{policy}");
        }
    }
}

#[tokio::test]
async fn endpoints_declare_their_content_type() {
    let site = site(Daemon::default());
    for (path, kind, start) in [
        ("/", "text/html; charset=utf-8", "<!doctype html>"),
        ("/status.json", "application/json", "{\"version\""),
        ("/metrics", OPEN_METRICS, "# HELP heddle_"),
    ] {
        let (_, answer) = ask(&site, "GET", path, HERE).await;
        assert_eq!(answer.headers()[header::CONTENT_TYPE], kind, "{path}");
        let text = text(answer).await;
        assert!(text.starts_with(start), "{path}: {text}");
    }
}

#[tokio::test]
async fn many_readers_query_the_daemon_once_a_second() {
    let site = site(Daemon::default());
    let begun = Instant::now();
    let uptime = async |site| {
        let (_, answer) = ask(site, "GET", "/status.json", HERE).await;
        serde_json::from_str::<Status>(&text(answer).await).unwrap().uptime
    };
    for _ in 0..100 {
        let asked = uptime(&site).await;
        assert!(asked <= begun.elapsed().as_secs(), "asked {asked} times more");
    }
    let asked = uptime(&site).await;
    tokio::time::sleep(RECENT).await;
    assert_eq!(uptime(&site).await, asked + 1);
}

#[tokio::test]
async fn unavailable_daemon_answers_503_with_reason() {
    let site = site(Daemon(AtomicU64::new(0), true));
    for path in ["/status.json", "/metrics"] {
        let (status, answer) = ask(&site, "GET", path, HERE).await;
        assert_eq!((status, text(answer).await.as_str()), (503, "it starts\n"), "{path}");
    }
}

#[tokio::test]
async fn rebound_host_name_is_refused() {
    let site = site(Daemon::default());
    for (host, status) in [
        ("localhost:9981", 200),
        ("[::1]:9981", 200),
        ("192.0.2.1", 200),
        ("evil.example:9981", 421),
        ("localhost.evil.example", 421),
        ("a b", 421),
    ] {
        assert_eq!(ask(&site, "GET", "/status.json", host).await.0, status, "{host}");
    }
    let request = Request::get("/status.json").header(header::HOST, "node-1.example");
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(respond(&site, Hosts::Own, false, &request).await.status(), 200);
}

#[tokio::test]
async fn readers_share_one_document() {
    let site = site(Daemon::default());
    for path in ["/status.json", "/metrics"] {
        let begun = Instant::now();
        let mut places = std::collections::BTreeSet::new();
        for _ in 0..60 {
            places.insert(site.answer(path).await.body().as_ptr().addr());
        }
        let most = 1 + begun.elapsed().as_secs();
        assert!(places.len() as u64 <= most, "{path}: {} documents", places.len());
    }
}
