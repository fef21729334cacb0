//! The host's routes and addresses, as observed.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::LinkName;
use crate::node::Underlay;

/// A route of the main table that is not Heddle's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostRoute {
    /// The destination.
    pub destination: IpNet,
    /// The output device, that of the first next hop. None for blackhole routes and the like.
    pub link: Option<LinkName>,
    /// True for the kernel's route for an address of the link: its destinations are on the link
    /// itself.
    pub connected: bool,
    /// True if the route applies to some packets only, by source address or type of service.
    pub partial: bool,
}

/// An address of a device that is not Heddle's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostAddress {
    /// The device that has the address.
    pub link: LinkName,
    /// The address and its prefix length.
    pub network: IpNet,
    /// True if the device is administratively up.
    pub up: bool,
    /// True if the kernel adds a connected route for the address: neither `noprefixroute` nor a
    /// device in a VRF.
    pub prefix_route: bool,
}

/// The part of a host's routing that the daemon observes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRouting {
    /// Routes of the main table, of any metric.
    pub routes: BTreeSet<HostRoute>,
    /// Addresses of any scope except host.
    pub addresses: BTreeSet<HostAddress>,
}

impl HostRouting {
    /// Returns true if a device has one of the routes or addresses.
    pub fn concerns(&self, link: LinkName) -> bool {
        self.routes.iter().any(|route| route.link == Some(link))
            || self.addresses.iter().any(|address| address.link == link)
    }
}

/// The addresses that this node must reach, or be reached at, without the overlay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vital {
    /// Addresses of the lease store.
    pub store: BTreeSet<IpAddr>,
    /// This node's own addresses, at which peers reach it.
    pub own: BTreeSet<IpAddr>,
}

impl Vital {
    /// Returns the vital addresses of a node with this underlay, whose store has these addresses.
    pub fn of(store: BTreeSet<IpAddr>, underlay: &Underlay) -> Self {
        Self { store, own: underlay.public_addresses.into_iter().collect() }
    }
}
