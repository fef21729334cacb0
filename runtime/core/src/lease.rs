//! Leases: which subnet belongs to which node, in flannel's format.
//!
//! A lease is one etcd key, `<prefix>/subnets/10.244.8.0-24`, whose value is a JSON object
//! (flannel's `pkg/subnet/subnet.go` and `pkg/lease/lease.go`). [`LeaseKey`] and [`Lease`] parse
//! and format both.

mod error;
mod key;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::address::{Family, MacAddress};
use crate::family::{InFamily, PerFamily};
use crate::node::NodeId;
use crate::text::{LONGEST, list, one_line};

pub use error::{InvalidLease, Unread};
pub use key::{InvalidLeaseKey, LeaseKey};

/// Length limit of a record's value in bytes. A lease at all its other limits takes less than half
/// of it.
pub const VALUE_LIMIT: usize = 64 << 10;

/// Length limit of a record's key in bytes. The longest lease key has 62.
pub const KEY_LIMIT: usize = 128;

/// Length limit of `NodeName` in characters, from DNS names (RFC 1035, section 2.3.4). Longer names
/// are cut.
pub const NODE_NAME_LIMIT: usize = 253;

/// Length limit of `BackendType` in bytes.
pub const BACKEND_TYPE_LIMIT: usize = 64;

/// Length limit of `BackendData` and of `BackendV6Data` as JSON text, in bytes.
pub const BACKEND_DATA_LIMIT: usize = 8192;

/// One family of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseFamily {
    /// The node's subnet of the overlay.
    pub subnet: IpNet,
    /// The underlay address at which the node is reached. Of the same family as the subnet.
    pub public_address: IpAddr,
    /// `BackendData` or `BackendV6Data`, as JSON text.
    pub backend_data: Option<String>,
}

impl InFamily for LeaseFamily {
    fn family(&self) -> Family {
        self.subnet.family()
    }
}

/// A lease: the subnets of a node, and the addresses at which the node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The record's key. It may have a subnet of a family that the value lacks an address for.
    pub key: LeaseKey,
    /// The families with both a subnet and an address. Never empty.
    pub families: PerFamily<LeaseFamily>,
    /// `BackendType`. flannel's udp backend omits it.
    pub backend_type: Option<String>,
    /// Heddle's identity of the node. Absent in leases of flannel nodes.
    pub node_id: Option<NodeId>,
    /// The node's host name, for people. Absent in leases of flannel nodes.
    pub node_name: Option<String>,
}

impl Lease {
    /// Returns the node's public addresses.
    pub fn public_addresses(&self) -> PerFamily<IpAddr> {
        self.families.as_ref().map(|part| part.public_address)
    }

    /// Returns true if the two leases have a public address in common. flannel identifies nodes by
    /// their address.
    pub fn shares_address(&self, other: &Self) -> bool {
        let theirs = other.public_addresses();
        self.public_addresses().iter().any(|own| theirs.contains(own))
    }

    /// Returns the Ethernet addresses found anywhere in the backend data.
    pub fn published_macs(&self) -> BTreeSet<MacAddress> {
        fn collect(value: &Value, found: &mut BTreeSet<MacAddress>) {
            match value {
                Value::String(text) => found.extend(text.parse::<MacAddress>().ok()),
                Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
                Value::Object(members) => members.values().for_each(|item| collect(item, found)),
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
        let mut found = BTreeSet::new();
        for data in self.families.iter().filter_map(|family| family.backend_data.as_deref()) {
            // The data is JSON, since it is part of a record that was parsed. serde_json bounds its
            // depth.
            if let Ok(value) = serde_json::from_str(data) {
                collect(&value, &mut found);
            }
        }
        found
    }

    /// Returns the node's name for messages: its host name or id with its address, or the address
    /// alone.
    pub fn owner(&self) -> String {
        let address = list(self.public_addresses());
        let name = self.node_name.as_ref().map(|name| one_line(name, LONGEST));
        match (name, &self.node_id) {
            (Some(name), Some(id)) => format!("{name} (node id {id}) at {address}"),
            (Some(name), None) => format!("{name} at {address}"),
            (None, Some(id)) => format!("node id {id} at {address}"),
            (None, None) => address,
        }
    }
}
