//! Records of the store, as read: one key and value below `<prefix>/subnets/`, whether or not it is
//! a lease.

use std::fmt;

pub use crate::lease::Unread;
use crate::lease::{InvalidLease, Lease, LeaseKey};

/// The store's counts of when a record was created and last written: smaller is earlier. Events
/// that the store cannot tell apart have equal counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Age {
    /// Creation. etcd: `create_revision`; directory store: the file's modification time,
    /// in nanoseconds since 1970.
    pub made: u64,
    /// Last write. etcd: `mod_revision`; directory store: the same as `made`.
    pub written: u64,
}

/// A record of the store, which may or may not be a valid lease.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Key below `<prefix>/subnets/`, as found. Bytes that are not UTF-8 appear as U+FFFD. A key
    /// longer than any lease key is truncated.
    pub key: String,
    /// Bytes of the value, as found. Empty if the value was not read.
    pub value: Vec<u8>,
    /// The reason why the value was not read. None if it was.
    pub unread: Option<Unread>,
    /// Age of the record, comparable with that of other records of the same store.
    pub age: Age,
}

impl Record {
    /// Parses the value as the lease of this key.
    ///
    /// # Errors
    ///
    /// [`InvalidLease`], naming the field or the reason why the value was not read.
    pub fn lease(&self, key: LeaseKey) -> Result<Lease, InvalidLease> {
        match self.unread {
            Some(unread) => Err(unread.into()),
            None => Lease::from_value(key, &self.value),
        }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("key", &self.key)
            .field("value", &String::from_utf8_lossy(&self.value))
            .field("unread", &self.unread)
            .field("age", &self.age)
            .finish()
    }
}

/// A change of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordChange {
    /// The record was created or replaced.
    Put(Record),
    /// The record with this key was deleted or expired.
    Delete(String),
}

impl RecordChange {
    /// Returns the key of the changed record.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(record) => &record.key,
            Self::Delete(key) => key,
        }
    }
}
