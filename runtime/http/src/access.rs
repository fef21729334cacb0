//! Checks that a request has to pass before a site answers it.
//!
//! A web page can have its own host name resolve to the loopback (DNS rebinding). The browser then sends its requests
//! here, and lets the page read the answers, because for the browser they come from the page's own host. What gives such
//! a request away is its Host header, so the header has to be there, once, and name this host.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use hyper::body::Body;
use hyper::{Method, Request, StatusCode, Version, header};

use crate::Answer;

/// The kernel's name of this host; empty if it cannot be read.
#[expect(clippy::disallowed_methods, reason = "a file of the kernel")]
static HOST_NAME: LazyLock<String> = LazyLock::new(|| {
    let read = std::fs::read_to_string("/proc/sys/kernel/hostname");
    read.map(|name| name.trim().to_owned()).unwrap_or_default()
});

/// Hosts that the Host header of a request may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Any. As with Go's server, an HTTP/1.1 request has exactly one Host header.
    Any,
    /// Over the loopback: an IP address, `localhost` or this host's own name. From elsewhere: any.
    Own,
}

/// Returns the answer to a request that no site has to see.
pub(crate) fn refusal<B: Body>(
    hosts: Hosts,
    over_loopback: bool,
    request: &Request<B>,
) -> Option<Answer> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let refused =
            Answer::text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed; use GET or HEAD\n");
        return Some(refused.with(header::ALLOW, "GET, HEAD"));
    }
    if !request.body().is_end_stream() {
        let text = "a request has no body here\n";
        let refused = Answer::text(StatusCode::PAYLOAD_TOO_LARGE, text);
        return Some(refused.with(header::CONNECTION, "close"));
    }
    let guarded = hosts == Hosts::Own && over_loopback;
    let mut given = request.headers().get_all(header::HOST).iter();
    let host = match (given.next(), given.next()) {
        (Some(host), None) => host,
        (None, _) if request.version() < Version::HTTP_11 && !guarded => return None,
        (None, _) => return Some(bad("the Host header is missing; send one\n")),
        (Some(_), Some(_)) => return Some(bad("several Host headers; send one\n")),
    };
    // RFC 9112, section 3.2.2: the authority of an absolute target counts, whatever the header says. Two that differ are
    // no client's that means well.
    let host = host.to_str().unwrap_or_default();
    let target = request.uri().authority().map_or(host, |authority| authority.as_str());
    if !target.eq_ignore_ascii_case(host) {
        return Some(bad("the request's target and its Host header name different hosts\n"));
    }
    if guarded && !names_this_host(host, &HOST_NAME) {
        let text = "the request is for another host: ask for an IP address, or for localhost\n";
        return Some(Answer::text(StatusCode::MISDIRECTED_REQUEST, text));
    }
    None
}

fn bad(text: &'static str) -> Answer {
    Answer::text(StatusCode::BAD_REQUEST, text)
}

