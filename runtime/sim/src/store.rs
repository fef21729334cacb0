//! A lease store that several nodes share, with each node's way to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use heddle_core::record::{Age, Record, RecordChange};
use heddle_store::etcd::EtcdFailure;
use heddle_store::{
    EtcdError, Handle, LeaseStore, Page, Pulse, Renewal, StoreError, Stored, Update, Watch,
    WatchEvent,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::trace::Trace;

/// TTL of a lease. Shorter than in production, so that leases expire within a run.
const TTL: Duration = Duration::from_secs(180);

/// Limit of the calls that a node may make within one second. More is a busy loop.
const CALLS_PER_SECOND: u32 = 100;

/// The lease of a node that takes a subnet first.
const RIVAL: &str = r#"{"PublicIP":"192.168.0.99","BackendType":"host-gw"}"#;

#[derive(Clone)]
struct Entry {
    value: Vec<u8>,
    made: u64,
    written: u64,
    lease_id: Option<i64>,
}

struct Shared {
    config: Option<Vec<u8>>,
    /// The number of times that the config was written.
    config_writes: u64,
    records: BTreeMap<String, Entry>,
    revision: u64,
    /// The changes since [`Shared::compacted`].
    log: Vec<(u64, RecordChange)>,
    compacted: u64,
    /// The number of times that data was lost.
    losses: u64,
    /// Expiry times of leases.
    ends: BTreeMap<i64, Instant>,
    next_lease: i64,
    down: BTreeSet<usize>,
    /// The v2 API: whether it has a network config, how long an answer takes, and when it was asked.
    v2: V2,
    hosts: Vec<String>,
    /// The values of records whose holders are alive and restore them.
    held: BTreeMap<String, Vec<u8>>,
    /// The number of creations that another node precedes from now on.
    rivals: u32,
    /// Wakes watches, in the order in which they began. (tokio's `watch` channel wakes receivers in random order.)
    watches: Vec<mpsc::UnboundedSender<()>>,
    calls: BTreeMap<usize, (u64, u32)>,
}

#[derive(Clone, Debug, Default)]
struct V2 {
    has_config: bool,
    delay: Duration,
    asked: Vec<Instant>,
}

/// The store. Clones are the same.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Mutex<Shared>>,
    trace: Trace,
}

impl Cluster {
    /// Returns a store with a network config and no leases.
    pub fn new(config: &str, trace: Trace) -> Self {
        let shared = Shared {
            config: Some(config.as_bytes().to_vec()),
            config_writes: 0,
            records: BTreeMap::new(),
            revision: 1,
            log: Vec::new(),
            compacted: 0,
            losses: 0,
            ends: BTreeMap::new(),
            next_lease: 1,
            down: BTreeSet::new(),
            v2: V2::default(),
            hosts: Vec::new(),
            held: BTreeMap::new(),
            rivals: 0,
            watches: Vec::new(),
            calls: BTreeMap::new(),
        };
        Self { shared: Arc::new(Mutex::new(shared)), trace }
    }

