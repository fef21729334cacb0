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
