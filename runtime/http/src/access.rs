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
mod tests;
