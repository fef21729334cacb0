//! The udp backend on the wire, seen from a peer that consists of UDP sockets only.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Instant;

use etherparse::{TcpHeader, TcpOptionElement};
use heddle_lab::{Container, Families, next_datagram, on_one_processor, transfer, wait_until};
use heddle_tests::{
    Cluster, HOP_LIMIT, Node, Overlay, Packet, PlainPeer, SOON, UDP_PORT, net_unreachable, ping,
    time_exceeded,
};

/// Hops from the container to the peer: the path and the kernel behind it decrement the hop limit
/// once each.
const HOPS: u8 = 2;

/// A node with a container, and a plain peer.
struct Wire {
    node: Node,
    peer: PlainPeer,
    container: Container,
    cluster: Cluster,
}

impl Wire {
    fn new(families: Families) -> Self {
        let cluster = Cluster::with_backend(families, "udp");
        let peer = PlainPeer::join(&cluster, "plain", 200);
        let node = cluster.node("a");
        let container = node.host.container().unwrap();
        Self { node, peer, container, cluster }
    }

    fn overlays(&self) -> &'static [Overlay] {
        Overlay::all(self.cluster.lab().families())
    }

    /// Returns the container's address.
    fn inside(&self, overlay: Overlay) -> IpAddr {
        overlay.address_in(&self.container)
    }

    /// Opens a UDP socket in the container.
    fn socket(&self, overlay: Overlay) -> UdpSocket {
        let address = SocketAddr::new(self.inside(overlay), 0);
        self.container.namespace().udp_socket(address).unwrap()
    }

    /// Returns the node's own address in the overlay, from which it sends ICMP errors.
    fn router(&self, overlay: Overlay) -> IpAddr {
        self.cluster.subnet(&self.node, overlay).network()
    }

    fn counter(&self, name: &str) -> u64 {
        self.node.counters()[name]
    }
}

/// Returns the packet with the lengths and checksums that it gets when written.
fn written(packet: &Packet) -> Packet {
    Packet::parse(&packet.to_bytes())
}

/// Runs `check` with each family alone and with both at once.
fn with_all_families(check: impl Fn(&Wire, Overlay) + Sync) {
    with(&[Families::V4, Families::V6, Families::Dual], check);
}

/// Runs `check` with both families at once.
fn with_both_families(check: impl Fn(&Wire, Overlay) + Sync) {
    with(&[Families::Dual], check);
}

/// Runs `check` with these families, on one processor, so that packets keep their order.
fn with(families: &[Families], check: impl Fn(&Wire, Overlay) + Sync) {
    on_one_processor(|| {
        for &families in families {
            let wire = Wire::new(families);
            for &overlay in wire.overlays() {
                check(&wire, overlay);
            }
        }
    })
    .unwrap();
}

/// Returns bytes that each differ from their neighbours.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from((n * 31 + (n >> 8) * 7) % 256).unwrap()).collect()
}

#[test]
fn datagram_is_bare_packet_and_ping_works_both_ways() {
    with_all_families(|wire, overlay| {
        let (inside, outside) = (wire.inside(overlay), wire.peer.address(overlay));
        let printed = std::thread::scope(|scope| {
            let command = format!("-c 1 -W 10 -s 100 {outside}");
            let pinging = scope.spawn(move || ping(wire.container.namespace(), &command));
            let start = Instant::now();
            let (from, datagram) = loop {
                assert!(start.elapsed() < SOON, "no datagram");
                if let Some(received) = wire.peer.receive(overlay) {
                    break received;
                }
            };
            assert_eq!(from, SocketAddr::new(overlay.address_of(&wire.node.host), UDP_PORT));
            // A strict parser: there is nothing before the packet and nothing behind it.
            let request = Packet::parse(&datagram);
            assert_eq!((request.source(), request.destination()), (inside, outside));
            assert_eq!(request.hop_limit(), HOP_LIMIT - HOPS);
            assert_eq!(request.payload.len(), 100);
            wire.peer.send_packet(&wire.node, &request.echo_reply().unwrap());
            pinging.join().unwrap()
        });
        let answer = printed.lines().find(|line| line.contains("bytes from")).expect(&printed);
        let hop_limit = HOP_LIMIT - HOPS;
        assert!(answer.starts_with("108 bytes from") && answer.contains(&outside.to_string()));
        assert!(answer.contains(&format!(" ttl={hop_limit} ")), "{answer}");

        let payload = pattern(1000);
        let request = Packet::echo_request(outside, inside, 7, &payload);
        wire.peer.send_packet(&wire.node, &request);
        let mut expected = written(&request.echo_reply().unwrap());
        wire.peer.wait_packet(overlay, "the answer to its ping", |packet| {
            if packet.source() != inside || packet.transport != expected.transport {
                return None;
            }
            // The IP header's remaining fields are the kernel's choice.
            expected.ip = packet.ip.clone();
            assert_eq!(packet.hop_limit(), hop_limit);
            assert_eq!(packet.destination(), outside);
            assert_eq!(*packet, expected);
            Some(())
        });
    });
}

