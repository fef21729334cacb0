//! The part of the kernel's state that a daemon manages.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::LinkName;
use crate::config::{NetworkConfig, OverlayNetwork};

/// The part of the kernel's state that this daemon manages.
///
/// Ownership is read off the kernel itself, so that it survives a restart: routes carry Heddle's
/// protocol id, devices carry an alias, and the objects on such a device are removed with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The overlay's networks. Routes to a destination inside one of them are observed.
    pub networks: Vec<IpNet>,
    /// Destinations outside the overlay that plans may have routes to, through devices of their
    /// own.
    pub granted: Vec<IpNet>,
    /// The address ranges, first and last address, that `SubnetMin` and `SubnetMax` restrict
    /// subnets to, if they restrict them.
    pub reserved: Vec<(IpAddr, IpAddr)>,
    /// This node's own subnets. Foreign routes and addresses inside them belong to containers.
    pub own: Vec<IpNet>,
    /// The planned devices.
    pub links: BTreeSet<LinkName>,
    /// The alias (`ip link set … alias`) that marks a device as created by this daemon. It names
    /// the etcd prefix, so that two daemons on one host leave each other's devices alone.
    pub alias: String,
}

impl Scope {
    /// Returns the scope of a node in this network that has no lease, no devices, no grants and no
    /// alias.
    pub fn of(config: &NetworkConfig) -> Self {
        Self {
            networks: config.networks.iter().map(|overlay| overlay.network).collect(),
            reserved: config.networks.iter().filter_map(OverlayNetwork::reserved_range).collect(),
            ..Self::default()
        }
    }

    /// Returns true if a destination lies inside the overlay.
    pub fn covers(&self, destination: IpNet) -> bool {
        self.networks.iter().any(|network| network.contains(&destination))
    }

    /// Returns true if a network of the host can conflict with planned routes: it overlaps the
    /// overlay or a granted destination, and does not lie inside this node's own subnets.
    pub fn meets(&self, network: IpNet) -> bool {
        meet(&self.networks, &self.granted, &self.own, network)
    }
}

/// Returns true if a network overlaps the overlay's networks or the granted ones. Networks inside
/// `own` belong to containers and do not count.
pub(crate) fn meet(overlay: &[IpNet], granted: &[IpNet], own: &[IpNet], network: IpNet) -> bool {
    !own.iter().any(|own| own.contains(&network))
        && overlay.iter().chain(granted).any(|claimed| intersect(*claimed, network))
}

/// Returns true if two networks have an address in common.
pub(crate) fn intersect(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}
