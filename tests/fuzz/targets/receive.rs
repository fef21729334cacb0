//! Datagrams from the network, processed like on the receive path: parsed, checked against the
//! table and for their destination, hop limit decremented, coalesced by GRO.
//!
//! The input is a sequence of datagrams, each preceded by two bytes: the action (see the
//! constants), and the length.

#![no_main]
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use etherparse::ip_number;
use heddle_fuzz::packet::{complain, header_is_sound, hop, repair};
use heddle_packet::datagrams::Datagram;
use heddle_packet::gro::{Coalescer, MOST};
use heddle_packet::gso::split;
use heddle_packet::headers::Inner;
use heddle_packet::vnet::Vnet;
use heddle_packet::{Destinations, Peer, Table};
use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;

/// The datagram does not come from a peer.
const UNKNOWN: u8 = 1;
/// Lengths and checksum are corrected.
const REPAIR: u8 = 2;
/// The bytes are changes to the previous datagram: pairs of an offset and a value to add there.
const CHANGE: u8 = 4;
/// The datagram is a TCP segment that continues the previous one.
const CONTINUE: u8 = 8;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let subnets = |v4: &str, v6: &str| vec![v4.parse().unwrap(), v6.parse().unwrap()];
    let other = "192.0.2.2".parse().unwrap();
    Table::new(vec![
        Peer { endpoints: vec![PEER], subnets: subnets("10.244.1.0/24", "fc00:0:0:1::/64") },
        Peer { endpoints: vec![other], subnets: subnets("10.244.2.0/24", "fc00:0:0:2::/64") },
    ])
});

/// The node's own subnets, followed by the network it permits besides.
static OWN: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    ["10.244.3.0/24", "fc00:0:0:3::/64", "192.0.2.64/26"].map(|it| it.parse().unwrap()).into()
});

static DESTINATIONS: LazyLock<Destinations> =
    LazyLock::new(|| Destinations::new(OWN[..2].iter().copied(), &OWN[2..]));

/// Asserts that a packet is delivered to the kernel if and only if its destination belongs to this
/// node or a peer.
fn check_destination(datagram: &[u8], inner: &Inner) -> bool {
    let accepted = DESTINATIONS.accept(&TABLE, inner);
    let mut networks = OWN.iter().chain(TABLE.peers().iter().flat_map(|peer| &peer.subnets));
    let known = networks.any(|network| network.contains(&inner.destination));
    assert_eq!(accepted, known && !inner.source_routed);
    // True if the first option is a source route.
    let routed = matches!(datagram, [0x46..=0x4f, ..] if matches!(datagram[20], 131 | 137));
    assert!(inner.source_routed || !routed);
    accepted
}