#[test]
fn udp_datagrams_reach_container_and_back() {
    with_all_families(|wire, overlay| {
        let socket = wire.socket(overlay);
        let inside = socket.local_addr().unwrap();
        let outside = SocketAddr::new(wire.peer.address(overlay), 4000);
        // Equal lengths, which kernels coalesce, and different ones.
        let lengths = [0, 1, 500, 500, 500, 500, 30, 1200, 1200, 1];
        let payloads: Vec<_> = lengths.iter().map(|&length| pattern(length)).collect();
        for payload in &payloads {
            wire.peer.send_packet(&wire.node, &Packet::udp(outside, inside, payload));
        }
        for payload in &payloads {
            let received = next_datagram(&socket, SOON).unwrap();
            let counters = wire.node.counters();
            assert_eq!(received, Some((outside, payload.clone())), "{overlay:?}: {counters:#?}");
        }
        for payload in &payloads {
            socket.send_to(payload, outside).unwrap();
        }
        for payload in &payloads {
            wire.peer.wait_packet(overlay, "what the container sent", |packet| {
                let ports = packet.udp_ports()?;
                assert_eq!(ports, (inside.port(), outside.port()));
                assert_eq!((packet.hop_limit(), &packet.payload), (HOP_LIMIT - HOPS, payload));
                Some(())
            });
        }
    });
}

#[test]
fn fragments_pass_both_ways() {
    with_both_families(|wire, overlay| {
        let socket = wire.socket(overlay);
        let inside = socket.local_addr().unwrap();
        let outside = SocketAddr::new(wire.peer.address(overlay), 4000);
        let payload = pattern(5000);
        let whole = Packet::udp(outside, inside, &payload);
        for fragment in whole.fragments(77, 1200) {
            wire.peer.send_packet(&wire.node, &fragment);
        }
        assert_eq!(next_datagram(&socket, SOON).unwrap(), Some((outside, payload.clone())));

        socket.send_to(&payload, outside).unwrap();
        let mut fragments = Vec::new();
        let whole = wire.peer.wait_packet(overlay, "all fragments", |packet| {
            if packet.fragment().is_some() {
                assert_eq!(packet.hop_limit(), HOP_LIMIT - HOPS);
                fragments.push(packet.clone());
            }
            Packet::reassemble(&fragments)
        });
        assert!(fragments.len() > 3, "{} fragments", fragments.len());
        assert_eq!(whole.udp_ports(), Some((inside.port(), outside.port())));
        assert_eq!(whole.payload, payload);
    });
}

/// The far end of a TCP connection, which handles one segment at a time.
struct Segments<'a> {
    wire: &'a Wire,
    overlay: Overlay,
    here: SocketAddr,
    there: SocketAddr,
    /// Sequence number of the next byte to send.
    sequence: u32,
    /// Sequence number of the next byte expected.
    expected: u32,
    /// Payload lengths, in order of arrival.
    lengths: Vec<usize>,
}

impl<'a> Segments<'a> {
    /// Port of the far end.
    const PORT: u16 = 7;

