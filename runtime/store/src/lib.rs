//! Lease stores: they hold the network config and the leases of all nodes.
//!
//! A [`LeaseStore`] holds the network config and one [`Record`] per lease, with a [`Handle`] for
//! writes. There are two implementations: [`EtcdStore`], with flannel's key layout, and
//! [`DirectoryStore`], a directory of files. Neither interprets keys or values; that is the job of `heddle_core`, and a record that
//! cannot be parsed is delivered like any other.
//!
//! Anybody with write access to a store decides how much it holds. So lists are delivered in
//! [`Page`]s, values longer than `heddle_core::lease::VALUE_LIMIT` are dropped as soon as they are
//! read, and long keys are truncated.
//!
//! | module | job |
//! | --- | --- |
//! | `config` | which store is used (`--store`) |
//! | [`etcd`] | etcd's v3 API; the only module that uses `etcd-client` |
//! | [`directory`] | a directory of lease files, for labs and static clusters |
//! | `watch` | the watch on the leases, and its events |
//! | `claim` | compare-and-swap on the record of this node's lease |
//! | [`acquire`](mod@acquire) | acquires a lease for this node |
//! | [`holder`] | asks the holder of a lease whether it is there |
//! | [`own_lease`] | keeps that lease: renewal and repair |
//! | `retry`, `outage` | repeats failed calls; limits the log lines about them |
//! | [`reach`] | resolves the addresses at which the store is reached |
//! | [`release`](mod@release) | releases the lease, or one whose holder is gone |
//!
//! Every write is a compare-and-swap: it replaces exactly the record that was read, or does
//! nothing. So two nodes never overwrite each other, whatever the order of their writes.

#![forbid(unsafe_code)]

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use async_trait::async_trait;
use heddle_core::lease::KEY_LIMIT;
use heddle_core::record::Record;

pub mod acquire;
pub mod directory;
pub mod etcd;
pub mod holder;
pub mod own_lease;
pub mod reach;
pub mod release;

mod claim;
mod config;
mod outage;
mod retry;
mod watch;

pub use acquire::{AcquireError, acquire, holdings, published_addresses};
pub use config::{InvalidStoreConfig, StoreConfig};
pub use directory::{DirectoryError, DirectoryStore};
pub use etcd::{EtcdError, EtcdOptions, EtcdStore};
pub use own_lease::{LostLease, OwnLease, Term, keep};
pub use reach::Reach;
pub use release::{OtherRelease, release, release_of_other};
pub use watch::{Page, Pulse, Update, Watch, WatchEvent};

/// A record with its handle in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The record.
    pub record: Record,
    /// The state of the record that a write replaces.
    pub handle: Handle,
}

/// A state of one record, for compare-and-swap and renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// Version of the record; changes with every write. etcd: `mod_revision`; directory: a hash of
    /// the value.
    pub version: u64,
    /// ID of the etcd lease that the key is attached to. None for a reservation, and for every file
    /// of a directory.
    pub lease_id: Option<i64>,
}

impl Stored {
    /// Returns the record's key below `<prefix>/subnets/`.
    pub fn key(&self) -> &str {
        &self.record.key
    }

    /// Returns true if the record never expires: it stays until somebody deletes it.
    pub fn is_reservation(&self) -> bool {
        self.handle.lease_id.is_none()
    }
}

/// The outcome of [`LeaseStore::renew`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lease was renewed.
    Renewed {
        /// The time from now to its expiry.
        remaining: Duration,
    },
    /// The record is a reservation, which never expires.
    Permanent,
    /// The lease has expired, and its key is gone with it.
    Gone,
}

/// A store of lease records and the network config.
///
/// Every call returns within a deadline, except that [`scan`](Self::scan) and
/// [`find_key`](Self::find_key) have one for each page they read. A call that fails may still have
/// been carried out; because writes are compare-and-swaps, reading again shows whether it was.
#[async_trait]
pub trait LeaseStore: Send + Sync + fmt::Debug {
    /// Returns the bytes of the network config, if there is one.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the store cannot be read.
    async fn network_config(&self) -> Result<Option<Vec<u8>>, StoreError>;

