use std::net::{IpAddr, SocketAddr};

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{Icmpv4Type, PacketBuilder, SlicedPacket, TransportSlice};
use heddle_packet::Counters;
use heddle_requires::requires;

use crate::overlay::{PORT, Plain, v4};

/// Builds an inner UDP packet to the node's device.
pub(crate) fn udp(source: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let IpAddr::V4(to) = v4(1) else { unreachable!() };
    udp_to(source, to.octets(), payload)
}

/// Builds an inner UDP packet.
fn udp_to(source: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(source, to, 64).udp(9, 9).write(&mut packet, payload).unwrap();
    packet
}

#[test]
fn datagram_from_unknown_address_is_dropped() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let plain = Plain::new();
    // A second address of the same host, which no lease has.
    plain.other.namespace().ip("addr add 192.168.77.77/16 dev eth0").unwrap();
    let stranger = plain.other.namespace().udp_socket(([192, 168, 77, 77], PORT).into()).unwrap();
    let to = SocketAddr::new(plain.node.host.v4().into(), PORT);
    for _ in 0..3 {
        stranger.send_to(&udp([10, 244, 2, 1], b"hello"), to).unwrap();
    }
    let counters = plain.node.wait_for("three datagrams", |counters| counters.spoofed_outer == 3);
    assert_eq!((counters.received_packets, counters.spoofed_inner), (0, 0));
}

#[test]
fn packet_with_foreign_source_is_dropped() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let plain = Plain::new();
    for source in [[10, 244, 1, 0], [10, 244, 3, 1], [8, 8, 8, 8], [0; 4]] {
        plain.send(&udp(source, b"hello"));
    }
    let counters = plain.node.wait_for("four packets", |counters| counters.spoofed_inner == 4);
    assert_eq!((counters.received_packets, counters.spoofed_outer), (0, 0));
    plain.send(&udp([10, 244, 2, 1], b"hello"));
    plain.node.wait_for("one packet", |counters| counters.received_packets == 1);
}

#[test]
fn packet_to_foreign_destination_is_dropped_and_answered() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let plain = Plain::new();
    let source = [10, 244, 2, 1];
    // The node on its own network and another host there, the internet, and an overlay address in
    // nobody's subnet.
    let foreign =
        [plain.node.host.v4().octets(), plain.other.v4().octets(), [8, 8, 8, 8], [10, 244, 9, 9]];
    for to in foreign {
        plain.send(&udp_to(source, to, b"hello"));
        plain.receive(|datagram| {
            let packet = SlicedPacket::from_ip(datagram).unwrap();
            let Some(TransportSlice::Icmpv4(icmp)) = packet.transport else { return None };
            let network = Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Network);
            assert_eq!(icmp.header().icmp_type, network);
            assert_eq!(icmp.payload()[16..20], to);
            Some(())
        });
    }
    // No error is sent about these.
    let silent = [[224, 0, 0, 251], [255, 255, 255, 255], [127, 0, 0, 1]];
    for to in silent {
        plain.send(&udp_to(source, to, b"hello"));
    }
    let all = (foreign.len() + silent.len()) as u64;
    let counters = plain.node.wait_for("all", |counters| counters.foreign_destination == all);
    assert_eq!(counters.received_packets, 0);
    // The node's own subnet, and that of a peer.
    plain.send(&udp_to(source, [10, 244, 1, 77], b"hello"));
    plain.send(&udp_to(source, [10, 244, 2, 77], b"hello"));
    plain.node.wait_for("two packets", |counters| counters.received_packets == 2);
}

#[test]
fn malformed_packet_is_dropped() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let plain = Plain::new();
    let packet = udp([10, 244, 2, 1], &[7; 1000]);
    let longer = [&packet[..], &[0]].concat();
    let bad: [&[u8]; 7] =
        [&[], &[0x45], &packet[..19], &packet[..500], &longer, &[0x65; 60], &[0xff; 65_507]];
    for datagram in bad {
        plain.send(datagram);
    }
    let looked_at = |counters: &Counters| counters.malformed + counters.spoofed_inner;
    // Only a few packets are queued until the neighbour is resolved (`QUEUE_LEN_BYTES` in
    // net/core/neighbour.c).
    let first = bad.len() as u64;
    plain.node.wait_for("the first ones", |counters| looked_at(counters) == first);
    // Random bytes of all lengths that begin like packets.
    let mut word = 0x2545_f491_4f6c_dd1d_u64;
    for length in 1..1400 {
        let mut datagram: Vec<u8> = std::iter::repeat_with(|| {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            (word & 0xff) as u8
        })
        .take(length)
        .collect();
        datagram[0] = [0x45, 0x60, datagram[0]][length % 3];
        plain.send(&datagram);
    }
    let counters = plain
        .node
        .wait_for("everything to be looked at", |counters| looked_at(counters) == first + 1399);
    assert_eq!((counters.received_packets, counters.receive_errors), (0, 0));
    plain.send(&packet);
    plain.node.wait_for("one packet", |counters| counters.received_packets == 1);
}

#[test]
fn longest_datagram_may_hold_a_packet() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let plain = Plain::new();
    let packet = udp([10, 244, 2, 1], &[7; 65_507 - 28]);
    assert_eq!(packet.len(), 65_507);
    plain.send(&packet);
    let counters = plain.node.wait_for("one packet", |counters| counters.received_packets == 1);
    assert_eq!((counters.received_bytes, counters.device_errors), (65_507, 0));
}