    /// Waits for a connection.
    fn accept(wire: &'a Wire, overlay: Overlay) -> Self {
        let here = SocketAddr::new(wire.peer.address(overlay), Self::PORT);
        let (from, header) = wire.peer.wait_packet(overlay, "a connection", |packet| {
            let header = packet.tcp_header().filter(|header| header.syn)?;
            Some((packet.source(), header.clone()))
        });
        let mut segments = Self {
            wire,
            overlay,
            here,
            there: SocketAddr::new(from, header.source_port),
            sequence: 1000,
            expected: header.sequence_number.wrapping_add(1),
            lengths: Vec::new(),
        };
        let mss = header
            .options_iterator()
            .find_map(|option| match option {
                Ok(TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
                _ => None,
            })
            .expect("a maximum segment size");
        let mut answer = segments.header();
        answer.syn = true;
        answer.set_options(&[TcpOptionElement::MaximumSegmentSize(mss)]).unwrap();
        segments.send(answer, &[]);
        segments.sequence += 1;
        segments
    }

    fn header(&self) -> TcpHeader {
        // A window that limits the data in flight to a socket's buffer.
        let (here, there) = (self.here.port(), self.there.port());
        let mut header = TcpHeader::new(here, there, self.sequence, u16::MAX);
        header.ack = true;
        header.acknowledgment_number = self.expected;
        header
    }

    fn send(&self, header: TcpHeader, payload: &[u8]) {
        let packet = Packet::tcp(self.here.ip(), self.there.ip(), header, payload);
        self.wire.peer.send_packet(&self.wire.node, &packet);
    }

    /// Returns the next new segment, after acknowledging it.
    fn next(&mut self) -> (TcpHeader, Vec<u8>) {
        let (here, expected) = (self.here, self.expected);
        let what = "a segment";
        let (header, payload) = self.wire.peer.wait_packet(self.overlay, what, |packet| {
            let header = packet.tcp_header()?;
            assert_eq!(packet.destination(), here.ip());
            assert!(!header.rst, "the connection was reset");
            let ahead = header.sequence_number.wrapping_sub(expected).cast_signed();
            assert!(ahead <= 0, "{ahead} bytes are missing");
            // A retransmission after a late acknowledgement, which is no error.
            (ahead == 0).then(|| (header.clone(), packet.payload.clone()))
        });
        let length = u32::try_from(payload.len()).unwrap() + u32::from(header.fin);
        self.expected = self.expected.wrapping_add(length);
        (header, payload)
    }

    /// Receives `bytes` bytes.
    fn receive(&mut self, bytes: usize) -> Vec<u8> {
        let mut received = Vec::with_capacity(bytes);
        while received.len() < bytes {
            let (_, payload) = self.next();
            if !payload.is_empty() {
                self.lengths.push(payload.len());
                received.extend(payload);
                self.send(self.header(), &[]);
            }
        }
        received
    }

    /// Sends these bytes, in bursts of segments, and waits until they are acknowledged.
    fn transmit(&mut self, bytes: &[u8], segment: usize) {
        for burst in bytes.chunks(16 * segment) {
            for payload in burst.chunks(segment) {
                self.send(self.header(), payload);
                self.sequence = self.sequence.wrapping_add(u32::try_from(payload.len()).unwrap());
            }
            while self.next().0.acknowledgment_number != self.sequence {}
        }
    }
}

#[test]
fn super_packets_are_sent_as_full_segments_in_order() {
    with_both_families(|wire, overlay| {
        let data = pattern(1 << 20);
        let mtu: usize = if overlay == Overlay::V4 { 20 } else { 40 };
        let segment = 1500 - 48 - mtu - 20;
        let target = SocketAddr::new(wire.peer.address(overlay), Segments::PORT);
        let device = |direction| wire.node.packets("flannel0", direction);
        let (sent, received) = (device("tx"), device("rx"));
        let back = std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                wire.container
                    .namespace()
                    .enter(|| {
                        let mut stream = TcpStream::connect_timeout(&target, SOON).unwrap();
                        stream.set_read_timeout(Some(SOON)).unwrap();
                        stream.set_write_timeout(Some(SOON)).unwrap();
                        stream.write_all(&data).unwrap();
                        let mut back = vec![0; data.len()];
                        stream.read_exact(&mut back).unwrap();
                        back
                    })
                    .unwrap()
            });
            let mut server = Segments::accept(wire, overlay);
            assert!(server.receive(data.len()) == data, "other bytes than were sent");
            let full = server.lengths.iter().filter(|&&length| length == segment).count();
            let longest = server.lengths.iter().max().unwrap();
            assert_eq!(*longest, segment);
            assert!(full * 10 > server.lengths.len() * 9, "{full} of {}", server.lengths.len());
            // The kernel left the segmentation to the device.
            let handed_over = device("tx") - sent;
            let count = server.lengths.len() as u64;
            assert!(handed_over * 2 < count, "{handed_over} packets for {count} segments");

            server.transmit(&data, segment);
            let delivered = device("rx") - received;
            let back = client.join().unwrap();
            println!("{count} segments of {handed_over} packets; back, {delivered} packets");
            back
        });
        assert!(back == data, "other bytes than were sent");
    });
}

