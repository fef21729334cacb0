//! The host's own network, which the overlay must not take packets from.
//!
//! A host has networks besides the overlay: connected networks, static routes, the path to the
//! lease store, the addresses at which other nodes are reached. An overlay route that is at least
//! as long as one of these routes takes their packets away. Such a route is a [`Conflict`] and is
//! not programmed; the host's own route wins.
//!
//! The rules, for an overlay route to `destination`:
//!
//! | the host has | conflict if |
//! | --- | --- |
//! | a connected network | it contains `destination` and does not contain the whole overlay network |
//! | another route inside the overlay network | it contains `destination` and is shorter |
//! | an address of the lease store | `destination` contains it, and the host's own route to it is not longer |
//! | a public address of this node | `destination` contains it |
//!
//! A connected network or route that contains the whole overlay network, or the whole range between
//! `SubnetMin` and `SubnetMax`, is no conflict: an operator who places the overlay inside a larger
//! network has set that range aside. A route of another program to exactly `destination` is drift,
//! or a leftover of flannel, and is replaced (see [`crate::diff`]).

mod claims;
mod conflict;
mod guard;
mod repair;
mod routing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::{Family, LinkName};
use crate::scope::intersect;

pub use claims::Claims;
pub use conflict::Conflict;
pub use guard::Guard;
pub use repair::{harmful_leftovers, missing_connected};
pub use routing::{HostAddress, HostRoute, HostRouting, Vital};

/// Number of networks that [`HostNetwork::warnings`] names at most.
const WARNINGS: usize = 20;

/// Index of the host's own network, which answers which destinations belong to the host. Rebuilt
/// whenever the host's routing changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNetwork {
    /// The overlay's networks.
    overlay: Vec<IpNet>,
    reserved: Vec<(IpAddr, IpAddr)>,
    own_subnets: Vec<IpNet>,
    /// Routes by destination. If several have the same destination, a connected one.
    routes: BTreeMap<IpNet, Leads>,
    /// The prefix lengths of the routes.
    lengths: BTreeSet<(Family, u8)>,
    vital: Vital,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Leads {
    connected: bool,
    link: Option<LinkName>,
    /// True if all packets to the destination take this route. False for the address of a device
    /// that is down, which has no route yet.
    present: bool,
}

impl HostNetwork {
    /// Builds the index from an observation. Keeps only what can be in the way of the claims.
    pub fn new(claims: &Claims, routing: &HostRouting, mut vital: Vital) -> Self {
        claims.retain(&mut vital.store);
        claims.retain(&mut vital.own);
        let mut network = Self {
            overlay: claims.overlay.clone(),
            reserved: claims.reserved.clone(),
            own_subnets: claims.own.clone(),
            vital,
            ..Self::default()
        };
        for route in routing.routes.iter().filter(|route| claims.meet(route.destination)) {
            // A default route through a point-to-point link is not a connected network.
            let connected = route.connected && route.destination.prefix_len() > 0;
            let (link, present) = (route.link, !route.partial);
            network.add(route.destination, Leads { connected, link, present });
        }
        // Devices that are down count too: a route programmed meanwhile would be in the way once
        // the device is up again.
        for address in routing.addresses.iter().filter(|address| address.prefix_route) {
            let connected = address.network.trunc();
            // Single addresses are in the kernel's local table, which precedes the main table.
            let is_network = connected.prefix_len() < Family::of_network(connected).bits();
            if is_network && claims.meet(connected) {
                let link = Some(address.link);
                network.add(connected, Leads { connected: true, link, present: false });
            }
        }
        network
    }

    fn add(&mut self, destination: IpNet, found: Leads) {
        self.lengths.insert((Family::of_network(destination), destination.prefix_len()));
        let leads = self.routes.entry(destination).or_insert_with(|| found.clone());
        let present = leads.present || found.present;
        if found.connected && !leads.connected {
            *leads = found;
        }
        leads.present = present;
    }

    /// Returns the vital addresses that an overlay destination can contain.
    pub fn vital(&self) -> &Vital {
        &self.vital
    }

    /// Returns why a destination belongs to the host; None if the overlay may have it.
    pub fn conflict(&self, destination: IpNet) -> Option<Conflict> {
        self.routed(destination)
            .next()
            .or_else(|| self.own_address(destination))
            .or_else(|| self.store(destination))
    }

