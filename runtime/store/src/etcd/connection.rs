//! A connection to one etcd endpoint at a time.
//!
//! The client library would balance calls over all endpoints, so some calls would fail at a dead
//! endpoint while others succeed. This module uses one endpoint until it fails, and then the next
//! one.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{
    Channel, Client, ConnectOptions, GetOptions, KvClient, LeaseClient, WatchClient,
};
use futures::FutureExt;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;
use tonic::Code;
use tracing::debug;

use super::diagnosis;
use super::dial::{self, Target};
use super::error::{EtcdError, EtcdFailure};
use super::options::EtcdOptions;

/// Length limit of a response in bytes; gRPC's default. A longer response is refused before it is
/// read. Lists are read in pages that stay below the limit.
pub(super) const MESSAGE_LIMIT: usize = 4 << 20;

/// Length limit of one watch message in bytes. A message holds one event or is a fragment; both are
/// bounded by etcd's limit on a request (`--max-request-bytes`, 1.5 MiB unless an operator raises
/// it). A longer message ends the session, and the snapshot of the next session gets past it.
const WATCH_MESSAGE_LIMIT: usize = 16 << 20;

/// A connection on which etcd has answered.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) endpoint: String,
    pub(super) kv: KvClient,
    pub(super) lease: LeaseClient,
    pub(super) watch: WatchClient,
}

/// Connects to etcd, and caches the connection while it works.
pub(super) struct Connector {
    pub(super) options: EtcdOptions,
    /// Endpoint URLs with their scheme.
    endpoints: Vec<String>,
    state: Mutex<State>,
    /// Number of times that a new connection replaced a working one.
    renewals: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Connection>>,
    /// Index of the endpoint to try first.
    first: usize,
    /// Time and error of the last attempt that failed.
    failed: Option<(Instant, EtcdError)>,
}

impl Connector {
    pub(super) fn new(options: EtcdOptions) -> Result<Self, EtcdError> {
        Ok(Self {
            endpoints: options.check()?,
            options,
            state: Mutex::default(),
            renewals: watch::Sender::new(0),
        })
    }

    /// Returns the current connection, or connects to the first endpoint that answers.
    pub(super) async fn connection(&self) -> Result<Arc<Connection>, EtcdError> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.current {
            return Ok(connection.clone());
        }
        // Callers that waited for the lock while another attempt failed share its error. Otherwise
        // they would all retry, one after the other.
        if let Some((at, error)) = &state.failed
            && *at > asked
        {
            return Err(error.clone());
        }
        match self.connect_to_any(state.first).await {
            Ok((index, connection)) => {
                debug!(endpoint = connection.endpoint, "store: connected to etcd");
                state.first = index;
                Ok(state.current.insert(Arc::new(connection)).clone())
            }
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Connects again, and replaces the current connection if that succeeds.
    pub(super) async fn reconnect(&self) -> Result<(), EtcdError> {
        let mut state = self.state.lock().await;
        let (index, connection) = self.connect_to_any(state.first).await?;
        state.first = index;
        state.current = Some(Arc::new(connection));
        drop(state);
        self.renewals.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Returns a receiver that is notified when [`reconnect`](Self::reconnect) has replaced the
    /// connection.
    pub(super) fn renewals(&self) -> watch::Receiver<u64> {
        self.renewals.subscribe()
    }

    /// Drops a connection if it is the current one, so that the next call uses the next endpoint.
    pub(super) async fn forget(&self, connection: &Arc<Connection>) {
        let mut state = self.state.lock().await;
        if let Some(current) = &state.current
            && Arc::ptr_eq(current, connection)
        {
            state.current = None;
            state.first = (state.first + 1) % self.endpoints.len();
        }
    }

    /// Makes one call within the deadline. `operation` names it in errors: "list the leases".
    pub(super) async fn call<T, F>(
        &self,
        operation: &'static str,
        call: impl FnOnce(Connection) -> F,
    ) -> Result<T, EtcdError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let connection = self.connection().await?;
        let answer =
            self.answer(self.options.timing.call, call(Connection::clone(&connection))).await;
        match answer {
            Ok(answer) => Ok(answer),
            Err(failure) => Err(self.failed(&connection, operation, failure).await),
        }
    }

    /// Turns a failure into an error, and drops the connection if it caused the failure.
    pub(super) async fn failed(
        &self,
        connection: &Arc<Connection>,
        operation: &'static str,
        failure: EtcdFailure,
    ) -> EtcdError {
        if failure.breaks_connection() {
            self.forget(connection).await;
        }
        EtcdError::Call { endpoint: connection.endpoint.clone(), operation, failure }
    }

    /// Waits for an answer, up to a time limit.
    pub(super) async fn answer<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, EtcdFailure> {
        match timeout(limit, call).await {
            Ok(answer) => answer.map_err(|error| self.failure(error)),
            Err(_) => Err(EtcdFailure::Deadline(limit)),
        }
    }

    pub(super) fn failure(&self, error: etcd_client::Error) -> EtcdFailure {
        EtcdFailure::of(error, self.options.prefix(), self.options.ca_file.as_ref())
    }

    async fn connect_to_any(&self, first: usize) -> Result<(usize, Connection), EtcdError> {
        let mut failures = Vec::new();
        for offset in 0..self.endpoints.len() {
            let index = (first + offset) % self.endpoints.len();
            let target = Target::new(&self.options, &self.endpoints[index])?;
            match self.connect_to(&target).await {
                Ok(connection) => return Ok((index, connection)),
                Err(found) => failures.extend(found),
            }
        }
        Err(EtcdError::Unreachable(failures))
    }

    /// Connects to the first address of an endpoint that answers. One that does not keeps no other
    /// from being tried. On failure, returns the endpoint and the reason, or one for each address.
    async fn connect_to(&self, target: &Target) -> Result<Connection, Vec<(String, EtcdFailure)>> {
        let timing = self.options.timing;
        let addresses = dial::resolve(&target.host, target.port, timing.resolve)
            .await
            .map_err(|failure| vec![(target.url.clone(), failure)])?;
        let mut attempts = Vec::with_capacity(addresses.len());
        for address in &addresses {
            attempts.push(self.attempt(target, *address).boxed());
        }
        let stagger = dial::stagger(addresses.len(), timing.connect);
        dial::first_success(attempts, stagger)
            .await
            .map_err(|failures| by_address(&target.url, &addresses, failures))
    }

    /// Connects to one address of an endpoint.
    async fn attempt(
        &self,
        target: &Target,
        address: SocketAddr,
    ) -> Result<Connection, EtcdFailure> {
        let limit = self.options.timing.connect;
        let accepted = Arc::new(AtomicBool::new(false));
        let failure = match timeout(limit, self.connect(target, address, &accepted)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(failure)) => failure,
            Err(_) => EtcdFailure::Deadline(limit),
        };
        Err(if accepted.load(Ordering::Relaxed) {
            diagnosis::explained(target, address, failure, limit / 2).await
        } else {
            failure
        })
    }