#[test]
fn packet_with_expired_hop_limit_is_answered_by_icmp() {
    with_both_families(|wire, overlay| {
        let (inside, outside) = (wire.inside(overlay), wire.peer.address(overlay));
        let router = wire.router(overlay);
        wire.peer.drain(overlay);
        // The kernel decrements the hop limit once, before the path.
        let before = wire.counter("ttl_exceeded");
        let printed = ping(wire.container.namespace(), &format!("-c 1 -W 5 -t 2 {outside}"));
        let told = match overlay {
            Overlay::V4 => "Time to live exceeded",
            Overlay::V6 => "Time exceeded: Hop limit",
        };
        let told = |line: &str| line.contains(&format!("From {router} ")) && line.contains(told);
        assert!(printed.lines().any(told), "{printed}");
        assert_eq!(wire.counter("ttl_exceeded"), before + 1);
        // A hop limit of three is just enough to reach the peer.
        let command = format!("-c 1 -W 1 -t 3 {outside}");
        ping(wire.container.namespace(), &command);
        wire.peer.wait_packet(overlay, "the longer-lived ping", |packet| {
            packet.echo_reply()?;
            assert_eq!(packet.hop_limit(), 1);
            Some(())
        });

        let packet = written(&Packet::echo_request(outside, inside, 9, b"abc").with_hop_limit(1));
        wire.peer.send_packet(&wire.node, &packet);
        wire.peer.wait_packet(overlay, "an ICMP error", |reply| {
            let error = reply.icmp_error()?;
            assert_eq!(error, time_exceeded(outside));
            assert_eq!((reply.source(), reply.destination()), (router, outside));
            // The error quotes the packet, as received at its last hop.
            let quoted = Packet::parse(&reply.payload);
            assert_eq!((quoted.source(), quoted.transport), (outside, packet.transport.clone()));
            Some(())
        });
        assert_eq!(wire.counter("ttl_exceeded"), before + 2);
    });
}

#[test]
fn packet_without_route_is_answered_by_icmp() {
    with_both_families(|wire, overlay| {
        wire.peer.drain(overlay);
        let (nobody, told) = match overlay {
            Overlay::V4 => ("10.244.250.9", "Destination Net Unreachable"),
            Overlay::V6 => ("fd00:10:244:250::9", "Destination unreachable: No route"),
        };
        let router = wire.router(overlay);
        let before = wire.counter("no_route");
        let printed = ping(wire.container.namespace(), &format!("-c 1 -W 5 {nobody}"));
        let line = |line: &str| line.contains(&format!("From {router} ")) && line.contains(told);
        assert!(printed.lines().any(line), "{printed}");
        // The kernel's own multicasts have no route either.
        assert!(wire.counter("no_route") > before);

        // A peer that sends a packet for an unknown destination to this node gets the same error.
        let nobody = nobody.parse().unwrap();
        let packet = Packet::echo_request(wire.peer.address(overlay), nobody, 9, b"abc");
        wire.peer.send_packet(&wire.node, &packet);
        wire.peer.wait_packet(overlay, "an ICMP error", |reply| {
            assert_eq!(reply.icmp_error()?, net_unreachable(nobody));
            Some(())
        });
    });
}