    /// Returns the conflicts with networks that the host has routes for, longest prefix first.
    fn routed(&self, destination: IpNet) -> impl Iterator<Item = Conflict> {
        self.containing(destination).filter_map(move |(network, leads)| match leads {
            _ if self.is_set_aside(network, destination) => None,
            Leads { connected: true, link: Some(link), .. } => {
                Some(Conflict::Connected { destination, network, link: *link })
            }
            Leads { link, .. } if network != destination && self.is_inside(network) => {
                Some(Conflict::Routed { destination, network, link: *link })
            }
            Leads { .. } => None,
        })
    }

    fn own_address(&self, destination: IpNet) -> Option<Conflict> {
        let address = addresses_in(&self.vital.own, destination).next()?;
        Some(Conflict::OwnAddress { destination, address })
    }

    fn store(&self, destination: IpNet) -> Option<Conflict> {
        let mut inside = addresses_in(&self.vital.store, destination);
        let address = inside.find(|address| self.loses(*address, destination))?;
        Some(Conflict::Store { destination, address })
    }

    /// Returns the conflict with an address of the store, unless the store is one of this host's
    /// containers.
    fn store_beside(&self, subnet: IpNet) -> Option<Conflict> {
        let is_container = |address: &IpAddr| {
            let mut routes = self.containing(IpNet::from(*address));
            routes.any(|(network, leads)| leads.connected && subnet.contains(&network))
        };
        let mut inside = addresses_in(&self.vital.store, subnet);
        let address =
            inside.find(|address| !is_container(address) && self.loses(*address, subnet))?;
        Some(Conflict::Store { destination: subnet, address })
    }

    /// Returns why a route to a whole overlay network is not programmed: a
    /// [`conflict`](Self::conflict), or another program's route to exactly this network. The routes
    /// to the peers' subnets work without it.
    pub fn conflict_of_whole(&self, destination: IpNet) -> Option<Conflict> {
        let same = || {
            let Leads { link, present, .. } = self.routes.get(&destination)?;
            let (network, link) = (destination, *link);
            present.then_some(Conflict::Routed { destination, network, link })
        };
        self.conflict(destination).or_else(same)
    }

    /// Returns true if an overlay route to `destination` would take packets for `address` away from
    /// the host's own route, present or future.
    pub fn loses(&self, address: IpAddr, destination: IpNet) -> bool {
        destination.contains(&address)
            && self.longest(address).is_none_or(|length| length <= destination.prefix_len())
    }

    /// Returns warnings about the overlay's networks that overlap networks of local devices.
    ///
    /// Each warning is a sentence for people, without a full stop.
    pub fn warnings(&self) -> Vec<String> {
        let named = self.overlapping().take(WARNINGS);
        let mut warnings: Vec<_> =
            named.filter_map(|(network, link)| self.warning(network, link)).collect();
        let more = self.overlapping().skip(WARNINGS).count();
        if more > 0 {
            warnings
                .push(format!("further networks of this host that overlap the overlay: {more}"));
        }
        warnings
    }

    /// Returns the consequences of the overlap with a connected network, as a sentence without a
    /// full stop.
    pub fn warning(&self, network: IpNet, link: LinkName) -> Option<String> {
        let overlay = self.overlay.iter().find(|overlay| intersect(**overlay, network))?;
        if network.contains(overlay) && network != *overlay {
            return Some(format!(
                "{overlay} is part of {network}, which is connected to {link}: hosts of {link} with addresses in \
                 {overlay} cannot be reached"
            ));
        }
        if let Some((min, max)) = self.ranges_inside(network).next() {
            return Some(format!(
                "{min} to {max}, the range of SubnetMin and SubnetMax, is part of {network}, which is connected to \
                 {link}: hosts of {link} with addresses in that range cannot be reached"
            ));
        }
        Some(format!(
            "{overlay} overlaps {network}, which is connected to {link}: leases inside {network} are not \
             programmed; exclude it with SubnetMin and SubnetMax, or choose another Network"
        ))
    }

    /// Returns the networks of local devices that overlap the overlay, each with its device.
    pub fn overlapping(&self) -> impl Iterator<Item = (IpNet, LinkName)> {
        let connected = |(network, leads): (&IpNet, &Leads)| match leads {
            Leads { connected: true, link: Some(link), .. } => Some((*network, *link)),
            Leads { .. } => None,
        };
        self.routes.iter().filter_map(connected)
    }

