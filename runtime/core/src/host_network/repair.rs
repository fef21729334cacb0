//! Repairs of the host's own network: what an earlier run may have damaged.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Claims, HostAddress, HostNetwork, HostRouting, Vital};
use crate::address::{Family, LinkName};
use crate::object::Route;

/// Returns those of Heddle's routes from a previous run that take packets from the store's
/// addresses, or from connected networks inside that run's overlay networks (`former`).
///
/// A connected network that contains the node's previous subnet (`own`) was set aside for the
/// overlay and is not counted.
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

/// Returns the addresses whose connected routes an earlier version of Heddle took from the host:
/// the device is up, the kernel adds connected routes for it, no routing table has the route, and
/// no other route replaces it.
///
/// `routed` lists the connected networks of all routing tables, by device. Hosts that keep
/// connected routes in other tables for policy routing are therefore not affected. Neither are
/// hosts with another program's route to the network, or with routes to parts of it through the
/// same device.
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
    // If several devices are on one network, the first has its route.
    let missing = routing.addresses.iter().filter(missing);
    missing.filter(|address| networks.insert(address.network.trunc())).cloned().collect()
}
