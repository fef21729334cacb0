//! Hostile datagrams: each is counted under its reason and dropped, without other effects.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use etherparse::IpHeaders;
use heddle_lab::{Container, Families, Host, Signal, next_datagram, wait_until};
use heddle_tests::{Cluster, Node, Overlay, Packet, PlainPeer, Random, SOON};

/// Number of random datagrams of each kind.
const RANDOM: usize = 10_000;

/// Number of datagrams sent before waiting until they are counted: fewer than a socket buffer
/// holds.
const BURST: usize = 64;

/// Counters of the possible outcomes for a datagram.
const FATES: [&str; 7] = [
    "received_packets",
    "spoofed_outer",
    "spoofed_inner",
    "foreign_destination",
    "malformed",
    "ttl_exceeded",
    "receive_errors",
];

/// Longest payload of a datagram over IPv4, in bytes.
const LONGEST: usize = 65_507;

/// Two nodes with a container each, a misbehaving peer, and a stranger without a lease.
struct Siege {
    node: Node,
    other: Node,
    containers: [Container; 2],
    peer: PlainPeer,
    stranger: PlainPeer,
    _cluster: Cluster,
}

impl Siege {
    fn new() -> Self {
        let families = Families::Dual;
        let cluster = Cluster::with_backend(families, "udp");
        let peer = PlainPeer::join(&cluster, "peer", 200);
        let stranger = PlainPeer::without_lease(&cluster, "stranger", 201);
        let [node, other] = cluster.nodes(["a", "b"]);
        let containers = [&node, &other].map(|node| node.host.container().unwrap());
        let siege = Self { node, other, containers, peer, stranger, _cluster: cluster };
        // Wait until the nodes know each other and have resolved their neighbours.
        siege.check_traffic();
        siege
    }

    /// Returns the address of the node's container.
    fn inside(&self, overlay: Overlay) -> IpAddr {
        overlay.address_in(&self.containers[0])
    }

    /// Returns a valid datagram from the peer to the container.
    fn good(&self, overlay: Overlay) -> Packet {
        self.from(self.peer.address(overlay), overlay)
    }

    /// Returns the same datagram with another source.
    fn from(&self, source: IpAddr, overlay: Overlay) -> Packet {
        let (source, to) =
            (SocketAddr::new(source, 4000), SocketAddr::new(self.inside(overlay), 9));
        Packet::udp(source, to, b"something to deliver")
    }

    fn fates(&self) -> BTreeMap<&'static str, u64> {
        let counters = self.node.counters();
        FATES.into_iter().map(|fate| (fate, counters[fate])).collect()
    }

    /// Sends datagrams, waits until the node has counted as many, and returns the counters'
    /// increase.
    fn send(
        &self,
        sender: &PlainPeer,
        overlay: Overlay,
        datagrams: &[Vec<u8>],
    ) -> BTreeMap<&'static str, u64> {
        let before = self.fates();
        let mut sent = 0;
        let mut so_far = BTreeMap::new();
        for burst in datagrams.chunks(BURST) {
            for datagram in burst {
                sender.send(&self.node, overlay, datagram);
            }
            sent += burst.len() as u64;
            so_far = wait_until(format!("{sent} datagrams counted"), SOON, || {
                let mut fates = self.fates();
                for (fate, count) in &mut fates {
                    *count -= before[fate];
                }
                fates.retain(|_, count| *count > 0);
                if fates.values().sum::<u64>() == sent {
                    Ok(fates)
                } else {
                    Err(format!("{fates:?}"))
                }
            })
            .unwrap();
        }
        so_far
    }

    /// Sends datagrams, and asserts that all are counted under one reason.
    fn check(&self, sender: &PlainPeer, overlay: Overlay, datagrams: &[Vec<u8>], reason: &str) {
        let expected: Vec<_> = [(reason, datagrams.len() as u64)].into();
        let fates: Vec<_> = self.send(sender, overlay, datagrams).into_iter().collect();
        assert_eq!(fates, expected, "{overlay:?}");
    }

    /// Asserts that packets get from container to container, in both directions and families, and
    /// that the peer's packets get through.
    fn check_traffic(&self) {
        let [one, two] = &self.containers;
        for (from, to) in [(one, two), (two, one)] {
            for &address in to.addresses() {
                from.ping(address, 1000).unwrap();
            }
        }
        for &overlay in Overlay::all(Families::Dual) {
            // The container's answers to earlier datagrams may have filled the peer's socket.
            self.peer.drain(overlay);
            let request =
                Packet::echo_request(self.peer.address(overlay), self.inside(overlay), 5, b"?");
            self.peer.send_packet(&self.node, &request);
            let reply = request.echo_reply().unwrap();
            self.peer.wait_packet(overlay, "an answer to its ping", |packet| {
                (packet.source() == reply.source() && packet.payload == reply.payload).then_some(())
            });
        }
    }

    /// Asserts that the node is unharmed.
    fn check_unharmed(mut self) {
        self.check_traffic();
        for node in [&mut self.node, &mut self.other] {
            let daemon = node.daemon();
            daemon.check_running().unwrap();
            assert_eq!(daemon.health("/readyz").unwrap().0, 200);
            let log = daemon.log();
            assert!(!log.contains("panicked"), "{log}");
            assert!(log.lines().count() < 100, "{} lines of log", log.lines().count());
        }
    }
}

