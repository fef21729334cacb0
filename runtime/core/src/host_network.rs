//! The host's own network, and what the overlay must leave to it.
//!
//! A host has networks beside the overlay: connected networks, static routes, the path to the lease store, the
//! addresses at which other nodes are reached. An overlay route that is as long as one of these routes, or longer,
//! takes their packets away. Such a route is a [`Conflict`] and is not programmed; the host's own route wins.
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
//! A connected network or route that contains the whole overlay network, or all that `SubnetMin` and `SubnetMax` leave of it,
//! is no conflict: whoever puts these into a larger network sets that range aside for the overlay. A route of another program
//! to exactly `destination` is drift, or what flannel left, and is replaced (see [`crate::diff`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::{Family, LinkName};
use crate::diff::Scope;
use crate::object::{Address, Metric, Object, ObjectKey, Route};

/// A route of the main table that is not Heddle's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostRoute {
    /// The packets that it is for.
    pub destination: IpNet,
    /// The device that they leave through: that of the first next hop. None for blackhole and the like.
    pub link: Option<LinkName>,
    /// True if the destination is on the link itself: the kernel's route for an address of the link.
    pub connected: bool,
    /// True if it is the way of some packets only: those from a source or with a type of service.
    pub partial: bool,
}

/// An address of a device that is not Heddle's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostAddress {
    /// The device.
    pub link: LinkName,
    /// The address and its prefix length.
    pub network: IpNet,
    /// True if the device is administratively up.
    pub up: bool,
    /// True if the kernel makes a connected route for the address: neither `noprefixroute` nor a device in a VRF.
    pub prefix_route: bool,
}

/// The part of a host's routing that the daemon observes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRouting {
    /// Routes of the main table, whatever their metric.
    pub routes: BTreeSet<HostRoute>,
    /// Addresses, whatever their scope but the host's.
    pub addresses: BTreeSet<HostAddress>,
}

impl HostRouting {
    /// Returns true if a device has one of the routes or addresses.
    pub fn concerns(&self, link: LinkName) -> bool {
        self.routes.iter().any(|route| route.link == Some(link))
            || self.addresses.iter().any(|address| address.link == link)
    }
}

/// The addresses that this node needs beside the overlay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vital {
    /// Of the lease store.
    pub store: BTreeSet<IpAddr>,
    /// This node's own, at which peers reach it.
    pub own: BTreeSet<IpAddr>,
}

/// Conflict of an overlay destination with the host's own network or with a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// It is part of a connected network.
    #[error("{destination} overlaps {network}, which is connected to {link}")]
    Connected {
        /// The overlay's destination.
        destination: IpNet,
        /// The connected network.
        network: IpNet,
        /// The device that it is on.
        link: LinkName,
    },
    /// It is part of a network that the host has a route for.
    #[error("{destination} is inside {network}, which this host routes {}", through(link.as_ref()))]
    Routed {
        /// The overlay's destination.
        destination: IpNet,
        /// The destination of the host's route.
        network: IpNet,
        /// The device of the host's route.
        link: Option<LinkName>,
    },
    /// It contains an address of the lease store.
    #[error("{destination} contains {address}, an address of the lease store")]
    Store {
        /// The overlay's destination.
        destination: IpNet,
        /// The store's address.
        address: IpAddr,
    },
    /// It contains this node's public address.
    #[error("{destination} contains {address}, this node's public address")]
    OwnAddress {
        /// The overlay's destination.
        destination: IpNet,
        /// The address.
        address: IpAddr,
    },
    /// It contains the address at which a peer is reached.
    #[error("{destination} contains {address}, the public address of {owner}")]
    PeerAddress {
        /// The overlay's destination.
        destination: IpNet,
        /// The peer's address.
        address: IpAddr,
        /// The peer.
        owner: String,
    },
    /// Its node's public address is inside the subnet of a peer that was there first.
    #[error("its public address {address} is inside {subnet}, the subnet of {owner}")]
    InsidePeer {
        /// The address.
        address: IpAddr,
        /// The peer's subnet.
        subnet: IpNet,
        /// The peer.
        owner: String,
    },
}

