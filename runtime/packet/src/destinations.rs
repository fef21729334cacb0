//! Checks the destinations of packets from peers.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::headers::Inner;
use crate::table::Table;

/// The networks that peers may reach through this node, besides the subnets of other peers.
///
/// Without this check a node would forward anything that a peer sends: to its own network, to the
/// internet, and to programs that listen on its own addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destinations {
    networks: Vec<IpNet>,
}

impl Destinations {
    /// Allows the node's own subnets, and the networks that the operator adds.
    pub fn new(own: impl IntoIterator<Item = IpNet>, allowed: &[IpNet]) -> Self {
        Self { networks: own.into_iter().chain(allowed.iter().copied()).collect() }
    }

    /// Returns true if a packet from a peer may be handed to the kernel: its destination is in this
    /// node's subnets, in another peer's, or in an allowed network.
    ///
    /// Refuses addresses inside `Network` that nobody has leased: if `Network` overlaps a network
    /// of the host, they belong to somebody else. Also refuses packets with a source route, because
    /// their destination is not the final one.
    pub fn accept(&self, table: &Table, inner: &Inner) -> bool {
        !inner.source_routed && (self.has(inner.destination) || table.covers(inner.destination))
    }

    fn has(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::udp;
    use crate::table::Peer;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn table() -> Table {
        let subnets = networks(&["10.244.1.0/24", "fc00:0:0:1::/64"]);
        let other = Peer { endpoints: vec![], subnets: networks(&["10.244.3.0/24"]) };
        let sender = Peer { endpoints: vec![[192, 0, 2, 1].into()], subnets };
        // The plugin sends nothing to the other peer.
        Table::new(vec![sender, other]).with_answers(&[Some(0), Some(0), None]).unwrap()
    }

    fn inner(destination: &str) -> Inner {
        let destination: IpAddr = destination.parse().unwrap();
        Inner { destination, ..Inner::parse(&udp(destination.is_ipv6(), b"abc")).unwrap() }
    }

    fn own() -> Vec<IpNet> {
        // With host bits, like an interface address.
        networks(&["10.244.2.1/24", "fc00:0:0:2::/64"])
    }

    #[test]
    fn destinations_in_leased_subnets_are_accepted() {
        let destinations = Destinations::new(own(), &[]);
        for address in ["10.244.2.0", "10.244.2.9", "10.244.2.255", "fc00:0:0:2::9", "10.244.1.9"] {
            assert!(destinations.accept(&table(), &inner(address)), "{address}");
        }
        // The peer that the plugin chooses makes no difference.
        assert!(destinations.accept(&table(), &inner("10.244.3.9")));
    }

    #[test]
    fn destinations_outside_leased_subnets_are_refused() {
        let destinations = Destinations::new(own(), &[]);
        let outside = [
            // In the overlay's network, but in nobody's subnet.
            "10.244.4.9",
            "fc00:0:0:4::9",
            // The node, its network and the internet.
            "192.0.2.2",
            "192.0.2.1",
            "8.8.8.8",
            "2001:db8::1",
            // Not the address of any host.
            "127.0.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:10.244.2.9",
        ];
        for address in outside {
            assert!(!destinations.accept(&table(), &inner(address)), "{address}");
        }
        assert!(!Destinations::default().accept(&Table::default(), &inner("10.244.2.9")));
    }

    #[test]
    fn allowed_destinations_are_accepted_too() {
        let destinations = Destinations::new(own(), &networks(&["192.0.2.0/24", "2001:db8::/32"]));
        for address in ["192.0.2.9", "2001:db8::9", "10.244.2.9"] {
            assert!(destinations.accept(&table(), &inner(address)), "{address}");
        }
        for address in ["192.0.3.1", "2001:db9::1", "10.244.4.9"] {
            assert!(!destinations.accept(&table(), &inner(address)), "{address}");
        }
    }

    #[test]
    fn source_routed_packets_are_refused() {
        let destinations = Destinations::new(own(), &networks(&["0.0.0.0/0"]));
        let inner = inner("10.244.2.9");
        assert!(destinations.accept(&table(), &inner));
        assert!(!destinations.accept(&table(), &Inner { source_routed: true, ..inner }));
    }
}
