//! Asking.

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

/// How long an answer is waited for.
const LIMIT: Duration = Duration::from_secs(1);

/// What a request carries. An answer carries it back.
const PAYLOAD: [u8; 16] = *b"heddle echo ping";

/// No requests can be sent.
#[derive(Debug, thiserror::Error)]
#[error("no socket for {family} echo requests (CAP_NET_RAW): {source}")]
pub struct ProbeError {
    family: &'static str,
    source: io::Error,
}

/// An address answers, or no longer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// Which one.
    pub address: IpAddr,
    /// What it does now. Never [`State::Unknown`].
    pub state: State,
}

type Windows = BTreeMap<IpAddr, Window>;

/// Asks a set of addresses again and again. Ends when it is dropped.
#[derive(Debug)]
pub struct Prober {
    addresses: watch::Sender<BTreeSet<IpAddr>>,
    windows: Arc<Mutex<Windows>>,
    task: JoinHandle<()>,
}

impl Prober {
    /// Asks nobody yet. `interval` is the time between two requests to one address. News may be dropped; whoever listens
    /// late is told the latest by [`health`](Self::health). Call it on the tokio runtime.
    ///
    /// # Errors
    ///
    /// There is no socket to be had for a family that this host has.
    pub fn start(interval: Duration) -> Result<(Self, mpsc::Receiver<News>), ProbeError> {
        let sockets = Sockets::open()?;
        let (addresses, changed) = watch::channel(BTreeSet::new());
        let (news, receiver) = mpsc::channel(1024);
        let windows = Arc::new(Mutex::new(Windows::new()));
        let task = tokio::spawn(run(sockets, Round::new(interval), changed, windows.clone(), news));
        Ok((Self { addresses, windows, task }, receiver))
    }

    /// Asks these from now on, and forgets the others.
    pub fn watch(&self, addresses: BTreeSet<IpAddr>) {
        self.addresses.send_if_modified(|before| {
            let modified = *before != addresses;
            *before = addresses;
            modified
        });
    }

    /// What is known of an address that is asked.
    pub fn health(&self, address: IpAddr) -> Option<Health> {
        lock(&self.windows).get(&address).map(Window::health)
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Nothing panics while it is held, and what is in it would be good nevertheless.
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
                // It may be no longer asked.
                let state = lock(&windows).get_mut(&address).and_then(|it| it.note(answer, now));
                if let Some(state) = state {
                    // Whoever does not keep up misses news, and nothing else.
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
    /// None on a host without IPv6.
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

    /// Asks once. How long the answer took, if there was one.
    fn ask(
        &self,
        address: IpAddr,
        sequence: u16,
    ) -> impl Future<Output = (IpAddr, Option<Duration>)> + Send + 'static {
        let client = if address.is_ipv4() { Some(self.v4.clone()) } else { self.v6.clone() };
        async move {
            let Some(client) = client else { return (address, None) };
            // Any number does: raw sockets of several processes tell their answers apart by it.
            let identifier = PingIdentifier(std::process::id() as u16);
            let mut pinger = client.pinger(address, identifier).await;
            pinger.timeout(LIMIT);
            // The library's own time begins when the request is sent already, by when a near peer may have answered.
            let asked = Instant::now();
            let answer = pinger.ping(PingSequence(sequence), &PAYLOAD).await;
            // A raw socket gives errors that quote the request as well, from whoever could not deliver it.
            let replied = answer.is_ok_and(|(packet, _)| is_reply(&packet));
            (address, replied.then(|| asked.elapsed()))
        }
    }
}

/// Whether it is an echo reply (RFC 792, RFC 4443).
fn is_reply(packet: &IcmpPacket) -> bool {
    match packet {
        IcmpPacket::V4(packet) => packet.get_icmp_type().0 == 0,
        IcmpPacket::V6(packet) => packet.get_icmpv6_type().0 == 129,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least that an answer over the loopback can take.
    const NEXT: Duration = Duration::from_micros(1);

    /// Needs CAP_NET_RAW, as all tests of hosts do.
    #[tokio::test]
    async fn an_address_that_answers_is_news_and_one_that_is_no_longer_asked_is_forgotten() {
        let (prober, mut news) = Prober::start(Duration::from_millis(10)).unwrap();
        let loopback: IpAddr = [127, 0, 0, 1].into();
        prober.watch([loopback].into());
        let told = tokio::time::timeout(Duration::from_secs(10), news.recv()).await.unwrap();
        assert_eq!(told, Some(News { address: loopback, state: State::Reachable }));
        let health = prober.health(loopback).unwrap();
        assert_eq!(health.state, State::Reachable);
        assert!(health.round_trip.is_some_and(|time| (NEXT..LIMIT).contains(&time)));
        prober.watch(BTreeSet::new());
        while prober.health(loopback).is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
