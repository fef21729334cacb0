//! The connection pool: chooses the connections to close.
//!
//! The decisions are functions of a table and a time. A connection is closed for one of three reasons: it made no progress
//! for too long, another one needs its place, or it keeps a document in memory that is older than what others read.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

/// Limits for the clients of one server: connections, time and memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections at a time.
    pub(crate) connections: usize,
    /// From the connection to the end of its first request.
    pub(crate) opening: Duration,
    /// From the end of an answer to the end of the next request. More than a minute, because Prometheus asks that often.
    pub(crate) kept: Duration,
    /// From a request to the beginning of its answer.
    pub(crate) answering: Duration,
    /// Between two moments at which a client takes some of an answer.
    pub(crate) stalled: Duration,
    /// From a request to the end of its answer.
    pub(crate) exchange: Duration,
    /// The bytes of different documents in the hands of clients.
    pub(crate) documents: usize,
}

impl Limits {
    pub(crate) fn new(connections: usize) -> Self {
        Self {
            connections,
            opening: Duration::from_secs(10),
            kept: Duration::from_secs(90),
            answering: Duration::from_secs(30),
            stalled: Duration::from_secs(10),
            exchange: Duration::from_secs(60),
            documents: 32 << 20,
        }
    }
}

/// The event that a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// For its first request.
    Opening,
    /// For this process to answer.
    Answering,
    /// For the client to take the answer.
    Writing,
    /// For another request.
    Kept,
}

#[derive(Debug)]
struct Entry {
    /// The client's network. None on a unix socket.
    source: Option<IpAddr>,
    phase: Phase,
    /// The beginning of the exchange: the connection, or the request.
    since: Instant,
    /// Time of the last progress: connection accepted, request received, or some of the answer sent.
    progress: Instant,
    /// The place and the size in memory of what it is being sent.
    document: Option<(usize, usize)>,
    /// Somebody has decided that it goes.
    closing: bool,
    close: Arc<Notify>,
}

impl Entry {
    fn close(&mut self) {
        self.closing = true;
        self.close.notify_one();
    }

    fn is_expired(&self, now: Instant, limits: &Limits) -> bool {
        let idle = now.saturating_duration_since(self.progress);
        match self.phase {
            Phase::Opening => idle >= limits.opening,
            Phase::Answering => idle >= limits.answering,
            Phase::Writing => {
                let whole = now.saturating_duration_since(self.since);
                idle >= limits.stalled || whole >= limits.exchange
            }
            Phase::Kept => idle >= limits.kept,
        }
    }
}

/// The connections of a server.
#[derive(Debug, Default)]
struct Table {
    next: u64,
    entries: BTreeMap<u64, Entry>,
}

impl Table {
    /// Returns those that are over a limit of time.
    fn expired(&self, now: Instant, limits: &Limits) -> Vec<u64> {
        let expired = |entry: &Entry| !entry.closing && entry.is_expired(now, limits);
        self.entries.iter().filter(|(_, entry)| expired(entry)).map(|(id, _)| *id).collect()
    }

    /// Returns the one to close for another: the one that was of no use for the longest time, of the clients that hold
    /// more than a quarter of all places if there are such. One that waits for this process comes last.
    fn victim(&self, limits: &Limits) -> Option<u64> {
        let mut held: HashMap<_, usize> = HashMap::new();
        for entry in self.entries.values() {
            *held.entry(entry.source).or_default() += 1;
        }
        let greedy = |entry: &Entry| held[&entry.source] > limits.connections / 4;
        let rank =
            |entry: &Entry| (!greedy(entry), entry.phase == Phase::Answering, entry.progress);
        let open = self.entries.iter().filter(|(_, entry)| !entry.closing);
        open.min_by_key(|(_, entry)| rank(entry)).map(|(id, _)| *id)
    }

    /// Returns those to close so that a client can be sent a document, the oldest exchanges first.
    fn holders_of_others(&self, document: (usize, usize), limits: &Limits) -> Vec<u64> {
        let writing = self.entries.iter().filter(|(_, entry)| !entry.closing);
        let mut holders: Vec<_> =
            writing.filter_map(|(id, entry)| Some((entry.since, *id, entry.document?))).collect();
        holders.sort_unstable();
        let mut documents: HashMap<_, usize> = HashMap::from([(document, 1)]);
        for (_, _, held) in &holders {
            *documents.entry(*held).or_default() += 1;
        }
        let mut bytes: usize = documents.keys().map(|(_, size)| size).sum();
        let mut closed = Vec::new();
        for (_, id, held) in holders {
            if bytes <= limits.documents {
                break;
            }
            if held == document {
                continue;
            }
            closed.push(id);
            if let Some(readers) = documents.get_mut(&held) {
                *readers -= 1;
                if *readers == 0 {
                    bytes -= held.1;
                }
            }
        }
        closed
    }

