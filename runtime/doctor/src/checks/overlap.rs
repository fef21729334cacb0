//! Checks that no part of the overlay's network is in use elsewhere.

use heddle_core::address::LinkName;
use heddle_core::host_network::HostNetwork;
use heddle_core::interface::Interface;
use heddle_core::lease::Lease;
use ipnet::IpNet;

use super::docker_bridge;
use crate::report::{Finding, Severity};

/// Expected routes inside the overlay's network, which are no overlap.
pub(crate) struct Apart<'a> {
    /// Planned devices.
    pub(crate) links: &'a [LinkName],
    /// Interface between the hosts.
    pub(crate) underlay: Option<LinkName>,
    /// Leases of the other nodes.
    pub(crate) peers: &'a [Lease],
}

impl Apart<'_> {
    /// Returns true if the route is one that host-gw programs for a peer, and leaves behind.
    fn is_way_to_peer(&self, destination: IpNet, link: Option<LinkName>) -> bool {
        let mut subnets = self.peers.iter().flat_map(|peer| peer.key.subnets());
        link == self.underlay && subnets.any(|subnet| subnet == destination)
    }
}

/// Reports each network that the host has routes for, with the same text as the daemon's own
/// warnings.
pub(crate) fn check(
    host: &HostNetwork,
    interfaces: &[Interface],
    apart: &Apart<'_>,
) -> Vec<Finding> {
    // `docker_bridge` checks Docker's bridge.
    let docker = interfaces.iter().find(|interface| docker_bridge::is_docker_s(interface));
    let is_known = |link: &LinkName| {
        apart.links.contains(link) || docker.is_some_and(|docker| docker.name == *link)
    };
    let connected = host.overlapping().filter(|(_, link)| !is_known(link));
    let connected = connected.filter_map(|(network, link)| {
        Some(finding(host.warning(network, link)?, format!("ip address show {link}")))
    });
    let routed = host.routed_inside().filter(|(network, link)| {
        !link.as_ref().is_some_and(is_known) && !apart.is_way_to_peer(*network, *link)
    });
    let routed = routed.map(|(network, link)| {
        let way = link.map(|link| format!(" through {link}")).unwrap_or_default();
        let problem = format!(
            "there is a route to {network}{way}, inside the overlay's network: leases inside {network} are not programmed; \
             exclude it with SubnetMin and SubnetMax, or choose another Network"
        );
        finding(problem, format!("ip route show root {network}"))
    });
    connected.chain(routed).collect()
}

fn finding(problem: String, command: String) -> Finding {
    Finding {
        check: "overlap",
        severity: Severity::Warning,
        problem,
        symptom: "This host cannot reach some containers, or some hosts of that network".to_owned(),
        remedy: "Set `Network`, or `SubnetMin` and `SubnetMax`, in the network config so that no node has a subnet there, or \
                 remove the address or route if nothing uses it. To inspect it:"
            .to_owned(),
        command: Some(command),
    }
}

#[cfg(test)]
mod tests {
    use heddle_core::host_network::{Claims, HostAddress, HostRoute, HostRouting, Vital};

    use super::super::samples::*;
    use super::*;

    fn route(destination: &str, device: &str, connected: bool) -> HostRoute {
        let (destination, link) = (net(destination), Some(name(device)));
        HostRoute { destination, link, connected, partial: false }
    }

    fn address(device: &str, network: &str) -> HostAddress {
        HostAddress { link: name(device), network: net(network), up: true, prefix_route: true }
    }

    fn problems(
        routes: &[HostRoute],
        addresses: &[HostAddress],
        interfaces: &[Interface],
    ) -> Vec<String> {
        let planned = [name("flannel.1")];
        let peers = [peer()];
        let apart = Apart { links: &planned, underlay: Some(name("eth0")), peers: &peers };
        let claims = Claims {
            overlay: vec![net("10.244.0.0/16")],
            own: vec![net("10.244.8.0/24")],
            ..Claims::default()
        };
        let routing = HostRouting {
            routes: routes.iter().cloned().collect(),
            addresses: addresses.iter().cloned().collect(),
        };
        let host = HostNetwork::new(&claims, &routing, Vital::default());
        let found = check(&host, interfaces, &apart);
        found.into_iter().map(|finding| finding.problem).collect()
    }

    #[test]
    fn expected_routes_are_no_overlap() {
        let docker =
            Interface { kind: "bridge".into(), ..interface("docker0", &["10.244.7.1/24"]) };
        let routes = [
            route("0.0.0.0/0", "eth0", false),
            route("10.0.0.0/8", "eth1", false),
            route("192.168.0.0/24", "eth0", true),
            // Left by flannel, and about to be taken over.
            route("10.244.9.0/24", "flannel.1", false),
            route("10.244.36.0/24", "eth0", false),
            route("10.244.8.0/24", "cni0", true),
            route("10.244.8.7/32", "veth7", true),
            route("10.244.7.0/24", "docker0", true),
        ];
        let addresses = [
            address("cni0", "10.244.8.1/24"),
            address("docker0", "10.244.7.1/24"),
            address("flannel.1", "10.244.8.0/32"),
        ];
        assert_eq!(problems(&routes, &addresses, &[docker]), [""; 0]);
    }

    #[test]
    fn network_in_overlay_is_reported_once_as_by_daemon() {
        let found = problems(
            &[route("10.244.16.0/20", "eth1", true), route("10.244.64.0/20", "tun0", false)],
            &[
                address("eth0", "10.244.130.4/17"),
                address("eth1", "10.244.16.9/20"),
                address("eth1", "10.244.16.10/20"),
            ],
            &[],
        );
        let overlaps = |network: &str, link: &str| {
            format!(
                "10.244.0.0/16 overlaps {network}, which is connected to {link}: leases inside {network} are not programmed; \
                 exclude it with SubnetMin and SubnetMax, or choose another Network"
            )
        };
        assert_eq!(
            found,
            [
                overlaps("10.244.16.0/20", "eth1"),
                overlaps("10.244.128.0/17", "eth0"),
                "there is a route to 10.244.64.0/20 through tun0, inside the overlay's network: leases inside \
                 10.244.64.0/20 are not programmed; exclude it with SubnetMin and SubnetMax, or choose another Network"
                    .to_owned(),
            ]
        );
    }
}
