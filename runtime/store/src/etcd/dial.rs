//! Connections to one endpoint: its name's addresses, TCP and TLS.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use super::error::{EtcdError, EtcdFailure};
use super::options::{EtcdOptions, host, invalid, is_tls};
use super::tls::{self, HTTP2};

/// Delay before the next address is tried while the ones before it have not answered ("Connection
/// Attempt Delay" in RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);

/// Maximum number of addresses that are tried for one name.
const ADDRESSES: usize = 64;

type BoxError = Box<dyn Error + Send + Sync>;

/// TLS settings, and the name that the server's certificate must have.
pub(super) type Tls = (Arc<ClientConfig>, ServerName<'static>);

/// An endpoint and how to connect to it.
#[derive(Clone)]
pub(super) struct Target {
    /// The endpoint's URL, as in the flag.
    pub(super) url: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Option<Tls>,
    /// Settings of the channel. Its scheme is http, because TLS is made here.
    pub(super) endpoint: Endpoint,
}

impl Target {
    /// Returns the connection settings for one endpoint. Reads the certificate files each time, so
    /// that renewed ones are used.
    pub(super) fn new(options: &EtcdOptions, url: &str) -> Result<Self, EtcdError> {
        let uri: Uri = url.parse().map_err(|error| invalid(url, &error))?;
        let host = host(&uri).ok_or_else(|| invalid(url, &"there is no host"))?;
        let port = uri.port_u16().ok_or_else(|| invalid(url, &"there is no port"))?;
        let tls = if is_tls(url) {
            let name = ServerName::try_from(host.clone()).map_err(|error| invalid(url, &error))?;
            Some((tls::settings(options, url)?, name))
        } else {
            None
        };
        // The channel refuses https from a connector of ours; requests have the endpoint's scheme.
        let plain = url.replacen("https://", "http://", 1);
        let endpoint = Endpoint::from_shared(plain)
            .map_err(|error| invalid(url, &error))?
            .origin(uri)
            // etcd rejects clients that ping while no call or watch is open, or more often than
            // every 5 s (`--grpc-keepalive-min-time`).
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(false);
        Ok(Self { url: url.to_owned(), host, port, tls, endpoint })
    }

    /// Returns a channel to one address of the endpoint. Sets `accepted` once the address accepts a
    /// TCP connection.
    pub(super) async fn channel(
        &self,
        address: SocketAddr,
        accepted: Arc<AtomicBool>,
    ) -> Result<Channel, tonic::transport::Error> {
        let tls = self.tls.clone();
        // The channel calls it again when the connection breaks.
        let dial = move |_| dial(address, tls.clone(), accepted.clone());
        self.endpoint.connect_with_connector(service_fn(dial)).await
    }
}

/// A stream of bytes to the server, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn dial(
    address: SocketAddr,
    tls: Option<Tls>,
    accepted: Arc<AtomicBool>,
) -> Result<TokioIo<Box<dyn Stream>>, BoxError> {
    let tcp = connect(address).await?;
    accepted.store(true, Ordering::Relaxed);
    let encrypted = tls.is_some();
    let (stream, protocol) = secure(tcp, tls).await?;
    if encrypted && protocol.as_deref() != Some(HTTP2) {
        return Err(EtcdFailure::NotEtcd("it speaks TLS, but does not offer HTTP/2".into()).into());
    }
    Ok(TokioIo::new(stream))
}

/// Opens a TCP connection.
pub(super) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// Starts TLS on a connection, if there are settings for it. Returns the protocol on which both
/// sides agreed (ALPN), if they did.
pub(super) async fn secure(
    tcp: TcpStream,
    tls: Option<Tls>,
) -> io::Result<(Box<dyn Stream>, Option<Vec<u8>>)> {
    let Some((config, name)) = tls else { return Ok((Box::new(tcp), None)) };
    let stream = TlsConnector::from(config).connect(name, tcp).await?;
    let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    Ok((Box::new(stream), protocol))
}

/// Returns the addresses of a host.
pub(super) async fn resolve(
    host: &str,
    port: u16,
    limit: Duration,
) -> Result<Vec<SocketAddr>, EtcdFailure> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let reason = match timeout(limit, lookup_host((host, port))).await {
        Ok(Ok(found)) => {
            let mut addresses = Vec::new();
            for address in found.take(ADDRESSES) {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            if !addresses.is_empty() {
                return Ok(addresses);
            }
            "it has no address".to_owned()
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer from a name server within {} ms", limit.as_millis()),
    };
    Err(EtcdFailure::UnknownHost { host: host.to_owned(), reason })
}

/// Returns the delay between the starts of `count` attempts, so that each has at least half of the
/// limit for all.
pub(super) fn stagger(count: usize, limit: Duration) -> Duration {
    let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
    STAGGER.min(limit / count / 2)
}

/// Starts the attempts one after the other, the next when the one before has failed or after
/// `stagger`, and returns the first success, or all failures in the order of the attempts. The
/// others are dropped.
pub(super) async fn first_success<T, E>(
    attempts: Vec<BoxFuture<'_, Result<T, E>>>,
    stagger: Duration,
) -> Result<T, Vec<E>> {
    let mut waiting = attempts.into_iter().enumerate().peekable();
    let mut running = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        if let Some((index, attempt)) = waiting.next() {
            running.push(async move { (index, attempt.await) });
        }
        let last = waiting.peek().is_none();
        let ended = tokio::select! {
            biased;
            ended = running.next() => ended,
            () = sleep(stagger), if !last => continue,
        };
        match ended {
            Some((_, Ok(success))) => return Ok(success),
            Some((index, Err(failure))) => failures.push((index, failure)),
            None => {
                failures.sort_by_key(|(index, _)| *index);
                return Err(failures.into_iter().map(|(_, failure)| failure).collect());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::Instant;

    use super::*;

    /// Returns an attempt that ends after this many milliseconds.
    fn after(milliseconds: u64, result: Result<u64, u64>) -> BoxFuture<'static, Result<u64, u64>> {
        let limit = Duration::from_millis(milliseconds);
        let attempt = async move {
            sleep(limit).await;
            result
        };
        attempt.boxed()
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_staggered_and_the_first_success_wins() {
        let started = Instant::now();
        let attempts = vec![after(9000, Ok(0)), after(9000, Ok(1)), after(100, Ok(2))];
        assert_eq!(first_success(attempts, STAGGER).await, Ok(2));
        assert_eq!(started.elapsed(), Duration::from_millis(600));
    }

    #[tokio::test(start_paused = true)]
    async fn attempt_that_fails_starts_the_next_at_once() {
        let started = Instant::now();
        let attempts = vec![after(10, Err(0)), after(10, Err(1)), after(10, Ok(2))];
        assert_eq!(first_success(attempts, STAGGER).await, Ok(2));
        assert_eq!(started.elapsed(), Duration::from_millis(30));
        let attempts = vec![after(3000, Err(0)), after(10, Err(1))];
        assert_eq!(first_success(attempts, STAGGER).await, Err(vec![0, 1]));
    }

    #[test]
    fn stagger_leaves_each_attempt_half_of_the_limit() {
        let limit = Duration::from_secs(3);
        assert_eq!(stagger(2, limit), STAGGER);
        for count in [1, 2, 10, 64] {
            let last = stagger(count, limit) * u32::try_from(count).unwrap();
            assert!(last <= limit / 2, "{count}");
        }
    }
}