    fn with<T>(&self, look: impl FnOnce(&mut Shared) -> T) -> T {
        look(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn changed<T>(&self, change: impl FnOnce(&mut Shared) -> T) -> T {
        self.with(|shared| {
            shared.expire();
            let result = change(shared);
            shared.wake();
            result
        })
    }

    /// Returns a node's way to the store.
    pub fn client(&self, node: usize) -> Arc<dyn LeaseStore> {
        Arc::new(Client { cluster: self.clone(), node })
    }

    /// Cuts a node off, or connects it again.
    pub fn set_down(&self, node: usize, down: bool) {
        self.changed(
            |shared| if down { shared.down.insert(node) } else { shared.down.remove(&node) },
        );
    }

    /// Returns true if a node is cut off.
    pub fn is_down(&self, node: usize) -> bool {
        self.with(|shared| shared.down.contains(&node))
    }

    /// Replaces the network config, or deletes it.
    pub fn set_config(&self, config: Option<&str>) {
        self.trace.note("store", &format!("config {config:?}"));
        self.changed(|shared| {
            shared.config = config.map(|text| text.as_bytes().to_vec());
            shared.config_writes += 1;
        });
    }

    /// Sets whether the v2 API has a network config, and how long its answers take.
    pub fn set_v2_config(&self, has_config: bool, delay: Duration) {
        self.with(|shared| (shared.v2.has_config, shared.v2.delay) = (has_config, delay));
    }

    /// Returns the times at which the v2 API was asked.
    pub fn v2_asked(&self) -> Vec<Instant> {
        self.with(|shared| shared.v2.asked.clone())
    }

    /// Sets the hosts at which the store is reached.
    pub fn set_hosts(&self, hosts: &[&str]) {
        self.with(|shared| shared.hosts = hosts.iter().map(ToString::to_string).collect());
    }

    /// Has another node take the subnet first, as often as this, when a node creates a lease.
    pub fn set_rivals(&self, count: u32) {
        self.with(|shared| shared.rivals = count);
    }

    /// Writes a record that has no end.
    pub fn put(&self, key: &str, value: &[u8]) {
        self.trace.note("store", &format!("put {key} {}", String::from_utf8_lossy(value)));
        self.changed(|shared| shared.put(key, value, None));
    }

    /// Writes a record that ends unless it is renewed.
    pub fn put_with_end(&self, key: &str, value: &[u8]) {
        self.trace.note("store", &format!("put {key} {}", String::from_utf8_lossy(value)));
        self.changed(|shared| {
            let id = shared.grant();
            shared.put(key, value, Some(id))
        });
    }

    /// Has the holder of a record restore its present value whenever a node replaces it.
    pub fn hold(&self, key: &str) {
        self.with(|shared| {
            let value = shared.records[key].value.clone();
            shared.held.insert(key.to_owned(), value);
        });
    }

    /// Restores a record as its holder does, after a moment.
    async fn restore(self, key: String) {
        sleep(Duration::from_millis(fastrand::u64(20..500))).await;
        self.changed(|shared| {
            let (value, entry) =
                (shared.held.get(&key).cloned(), shared.records.get(&key).cloned());
            if let Some((value, entry)) = value.zip(entry) {
                shared.put(&key, &value, entry.lease_id);
            }
        });
    }

    /// Alters the value of a record, whose lease stays.
    pub fn alter(&self, key: &str) {
        self.trace.note("store", &format!("alter {key}"));
        self.changed(|shared| {
            if let Some(stored) = shared.records.get(key).cloned() {
                let text = String::from_utf8_lossy(&stored.value);
                let value = text.replace("vxlan", "udp");
                shared.put(key, value.as_bytes(), stored.lease_id);
            }
        });
    }

    /// Deletes a record.
    pub fn delete(&self, key: &str) {
        self.trace.note("store", &format!("delete {key}"));
        self.changed(|shared| shared.delete(key));
    }

    /// Forgets the history of changes: watches have to begin with a snapshot.
    pub fn compact(&self) {
        self.trace.note("store", "compacted");
        self.changed(|shared| {
            shared.log.clear();
            shared.compacted = shared.revision;
        });
    }

    /// Loses records, as an etcd does that is restored from a backup.
    pub fn lose(&self, lost: &BTreeSet<String>) {
        self.trace.note("store", &format!("lost {lost:?}"));
        self.changed(|shared| {
            shared.records.retain(|key, _| !lost.contains(key));
            shared.losses += 1;
            shared.revision += 1;
            shared.log.clear();
            shared.compacted = shared.revision;
        });
    }

    /// Ends leases that are due.
    pub fn expire(&self) {
        self.with(|shared| {
            if shared.expire() {
                shared.wake();
            }
        });
    }

    /// Returns the first result that `look` has for a record's key and value.
    pub fn find_map<T>(&self, look: impl Fn(&str, &[u8]) -> Option<T>) -> Option<T> {
        self.with(|shared| {
            shared.expire();
            shared.records.iter().find_map(|(key, entry)| look(key, &entry.value))
        })
    }

    /// Returns all records.
    pub fn records(&self) -> Vec<Record> {
        self.with(|shared| {
            shared.expire();
            shared.all().into_iter().map(|stored| stored.record).collect()
        })
    }
}

impl Shared {
    fn wake(&mut self) {
        self.watches.retain(|watch| watch.send(()).is_ok());
    }

    fn expire(&mut self) -> bool {
        let now = Instant::now();
        let ended: Vec<_> =
            self.ends.iter().filter(|(_, end)| **end <= now).map(|(id, _)| *id).collect();
        let mut news = false;
        for id in ended {
            self.ends.remove(&id);
            let of_lease = self.records.iter().filter(|(_, stored)| stored.lease_id == Some(id));
            let keys: Vec<_> = of_lease.map(|(key, _)| key.clone()).collect();
            for key in keys {
                self.delete(&key);
                news = true;
            }
        }
        news
    }

    /// Grants a lease.
    fn grant(&mut self) -> i64 {
        let id = self.next_lease;
        self.next_lease += 1;
        self.ends.insert(id, Instant::now() + TTL);
        id
    }

    fn put(&mut self, key: &str, value: &[u8], lease_id: Option<i64>) -> Stored {
        self.revision += 1;
        let made = self.records.get(key).map_or(self.revision, |stored| stored.made);
        let entry = Entry { value: value.to_vec(), made, written: self.revision, lease_id };
        self.records.insert(key.to_owned(), entry.clone());
        let stored = stored(key, &entry);
        self.log.push((self.revision, RecordChange::Put(stored.record.clone())));
        stored
    }

    fn delete(&mut self, key: &str) {
        if self.records.remove(key).is_some() {
            self.revision += 1;
            self.log.push((self.revision, RecordChange::Delete(key.to_owned())));
        }
    }

    fn all(&self) -> Vec<Stored> {
        self.records.iter().map(|(key, entry)| stored(key, entry)).collect()
    }

    fn is_current(&self, current: &Stored) -> bool {
        self.records.get(current.key()).is_some_and(|entry| entry.written == current.handle.version)
    }
}

fn stored(key: &str, entry: &Entry) -> Stored {
    let age = Age { made: entry.made, written: entry.written };
    let record = Record { key: key.to_owned(), value: entry.value.clone(), unread: None, age };
    Stored { record, handle: Handle { version: entry.written, lease_id: entry.lease_id } }
}

struct Client {
    cluster: Cluster,
    node: usize,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Client {
    async fn call<T>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&mut Shared) -> T + Send,
    ) -> Result<T, StoreError> {
        let second = self.cluster.trace.elapsed().as_secs();
        self.cluster.with(|shared| {
            let calls = shared.calls.entry(self.node).or_default();
            if calls.0 != second {
                *calls = (second, 0);
            }
            calls.1 += 1;
            assert!(
                calls.1 <= CALLS_PER_SECOND,
                "busy loop: {} calls of the store within one second, the last is {operation}",
                calls.1
            );
        });
        sleep(Duration::from_millis(fastrand::u64(1..10))).await;
        if self.cluster.is_down(self.node) {
            let (endpoint, failure) = ("http://store:2379".to_owned(), EtcdFailure::Refused);
            return Err(EtcdError::Call { endpoint, operation, failure }.into());
        }
        Ok(self.cluster.changed(call))
    }
}

#[async_trait]
impl LeaseStore for Client {
    async fn network_config(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.call("read the network config", |shared| shared.config.clone()).await
    }

