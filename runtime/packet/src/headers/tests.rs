use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;
use crate::samples::{A, A6, B, B6, udp};

/// Builds an IPv6 packet of the given extension headers and payload.
fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, rest.len().try_into().unwrap(), next, 64];
    packet.extend(A6.octets());
    packet.extend(B6.octets());
    packet.extend(rest);
    packet
}

#[test]
fn packet_of_each_family_is_parsed() {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(A.octets(), B.octets(), 9).udp(1, 2).write(&mut packet, b"abc").unwrap();
    let inner = Inner::parse(&packet).unwrap();
    assert_eq!((inner.source, inner.destination), (A.into(), B.into()));
    assert_eq!((inner.hop_limit, inner.header_length, inner.length), (9, 20, 31));
    assert_eq!((inner.protocol, inner.dont_fragment), (ip_number::UDP, true));
    assert!(!inner.is_fragment());

    let mut packet = Vec::new();
    PacketBuilder::ipv6(A6.octets(), B6.octets(), 9).udp(1, 2).write(&mut packet, b"abc").unwrap();
    let inner = Inner::parse(&packet).unwrap();
    assert_eq!((inner.source, inner.destination), (A6.into(), B6.into()));
    assert_eq!((inner.hop_limit, inner.header_length, inner.length), (9, 40, 51));
    assert_eq!((inner.protocol, inner.dont_fragment), (ip_number::UDP, true));
}

#[test]
fn malformed_packet_is_rejected_with_its_fault() {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(A.octets(), B.octets(), 9).udp(1, 2).write(&mut packet, b"abc").unwrap();
    assert_eq!(Inner::parse(&[]), Err(Malformed::Short(0)));
    assert_eq!(Inner::parse(&[0x55; 40]), Err(Malformed::Version(5)));
    assert_eq!(Inner::parse(&packet[..19]), Err(Malformed::Short(19)));
    assert_eq!(Inner::parse(&[0x44; 40]), Err(Malformed::HeaderLength(4)));
    assert_eq!(Inner::parse(&packet[..30]), Err(Malformed::Length { stated: 31, found: 30 }));
    packet.push(0);
    assert_eq!(Inner::parse(&packet), Err(Malformed::Length { stated: 31, found: 32 }));
    // A total length that ends within the header.
    packet.truncate(24);
    packet[0] = 0x46;
    packet[2..4].copy_from_slice(&20u16.to_be_bytes());
    assert_eq!(Inner::parse(&packet), Err(Malformed::Length { stated: 20, found: 24 }));
    assert_eq!(Inner::parse(&[0x60; 39]), Err(Malformed::Short(39)));
    assert_eq!(
        Inner::parse(&v6(59, &[0; 8])[..47]),
        Err(Malformed::Length { stated: 48, found: 47 })
    );
}

#[test]
fn fragment_beyond_maximum_length_is_rejected() {
    let mut packet = udp(false, &[0; 2]);
    packet[6..8].copy_from_slice(&0x1fffu16.to_be_bytes());
    let (offset, length) = (65528, 10);
    assert_eq!(Inner::parse(&packet), Err(Malformed::Fragment { offset, length }));
    let rest = [17, 0, 0xff, 0xf8, 0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8];
    let (offset, length) = (65528, 8);
    assert_eq!(Inner::parse(&v6(44, &rest)), Err(Malformed::Fragment { offset, length }));
    assert!(Inner::parse(&v6(44, &rest[..15])).is_ok());
}

#[test]
fn extension_headers_are_skipped_up_to_transport() {
    let mut rest = vec![60, 0, 0, 0, 0, 0, 0, 0]; // hop by hop, then destination options
    rest.extend([43, 0, 0, 0, 0, 0, 0, 0]); // then routing
    rest.extend([44, 0, 0, 0, 0, 0, 0, 0]); // then a fragment header
    rest.extend([17, 0, 0, 1, 0, 0, 0, 7]); // of a first fragment, then UDP
    rest.extend([0; 16]);
    let inner = Inner::parse(&v6(0, &rest)).unwrap();
    assert_eq!((inner.protocol, inner.header_length), (ip_number::UDP, 40 + 32));
    assert_eq!((inner.fragment_offset, inner.more_fragments), (0, true));

    assert_eq!(
        Inner::parse(&v6(0, &[17, 1, 0, 0, 0, 0, 0, 0])),
        Err(Malformed::Extension(ip_number::IPV6_HOP_BY_HOP))
    );
}

#[test]
fn source_route_of_either_family_is_recognized() {
    let routed = |options: &[u8]| {
        let mut packet = udp(false, b"abc");
        packet.splice(20..20, options.iter().copied());
        packet[0] = 0x40 | (5 + u8::try_from(options.len()).unwrap() / 4);
        let length = u16::try_from(packet.len()).unwrap();
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        Inner::parse(&packet).unwrap().source_routed
    };
    assert!(!routed(&[]));
    for kind in [131, 137] {
        assert!(routed(&[kind, 7, 4, 8, 8, 8, 8, 0]));
        // After a no-operation and a router alert.
        assert!(routed(&[1, 148, 4, 0, 0, kind, 7, 4, 8, 8, 8, 8]));
        // After the end of the options it does not count.
        assert!(!routed(&[0, kind, 7, 4, 8, 8, 8, 8]));
    }
    // A router alert alone, and options of invalid lengths.
    for options in [[148, 4, 0, 0], [148, 1, 131, 7], [148, 9, 131, 7], [1, 1, 1, 148]] {
        assert!(!routed(&options), "{options:?}");
    }

    for (segments_left, expected) in [(0, false), (1, true)] {
        let rest = [[17, 0, 4, segments_left, 0, 0, 0, 0], [0; 8]].concat();
        let inner = Inner::parse(&v6(43, &rest)).unwrap();
        assert_eq!(inner.source_routed, expected);
    }
}

#[test]
fn later_fragment_payload_is_not_parsed_as_headers() {
    let inner = Inner::parse(&v6(44, &[60, 0, 0, 8, 0, 0, 0, 7, 17, 255])).unwrap();
    assert_eq!((inner.protocol, inner.fragment_offset), (ip_number::IPV6_DEST_OPTIONS, 8));
    assert_eq!(inner.header_length, 48);
}

proptest! {
    #[test]
    fn parsed_lengths_are_within_the_packet(
        first in prop::sample::select(vec![0x45, 0x46, 0x4f, 0x60u8]),
        mut packet in prop::collection::vec(any::<u8>(), 1..120),
    ) {
        packet[0] = first;
        let length = u16::try_from(packet.len()).unwrap();
        let at = if first == 0x60 { 4 } else { 2 };
        let stated = if first == 0x60 { length.saturating_sub(40) } else { length };
        if let Some(field) = packet.get_mut(at..at + 2) {
            field.copy_from_slice(&stated.to_be_bytes());
        }
        if let Ok(inner) = Inner::parse(&packet) {
            prop_assert_eq!(usize::from(inner.length), packet.len());
            prop_assert!(inner.header_length <= inner.length);
        }
    }
}