    fn close(&mut self, ids: &[u64]) {
        for id in ids {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.close();
            }
        }
    }
}

/// The connections of a server, and its limits.
#[derive(Debug)]
pub(crate) struct Pool {
    limits: Limits,
    table: Mutex<Table>,
    /// Told when a connection is gone.
    left: Notify,
}

impl Pool {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, table: Mutex::default(), left: Notify::new() })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.table().entries.is_empty()
    }

    /// Takes a connection in. If there are too many, this waits until the one that matters least is gone. Returns whether
    /// one had to go.
    pub(crate) async fn enter(self: &Arc<Self>, source: Option<IpAddr>) -> (Arc<Member>, bool) {
        let mut crowded = false;
        loop {
            if let Some(member) = self.try_enter(source.map(network)) {
                return (Arc::new(member), crowded);
            }
            crowded = true;
            self.left.notified().await;
        }
    }

    /// Takes a connection in, or begins to make room for it.
    fn try_enter(self: &Arc<Self>, source: Option<IpAddr>) -> Option<Member> {
        let mut table = self.table();
        if table.entries.len() >= self.limits.connections {
            if !table.entries.values().any(|entry| entry.closing) {
                let victim = table.victim(&self.limits);
                table.close(victim.as_slice());
            }
            return None;
        }
        let (id, now, close) = (table.next, Instant::now(), Arc::new(Notify::new()));
        table.next += 1;
        let entry = Entry {
            source,
            phase: Phase::Opening,
            since: now,
            progress: now,
            document: None,
            closing: false,
            close: close.clone(),
        };
        table.entries.insert(id, entry);
        drop(table);
        Some(Member { pool: self.clone(), id, close })
    }

    /// Closes the connection that matters least, so that there is a descriptor for something else.
    pub(crate) fn close_least_useful(&self) {
        let mut table = self.table();
        let victim = table.victim(&self.limits);
        table.close(victim.as_slice());
    }

    /// Closes those that are over a limit of time.
    pub(crate) fn close_expired(&self, now: Instant) {
        let mut table = self.table();
        let expired = table.expired(now, &self.limits);
        table.close(&expired);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns what counts as one client: an IPv4 address, or the /64 that an IPv6 host may choose addresses from.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address => address,
    }
}

/// A connection's place in a pool, which is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Member {
    pool: Arc<Pool>,
    id: u64,
    close: Arc<Notify>,
}

impl Member {
    /// Waits until the pool has decided that the connection goes.
    pub(crate) async fn closed(&self) {
        self.close.notified().await;
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.pool.table().entries.get(&self.id).is_some_and(|entry| entry.closing)
    }

    /// A request is there.
    pub(crate) fn asked(&self) {
        self.note(|entry, now| {
            entry.phase = Phase::Answering;
            (entry.since, entry.progress) = (now, now);
        });
    }

    /// The answer is there. What others hold of older documents goes, if it is too much.
    pub(crate) fn answered(&self, body: &Bytes) {
        let document = (body.as_ptr().addr(), body.len());
        let mut table = self.pool.table();
        let others = table.holders_of_others(document, &self.pool.limits);
        table.close(&others);
        if let Some(entry) = table.entries.get_mut(&self.id) {
            entry.phase = Phase::Writing;
            entry.progress = Instant::now();
            entry.document = Some(document);
        }
    }

    /// The client has taken some of the answer.
    pub(crate) fn progressed(&self) {
        self.note(|entry, now| entry.progress = now);
    }

    /// All that was to be written is written.
    pub(crate) fn flushed(&self) {
        self.note(|entry, now| {
            if entry.phase == Phase::Writing {
                entry.phase = Phase::Kept;
                entry.progress = now;
                entry.document = None;
            }
        });
    }

    fn note(&self, change: impl FnOnce(&mut Entry, Instant)) {
        if let Some(entry) = self.pool.table().entries.get_mut(&self.id) {
            change(entry, Instant::now());
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.pool.table().entries.remove(&self.id);
        self.pool.left.notify_one();
    }
}

#[cfg(test)]
mod tests;
