//! This node's identity, and the interface and addresses at which other hosts reach it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::address::{Family, LinkName, MacAddress};
use crate::family::PerFamily;

/// The identity of a node: 1 to 64 characters of `a–z A–Z 0–9 . _ -`.
///
/// flannel identifies a node by its public address alone. Heddle also writes this id into the
/// lease, in a field that flannel ignores, to tell apart two nodes with one address (machines
/// cloned from an image).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(String);

impl NodeId {
    /// Derives the identity from the machine id (`/etc/machine-id`, see machine-id(5)) and the etcd
    /// prefix.
    ///
    /// The machine id itself stays private, as its manual page asks: only a keyed hash leaves the
    /// host.
    pub fn derive(machine_id: &str, prefix: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"heddle node id\0");
        hash.update(machine_id.trim());
        hash.update(b"\0");
        hash.update(prefix.trim_end_matches('/'));
        let digest = hash.finalize();
        Self(digest[..16].iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Returns the identity as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that cannot be a node id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a node id: expected 1 to 64 characters out of a–z, A–Z, 0–9, `.`, `_` and `-`"
)]
pub struct InvalidNodeId(pub String);

impl FromStr for NodeId {
    type Err = InvalidNodeId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if (1..=64).contains(&text.len()) && text.chars().all(good) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidNodeId(text.to_owned()))
        }
    }
}

impl TryFrom<String> for NodeId {
    type Error = InvalidNodeId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.0
    }
}

/// The interface that carries the overlay's packets between hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// Name of the interface.
    pub link: LinkName,
    /// MTU in bytes.
    pub mtu: u32,
    /// The interface's addresses, including host bits, with their prefix lengths.
    pub addresses: Vec<IpNet>,
    /// The addresses at which peers reach this node, in each enabled family.
    pub public_addresses: PerFamily<IpAddr>,
}

impl Underlay {
    /// Returns the interface's own address that stands for a public address: the same, or behind
    /// NAT the interface's first one of that family.
    pub fn own_address(&self, public: IpAddr) -> Option<IpAddr> {
        if self.addresses.iter().any(|network| network.addr() == public) {
            return Some(public);
        }
        let mut others = self.addresses.iter().map(IpNet::addr);
        others.find(|other| Family::of(*other) == Family::of(public))
    }
}

/// A device that existed when the daemon started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingLink {
    /// Name of the device.
    pub name: LinkName,
    /// The kernel's name of the link kind; empty for hardware.
    pub kind: String,
    /// Ethernet address, if the device has one.
    pub mac: Option<MacAddress>,
}

/// This node at the start of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The node's identity.
    pub id: NodeId,
    /// The interface and the addresses at which other hosts reach the node.
    pub underlay: Underlay,
    /// The devices that existed at the start.
    pub links: Vec<ExistingLink>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_id_depends_only_on_machine_and_prefix() {
        let id = NodeId::derive("3d1219c7c4c5404aaa1f6d2a48adfda4\n", "/coreos.com/network");
        assert_eq!(id, NodeId::derive("3d1219c7c4c5404aaa1f6d2a48adfda4", "/coreos.com/network/"));
        assert_ne!(id, NodeId::derive("3d1219c7c4c5404aaa1f6d2a48adfda5", "/coreos.com/network"));
        assert_ne!(id, NodeId::derive("3d1219c7c4c5404aaa1f6d2a48adfda4", "/other"));
        assert!(id.as_str().parse::<NodeId>().is_ok());
    }

    #[test]
    fn node_id_with_special_characters_is_rejected() {
        for text in ["", "a b", "a/b", "ü", &"x".repeat(65)] {
            assert_eq!(text.parse::<NodeId>(), Err(InvalidNodeId(text.into())));
        }
    }
}