impl Conflict {
    /// A word for metrics: one of [`KINDS`](Self::KINDS).
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Connected { .. } => "connected",
            Self::Routed { .. } => "route",
            Self::Store { .. } => "store",
            Self::OwnAddress { .. } => "own-address",
            Self::PeerAddress { .. } | Self::InsidePeer { .. } => "peer-address",
        }
    }

    /// The host's network that the destination overlaps. None for an address.
    fn network(&self) -> Option<IpNet> {
        match self {
            Self::Connected { network, .. } | Self::Routed { network, .. } => Some(*network),
            Self::Store { .. }
            | Self::OwnAddress { .. }
            | Self::PeerAddress { .. }
            | Self::InsidePeer { .. } => None,
        }
    }

    /// Every word that [`kind`](Self::kind) returns.
    pub const KINDS: [&str; 5] = ["connected", "route", "store", "own-address", "peer-address"];
}

fn through(link: Option<&LinkName>) -> String {
    link.map_or_else(|| "elsewhere".to_owned(), |link| format!("through {link}"))
}

/// The destinations that plans may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// The overlay's networks.
    pub overlay: Vec<IpNet>,
    /// Networks beyond them that the plugin is granted.
    pub granted: Vec<IpNet>,
    /// The parts of the overlay's networks that the operator keeps subnets to: the first and the last address.
    pub reserved: Vec<(IpAddr, IpAddr)>,
    /// This node's own subnets. Networks inside them are containers'.
    pub own: Vec<IpNet>,
}

impl Claims {
    /// Returns the claims of a scope.
    pub fn of(scope: &Scope) -> Self {
        Self {
            overlay: scope.networks.clone(),
            granted: scope.granted.clone(),
            reserved: scope.reserved.clone(),
            own: scope.own.clone(),
        }
    }

    /// Returns true if a network of the host's can be in the way.
    fn meet(&self, network: IpNet) -> bool {
        meet(&self.overlay, &self.granted, &self.own, network)
    }

    /// Keeps those of the addresses that a destination of the overlay can contain.
    fn retain(&self, addresses: &mut BTreeSet<IpAddr>) {
        let claimed = self.overlay.iter().chain(&self.granted);
        addresses.retain(|address| claimed.clone().any(|claimed| claimed.contains(address)));
    }
}

/// The largest number of networks that [`HostNetwork::warnings`] names.
const WARNINGS: usize = 20;

/// Answers which destinations belong to the host. Built anew whenever the host's routing changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNetwork {
    /// The overlay's networks.
    overlay: Vec<IpNet>,
    reserved: Vec<(IpAddr, IpAddr)>,
    own_subnets: Vec<IpNet>,
    /// By destination. Of several for one destination, a connected one.
    routes: BTreeMap<IpNet, Leads>,
    /// The prefix lengths among them.
    lengths: BTreeSet<(Family, u8)>,
    vital: Vital,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Leads {
    connected: bool,
    link: Option<LinkName>,
    /// True if all packets to the destination go this way. A device that is down has addresses without routes.
    present: bool,
}