    async fn scan(&self, visit: &mut (dyn FnMut(Page) + Send)) -> Result<(), StoreError> {
        let records = self.call("list the leases", |shared| shared.all()).await?;
        visit(Page { records, first: true, last: true });
        Ok(())
    }

    async fn find_key(
        &self,
        wanted: &(dyn for<'k> Fn(&'k str) -> bool + Sync),
    ) -> Result<Option<String>, StoreError> {
        self.call("list the keys", |shared| shared.records.keys().find(|key| wanted(key)).cloned())
            .await
    }

    async fn get(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        self.call("read a lease", |shared| shared.records.get(key).map(|entry| stored(key, entry)))
            .await
    }

    async fn create(&self, key: &str, value: &[u8]) -> Result<Option<Stored>, StoreError> {
        self.cluster.trace.note(&format!("n{}", self.node + 1), &format!("create {key}"));
        self.call("create a lease", |shared| {
            if shared.rivals > 0 {
                shared.rivals -= 1;
                shared.put(key, RIVAL.as_bytes(), None);
            }
            if shared.records.contains_key(key) {
                return None;
            }
            let id = shared.grant();
            Some(shared.put(key, value, Some(id)))
        })
        .await
    }

    async fn replace(&self, current: &Stored, value: &[u8]) -> Result<Option<Stored>, StoreError> {
        let (replaced, held) = self
            .call("replace a lease", |shared| {
                let replaced = shared
                    .is_current(current)
                    .then(|| shared.put(current.key(), value, current.handle.lease_id));
                (replaced, shared.held.contains_key(current.key()))
            })
            .await?;
        if held {
            tokio::spawn(self.cluster.clone().restore(current.key().to_owned()));
        }
        Ok(replaced)
    }

