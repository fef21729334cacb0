//! The protocol that a server speaks at a port where etcd was expected.
//!
//! A failed connection tells little: a server that expects TLS closes one with plain text, and a
//! server without TLS closes one with TLS. So after a failure that says no more, the port is asked
//! once more, in each protocol.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::dial::Target;
use super::error::EtcdFailure;
use super::tls::provider;

/// Time limit for the first bytes of an answer. Shorter if that for a connection is.
const LIMIT: Duration = Duration::from_secs(1);

/// The start of an HTTP/2 connection: the preface, and an empty SETTINGS frame (RFC 9113, 3.4 and
/// 6.5).
const HTTP2_START: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Content types of TLS records (RFC 8446, 5.1).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tls,
    Http2,
    Http1,
}

/// Returns a failure of a connection with its cause, if the server turns out to speak another
/// protocol than the endpoint says, and else the failure as it is.
pub(super) async fn explained(
    target: &Target,
    address: SocketAddr,
    failure: EtcdFailure,
    limit: Duration,
) -> EtcdFailure {
    if !failure.is_vague() {
        return failure;
    }
    let other = |scheme: &str| match target.url.split_once("://") {
        Some((_, rest)) => format!("{scheme}://{rest}"),
        None => target.url.clone(),
    };
    match (protocol(address, limit.min(LIMIT)).await, &target.tls) {
        (Some(Protocol::Tls), None) => EtcdFailure::TlsExpected(other("https")),
        (Some(Protocol::Http2), Some(_)) => EtcdFailure::TlsUnknown(other("http")),
        (Some(Protocol::Http1), _) => {
            EtcdFailure::NotEtcd("it answers as a web server, with HTTP/1".into())
        }
        _ => failure,
    }
}

/// Returns the protocol that the server at this address speaks, if it is one of these.
async fn protocol(address: SocketAddr, limit: Duration) -> Option<Protocol> {
    // A web server with TLS also answers plain HTTP, with an error.
    let hello = client_hello();
    let (tls, plain) =
        futures::join!(answer(address, &hello, limit), answer(address, HTTP2_START, limit));
    match (tls.as_deref().and_then(recognise), plain.as_deref().and_then(recognise)) {
        (Some(Protocol::Tls), _) => Some(Protocol::Tls),
        (by_tls, by_plain) => by_plain.or(by_tls),
    }
}

/// Returns the protocol of a server that answers with these bytes.
fn recognise(answer: &[u8]) -> Option<Protocol> {
    match answer {
        // The major version of all of SSL 3.0 to TLS 1.3 is 3.
        [ALERT | HANDSHAKE, 3, ..] => Some(Protocol::Tls),
        [b'H', b'T', b'T', b'P', b'/', ..] => Some(Protocol::Http1),
        // A server's first frame is SETTINGS. Its type follows the length.
        [_, _, _, 4, 0, ..] => Some(Protocol::Http2),
        _ => None,
    }
}

/// Returns the first bytes that the server answers to `question`.
async fn answer(address: SocketAddr, question: &[u8], limit: Duration) -> Option<Vec<u8>> {
    let asking = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(question).await.ok()?;
        let mut answer = vec![0; 9];
        let mut length = 0;
        while length < answer.len() {
            match stream.read(&mut answer[length..]).await {
                Ok(0) | Err(_) => break,
                Ok(read) => length += read,
            }
        }
        answer.truncate(length);
        Some(answer)
    };
    timeout(limit, asking).await.ok()?
}

/// Returns the first message of a TLS handshake.
fn client_hello() -> Vec<u8> {
    let hello = || {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .ok()?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from("etcd").ok()?;
        let mut connection = ClientConnection::new(Arc::new(config), name).ok()?;
        let mut hello = Vec::new();
        connection.write_tls(&mut hello).ok()?;
        Some(hello)
    };
    hello().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_is_recognised_by_its_first_bytes() {
        assert_eq!(recognise(b"HTTP/1.0 400 Bad"), Some(Protocol::Http1));
        assert_eq!(recognise(&HTTP2_START[24..]), Some(Protocol::Http2));
        assert_eq!(recognise(&client_hello()), Some(Protocol::Tls));
        assert_eq!(recognise(&[21, 3, 3, 0, 2, 2, 70]), Some(Protocol::Tls));
        assert_eq!(recognise(b"SSH-2.0-OpenSSH"), None);
        assert_eq!(recognise(b""), None);
    }
}