/// Returns the path MTU that a container has cached for an address.
fn known_mtu(container: &Container, to: IpAddr) -> Option<u32> {
    let printed = container.namespace().ip(&format!("route get {to}")).unwrap();
    let mut words: VecDeque<_> = printed.split_whitespace().collect();
    while let Some(word) = words.pop_front() {
        if word == "mtu" {
            return words.front()?.parse().ok();
        }
    }
    None
}

/// Tests a path of 1400 bytes between two nodes; `narrow` sets up the path, and its result keeps it
/// in place.
fn narrow_way<T>(narrow: impl Fn(&Cluster, &Node, &Node) -> T) {
    let families = Families::Dual;
    let cluster = Cluster::with_backend(families, "udp");
    let [a, b] = cluster.nodes(["a", "b"]);
    let [in_a, in_b] = [&a, &b].map(|node| node.host.container().unwrap());
    for &to in in_b.addresses() {
        in_a.ping(to, 56).unwrap();
    }
    let _router = narrow(&cluster, &a, &b);
    for &overlay in Overlay::all(families) {
        let to = overlay.address_in(&in_b);
        // A packet with DF is not fragmented. Its sender gets the error by the second one at the
        // latest: the first may have been lost before the path MTU was known.
        let (outer, headers) = if overlay == Overlay::V4 { (28, 28) } else { (48, 48) };
        let whole = 1452 - headers;
        let before = a.counters()["too_big"];
        wait_until(format!("the container knowing the way to {to}"), SOON, || {
            ping(in_a.namespace(), &format!("-c 1 -W 1 -M do -s {whole} {to}"));
            let known = known_mtu(&in_a, to);
            if known == Some(1400 - outer) { Ok(()) } else { Err(format!("{known:?}")) }
        })
        .unwrap();
        assert!(a.counters()["too_big"] > before);
        // A packet of exactly the path MTU gets through.
        in_a.ping(to, 1400 - outer - headers).unwrap();
        let done = transfer(in_a.namespace(), in_b.namespace(), to, 20 << 20, None).unwrap();
        assert!(done.is_whole(), "{done:?}");
    }
    // Last, so that no packet above was fragmented; and from a container that has no cached path
    // MTU.
    let other = a.host.container().unwrap();
    let to = Overlay::V4.address_in(&in_b);
    let before = a.counters()["fragmented"];
    let printed = ping(other.namespace(), &format!("-c 1 -W 5 -M dont -s 1420 {to}"));
    assert!(printed.contains("1428 bytes from"), "{printed}");
    assert!(a.counters()["fragmented"] > before, "{:?}", a.counters());
}

#[test]
fn smaller_route_mtu_is_reported_and_tcp_continues() {
    narrow_way(|_, a, b| {
        a.ip(&format!("route add {}/32 dev eth0 mtu 1400", b.host.v4()));
        a.ip(&format!("-6 route add {}/128 dev eth0 mtu 1400", b.host.v6()));
    });
}

#[test]
fn smaller_router_mtu_is_reported_and_tcp_continues() {
    narrow_way(|cluster, a, b| {
        let router = cluster.host("router");
        let namespace = router.namespace();
        // It would send redirects to a shorter path.
        for link in ["all", "eth0"] {
            namespace.set_sysctl(&format!("ipv4/conf/{link}/send_redirects"), "0").unwrap();
        }
        let (v4, v6) = (b.host.v4(), b.host.v6());
        namespace.ip(&format!("route add {v4}/32 dev eth0 mtu 1400")).unwrap();
        namespace.ip(&format!("-6 route add {v6}/128 dev eth0 mtu 1400")).unwrap();
        a.ip(&format!("route add {v4}/32 via {}", router.v4()));
        a.ip(&format!("-6 route add {v6}/128 via {}", router.v6()));
        router
    });
}
