//! `/`, `/status.json` and `/metrics`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use heddle_control::{Handler, Status, Unavailable};
use heddle_core::text;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::metrics::{Timings, metrics};
use crate::page::{PAGE, POLICY};

/// How long an answer of the daemon's is good for, so that many who look cost it as much as one.
const FRESH: Duration = Duration::from_secs(1);

/// OpenMetrics 1.0, section "Protocol Negotiation".
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers people and Prometheus with what the daemon says of itself. `address` is the one that is listened on.
pub fn pages<H: Handler>(address: SocketAddr, handler: H, timings: Timings) -> Router {
    let asked = Arc::new(Asked { handler, last: Mutex::default() });
    let for_metrics = asked.clone();
    let status = move || {
        let asked = asked.clone();
        async move { status(asked.status().await) }
    };
    let metrics = move || {
        let (asked, timings) = (for_metrics.clone(), timings.clone());
        async move {
            let text = asked.status().await.map(|status| metrics(&status, &timings));
            text.map(|text| ([(header::CONTENT_TYPE, OPEN_METRICS)], text)).map_err(unavailable)
        }
    };
    let page = async || ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], PAGE);
    Router::new()
        .route("/", get(page))
        .route("/status.json", get(status))
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn(move |request, next| guard(address, request, next)))
}

/// The daemon, and what it last said.
struct Asked<H> {
    handler: H,
    last: Mutex<Option<(Instant, Arc<Status>)>>,
}

impl<H: Handler> Asked<H> {
    /// What the daemon says, or has just said. Who comes while it is asked waits for the same answer.
    async fn status(&self) -> Result<Arc<Status>, Unavailable> {
        let mut last = self.last.lock().await;
        if let Some((_, status)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(status.clone());
        }
        let status = Arc::new(self.handler.status().await?);
        *last = Some((Instant::now(), status.clone()));
        Ok(status)
    }
}

fn status(status: Result<Arc<Status>, Unavailable>) -> Response {
    let written = status.and_then(|status| {
        serde_json::to_string(&*status)
            .map(text::json)
            .map_err(|error| Unavailable(error.to_string()))
    });
    match written {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => unavailable(error).into_response(),
    }
}

fn unavailable(Unavailable(reason): Unavailable) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"))
}

/// Lets nothing in but reading, and nothing out without the page's policy.
async fn guard(address: SocketAddr, request: Request, next: Next) -> Response {
    let refused = refusal(address, &request);
    let mut response = match refused {
        Some(refused) => refused.into_response(),
        None => next.run(request).await,
    };
    let policy = HeaderValue::from_str(&POLICY).expect("the policy is plain text");
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ] {
        response.headers_mut().insert(name, value);
    }
    response
}

fn refusal(address: SocketAddr, request: &Request) -> Option<Response> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let text = "this can only be read: GET\n";
        let refused = (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")], text);
        return Some(refused.into_response());
    }
    let host = request.headers().get(header::HOST)?;
    if is_meant(address.ip(), host.to_str().unwrap_or_default()) {
        return None;
    }
    let text = "the request is for another host: ask for an address, or for localhost\n";
    Some((StatusCode::MISDIRECTED_REQUEST, text).into_response())
}

/// Whether a request for this host is meant for this address. A page from elsewhere can have its own name resolve to the
/// loopback (DNS rebinding), and would then read there what only this host may.
fn is_meant(address: IpAddr, host: &str) -> bool {
    if !address.is_loopback() {
        return true;
    }
    host.parse::<Authority>().is_ok_and(|authority| {
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use axum::body::{Body, to_bytes};
    use heddle_control::Leases;
    use tower::ServiceExt;

    use super::*;

    /// Counts how often it is asked.
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

    async fn ask(router: &Router, method: &str, path: &str, host: &str) -> (u16, Response) {
        let request = Request::builder().method(method).uri(path).header(header::HOST, host);
        let answer = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        (answer.status().as_u16(), answer)
    }

    async fn text(response: Response) -> String {
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    fn router(daemon: Daemon) -> Router {
        pages("127.0.0.1:9981".parse().unwrap(), daemon, Timings::default())
    }

    const HERE: &str = "127.0.0.1:9981";

    #[tokio::test]
    async fn it_can_only_be_read() {
        let router = router(Daemon::default());
        for path in ["/", "/status.json", "/metrics", "/elsewhere"] {
            for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
                let (status, answer) = ask(&router, method, path, HERE).await;
                assert_eq!(status, 405, "{method} {path}");
                assert_eq!(answer.headers()[header::ALLOW], "GET, HEAD");
            }
            let expected = if path == "/elsewhere" { 404 } else { 200 };
            for method in ["GET", "HEAD"] {
                let (status, answer) = ask(&router, method, path, HERE).await;
                assert_eq!(status, expected, "{method} {path}");
                let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
                assert!(policy.starts_with("default-src 'none'"), "{policy}");
            }
        }
    }

    #[tokio::test]
    async fn each_is_what_it_says_it_is() {
        let router = router(Daemon::default());
        for (path, kind, start) in [
            ("/", "text/html; charset=utf-8", "<!doctype html>"),
            ("/status.json", "application/json", "{\"version\""),
            ("/metrics", OPEN_METRICS, "# HELP heddle_"),
        ] {
            let (_, answer) = ask(&router, "GET", path, HERE).await;
            assert_eq!(answer.headers()[header::CONTENT_TYPE], kind, "{path}");
            let text = text(answer).await;
            assert!(text.starts_with(start), "{path}: {text}");
        }
    }

    #[tokio::test]
    async fn many_who_look_cost_as_much_as_one_a_second() {
        let router = router(Daemon::default());
        let begun = Instant::now();
        let uptime = async |router| {
            let (_, answer) = ask(router, "GET", "/status.json", HERE).await;
            serde_json::from_str::<Status>(&text(answer).await).unwrap().uptime
        };
        for _ in 0..100 {
            let asked = uptime(&router).await;
            assert!(asked <= begun.elapsed().as_secs(), "asked {asked} times more");
        }
        let asked = uptime(&router).await;
        tokio::time::sleep(FRESH).await;
        assert_eq!(uptime(&router).await, asked + 1);
    }

    #[tokio::test]
    async fn a_daemon_that_cannot_answer_says_so() {
        let router = router(Daemon(AtomicU64::new(0), true));
        for path in ["/status.json", "/metrics"] {
            let (status, answer) = ask(&router, "GET", path, HERE).await;
            assert_eq!((status, text(answer).await.as_str()), (503, "it starts\n"), "{path}");
        }
    }

    #[tokio::test]
    async fn a_name_that_is_made_to_lead_here_is_refused() {
        let router = router(Daemon::default());
        for (host, status) in [
            ("localhost:9981", 200),
            ("[::1]:9981", 200),
            ("192.0.2.1", 200),
            ("evil.example:9981", 421),
            ("localhost.evil.example", 421),
            ("a b", 421),
        ] {
            assert_eq!(ask(&router, "GET", "/status.json", host).await.0, status, "{host}");
        }
        assert!(is_meant("192.0.2.1".parse().unwrap(), "node-1.example"));
    }
}