#[test]
fn datagram_from_stranger_is_dropped() {
    let siege = Siege::new();
    for &overlay in Overlay::all(Families::Dual) {
        // A datagram as the peer would send it, one as the stranger would send it if it were a
        // peer, and others.
        let own = siege.stranger.address(overlay);
        let datagrams = [
            siege.good(overlay).to_bytes(),
            siege.from(own, overlay).to_bytes(),
            vec![],
            vec![0x45],
            vec![0; LONGEST],
        ];
        siege.check(&siege.stranger, overlay, &datagrams, "spoofed_outer");
    }
    siege.check_unharmed();
}

#[test]
fn packet_with_source_of_others_is_dropped() {
    let siege = Siege::new();
    for &overlay in Overlay::all(Families::Dual) {
        let sources = [
            // The other node's container, the container itself, an unused address, and hosts on the
            // underlay and beyond.
            overlay.address_in(&siege.containers[1]),
            siege.inside(overlay),
            siege.stranger.address(overlay),
            overlay.address_of(&siege.peer.host),
            overlay.address_of(&siege.node.host),
            if overlay == Overlay::V4 { "192.0.2.1" } else { "2001:db8::1" }.parse().unwrap(),
            if overlay == Overlay::V4 { "0.0.0.0" } else { "::" }.parse().unwrap(),
            if overlay == Overlay::V4 { "127.0.0.1" } else { "::1" }.parse().unwrap(),
        ];
        let datagrams = sources.map(|source| siege.from(source, overlay).to_bytes());
        siege.check(&siege.peer, overlay, &datagrams, "spoofed_inner");
    }
    siege.check_unharmed();
}

#[test]
fn packet_to_foreign_destination_is_dropped() {
    let siege = Siege::new();
    for &overlay in Overlay::all(Families::Dual) {
        // A host outside of the overlay, to which the node has a route, with a socket.
        let outside = SocketAddr::new(overlay.address_of(&siege.stranger.host), 4001);
        let outside = siege.stranger.host.namespace().udp_socket(outside).unwrap();
        // A socket on the node itself, at its underlay address.
        let inside = SocketAddr::new(overlay.address_of(&siege.node.host), 4001);
        let inside = siege.node.host.namespace().udp_socket(inside).unwrap();
        let others = match overlay {
            Overlay::V4 => {
                ["10.244.250.9", "8.8.8.8", "127.0.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0"]
            }
            Overlay::V6 => {
                ["fd00:10:244:250::9", "2001:db8::1", "::1", "ff02::1", "ff05::2", "fe80::1"]
            }
        };
        let source = SocketAddr::new(siege.peer.address(overlay), 4000);
        let listeners = [&outside, &inside];
        let destinations = listeners
            .map(|listener| listener.local_addr().unwrap())
            .into_iter()
            .chain(others.map(|address| SocketAddr::new(address.parse().unwrap(), 4001)));
        let datagrams: Vec<_> =
            destinations.map(|to| Packet::udp(source, to, b"let me through").to_bytes()).collect();
        siege.check(&siege.peer, overlay, &datagrams, "foreign_destination");
        for listener in listeners {
            assert_eq!(next_datagram(listener, Duration::ZERO).unwrap(), None);
        }
    }
    siege.check_unharmed();
}

