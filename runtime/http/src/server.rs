//! The accept loop.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use heddle_core::pacing::{Backoff, RetryDelay};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::connection::{Stream, serve};
use crate::listener::is_loopback;
use crate::pool::{Limits, Pool};
use crate::{Hosts, ListenError, Listener, Site, Worker};

/// Interval between two searches for expired connections.
const SWEEP: Duration = Duration::from_secs(1);

/// Backoff after a connection could not be accepted.
const ACCEPT: Backoff =
    Backoff { initial: Duration::from_millis(10), limit: Duration::from_secs(1) };

/// The least time between two messages about the same trouble.
const QUIET: Duration = Duration::from_secs(60);

/// A server before it has an address.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    name: &'static str,
    hosts: Hosts,
    limits: Limits,
}

impl Server {
    /// Returns a server with this name in the log, which takes so many connections at a time.
    pub fn new(name: &'static str, hosts: Hosts, connections: usize) -> Self {
        Self { name, hosts, limits: Limits::new(connections) }
    }

    /// Sets the time from a request to the beginning of its answer, for sites that take longer than 30 seconds.
    #[must_use]
    pub fn answering_within(mut self, limit: Duration) -> Self {
        self.limits.exchange += limit.saturating_sub(self.limits.answering);
        self.limits.answering = limit;
        self
    }

    /// Serves a TCP address on the worker until the process ends.
    ///
    /// # Errors
    ///
    /// [`ListenError`], when the address cannot be waited on.
    pub fn serve_tcp(
        self,
        worker: &Worker,
        listener: Listener,
        site: impl Site,
    ) -> Result<(), ListenError> {
        let _inside = worker.handle().enter();
        let Listener { socket, address, flags } = listener;
        let failed = |source| ListenError { address, flags, source };
        let socket = TcpListener::from_std(socket).map_err(failed)?;
        worker.handle().spawn(self.accept_all(socket, site));
        Ok(())
    }

    /// Serves a unix socket on the current Tokio runtime until the process ends.
    pub fn serve_unix(self, listener: UnixListener, site: impl Site) {
        tokio::spawn(self.accept_all(listener, site));
    }

    async fn accept_all(self, listener: impl Accept, site: impl Site) {
        let (pool, site) = (Pool::new(self.limits), Arc::new(site));
        let (mut crowd, mut trouble) = (Quiet::default(), Quiet::default());
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retry = RetryDelay::new(ACCEPT);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = sweep.tick(), if !pool.is_empty() => {
                    pool.close_expired(Instant::now());
                    continue;
                }
            };
            match accepted {
                Ok((stream, peer)) => {
                    retry.reset();
                    let (member, crowded) = pool.enter(peer.source).await;
                    if crowded && let Some(count) = crowd.count(Instant::now()) {
                        self.report_crowd(count);
                    }
                    tokio::spawn(serve(
                        stream,
                        member,
                        site.clone(),
                        self.hosts,
                        peer.over_loopback,
                    ));
                    // Whoever has sent a request already is answered before the next connection can take the place.
                    tokio::task::yield_now().await;
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if let Some(count) = trouble.count(Instant::now()) {
                        self.report_trouble(&error, count);
                    }
                    // Descriptors may be what there is too little of.
                    pool.close_least_useful();
                    sleep(retry.after_failure()).await;
                }
            }
        }
    }

    fn report_crowd(self, count: u64) {
        tracing::warn!(
            closed = count,
            "{}: more than {} connections; closed those idle longest",
            self.name,
            self.limits.connections,
        );
    }

    fn report_trouble(self, error: &io::Error, count: u64) {
        tracing::warn!(
            failures = count,
            %error,
            "{}: cannot accept connections; retrying",
            self.name
        );
    }
}

/// Returns true if accepting failed because the client was gone (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Counts what happens, and lets it be said once in a while.
#[derive(Debug, Default)]
struct Quiet {
    last_reported: Option<Instant>,
    since: u64,
}

impl Quiet {
    /// Counts one more. Returns how many there are to be told of, if it is time to.
    fn count(&mut self, now: Instant) -> Option<u64> {
        self.since += 1;
        if self
            .last_reported
            .is_some_and(|last_reported| now.saturating_duration_since(last_reported) < QUIET)
        {
            return None;
        }
        self.last_reported = Some(now);
        Some(std::mem::take(&mut self.since))
    }
}

/// The client of a connection.
struct Peer {
    source: Option<IpAddr>,
    over_loopback: bool,
}

/// A listening socket, TCP or unix.
trait Accept: Send + 'static {
    type Stream: Stream;

    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Peer)> {
        let (stream, client) = TcpListener::accept(self).await?;
        // Of one that is gone already, the strict answer is right.
        let over_loopback = stream.local_addr().map_or(true, |local| is_loopback(local.ip()));
        Ok((stream, Peer { source: Some(client.ip()), over_loopback }))
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = UnixListener::accept(self).await?;
        Ok((stream, Peer { source: None, over_loopback: true }))
    }
}

#[cfg(test)]
mod tests;