impl HostNetwork {
    /// Takes what was observed. Of this, only what can be in the way of the claims is kept.
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
            // A default route through a point-to-point link is no network of its own.
            let connected = route.connected && route.destination.prefix_len() > 0;
            let (link, present) = (route.link, !route.partial);
            network.add(route.destination, Leads { connected, link, present });
        }
        // Also of a device that is down: what is programmed meanwhile would be in the way when it is up again.
        for address in routing.addresses.iter().filter(|address| address.prefix_route) {
            let connected = address.network.trunc();
            // A single address is the kernel's local table's business, which comes before the main table.
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

    /// The addresses that the node needs, as far as a destination of the overlay can contain them.
    pub fn vital(&self) -> &Vital {
        &self.vital
    }

    /// Returns why the host keeps a destination to itself; none if the overlay may have it.
    pub fn conflict(&self, destination: IpNet) -> Option<Conflict> {
        self.routed(destination)
            .next()
            .or_else(|| self.own_address(destination))
            .or_else(|| self.store(destination))
    }

    /// The conflicts with networks that the host has routes for, the longest first.
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

    /// The conflict with an address of the store that is not one of this host's containers.
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

    /// Returns why a route of a whole overlay network is left out: as [`conflict`](Self::conflict) says, or because another
    /// program has a route to exactly this network. The routes to the peers' subnets do without it.
    pub fn conflict_of_whole(&self, destination: IpNet) -> Option<Conflict> {
        let same = || {
            let Leads { link, present, .. } = self.routes.get(&destination)?;
            let (network, link) = (destination, *link);
            present.then_some(Conflict::Routed { destination, network, link })
        };
        self.conflict(destination).or_else(same)
    }

    /// Returns true if an overlay route to `destination` would take packets for `address` away from the host's own
    /// route, or from the one that it may get.
    pub fn loses(&self, address: IpAddr, destination: IpNet) -> bool {
        destination.contains(&address)
            && self.longest(address).is_none_or(|length| length <= destination.prefix_len())
    }

    /// The overlay's networks, each with the networks of local devices that overlap it.
    ///
    /// For people: a sentence each, without a full stop.
    pub fn warnings(&self) -> Vec<String> {
        let named = self.overlapping().take(WARNINGS);
        let mut warnings: Vec<_> =
            named.filter_map(|(network, link)| self.warning(network, link)).collect();
        let more = self.overlapping().skip(WARNINGS).count();
        if more > 0 {
            warnings.push(format!("{more} more networks of this host overlap the overlay"));
        }
        warnings
    }

    /// Returns what the overlap with a connected network means: a sentence without a full stop.
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

    /// The networks of local devices that overlap the overlay, with the device.
    pub fn overlapping(&self) -> impl Iterator<Item = (IpNet, LinkName)> {
        let connected = |(network, leads): (&IpNet, &Leads)| match leads {
            Leads { connected: true, link: Some(link), .. } => Some((*network, *link)),
            Leads { .. } => None,
        };
        self.routes.iter().filter_map(connected)
    }

    /// The networks inside the overlay that the host has other routes for, with the device. Leases inside them are not
    /// programmed.
    pub fn routed_inside(&self) -> impl Iterator<Item = (IpNet, Option<LinkName>)> {
        let inside = self.routes.iter().filter(|(network, leads)| {
            let is_reserved = self.ranges_inside(**network).next().is_some();
            !leads.connected && self.is_inside(**network) && !is_reserved
        });
        inside.map(|(network, leads)| (*network, leads.link))
    }

    /// The parts of the overlay that no node should choose for itself: what the host has routes for, and the addresses
    /// that it needs.
    pub fn occupied(&self) -> impl Iterator<Item = IpNet> {
        let routes = self.routes.keys().copied().filter(|network| {
            // As in `routed`: what contains the whole overlay, or all of its subnets, has set it aside.
            !self.overlay.iter().any(|overlay| network.contains(overlay) && network != overlay)
                && self.ranges_inside(*network).next().is_none()
        });
        let connected =
            |network: &IpNet| self.routes[network].connected || self.is_inside(*network);
        let routes = routes.filter(connected);
        routes.chain(self.vital.store.iter().chain(&self.vital.own).copied().map(IpNet::from))
    }

    /// Returns why this node cannot have a subnet that it already holds: it overlaps the network of `underlay`, is part of
    /// another network that the host has a route for, or contains an address that the node needs.
    ///
    /// A bridge for containers, which is connected as well and has no more than the subnet, is no reason.
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

    /// The routes that contain a destination, the longest first.
    fn containing(&self, destination: IpNet) -> impl Iterator<Item = (IpNet, &Leads)> {
        let family = Family::of_network(destination);
        let lengths = self.lengths.range((family, 0)..=(family, destination.prefix_len()));
        lengths.rev().filter_map(move |(_, length)| {
            let network = IpNet::new(destination.addr(), *length).ok()?.trunc();
            Some((network, self.routes.get(&network)?))
        })
    }

    /// The length of the host's own route to an address.
    pub(crate) fn longest(&self, address: IpAddr) -> Option<u8> {
        let mut present = self.containing(IpNet::from(address)).filter(|(_, leads)| leads.present);
        Some(present.next()?.0.prefix_len())
    }

    /// Returns true if the operator has set the destination aside in a larger network: the network contains a whole overlay
    /// network, or the whole range that subnets are kept to, and more.
    fn is_set_aside(&self, network: IpNet, destination: IpNet) -> bool {
        let mut overlay = self.overlay.iter().filter(|overlay| overlay.contains(&destination));
        let whole = overlay.any(|overlay| network.contains(overlay) && network != *overlay);
        let is_within = |(min, max): &(IpAddr, IpAddr)| {
            *min <= destination.network() && destination.broadcast() <= *max
        };
        whole || self.ranges_inside(network).any(is_within)
    }

    /// The reserved ranges that a network contains without being one itself.
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

/// The addresses of a sorted set that are inside a network.
pub(crate) fn addresses_in(
    addresses: &BTreeSet<IpAddr>,
    network: IpNet,
) -> impl Iterator<Item = IpAddr> {
    addresses.range(network.network()..=network.broadcast()).copied()
}

/// Returns true if a network has addresses in common with the overlay's networks or the granted ones. Networks inside `own`
/// are containers'.
pub(crate) fn meet(overlay: &[IpNet], granted: &[IpNet], own: &[IpNet], network: IpNet) -> bool {
    !own.iter().any(|own| own.contains(&network))
        && overlay.iter().chain(granted).any(|claimed| intersect(*claimed, network))
}

/// Returns true if two networks have an address in common.
fn intersect(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

/// Decides which planned objects are withheld from the kernel.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    host: HostNetwork,
    /// Destinations that are withheld for the sake of peers, which the host's own network does not show.
    others: BTreeMap<IpNet, Conflict>,
}

impl Guard {
    /// Takes the host's own network as it is now. Nothing inside the subnets of the node itself is withheld.
    pub fn set_host(&mut self, host: HostNetwork) {
        self.host = host;
    }

    /// The host's own network.
    pub fn host(&self) -> &HostNetwork {
        &self.host
    }

    /// Withholds these destinations as well, in place of those of the call before.
    pub fn set_others(&mut self, others: BTreeMap<IpNet, Conflict>) {
        self.others = others;
    }

    /// Returns the objects that may be in the kernel.
    pub fn permitted<'a>(
        &self,
        mut desired: BTreeMap<ObjectKey, &'a Object>,
    ) -> BTreeMap<ObjectKey, &'a Object> {
        desired.retain(|_, object| self.withholds(object).is_none());
        desired
    }

    /// Returns why an object is withheld; none if it may be in the kernel.
    pub fn withholds(&self, object: &Object) -> Option<Conflict> {
        let destination = match object {
            // What comes last takes nothing from any other route to the same destination.
            Object::Route(route) if route.metric == Metric::Default => route.destination,
            // The kernel makes a connected route for it, but not for a single address.
            Object::Address(Address { network, .. })
                if network.prefix_len() < Family::of_network(*network).bits() =>
            {
                network.trunc()
            }
            _ => return None,
        };
        if self.host.own_subnets.iter().any(|own| own.contains(&destination)) {
            return None;
        }
        self.others.get(&destination).cloned().or_else(|| self.host.conflict(destination))
    }
}

