//! Records of the store.

use super::Lease;
use super::error::{InvalidLease, Unread};
use super::key::LeaseKey;

/// The store's counts of when a record was created and last written: smaller is earlier. Events
/// that the store cannot tell apart have equal counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Age {
    /// Creation. etcd: `create_revision`; directory store: the file's modification time.
    pub made: u64,
    /// Last write. etcd: `mod_revision`; directory store: the same as `made`.
    pub written: u64,
}

/// A record of the store, which may or may not be a valid lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The part of the key below `<prefix>/subnets/`.
    pub key: &'a str,
    /// The value; empty if it was not read.
    pub value: &'a [u8],
    /// The reason why the value was not read. None if it was.
    pub unread: Option<Unread>,
    /// The creation and the last write of the record.
    pub age: Age,
}

impl Record<'_> {
    /// Parses the value as the lease of this key.
    ///
    /// # Errors
    ///
    /// [`InvalidLease`], naming the field or the reason why the value was not read.
    pub fn lease(&self, key: LeaseKey) -> Result<Lease, InvalidLease> {
        match self.unread {
            Some(unread) => Err(unread.into()),
            None => Lease::from_value(key, self.value),
        }
    }
}
