//! The records in the store.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// All records below `<prefix>/subnets`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Leases {
    /// The daemon's version.
    pub version: String,
    /// Name of the network: the etcd prefix without a trailing slash, or the directory.
    pub network: String,
    /// Records in the order of their keys. Of the unusable ones, only the first thousand.
    pub records: Vec<LeaseRecord>,
    /// Number of unusable records beyond those.
    pub unlisted: u64,
}

/// One record, as listed for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaseRecord {
    /// Key below `<prefix>/subnets/`.
    pub key: String,
    /// ID of the node. None for flannel nodes.
    pub node_id: Option<String>,
    /// Host name of the node. None for flannel nodes.
    pub node_name: Option<String>,
    /// Addresses under which the node is reachable, IPv4 first.
    pub public_addresses: Vec<IpAddr>,
    /// `BackendType`, if there is one.
    pub backend: Option<String>,
    /// True for a reservation, which never expires. Any other lease expires unless its node renews
    /// it.
    pub reservation: bool,
    /// True if it is this node's own.
    pub own: bool,
    /// Reason why it is unusable; None if it is usable.
    pub problem: Option<String>,
}
