//! Whether a part of the overlay's network is somewhere else already.

use std::collections::BTreeSet;

use heddle_core::address::LinkName;
use heddle_core::interface::Interface;
use heddle_core::lease::{Lease, LeaseKey};
use heddle_kernel::{ALIAS_PREFIX, HostLink, HostRoute, ROUTE_PROTOCOL};
use ipnet::IpNet;

use super::docker_bridge;
use crate::report::{Finding, Severity};

/// What of the overlay's network on this host is as it should be.
pub(crate) struct Own<'a> {
    /// This node's subnets, if it has any yet.
    pub(crate) subnets: Option<LeaseKey>,
    /// The planned devices.
    pub(crate) links: &'a [LinkName],
    /// What marks this daemon's devices.
    pub(crate) alias: &'a str,
    /// The interface between hosts.
    pub(crate) underlay: Option<LinkName>,
    /// The other nodes.
    pub(crate) peers: &'a [Lease],
}

impl Own<'_> {
    fn has(&self, destination: IpNet) -> bool {
        self.subnets.iter().flat_map(LeaseKey::subnets).any(|subnet| subnet.contains(&destination))
    }

    fn is_link(&self, name: LinkName, links: &[HostLink]) -> bool {
        let marked = |link: &HostLink| link.name == name && link.alias == self.alias;
        self.links.contains(&name) || links.iter().any(marked)
    }

    /// Whether a route is what host-gw makes, and leaves behind, for a peer.
    fn is_way_to_peer(&self, route: &HostRoute) -> bool {
        let mut subnets = self.peers.iter().flat_map(|peer| peer.key.subnets());
        route.link == self.underlay && subnets.any(|subnet| subnet == route.destination)
    }
}

/// A network that holds the overlay's is no fault: routes to subnets are longer, and go first.
pub(crate) fn check(
    networks: &[IpNet],
    routes: &[HostRoute],
    interfaces: &[Interface],
    links: &[HostLink],
    own: &Own<'_>,
) -> Vec<Finding> {
    let within =
        |address: IpNet| networks.iter().find(|network| network.contains(&address.trunc()));
    let mut findings = Vec::new();
    let mut named = BTreeSet::new();
    for interface in interfaces {
        // Docker's bridge has a check of its own.
        if own.is_link(interface.name, links) || docker_bridge::is_docker_s(interface) {
            named.insert(interface.name);
            continue;
        }
        for address in &interface.addresses {
            let single = IpNet::from(address.addr());
            if let Some(network) = within(single).filter(|_| !own.has(single)) {
                named.insert(interface.name);
                let what = format!("{} has the address {address}", interface.name);
                findings.push(finding(
                    &what,
                    *network,
                    format!("ip address show {}", interface.name),
                ));
            }
        }
    }
    for route in routes {
        let anothers = |name: LinkName| {
            let mut links = links.iter().filter(|link| link.name == name);
            links.any(|link| link.alias.starts_with(ALIAS_PREFIX) && link.alias != own.alias)
        };
        let ours = route.protocol == ROUTE_PROTOCOL && !route.link.is_some_and(anothers);
        let by_own_link = route.link.is_some_and(|name| own.is_link(name, links));
        // Where a device has an address in the overlay, its route is no news.
        let known = route.link.is_some_and(|name| named.contains(&name));
        let Some(network) = within(route.destination) else { continue };
        if ours || by_own_link || known || own.has(route.destination) || own.is_way_to_peer(route) {
            continue;
        }
        let way = route.link.map(|name| format!(" through {name}")).unwrap_or_default();
        let what = format!("there is a route to {}{way}", route.destination);
        findings.push(finding(
            &what,
            *network,
            format!("ip route get {}", route.destination.addr()),
        ));
    }
    findings
}

fn finding(what: &str, network: IpNet, command: String) -> Finding {
    Finding {
        check: "overlap",
        severity: Severity::Error,
        problem: format!("{what}, which is within the overlay's network {network}"),
        symptom: "Some containers are not reached from this host, or some hosts of that network are not".to_owned(),
        remedy: "Give the overlay a network that is used nowhere else (`Network`, `IPv6Network` in the network config), or \
                 remove the address or route if nothing needs it. To see more:"
            .to_owned(),
        command: Some(command),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;

    fn problems(routes: &[HostRoute], interfaces: &[Interface], links: &[HostLink]) -> Vec<String> {
        let planned = [name("flannel.1")];
        let peers = [peer()];
        let own = Own {
            subnets: subnets(),
            links: &planned,
            alias: ALIAS,
            underlay: Some(name("eth0")),
            peers: &peers,
        };
        let found = check(&[net("10.244.0.0/16")], routes, interfaces, links, &own);
        found.into_iter().map(|finding| finding.problem).collect()
    }

    #[test]
    fn what_belongs_there_is_no_overlap() {
        let ours = HostRoute { protocol: ROUTE_PROTOCOL, ..route("10.244.9.0/24", "eth0") };
        let bridge = Interface { kind: "bridge".into(), ..interface("cni0", &["10.244.8.1/24"]) };
        let docker =
            Interface { kind: "bridge".into(), ..interface("docker0", &["10.244.7.1/24"]) };
        let routes = [
            route("0.0.0.0/0", "eth0"),
            route("10.0.0.0/8", "eth1"),
            route("192.168.0.0/24", "eth0"),
            ours,
            // Left by flannel, and about to be taken over.
            route("10.244.9.0/24", "flannel.1"),
            route("10.244.36.0/24", "eth0"),
            route("10.244.8.0/24", "cni0"),
            route("10.244.8.7/32", "veth7"),
            route("10.244.7.0/24", "docker0"),
        ];
        let overlay = interface("flannel.1", &["10.244.8.0/32"]);
        assert_eq!(problems(&routes, &[bridge, docker, overlay], &[]), [""; 0]);
    }

    #[test]
    fn a_network_in_the_overlay_is_named_once() {
        let found = problems(
            &[route("10.244.16.0/20", "eth1"), route("10.244.0.0/16", "tun0")],
            &[interface("eth1", &["10.244.16.9/20"])],
            &[],
        );
        assert_eq!(
            found,
            [
                "eth1 has the address 10.244.16.9/20, which is within the overlay's network 10.244.0.0/16",
                "there is a route to 10.244.0.0/16 through tun0, which is within the overlay's network 10.244.0.0/16",
            ]
        );
    }

    #[test]
    fn the_underlay_s_own_network_is_an_overlap_as_well() {
        let found = problems(&[], &[interface("eth0", &["10.244.3.4/16"])], &[]);
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn another_heddle_s_network_is_not_ours() {
        let device = HostLink { alias: "heddle /other".into(), ..vxlan_link("flannel.2", 2, 8472) };
        let its = HostRoute { protocol: ROUTE_PROTOCOL, ..route("10.244.9.0/24", "flannel.2") };
        assert_eq!(problems(&[its], &[], &[device]).len(), 1);
    }
}