/// Returns those of Heddle's routes of an earlier run that take packets from the store's addresses, or from connected
/// networks inside the networks of then (`former`).
///
/// A connected network that contains the node's subnet of then (`own`) was set aside for the overlay and is not counted.
pub fn harmful_leftovers(
    routes: &[Route],
    routing: &HostRouting,
    store: &BTreeSet<IpAddr>,
    former: &[IpNet],
    own: &[IpNet],
) -> Vec<Route> {
    let overlay = routes.iter().map(|route| route.destination).collect();
    let claims = Claims { overlay, own: own.to_vec(), ..Claims::default() };
    let host = HostNetwork::new(&claims, routing, Vital::default());
    let connected: Vec<_> = host
        .overlapping()
        .map(|(network, _)| network)
        .filter(|network| former.iter().any(|it| it.contains(network) && it != network))
        .filter(|network| !own.iter().any(|own| network.contains(own)))
        .collect();
    let is_harmful = |route: &&Route| {
        let to = route.destination;
        let takes_store = store.iter().any(|address| host.loses(*address, to));
        takes_store || connected.iter().any(|network| network.contains(&to))
    };
    routes.iter().filter(is_harmful).copied().collect()
}

/// Returns the connected routes that an earlier version of Heddle took from the host: those of addresses of devices that are
/// up, if the kernel makes routes for them, and neither a routing table has one nor somebody has routes in their place.
///
/// `routed` lists the connected networks by device of every routing table. Hosts that keep connected routes in other tables,
/// for policy routing, are therefore not concerned, and neither are those with another program's route to the network, or
/// with routes to parts of it through the same device.
pub fn missing_connected(
    routing: &HostRouting,
    routed: &BTreeSet<(IpNet, LinkName)>,
    concerns: impl Fn(IpNet) -> bool,
) -> Vec<HostAddress> {
    let replaced = |network: IpNet, link: LinkName| {
        routing.routes.iter().any(|route| {
            let part = route.link == Some(link) && network.contains(&route.destination);
            route.destination == network || part
        })
    };
    let missing = |address: &&HostAddress| {
        let network = address.network.trunc();
        address.up
            && address.prefix_route
            && network.prefix_len() < Family::of_network(network).bits()
            && concerns(network)
            && !routed.contains(&(network, address.link))
            && !replaced(network, address.link)
    };
    let mut networks = BTreeSet::new();
    // Of several devices on one network, the first has its route.
    let missing = routing.addresses.iter().filter(missing);
    missing.filter(|address| networks.insert(address.network.trunc())).cloned().collect()
}

#[cfg(test)]
mod tests;