    async fn rename(
        &self,
        current: &Stored,
        key: &str,
        value: &[u8],
    ) -> Result<Option<Stored>, StoreError> {
        self.call("rename a lease", |shared| {
            if !shared.is_current(current) || shared.records.contains_key(key) {
                return None;
            }
            shared.delete(current.key());
            Some(shared.put(key, value, current.handle.lease_id))
        })
        .await
    }

    async fn delete(&self, current: &Stored) -> Result<bool, StoreError> {
        self.call("delete a lease", |shared| {
            let is_current = shared.is_current(current);
            if is_current {
                shared.delete(current.key());
            }
            is_current
        })
        .await
    }

    async fn renew(&self, current: &Stored) -> Result<Renewal, StoreError> {
        self.call("renew a lease", |shared| {
            let Some(id) = current.handle.lease_id else { return Renewal::Permanent };
            match shared.ends.get_mut(&id) {
                Some(end) => {
                    *end = Instant::now() + TTL;
                    Renewal::Renewed { remaining: TTL }
                }
                None => Renewal::Gone,
            }
        })
        .await
    }

    async fn has_v2_config(&self) -> bool {
        let delay = self.cluster.with(|shared| {
            shared.v2.asked.push(Instant::now());
            shared.v2.delay
        });
        sleep(delay).await;
        self.cluster.with(|shared| shared.v2.has_config)
    }

    fn hosts(&self) -> Vec<String> {
        self.cluster.with(|shared| shared.hosts.clone())
    }

    fn watch(&self) -> Watch {
        let (cluster, node) = (self.cluster.clone(), self.node);
        Watch::spawn(move |events, _: Pulse| follow(cluster, node, events))
    }

    async fn reload(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// The position of a watch in the history.
struct Position {
    revision: u64,
    losses: u64,
    config_writes: u64,
}

async fn follow(cluster: Cluster, node: usize, events: mpsc::Sender<WatchEvent>) {
    let (sender, mut news) = mpsc::unbounded_channel();
    cluster.with(|shared| shared.watches.push(sender));
    let mut position: Option<Position> = None;
    let mut stale = false;
    loop {
        while news.try_recv().is_ok() {}
        let next = if cluster.is_down(node) {
            let reason = "http://store:2379 refuses connections".to_owned();
            let told = std::mem::replace(&mut stale, true);
            if told { Vec::new() } else { vec![WatchEvent::Stale { reason }] }
        } else {
            let resumed = std::mem::replace(&mut stale, false);
            cluster.with(|shared| next_events(shared, &mut position, resumed))
        };
        for event in next {
            sleep(Duration::from_millis(fastrand::u64(0..5))).await;
            if events.send(event).await.is_err() {
                return;
            }
        }
        if news.recv().await.is_none() {
            return;
        }
    }
}

fn next_events(shared: &Shared, position: &mut Option<Position>, resumed: bool) -> Vec<WatchEvent> {
    let Shared { revision, losses, config_writes, .. } = *shared;
    let now = Position { revision, losses, config_writes };
    let before = position.replace(now);
    let has_history = |before: &Position| {
        before.losses == shared.losses && before.revision >= shared.compacted && !resumed
    };
    match before {
        Some(before) if has_history(&before) => {
            let changes = shared.log.iter().filter(|(at, _)| *at > before.revision);
            let changes: Vec<_> = changes.map(|(_, change)| change.clone()).collect();
            let mut events = Vec::new();
            if before.config_writes != shared.config_writes {
                events.push(WatchEvent::Config(shared.config.clone()));
            }
            if !changes.is_empty() {
                events.push(WatchEvent::Update(Update::Changes(changes)));
            }
            events
        }
        before => {
            let mut events = Vec::new();
            if before.is_some_and(|before| before.losses != shared.losses) {
                let reason = "the store went back to an earlier revision".to_owned();
                events.push(WatchEvent::SetBack { reason });
            }
            events.push(WatchEvent::Config(shared.config.clone()));
            let records = shared.all();
            let size = 1 + fastrand::usize(..4);
            let pages: Vec<_> = records.chunks(size).map(<[Stored]>::to_vec).collect();
            let count = pages.len().max(1);
            let pages = pages.into_iter().chain(records.is_empty().then(Vec::new));
            for (index, records) in pages.enumerate() {
                let page = Page { records, first: index == 0, last: index + 1 == count };
                events.push(WatchEvent::Update(Update::Snapshot(page)));
            }
            events
        }
    }
}