/// Returns true if a Host header names this host: an IP address, `localhost` or the name `own`, with a port or without.
/// The port may be any: SSH forwards another one.
fn names_this_host(host: &str, own: &str) -> bool {
    if let Some(bracketed) = host.strip_prefix('[') {
        let Some((name, rest)) = bracketed.split_once(']') else { return false };
        // Zone identifiers are no part of a Host header (RFC 6874, section 4), and no part of an `Ipv6Addr`.
        return name.parse::<Ipv6Addr>().is_ok()
            && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
    }
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let known = name.eq_ignore_ascii_case("localhost")
        || (!own.is_empty() && name.eq_ignore_ascii_case(own))
        || name.parse::<Ipv4Addr>().is_ok();
    known && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use http_body_util::{Empty, Full};

    use super::*;
    use crate::Bytes;

    /// The status that refuses a request with these Host headers; none: it is answered.
    fn refused(
        hosts: Hosts,
        over_loopback: bool,
        target: &str,
        version: Version,
        headers: &[&str],
    ) -> Option<u16> {
        let mut request = Request::get(target).version(version);
        for host in headers {
            request = request.header(header::HOST, *host);
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        refusal(hosts, over_loopback, &request).map(|answer| answer.status().as_u16())
    }

    #[test]
    fn loopback_request_has_to_name_this_host() {
        for (host, status) in [
            ("localhost", None),
            ("LOCALHOST:9981", None),
            ("127.0.0.1:9981", None),
            ("192.0.2.1", None),
            ("[::1]:8080", None),
            ("[::ffff:127.0.0.1]", None),
            ("evil.example:9981", Some(421)),
            ("localhost.evil.example", Some(421)),
            ("127.0.0.1.evil.example", Some(421)),
            ("[::1].evil.example", Some(421)),
            ("[::1].evil.example:9981", Some(421)),
            ("[::1]evil.example", Some(421)),
            ("[::1", Some(421)),
            ("::1", Some(421)),
            ("[fe80::1%25lo]", Some(421)),
            ("[fe80::1%lo]", Some(421)),
            ("[127.0.0.1]", Some(421)),
            ("localhost.", Some(421)),
            ("127.0.0.1.", Some(421)),
            ("user@localhost", Some(421)),
            ("localhost@evil.example", Some(421)),
            ("localhost:9981@evil.example", Some(421)),
            ("localhost:", Some(421)),
            ("localhost:99999", Some(421)),
            ("localhost:+80", Some(421)),
            ("localhost:80:80", Some(421)),
            ("localhost, evil.example", Some(421)),
            ("a b", Some(421)),
            ("", Some(421)),
        ] {
            let found = refused(Hosts::Own, true, "/", Version::HTTP_11, &[host]);
            assert_eq!(found, status, "{host:?}");
            assert_eq!(refused(Hosts::Own, false, "/", Version::HTTP_11, &[host]), None, "{host}");
            assert_eq!(refused(Hosts::Any, true, "/", Version::HTTP_11, &[host]), None, "{host}");
        }
    }

    #[test]
    fn host_header_missing_or_repeated_is_refused() {
        let (new, old) = (Version::HTTP_11, Version::HTTP_10);
        for (hosts, over_loopback, version, headers, status) in [
            (Hosts::Own, true, new, &[][..], Some(400)),
            (Hosts::Own, true, old, &[], Some(400)),
            (Hosts::Own, true, new, &["localhost", "localhost"], Some(400)),
            (Hosts::Own, true, old, &["localhost", "evil.example"], Some(400)),
            (Hosts::Own, false, new, &[], Some(400)),
            (Hosts::Any, true, new, &[], Some(400)),
            (Hosts::Any, true, new, &["a", "b"], Some(400)),
            // Load balancers probe this way.
            (Hosts::Any, true, old, &[], None),
        ] {
            let found = refused(hosts, over_loopback, "/", version, headers);
            assert_eq!(found, status, "{hosts:?} {over_loopback} {version:?} {headers:?}");
        }
    }

    #[test]
    fn absolute_target_has_to_agree_with_the_host_header() {
        for (target, host, status) in [
            ("http://localhost:9981/", "localhost:9981", None),
            ("http://LOCALHOST:9981/", "localhost:9981", None),
            ("http://evil.example/", "localhost", Some(400)),
            ("http://localhost/", "evil.example", Some(400)),
            ("http://evil.example/", "evil.example", Some(421)),
            ("http://user@localhost/", "localhost", Some(400)),
            ("http://user@localhost/", "user@localhost", Some(421)),
        ] {
            let found = refused(Hosts::Own, true, target, Version::HTTP_11, &[host]);
            assert_eq!(found, status, "{target} {host}");
        }
    }

    #[test]
    fn own_name_is_accepted_and_an_unknown_one_is_not() {
        assert!(names_this_host("node-1:9981", "Node-1"));
        assert!(!names_this_host("node-1.example", "node-1"));
        assert!(!names_this_host("", ""));
    }

    #[test]
    fn request_body_is_refused() {
        let request = Request::get("/").header(header::HOST, "localhost");
        let request = request.body(Full::new(Bytes::from_static(b"x"))).unwrap();
        let answer = refusal(Hosts::Any, true, &request).unwrap();
        assert_eq!(answer.status().as_u16(), 413);
    }
}