    /// Returns the networks inside the overlay that the host has other routes for, each with its
    /// device. Leases inside them are not programmed.
    pub fn routed_inside(&self) -> impl Iterator<Item = (IpNet, Option<LinkName>)> {
        let inside = self.routes.iter().filter(|(network, leads)| {
            let is_reserved = self.ranges_inside(**network).next().is_some();
            !leads.connected && self.is_inside(**network) && !is_reserved
        });
        inside.map(|(network, leads)| (*network, leads.link))
    }

    /// Returns the parts of the overlay that no node should choose as its subnet: destinations of
    /// the host's routes, and the vital addresses.
    pub fn occupied(&self) -> impl Iterator<Item = IpNet> {
        let routes = self.routes.keys().copied().filter(|network| {
            // As in `routed`: a network that contains the whole overlay, or the whole range of its
            // subnets, has set that aside.
            !self.overlay.iter().any(|overlay| network.contains(overlay) && network != overlay)
                && self.ranges_inside(*network).next().is_none()
        });
        let connected =
            |network: &IpNet| self.routes[network].connected || self.is_inside(*network);
        let routes = routes.filter(connected);
        routes.chain(self.vital.store.iter().chain(&self.vital.own).copied().map(IpNet::from))
    }

    /// Returns why this node cannot keep a subnet that it already holds: the subnet overlaps the
    /// network of `underlay`, is part of another network that the host has a route for, or contains
    /// a vital address.
    ///
    /// A bridge for containers is no conflict: its connected network is at most as large as the
    /// subnet.
    pub fn conflict_of_own(&self, subnet: IpNet, underlay: LinkName) -> Option<Conflict> {
        let connected = self.overlapping().find(|(network, link)| {
            *link == underlay && !self.is_set_aside(*network, subnet) && intersect(*network, subnet)
        });
        let connected = connected.map(|(network, link)| Conflict::Connected {
            destination: subnet,
            network,
            link,
        });
        connected
            .or_else(|| self.routed(subnet).find(|conflict| conflict.network() != Some(subnet)))
            .or_else(|| self.own_address(subnet))
            .or_else(|| self.store_beside(subnet))
    }

    /// Returns the routes that contain a destination, longest prefix first.
    fn containing(&self, destination: IpNet) -> impl Iterator<Item = (IpNet, &Leads)> {
        let family = Family::of_network(destination);
        let lengths = self.lengths.range((family, 0)..=(family, destination.prefix_len()));
        lengths.rev().filter_map(move |(_, length)| {
            let network = IpNet::new(destination.addr(), *length).ok()?.trunc();
            Some((network, self.routes.get(&network)?))
        })
    }

    /// Returns the prefix length of the host's own route to an address.
    pub(crate) fn longest(&self, address: IpAddr) -> Option<u8> {
        let mut present = self.containing(IpNet::from(address)).filter(|(_, leads)| leads.present);
        Some(present.next()?.0.prefix_len())
    }

    /// Returns true if the operator has set the destination aside in a larger network: the network
    /// contains more than a whole overlay network, or more than the whole range that subnets are
    /// restricted to.
    fn is_set_aside(&self, network: IpNet, destination: IpNet) -> bool {
        let mut overlay = self.overlay.iter().filter(|overlay| overlay.contains(&destination));
        let whole = overlay.any(|overlay| network.contains(overlay) && network != *overlay);
        let is_within = |(min, max): &(IpAddr, IpAddr)| {
            *min <= destination.network() && destination.broadcast() <= *max
        };
        whole || self.ranges_inside(network).any(is_within)
    }

    /// Returns the reserved ranges that a network contains, except ranges equal to it.
    fn ranges_inside(&self, network: IpNet) -> impl Iterator<Item = &(IpAddr, IpAddr)> {
        self.reserved.iter().filter(move |(min, max)| {
            let more = network.network() < *min || *max < network.broadcast();
            network.contains(min) && network.contains(max) && more
        })
    }

    fn is_inside(&self, network: IpNet) -> bool {
        self.overlay.iter().any(|overlay| overlay.contains(&network) && network != *overlay)
    }
}

/// Returns the addresses of a sorted set that are inside a network.
pub(crate) fn addresses_in(
    addresses: &BTreeSet<IpAddr>,
    network: IpNet,
) -> impl Iterator<Item = IpAddr> {
    addresses.range(network.network()..=network.broadcast()).copied()
}