#[test]
fn allowed_destination_is_reached_through_node() {
    let cluster = Cluster::with_backend(Families::V4, "udp");
    let peer = PlainPeer::join(&cluster, "peer", 200);
    let server = cluster.host("server");
    let allowed = format!("--allow-destinations={}/32", server.v4());
    let mut node = cluster.starting_node("a", &[&allowed]);
    node.daemon().wait_ready().unwrap();
    node.host.namespace().set_sysctl("ipv4/ip_forward", "1").unwrap();
    let at = |host: &Host| {
        let address = SocketAddr::new(host.v4().into(), 4001);
        host.namespace().udp_socket(address).unwrap()
    };
    let (server, other) = (at(&server), at(&node.host));
    let source = SocketAddr::new(peer.address(Overlay::V4), 4000);
    wait_until("a packet to what is allowed", SOON, || {
        for to in [&other, &server].map(|socket| socket.local_addr().unwrap()) {
            peer.send_packet(&node, &Packet::udp(source, to, b"let me through"));
        }
        match next_datagram(&server, Duration::from_millis(100)).unwrap() {
            Some((from, _)) if from == source => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .unwrap();
    // No other destination is reached.
    assert_eq!(next_datagram(&other, Duration::ZERO).unwrap(), None);
    assert!(node.counters()["foreign_destination"] > 0);
}

/// While the daemon is paused, one peer sends more than any receive buffer holds, then another peer
/// sends a little. The result does not depend on anybody's speed.
#[test]
fn flooding_peer_loses_its_own_packets_only() {
    const FLOOD: usize = 16_000;
    const LENGTH: usize = 1400;
    const QUIET: usize = 100;
    // Datagrams in a burst, one burst per millisecond: fewer than the kernel queues on the way to a
    // socket, for all tests together.
    const BURST: usize = 32;
    let families = Families::Dual;
    let cluster = Cluster::with_backend(families, "udp");
    let flooder = PlainPeer::join(&cluster, "flooder", 200);
    let quiet = PlainPeer::join(&cluster, "quiet", 201);
    let node = cluster.node("a");
    let container = node.host.container().unwrap();
    for &overlay in Overlay::all(families) {
        let listener = SocketAddr::new(overlay.address_in(&container), 4000);
        let listener = container.namespace().udp_socket(listener).unwrap();
        let to = listener.local_addr().unwrap();
        let packet = |peer: &PlainPeer, port, payload: &[u8]| {
            let source = SocketAddr::new(peer.address(overlay), port);
            Packet::udp(source, SocketAddr::new(to.ip(), port), payload).to_bytes()
        };
        // To a closed port, and to the listener.
        let (large, small) = (packet(&flooder, 5000, &[7; LENGTH]), packet(&quiet, 4000, b"hello"));
        let arrived = || {
            let next = || next_datagram(&listener, Duration::from_millis(500)).unwrap();
            std::iter::from_fn(next).count()
        };
        wait_until("all packets of the quiet peer", SOON, || {
            node.signal(Signal::STOP);
            for (peer, datagram, count) in [(&flooder, &large, FLOOD), (&quiet, &small, QUIET)] {
                for number in 0..count {
                    peer.send(&node, overlay, datagram);
                    if number.is_multiple_of(BURST) {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            }
            node.signal(Signal::CONT);
            match arrived() {
                QUIET => Ok(()),
                other => Err(format!("{other} of {QUIET} arrived")),
            }
        })
        .unwrap();
        let counters = node.counters();
        assert!(counters["isolated"] > 0 && counters["buffer_full"] > 0, "{counters:?}");
        // The flooding peer is not blocked afterwards.
        wait_until("a packet of the flooding peer", SOON, || {
            flooder.send(&node, overlay, &packet(&flooder, 4000, b"hello"));
            if arrived() > 0 { Ok(()) } else { Err("none") }
        })
        .unwrap();
    }
}

#[test]
fn truncated_packet_is_dropped() {
    let siege = Siege::new();
    for &overlay in Overlay::all(Families::Dual) {
        let good = siege.good(overlay).to_bytes();
        // Any length, from 0 on.
        let cut: Vec<_> = (0..good.len()).map(|length| good[..length].to_vec()).collect();
        siege.check(&siege.peer, overlay, &cut, "malformed");
        siege.check(&siege.peer, overlay, &vec![vec![]; BURST], "malformed");
    }
    siege.check_unharmed();
}

#[test]
fn longest_datagrams_do_no_harm() {
    let siege = Siege::new();
    for &overlay in Overlay::all(Families::Dual) {
        let garbage = Random::new(1).bytes(LONGEST);
        siege.check(&siege.peer, overlay, &[garbage.clone(), garbage.clone()], "malformed");
        siege.check(&siege.stranger, overlay, &[garbage.clone(), garbage], "spoofed_outer");
    }
    // A valid one is delivered like any other.
    let overlay = Overlay::V4;
    let receiver = SocketAddr::new(siege.inside(overlay), 0);
    let receiver = siege.containers[0].namespace().udp_socket(receiver).unwrap();
    let sender = SocketAddr::new(siege.peer.address(overlay), 4000);
    let payload = Random::new(2).bytes(LONGEST - 28);
    let mut packet = Packet::udp(sender, receiver.local_addr().unwrap(), &payload);
    if let IpHeaders::Ipv4(header, _) = &mut packet.ip {
        // The container's interface has a smaller MTU.
        header.dont_fragment = false;
    }
    siege.check(&siege.peer, overlay, &[packet.to_bytes()], "received_packets");
    let (from, received) = next_datagram(&receiver, SOON).unwrap().expect("a datagram");
    assert_eq!(from, sender);
    assert!(received == payload);
    siege.check_unharmed();
}

#[test]
fn random_bytes_are_dropped() {
    let siege = Siege::new();
    let mut random = Random::new(3);
    for &overlay in Overlay::all(Families::Dual) {
        let datagrams: Vec<_> = (0..RANDOM)
            .map(|_| {
                let length = random.below(1473);
                random.bytes(length)
            })
            .collect();
        let fates = siege.send(&siege.peer, overlay, &datagrams);
        println!("{overlay:?}: {fates:?}");
        assert_eq!(fates.get("received_packets"), None);
    }
    siege.check_unharmed();
}

#[test]
fn packets_with_flipped_bits_do_no_harm() {
    let siege = Siege::new();
    let mut random = Random::new(4);
    for &overlay in Overlay::all(Families::Dual) {
        let good = siege.good(overlay).to_bytes();
        let datagrams: Vec<_> = (0..RANDOM)
            .map(|_| {
                let mut bytes = good.clone();
                for _ in 0..=random.below(4) {
                    let at = random.below(bytes.len());
                    bytes[at] ^= 1 << random.below(8);
                }
                bytes
            })
            .collect();
        // The container's kernel judges those whose payload alone is wrong.
        let fates = siege.send(&siege.peer, overlay, &datagrams);
        println!("{overlay:?}: {fates:?}");
        for fate in ["received_packets", "spoofed_inner", "foreign_destination", "malformed"] {
            assert!(fates.contains_key(fate), "{fates:?}");
        }
        assert!(!fates.contains_key("spoofed_outer"), "{fates:?}");
    }
    siege.check_unharmed();
}
