//! The relation of leases to this node.
//!
//! A lease with this node's id is this node's, whatever its address, so that a node keeps its
//! subnet when its address changes. Machines cloned from one image share an id, though. So there
//! has to be evidence: the host has the published address, or a device with the published Ethernet
//! address. Without it, the holder has to be asked ([`Holder`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::MacAddress;
use crate::family::PerFamily;
use crate::interface::Interface;
use crate::lease::{Lease, LeaseKey};
use crate::node::NodeId;

/// Properties by which a host recognizes leases that it published in earlier runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostMarks {
    /// The addresses of all interfaces.
    pub addresses: BTreeSet<IpAddr>,
    /// The Ethernet addresses of VXLAN devices, which outlive the daemon.
    pub macs: BTreeSet<MacAddress>,
}

impl HostMarks {
    /// Returns the marks of a host with these interfaces.
    pub fn of(interfaces: &[Interface]) -> Self {
        let addresses = interfaces.iter().flat_map(|found| &found.addresses);
        let devices = interfaces.iter().filter(|found| found.kind == "vxlan");
        Self {
            addresses: addresses.map(IpNet::addr).collect(),
            macs: devices.filter_map(|found| found.mac).collect(),
        }
    }
}

/// A node and its host, as far as leases are recognized by them.
#[derive(Clone, Debug)]
pub struct Recognition {
    /// The node's id.
    pub id: NodeId,
    /// The node's public addresses in the enabled families.
    pub public_addresses: PerFamily<IpAddr>,
    /// The marks of the host.
    pub marks: HostMarks,
}

impl Recognition {
    /// Returns the relation of a lease to this node.
    pub fn relation(&self, lease: &Lease) -> Relation {
        relation(lease, &self.id, self.public_addresses, &self.marks)
    }
}

/// The relation of a lease to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The lease has this node's id, and an address or an Ethernet address of its host.
    Own,
    /// The lease has this node's address and no id: a flannel daemon or an operator wrote it.
    Anonymous,
    /// The lease has this node's id and nothing else of it. It is from before a change of the
    /// address, or of a machine that was cloned together with its id.
    Namesake,
    /// The lease has this node's address and another id.
    Rival,
    /// The lease is of another node.
    Other,
}

/// Returns the relation of a lease to a node. flannel tells nodes apart by the address of the first
/// family.
pub(super) fn relation(
    lease: &Lease,
    id: &NodeId,
    public_addresses: PerFamily<IpAddr>,
    marks: &HostMarks,
) -> Relation {
    let published = lease.public_addresses();
    let has_address = public_addresses.first().is_some_and(|own| published.contains(own));
    match &lease.node_id {
        Some(found) if found == id => {
            let is_own = |address: &IpAddr| {
                public_addresses.contains(address) || marks.addresses.contains(address)
            };
            let evident = published.iter().any(is_own)
                || lease.published_macs().iter().any(|mac| marks.macs.contains(mac));
            if evident { Relation::Own } else { Relation::Namesake }
        }
        None if has_address => Relation::Anonymous,
        Some(_) if has_address => Relation::Rival,
        _ => Relation::Other,
    }
}

/// The outcome of asking the holder of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The holder keeps its lease.
    Alive,
    /// Nobody keeps the lease.
    Gone,
}

/// The holders that have been asked.
pub type Holders = BTreeMap<LeaseKey, Holder>;