    /// Reads all records as of one moment, ordered by key, and passes each [`Page`] to `visit`. A
    /// page with `first` set invalidates the pages before it: the list starts again when compaction
    /// has overtaken its revision.
    ///
    /// The call as a whole has no deadline; each page has one.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the store cannot be read. The pages delivered until then are not the
    /// whole list.
    async fn scan(&self, visit: &mut (dyn FnMut(Page) + Send)) -> Result<(), StoreError>;

    /// Returns a key for which `wanted` returns true, if there is one. Reads no values.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the store cannot be read.
    async fn find_key(
        &self,
        wanted: &(dyn for<'k> Fn(&'k str) -> bool + Sync),
    ) -> Result<Option<String>, StoreError>;

    /// Returns one record, if it exists.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the store cannot be read.
    async fn get(&self, key: &str) -> Result<Option<Stored>, StoreError>;

    /// Creates a record. In etcd it expires after a day unless it is renewed. Returns None if the
    /// key already exists.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the store cannot be reached or written.
    async fn create(&self, key: &str, value: &[u8]) -> Result<Option<Stored>, StoreError>;

    /// Replaces the value and nothing else: a reservation stays one, and a lease keeps its expiry.
    /// Returns None if the record has changed since it was read.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the store cannot be reached or written.
    async fn replace(&self, current: &Stored, value: &[u8]) -> Result<Option<Stored>, StoreError>;

    /// Deletes the record and creates another one, which stays a reservation or keeps the expiry,
    /// in one step: in etcd, nobody ever sees both or neither. Returns None if the record has changed
    /// since it was read, or the other key already exists.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the store cannot be reached or written.
    async fn rename(
        &self,
        current: &Stored,
        key: &str,
        value: &[u8],
    ) -> Result<Option<Stored>, StoreError>;

    /// Deletes the record. Returns false if it has changed since it was read.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the store cannot be reached or written.
    async fn delete(&self, current: &Stored) -> Result<bool, StoreError>;

    /// Renews the lease, which postpones its expiry. Checks neither the key nor the value.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the store cannot be reached.
    async fn renew(&self, current: &Stored) -> Result<Renewal, StoreError>;

    /// Returns the hosts of the store, as names or addresses. Empty for a store that needs no
    /// network.
    fn hosts(&self) -> Vec<String>;

    /// Returns true if there is a network config where this store does not read: in the v2 API of
    /// the same etcd, which older releases of flannel use. False if that cannot be read within three
    /// seconds. Costs one small request.
    async fn has_v2_config(&self) -> bool {
        false
    }

    /// Watches all records and the network config, from now until the [`Watch`] is dropped.
    ///
    /// Must be called within a Tokio runtime.
    fn watch(&self) -> Watch;

    /// Reconnects with the files as they are now, such as renewed certificates. Watches continue
    /// with a snapshot. On failure, the current connection stays in use.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when a file cannot be used or the store cannot be reached with it.
    async fn reload(&self) -> Result<(), StoreError>;
}

/// Returns the key as text. Truncates a key longer than any lease key; a hash of the whole key
/// keeps two truncated keys distinct.
pub(crate) fn bounded_key(key: &[u8]) -> String {
    if key.len() <= KEY_LIMIT {
        return String::from_utf8_lossy(key).into_owned();
    }
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let head = String::from_utf8_lossy(&key[..KEY_LIMIT / 2]);
    format!("{head}… ({} bytes, hash {:016x})", key.len(), hasher.finish())
}

/// A failed call to a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Error of the etcd store.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// Error of the directory store.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

impl StoreError {
    /// Returns true if the same call may succeed later without anybody changing a flag, a file or a
    /// permission.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Etcd(error) => error.is_transient(),
            Self::Directory(error) => error.is_transient(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_keys_are_truncated_and_stay_distinct() {
        let longest = "x".repeat(KEY_LIMIT);
        assert_eq!(bounded_key(longest.as_bytes()), longest);
        let (one, other) = (vec![b'x'; 700_000], vec![b'x'; 700_001]);
        let (one, other) = (bounded_key(&one), bounded_key(&other));
        assert!(one.starts_with("xxxxxxxx") && one.len() < 2 * KEY_LIMIT, "{one}");
        assert_ne!(one, other);
        assert!(one.parse::<heddle_core::lease::LeaseKey>().is_err());
    }
}
