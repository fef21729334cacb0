//! Reasons why a record is not a lease.

use std::net::IpAddr;

use super::VALUE_LIMIT;

/// The reason why a store does not deliver a record's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unread {
    /// The value is longer than [`VALUE_LIMIT`].
    #[error("its value is too long: {0} bytes or more, and the limit is {VALUE_LIMIT}")]
    TooLong(u64),
    /// The file of a directory store is a FIFO, a device or a socket.
    #[error("it is not a regular file: replace it by one, or delete it")]
    NotAFile,
    /// The file of a directory store cannot be read.
    #[error("its file cannot be read ({0}): correct it, or delete it")]
    Unreadable(std::io::ErrorKind),
}

impl Unread {
    /// Returns the reason not to read a value of this length, if it is too long.
    pub fn of_length(bytes: usize) -> Option<Self> {
        (bytes > VALUE_LIMIT).then_some(Self::TooLong(bytes as u64))
    }
}

/// The reason why a lease's value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLease {
    /// The value was not read.
    #[error(transparent)]
    Unread(#[from] Unread),
    /// A field is longer than its limit.
    #[error("`{field}` is too long: {length} bytes, and the limit is {limit}")]
    TooLong {
        /// Name of the field, in flannel's spelling.
        field: &'static str,
        /// Its length in bytes; for backend data, the length of its JSON text.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The value is not a JSON object.
    #[error("not a JSON object: {0}")]
    NotAnObject(String),
    /// A field has the wrong type or form.
    #[error("`{field}` is {found}: expected {expected}")]
    Field {
        /// Name of the field, in flannel's spelling.
        field: &'static str,
        /// The value found, truncated if long.
        found: String,
        /// The type or form that is accepted.
        expected: &'static str,
    },
    /// The node's address cannot be that of a host.
    #[error(
        "`{field}` is {address}, which is a loopback, multicast or broadcast address: expected the address at which other \
         hosts reach the node"
    )]
    NoHost {
        /// Name of the field, in flannel's spelling.
        field: &'static str,
        /// The address found.
        address: IpAddr,
    },
    /// No family has both a subnet in the key and an address in the value.
    #[error(
        "no public address: expected `{0}` to be the node's address, because the key has a subnet of that family"
    )]
    NoAddress(&'static str),
}