/// Parses the input into datagrams with their source addresses.
fn datagrams(mut input: &[u8]) -> Vec<(IpAddr, Vec<u8>)> {
    let mut datagrams: Vec<(IpAddr, Vec<u8>)> = Vec::new();
    while let [action, length, rest @ ..] = input {
        let (bytes, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        input = rest;
        let mut datagram = bytes.to_vec();
        if action & CHANGE != 0 {
            let Some((_, before)) = datagrams.last() else { continue };
            datagram = before.clone();
            for change in bytes.chunks_exact(2) {
                if let Some(byte) = datagram.get_mut(usize::from(change[0])) {
                    *byte = byte.wrapping_add(change[1]);
                }
            }
        }
        if action & CONTINUE != 0 {
            advance(&mut datagram);
        }
        if action & REPAIR != 0 {
            repair(&mut datagram);
        }
        datagrams.push((if action & UNKNOWN != 0 { NOBODY } else { PEER }, datagram));
    }
    datagrams
}

/// Adds the payload's length to the sequence number of TCP, and one to the identification of IPv4.
fn advance(packet: &mut [u8]) {
    let Ok(inner) = Inner::parse(packet) else { return };
    if inner.source.is_ipv4() {
        let id = u16::from_be_bytes([packet[4], packet[5]]).wrapping_add(1);
        packet[4..6].copy_from_slice(&id.to_be_bytes());
    }
    let transport = &mut packet[usize::from(inner.header_length)..];
    if inner.protocol == ip_number::TCP && transport.len() >= 20 {
        let payload = transport.len().saturating_sub(4 * usize::from(transport[12] >> 4));
        let payload = u32::try_from(payload).expect("a packet has at most 65,535 bytes");
        let sequence = u32::from_be_bytes([transport[4], transport[5], transport[6], transport[7]]);
        let next = sequence.wrapping_add(payload);
        transport[4..8].copy_from_slice(&next.to_be_bytes());
    }
}

/// Returns the parts of a datagram that must survive GRO, and its flow. Omitted are fields that
/// coalescing may change: checksums, an identification without meaning, and an urgent pointer
/// without the URG flag.
fn essence(datagram: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let inner = Inner::parse(datagram).expect("it was parsed before");
    let (hosts, start) = match inner.source {
        IpAddr::V4(_) => (12..20, 20),
        IpAddr::V6(_) => (8..40, 40),
    };
    let mut flow = datagram[hosts].to_vec();
    flow.push(inner.protocol.0);
    let mut bytes = datagram.to_vec();
    if inner.is_fragment() || usize::from(inner.header_length) != start {
        return (flow, bytes);
    }
    let transport = &mut bytes[start..];
    match inner.protocol {
        ip_number::TCP if transport.len() >= 20 => {
            transport[16..18].fill(0);
            if transport[13] & 0x20 == 0 {
                transport[18..20].fill(0);
            }
        }
        ip_number::UDP if transport.len() >= 8 => transport[6..8].fill(0),
        _ => return (flow, bytes),
    }
    flow.extend(&transport[..4]);
    if inner.source.is_ipv4() && inner.dont_fragment && header_is_sound(datagram, &inner) {
        bytes[4..6].fill(0);
        bytes[10..12].fill(0);
    }
    (flow, bytes)
}

fuzz_target!(|input: &[u8]| {
    let (mut buffer, mut places) = (Vec::new(), Vec::new());
    for (outer, mut datagram) in datagrams(input) {
        let Ok(inner) = Inner::parse(&datagram) else { continue };
        assert_eq!(usize::from(inner.length), datagram.len());
        assert!(inner.header_length <= inner.length);
        let Ok(peer) = TABLE.accepts(outer, inner.source) else { continue };
        let sender = &TABLE.peers()[peer as usize];
        assert!(sender.endpoints.contains(&outer));
        assert!(sender.subnets.iter().any(|subnet| subnet.contains(&inner.source)));

        if !check_destination(&datagram, &inner) {
            continue;
        }
        complain(Datagram { header: &[], payload: &datagram }, &inner);
        if hop(&mut datagram, &inner) {
            let start = buffer.len();
            buffer.extend(datagram);
            places.push((start..buffer.len(), inner));
        }
    }

    let mut before = BTreeMap::<_, Vec<_>>::new();
    let mut coalescer = Coalescer::new(true);
    for (at, inner) in &places {
        let (flow, bytes) = essence(&buffer[at.clone()]);
        before.entry(flow).or_default().push(bytes);
        coalescer.push(&buffer, at.clone(), inner);
    }

    let mut after = BTreeMap::<_, Vec<_>>::new();
    let mut headers = Vec::new();
    for packet in coalescer.packets(&mut buffer) {
        assert!(packet.pieces.clone().count() == packet.datagrams && packet.datagrams <= MOST);
        let mut bytes = packet.pieces.collect::<Vec<_>>().concat();
        assert_eq!(bytes.len(), packet.length);
        let inner = Inner::parse(&bytes).expect("what was joined is a packet");
        assert_eq!(packet.datagrams > 1, packet.vnet != Vnet::default());
        assert!(packet.datagrams == 1 || header_is_sound(&bytes, &inner));
        let segments = split(&packet.vnet, &mut bytes, &inner, &mut headers)
            .expect("what was joined can be split");
        assert_eq!(segments.len(), packet.datagrams);
        for segment in segments {
            let (flow, bytes) = essence(&[segment.header, segment.payload].concat());
            after.entry(flow).or_default().push(bytes);
        }
    }
    assert_eq!(before, after);
});
