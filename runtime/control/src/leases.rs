//! What is in the store.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Every record below `<prefix>/subnets`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Leases {
    /// The daemon's version.
    pub version: String,
    /// The network: the etcd prefix without a slash at its end, or the directory.
    pub network: String,
    /// In the order of the keys. Of the records that cannot be used, the first thousand.
    pub records: Vec<Record>,
    /// The number of further records that cannot be used.
    pub unlisted: u64,
}

/// One record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Its key below `<prefix>/subnets/`.
    pub key: String,
    /// The node's id. None for nodes of flannel's.
    pub node_id: Option<String>,
    /// The node's host name. None for nodes of flannel's.
    pub node_name: Option<String>,
    /// Under which addresses it is reached, IPv4 first.
    pub public_addresses: Vec<IpAddr>,
    /// `BackendType`, if there is one.
    pub backend: Option<String>,
    /// It never expires: a reservation. Otherwise it ends unless its node renews it.
    pub reservation: bool,
    /// Whether it is this node's own.
    pub own: bool,
    /// Why it cannot be used; none: it can.
    pub problem: Option<String>,
}