    async fn connect(
        &self,
        target: &Target,
        address: SocketAddr,
        accepted: &Arc<AtomicBool>,
    ) -> Result<Connection, EtcdFailure> {
        let channel = target
            .channel(address, accepted.clone())
            .await
            .map_err(|error| EtcdFailure::of_transport(&error, self.options.ca_file.as_ref()))?;
        self.open(&target.url, channel).await.map_err(|failure| match failure {
            EtcdFailure::Transport(reason) if target.tls.is_some() => {
                EtcdFailure::ClosedAfterHandshake(reason)
            }
            other => other,
        })
    }

    /// Authenticates and makes a first request. Only its answer shows that the server accepts our
    /// certificate, knows a leader and is alive.
    async fn open(
        &self,
        url: &str,
        channel: tonic::transport::Channel,
    ) -> Result<Connection, EtcdFailure> {
        let client = self.log_in(channel).await?;
        let connection = Connection {
            endpoint: url.to_owned(),
            kv: client.kv_client().max_decoding_message_size(MESSAGE_LIMIT),
            lease: client.lease_client(),
            watch: client.watch_client().max_decoding_message_size(WATCH_MESSAGE_LIMIT),
        };
        let key = format!("{}/config", self.options.prefix());
        let options = GetOptions::new().with_keys_only();
        let mut kv = connection.kv.clone();
        match kv.get(key, Some(options)).await.map_err(|e| self.failure(e)) {
            Err(failure) if failure.breaks_connection() => Err(failure),
            _ => Ok(connection),
        }
    }

    /// Authenticates, if a user is configured. A server with authentication disabled accepts any
    /// user, as it does for etcd's own client.
    async fn log_in(&self, channel: tonic::transport::Channel) -> Result<Client, EtcdFailure> {
        // Without this, a member that is partitioned from the others would keep a watch open and
        // send no events.
        let options = ConnectOptions::new().with_require_leader(true);
        let anonymous = options.clone();
        let client = match self.options.credentials() {
            Some((user, password)) => {
                let options = options.with_user(user, password).with_auto_token_refresh(true);
                Client::from_channel(Channel::Tonic(channel.clone()), Some(options)).await
            }
            None => Client::from_channel(Channel::Tonic(channel.clone()), Some(options)).await,
        };
        match client {
            Err(etcd_client::Error::GRpcStatus(status))
                if status.code() == Code::FailedPrecondition
                    && status.message().contains("authentication is not enabled") =>
            {
                Client::from_channel(Channel::Tonic(channel), Some(anonymous)).await
            }
            other => other,
        }
        .map_err(|error| self.failure(error))
    }
}

/// Returns the failures of an endpoint's addresses, each with its address, or one for all if they
/// are the same. In the order of the addresses: resolvers rotate them, and a text that changes with
/// each attempt would be logged each time.
fn by_address(
    url: &str,
    addresses: &[SocketAddr],
    mut failures: Vec<EtcdFailure>,
) -> Vec<(String, EtcdFailure)> {
    if failures.windows(2).all(|pair| pair[0] == pair[1]) {
        failures.truncate(1);
        return failures.into_iter().map(|failure| (url.to_owned(), failure)).collect();
    }
    let mut failures: Vec<_> = addresses.iter().zip(failures).collect();
    failures.sort_by_key(|(address, _)| **address);
    let named = |address: &SocketAddr| format!("{url} ({})", address.ip());
    failures.into_iter().map(|(address, failure)| (named(address), failure)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_one_text_for_any_order_of_addresses() {
        let [a, b] = ["10.0.0.1:2379", "10.0.0.2:2379"].map(|address| address.parse().unwrap());
        let (refused, late) = (EtcdFailure::Refused, EtcdFailure::Deadline(Duration::from_secs(3)));
        let found = by_address("http://etcd:2379", &[a, b], vec![refused.clone(), late.clone()]);
        assert_eq!(found[0], ("http://etcd:2379 (10.0.0.1)".to_owned(), refused.clone()));
        assert_eq!(found, by_address("http://etcd:2379", &[b, a], vec![late, refused.clone()]));
        let same = by_address("http://etcd:2379", &[a, b], vec![refused.clone(), refused.clone()]);
        assert_eq!(same, [("http://etcd:2379".to_owned(), refused)]);
    }
}
