//! The prober: sends echo requests and evaluates the answers.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use surge_ping::{Client, Config, ICMP, IcmpPacket, PingIdentifier, PingSequence};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::pace::Round;
use crate::window::{Health, State, Window};

/// Timeout of a request.
const LIMIT: Duration = Duration::from_secs(1);

/// Payload of a request, which the answer repeats.
const PAYLOAD: [u8; 16] = *b"heddle echo ping";

/// No socket for requests can be opened.
#[derive(Debug, thiserror::Error)]
#[error("no socket for {family} echo requests (CAP_NET_RAW): {source}")]
pub struct ProbeError {
    family: &'static str,
    source: io::Error,
}

/// A change of an address's reachability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// The address.
    pub address: IpAddr,
    /// Its new state. Never [`State::Unknown`].
    pub state: State,
}

type Windows = BTreeMap<IpAddr, Window>;

/// A task that probes a set of addresses repeatedly. Dropping it aborts the task.
#[derive(Debug)]
pub struct Prober {
    addresses: watch::Sender<BTreeSet<IpAddr>>,
    windows: Arc<Mutex<Windows>>,
    task: JoinHandle<()>,
}

impl Prober {
    /// Starts a prober without addresses. `interval` is the time between two requests to one
    /// address. News is dropped if the receiver does not keep up; [`health`](Self::health) always
    /// has the latest state. Must be called on the tokio runtime.
    ///
    /// # Errors
    ///
    /// The IPv4 socket cannot be opened. Without an IPv6 socket, IPv6 addresses count as not
    /// answering.
    pub fn start(interval: Duration) -> Result<(Self, mpsc::Receiver<News>), ProbeError> {
        let sockets = Sockets::open()?;
        let (addresses, changed) = watch::channel(BTreeSet::new());
        let (news, receiver) = mpsc::channel(1024);
        let windows = Arc::new(Mutex::new(Windows::new()));
        let task = tokio::spawn(run(sockets, Round::new(interval), changed, windows.clone(), news));
        Ok((Self { addresses, windows, task }, receiver))
    }

    /// Replaces the set of addresses to probe, and drops what is known of the others.
    pub fn watch(&self, addresses: BTreeSet<IpAddr>) {
        self.addresses.send_if_modified(|before| {
            let modified = *before != addresses;
            *before = addresses;
            modified
        });
    }

    /// Returns the health of an address that is being probed.
    pub fn health(&self, address: IpAddr) -> Option<Health> {
        lock(&self.windows).get(&address).map(Window::health)
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Locks the windows. Nothing panics while the lock is held, and the data would be valid even then.
fn lock(windows: &Mutex<Windows>) -> MutexGuard<'_, Windows> {
    windows.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run(
    sockets: Sockets,
    mut round: Round,
    mut addresses: watch::Receiver<BTreeSet<IpAddr>>,
    windows: Arc<Mutex<Windows>>,
    news: mpsc::Sender<News>,
) {
    let mut requests = JoinSet::new();
    let mut sequence = 0_u16;
    let mut due = Instant::now();
    loop {
        tokio::select! {
            changed = addresses.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = SystemTime::now();
                let current = addresses.borrow_and_update().clone();
                let mut windows = lock(&windows);
                windows.retain(|address, _| current.contains(address));
                for address in &current {
                    windows.entry(*address).or_insert_with(|| Window::new(now));
                }
                round.set(current);
                due = due.min(Instant::now() + round.pause().unwrap_or(LIMIT));
            }
            Some(Ok((address, answer))) = requests.join_next() => {
                let now = SystemTime::now();
                // The address may have been removed meanwhile.
                let state = lock(&windows).get_mut(&address).and_then(|it| it.note(answer, now));
                if let Some(state) = state {
                    // A receiver that does not keep up misses news; the state itself is kept.
                    let _ = news.try_send(News { address, state });
                }
            }
            () = sleep_until(due) => {
                due = Instant::now() + round.pause().unwrap_or(LIMIT);
                if let Some(address) = round.turn() {
                    sequence = sequence.wrapping_add(1);
                    requests.spawn(sockets.ask(address, sequence));
                }
            }
        }
    }
}

struct Sockets {
    v4: Client,
    /// None if no IPv6 socket can be opened, as on a host without IPv6.
    v6: Option<Client>,
}

impl Sockets {
    fn open() -> Result<Self, ProbeError> {
        let open = |kind, family| {
            Client::new(&Config::builder().kind(kind).build())
                .map_err(|source| ProbeError { family, source })
        };
        Ok(Self { v4: open(ICMP::V4, "IPv4")?, v6: open(ICMP::V6, "IPv6").ok() })
    }

    /// Sends one request. Returns the time until the answer, or None if there was none in time.
    fn ask(
        &self,
        address: IpAddr,
        sequence: u16,
    ) -> impl Future<Output = (IpAddr, Option<Duration>)> + Send + 'static {
        let client = if address.is_ipv4() { Some(self.v4.clone()) } else { self.v6.clone() };
        async move {
            let Some(client) = client else { return (address, None) };
            // Any number does: processes with raw sockets tell their answers apart by it.
            let identifier = PingIdentifier((std::process::id() & 0xffff) as u16);
            let mut pinger = client.pinger(address, identifier).await;
            pinger.timeout(LIMIT);
            // The library starts its own clock after sending, by which time a near peer may have
            // answered.
            let asked = Instant::now();
            let answer = pinger.ping(PingSequence(sequence), &PAYLOAD).await;
            // A raw socket also receives ICMP errors that quote the request, from routers that
            // could not deliver it.
            let replied = answer.is_ok_and(|(packet, _)| is_reply(&packet));
            (address, replied.then(|| asked.elapsed()))
        }
    }
}

/// Returns true for an echo reply (RFC 792, RFC 4443).
fn is_reply(packet: &IcmpPacket) -> bool {
    match packet {
        IcmpPacket::V4(packet) => packet.get_icmp_type().0 == 0,
        IcmpPacket::V6(packet) => packet.get_icmpv6_type().0 == 129,
    }
}

#[cfg(test)]
mod tests {
    use heddle_requires::requires;

    use super::*;

    /// Minimum round trip over the loopback interface.
    const NEXT: Duration = Duration::from_micros(1);

    #[tokio::test]
    async fn answering_address_is_news_and_removed_one_is_forgotten() {
        requires!(EchoSocket);
        let (prober, mut news) = Prober::start(Duration::from_millis(10)).unwrap();
        let loopback: IpAddr = [127, 0, 0, 1].into();
        prober.watch([loopback].into());
        let change = tokio::time::timeout(Duration::from_secs(10), news.recv()).await.unwrap();
        assert_eq!(change, Some(News { address: loopback, state: State::Reachable }));
        let health = prober.health(loopback).unwrap();
        assert_eq!(health.state, State::Reachable);
        assert!(health.round_trip.is_some_and(|time| (NEXT..LIMIT).contains(&time)));
        prober.watch(BTreeSet::new());
        while prober.health(loopback).is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
