//! Where leases live.
//!
//! A [`LeaseStore`] holds the network config and one [`Record`] per lease. There are two: [`EtcdStore`], laid out as
//! flannel lays it out, and [`DirectoryStore`], a directory of files. Neither reads keys or values: what they mean
//! is `heddle_core`'s business, and a record that nobody can read is delivered like any other.
//!
//! Whoever may write to a store decides how much is in it. So lists are delivered in [`Page`]s, values longer than
//! `heddle_core::lease::VALUE_LIMIT` are dropped as soon as they are read, and keys are cut.
//!
//! | module | job |
//! | --- | --- |
//! | [`etcd`] | etcd's v3 API; the only place that knows `etcd-client` |
//! | [`directory`] | a directory of lease files, for labs and static clusters |
//! | [`acquire`](mod@acquire) | getting a lease for this node |
//! | [`own_lease`] | keeping it |
//! | [`reach`] | the addresses that lead to it |
//! | [`release`](mod@release) | giving it up |
//!
//! Every write is a compare-and-swap: what was read is what is replaced, or nothing happens. So two nodes never
//! overwrite each other, whatever the order in which they come.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use async_trait::async_trait;
use heddle_core::lease::{Age, KEY_LIMIT, Unread};

pub mod acquire;
pub mod directory;
pub mod etcd;
pub mod own_lease;
pub mod reach;
pub mod release;

mod config;
mod outage;
mod retry;
mod watch;

pub use acquire::{AcquireError, acquire, holdings};
pub use config::{InvalidStoreConfig, StoreConfig};
pub use directory::{DirectoryError, DirectoryStore};
pub use etcd::{EtcdError, EtcdOptions, EtcdStore};
pub use own_lease::{LostLease, OwnLease, Term, keep};
pub use reach::Reach;
pub use release::release;
pub use watch::{Page, Pulse, RecordChange, Update, Watch, WatchEvent};

/// One lease as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// The text below `<prefix>/subnets/`, as found. Bytes that are not UTF-8 are shown as U+FFFD. One that is longer than
    /// any lease key is cut.
    pub key: String,
    /// The bytes of the value, as found; empty if it was not read.
    pub value: Vec<u8>,
    /// The reason that the value was not read. None if it was.
    pub unread: Option<Unread>,
    /// Changes with every write. etcd: `mod_revision`; directory: a hash of the value.
    pub version: u64,
    /// How old it is, compared with other records of the store.
    pub age: Age,
    /// The etcd lease that the key is attached to. None for a reservation, and for every file of a directory.
    pub lease_id: Option<i64>,
}

impl Record {
    /// What matters of it to who has to understand it.
    pub fn as_read(&self) -> heddle_core::lease::Record<'_> {
        let Self { key, value, unread, age, .. } = self;
        heddle_core::lease::Record { key, value, unread: *unread, age: *age }
    }

    /// Whether it stays until somebody deletes it.
    pub fn is_reservation(&self) -> bool {
        self.lease_id.is_none()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("key", &self.key)
            .field("value", &String::from_utf8_lossy(&self.value))
            .field("unread", &self.unread)
            .field("version", &self.version)
            .field("age", &self.age)
            .field("lease_id", &self.lease_id)
            .finish()
    }
}

/// The outcome of [`LeaseStore::renew`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lease lasts this much longer.
    Renewed {
        /// The time from now to its end.
        remaining: Duration,
    },
    /// It has no end: a reservation.
    Permanent,
    /// It has ended, and its key with it.
    Gone,
}

/// A place that holds leases.
///
/// Every call returns within a deadline. A call that fails may still have been carried out; because writes are
/// compare-and-swaps, reading again shows which.
#[async_trait]
pub trait LeaseStore: Send + Sync + fmt::Debug {
    /// The bytes of the network config, if there is one.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the store cannot be read.
    async fn network_config(&self) -> Result<Option<Vec<u8>>, StoreError>;

    /// Reads all records as they are at one moment, in the order of their keys, and hands each [`Page`] to `visit`. A page
    /// that is the first makes those before it void: the list begins again when the store's history overtook it.
    ///
    /// Only this has no deadline as a whole; each page has one.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the store cannot be read. The pages before are not the whole list then.
    async fn scan(&self, visit: &mut (dyn FnMut(Page) + Send)) -> Result<(), StoreError>;

    /// Returns a key that is `wanted`, if there is one. Reads no values.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the store cannot be read.
    async fn find_key(
        &self,
        wanted: &(dyn for<'k> Fn(&'k str) -> bool + Sync),
    ) -> Result<Option<String>, StoreError>;

    /// One record, if it exists.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the store cannot be read.
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError>;

    /// Creates a record, which expires after a day unless it is renewed. None when the key exists already.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the store cannot be reached or written.
    async fn create(&self, key: &str, value: &[u8]) -> Result<Option<Record>, StoreError>;

    /// Replaces the value and nothing else: a reservation stays one, a lease keeps its end.
    /// None when the record is no longer the one that was read.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the store cannot be reached or written.
    async fn replace(&self, current: &Record, value: &[u8]) -> Result<Option<Record>, StoreError>;

    /// Deletes the record. False when it is no longer the one that was read.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the store cannot be reached or written.
    async fn delete(&self, current: &Record) -> Result<bool, StoreError>;

    /// Puts the end of the lease off. Looks neither at the key nor at the value.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the store cannot be reached.
    async fn renew(&self, current: &Record) -> Result<Renewal, StoreError>;

    /// Returns the hosts of the store, names or addresses. Empty for a store that needs no network.
    fn hosts(&self) -> Vec<String>;

    /// Follows all records and the network config, from now until the [`Watch`] is dropped.
    ///
    /// Needs a Tokio runtime.
    fn watch(&self) -> Watch;

    /// Connects anew with files as they are now, such as renewed certificates. Watches go on, with a snapshot. Without
    /// success everything stays as it is.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when a file cannot be used or the store cannot be reached with it.
    async fn reload(&self) -> Result<(), StoreError>;
}

/// Returns the key as text. What is longer than any lease key is cut, and a hash of the whole keeps two such keys apart.
pub(crate) fn bounded_key(key: &[u8]) -> String {
    if key.len() <= KEY_LIMIT {
        return String::from_utf8_lossy(key).into_owned();
    }
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let head = String::from_utf8_lossy(&key[..KEY_LIMIT / 2]);
    format!("{head}… ({} bytes, hash {:016x})", key.len(), hasher.finish())
}

/// A call to a store that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// etcd's.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// A directory's.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

impl StoreError {
    /// Whether the same call may succeed later with nobody changing a flag, a file or a permission.
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
    fn long_keys_are_cut_and_stay_apart() {
        let longest = "x".repeat(KEY_LIMIT);
        assert_eq!(bounded_key(longest.as_bytes()), longest);
        let (one, other) = (vec![b'x'; 700_000], vec![b'x'; 700_001]);
        let (one, other) = (bounded_key(&one), bounded_key(&other));
        assert!(one.starts_with("xxxxxxxx") && one.len() < 2 * KEY_LIMIT, "{one}");
        assert_ne!(one, other);
        assert!(one.parse::<heddle_core::lease::LeaseKey>().is_err());
    }
}
