//! A peer that consists of UDP sockets only.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use heddle_lab::{Families, Host, next_datagram};

use crate::{Cluster, Node, Overlay, Packet, SOON};

/// flannel's default for `Backend.Port` of the udp backend.
pub const UDP_PORT: u16 = 8285;

/// A host that is a peer like flannel's udp backend: one bare IP packet in each datagram, sent and
/// received one at a time. It has a lease and no daemon; the test decides what it does with
/// packets.
#[derive(Debug)]
pub struct PlainPeer {
    /// The host.
    pub host: Host,
    number: u8,
    sockets: Vec<UdpSocket>,
}

impl PlainPeer {
    /// Creates a peer with the subnets of this number, at least 200: nodes are assigned lower ones.
    pub fn join(cluster: &Cluster, name: &str, number: u8) -> Self {
        let peer = Self::without_lease(cluster, name, number);
        cluster.put_lease(&peer.lease_key(), &peer.lease_value());
        peer
    }

    /// Creates a peer that has no lease, so that no node knows it.
    pub fn without_lease(cluster: &Cluster, name: &str, number: u8) -> Self {
        assert!(number >= 200, "{number} may be a node's");
        let host = cluster.host(name);
        let bind =
            |address| host.namespace().udp_socket(SocketAddr::new(address, UDP_PORT)).unwrap();
        let sockets = host.addresses().map(bind).collect();
        Self { host, number, sockets }
    }

    fn families(&self) -> Families {
        match &self.sockets[..] {
            [_, _] => Families::Dual,
            [one] if one.local_addr().unwrap().is_ipv4() => Families::V4,
            _ => Families::V6,
        }
    }

    /// Returns the last part of the lease's key.
    pub fn lease_key(&self) -> String {
        let number = self.number;
        let v4 = format!("10.244.{number}.0-24");
        let v6 = format!("fd00:10:244:{number}::-64");
        match self.families() {
            Families::V4 => v4,
            Families::V6 => format!("0.0.0.0-0&{v6}"),
            Families::Dual => format!("{v4}&{v6}"),
        }
    }

    /// Returns the lease as flannel's udp backend writes it: without `BackendType`.
    pub fn lease_value(&self) -> String {
        let address = |overlay: Overlay| overlay.address_of(&self.host);
        let families = self.families();
        let v4 = if families.v4() { address(Overlay::V4) } else { Ipv4Addr::UNSPECIFIED.into() };
        let v6 = if families.v6() {
            format!(r#""{}""#, address(Overlay::V6))
        } else {
            "null".to_owned()
        };
        format!(r#"{{"PublicIP":"{v4}","PublicIPv6":{v6}}}"#)
    }

    /// Returns an address in the peer's subnet, for a container.
    pub fn address(&self, overlay: Overlay) -> IpAddr {
        let number = self.number;
        match overlay {
            Overlay::V4 => format!("10.244.{number}.2"),
            Overlay::V6 => format!("fd00:10:244:{number}::2"),
        }
        .parse()
        .unwrap()
    }

    fn socket(&self, overlay: Overlay) -> &UdpSocket {
        let wanted = |socket: &&UdpSocket| {
            socket.local_addr().unwrap().is_ipv4() == (overlay == Overlay::V4)
        };
        self.sockets.iter().find(wanted).expect("the lab has the family")
    }

    /// Sends one datagram to a node, over the underlay of this family.
    pub fn send(&self, to: &Node, overlay: Overlay, payload: &[u8]) {
        let target = SocketAddr::new(overlay.address_of(&to.host), UDP_PORT);
        let sent = self.socket(overlay).send_to(payload, target).unwrap();
        assert_eq!(sent, payload.len());
    }

    /// Sends one packet to a node, in a datagram of the packet's family.
    pub fn send_packet(&self, to: &Node, packet: &Packet) {
        let overlay = if packet.source().is_ipv4() { Overlay::V4 } else { Overlay::V6 };
        self.send(to, overlay, &packet.to_bytes());
    }

    /// Returns the next datagram, or None if none arrives within 20 ms.
    pub fn receive(&self, overlay: Overlay) -> Option<(SocketAddr, Vec<u8>)> {
        next_datagram(self.socket(overlay), Duration::from_millis(20))
            .unwrap_or_else(|error| panic!("receiving on {}: {error}", self.host.name()))
    }

    /// Waits for the first packet for which `wanted` returns a value; drops the packets before it.
    /// Panics if one of them is malformed.
    pub fn wait_packet<T>(
        &self,
        overlay: Overlay,
        what: &str,
        mut wanted: impl FnMut(&Packet) -> Option<T>,
    ) -> T {
        let start = Instant::now();
        while start.elapsed() < SOON {
            let Some((_, datagram)) = self.receive(overlay) else { continue };
            if let Some(found) = wanted(&Packet::parse(&datagram)) {
                return found;
            }
        }
        panic!("{} has not received {what} within {SOON:?}", self.host.name());
    }

    /// Drops the received datagrams, and returns their number.
    pub fn drain(&self, overlay: Overlay) -> usize {
        std::iter::from_fn(|| self.receive(overlay)).count()
    }
}
