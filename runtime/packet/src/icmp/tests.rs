use etherparse::checksum::u64_16bit_word::{add_slice, ones_complement};
use etherparse::{Icmpv4Slice, Icmpv6Slice, IpSlice};
use proptest::prelude::*;

use super::*;
use crate::gso::split;
use crate::samples::{A, A6, B, B6, ip, tcp, tcp_header, udp, unfinished};

const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0, 0, 1, 0, 0, 0, 1);
const MESSAGES: [Message; 3] =
    [Message::NetUnreachable, Message::TimeExceeded, Message::TooBig { mtu: 1372 }];

fn error_for(message: Message, packet: &[u8]) -> Option<Vec<u8>> {
    let inner = Inner::parse(packet).unwrap();
    let source = if inner.source.is_ipv6() { ROUTER6.into() } else { ROUTER.into() };
    let whole = Datagram { header: &[], payload: packet };
    answer(message, whole, &inner, source, &mut vec![0xaa; 7]).map(<[u8]>::to_vec)
}

fn changed(mut packet: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    packet
}

#[test]
fn ipv4_error_is_well_formed() {
    let packet = udp(false, &[5; 1000]);
    for (message, head) in MESSAGES.into_iter().zip([[3, 0], [11, 0], [3, 4]]) {
        let reply = error_for(message, &packet).unwrap();
        let inner = Inner::parse(&reply).unwrap();
        assert_eq!((inner.source, inner.destination), (ROUTER.into(), A.into()));
        assert_eq!((inner.protocol, inner.length), (ip_number::ICMP, 576));
        let sliced = IpSlice::from_slice(&reply).unwrap();
        let header = sliced.ipv4().unwrap().header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!(reply[1], 0xc0);
        let icmp = Icmpv4Slice::from_slice(sliced.payload().payload).unwrap();
        assert_eq!(ones_complement(add_slice(0, &reply[20..])), 0);
        assert_eq!([icmp.type_u8(), icmp.code_u8()], head);
        assert_eq!(icmp.bytes5to8(), if head == [3, 4] { [0, 0, 5, 92] } else { [0; 4] });
        assert_eq!(icmp.payload(), &packet[..548]);
    }
}

#[test]
fn ipv6_error_is_well_formed() {
    let packet = udp(true, &[5; 3000]);
    for (message, head) in MESSAGES.into_iter().zip([[1, 0], [3, 0], [2, 0]]) {
        let reply = error_for(message, &packet).unwrap();
        let inner = Inner::parse(&reply).unwrap();
        assert_eq!((inner.source, inner.destination), (ROUTER6.into(), A6.into()));
        assert_eq!((inner.protocol, inner.length), (ip_number::IPV6_ICMP, 1280));
        let sliced = IpSlice::from_slice(&reply).unwrap();
        let icmp = Icmpv6Slice::from_slice(sliced.payload().payload).unwrap();
        assert!(icmp.is_checksum_valid(ROUTER6.octets(), A6.octets()));
        assert_eq!([icmp.type_u8(), icmp.code_u8()], head);
        assert_eq!(icmp.bytes5to8(), if head == [2, 0] { [0, 0, 5, 92] } else { [0; 4] });
        assert_eq!(icmp.payload(), &packet[..1232]);
    }
}

#[test]
fn short_packet_is_quoted_in_full() {
    let packet = udp(false, b"abc");
    assert_eq!(error_for(Message::TimeExceeded, &packet).unwrap()[28..], packet);
}

#[test]
fn segment_is_quoted_from_both_pieces() {
    let mut packet = tcp(false, &tcp_header(1), &[5; 300]);
    let vnet = unfinished(&mut packet, 100);
    let (inner, mut headers) = (Inner::parse(&packet).unwrap(), Vec::new());
    let segment = split(&vnet, &mut packet, &inner, &mut headers).unwrap().nth(1).unwrap();
    let (source, mut reply) = (ROUTER.into(), Vec::new());
    let reply = answer(MESSAGES[2], segment, &inner, source, &mut reply).unwrap();
    assert_eq!(reply[28..], [segment.header, segment.payload].concat());
    assert_eq!(segment.payload, [5; 100]);
}

#[test]
fn icmp_error_causes_no_error() {
    for message in MESSAGES {
        for kind in 0..=255 {
            let asks = matches!(kind, 0 | 8..=10 | 13..=18);
            let packet = ip(false, ip_number::ICMP, &[kind, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(error_for(message, &packet).is_some(), asks, "ICMP {kind}");
            let packet = ip(true, ip_number::IPV6_ICMP, &[kind, 0, 0, 0, 0, 0, 0, 0]);
            let informs = kind >= 128 && kind != 137;
            assert_eq!(error_for(message, &packet).is_some(), informs, "ICMPv6 {kind}");
        }
        assert_eq!(error_for(message, &ip(false, ip_number::ICMP, &[])), None);
        // An error after an extension header.
        let packet = ip(true, ip_number::IPV6_DEST_OPTIONS, &[58, 0, 1, 4, 0, 0, 0, 0, 1, 0]);
        assert_eq!(error_for(message, &packet), None);
    }
}

#[test]
fn later_fragments_cause_no_error() {
    let first = changed(udp(false, &[0; 8]), 6, &[0x20, 0]);
    let second = changed(udp(false, &[0; 8]), 6, &[0, 1]);
    assert!(error_for(Message::TimeExceeded, &first).is_some());
    assert_eq!(error_for(Message::TimeExceeded, &second), None);
    let fragment = |offset| ip(true, ip_number::IPV6_FRAG, &[17, 0, 0, offset, 0, 0, 0, 1, 9]);
    assert!(error_for(Message::TimeExceeded, &fragment(1)).is_some());
    assert_eq!(error_for(Message::TimeExceeded, &fragment(8)), None);
}

#[test]
fn source_not_naming_a_host_gets_no_error() {
    for source in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
        let octets = source.parse::<Ipv4Addr>().unwrap().octets();
        let packet = changed(udp(false, b"abc"), 12, &octets);
        assert_eq!(error_for(Message::NetUnreachable, &packet), None, "{source}");
    }
    for source in ["::", "::1", "ff02::1"] {
        let octets = source.parse::<Ipv6Addr>().unwrap().octets();
        let packet = changed(udp(true, b"abc"), 8, &octets);
        assert_eq!(error_for(Message::NetUnreachable, &packet), None, "{source}");
    }
}

#[test]
fn multicast_causes_only_ipv6_packet_too_big() {
    for destination in ["224.0.0.1", "255.255.255.255"] {
        let octets = destination.parse::<Ipv4Addr>().unwrap().octets();
        let packet = changed(udp(false, b"abc"), 16, &octets);
        assert_eq!(MESSAGES.map(|it| error_for(it, &packet).is_some()), [false; 3]);
    }
    let packet = changed(udp(true, b"abc"), 24, &[0xff, 2]);
    assert_eq!(MESSAGES.map(|it| error_for(it, &packet).is_some()), [false, false, true]);
}

#[test]
fn own_address_of_other_family_sends_no_error() {
    let packet = udp(true, b"abc");
    let inner = Inner::parse(&packet).unwrap();
    let whole = Datagram { header: &[], payload: &packet };
    assert_eq!(answer(MESSAGES[0], whole, &inner, ROUTER.into(), &mut Vec::new()), None);
}

proptest! {
    #[test]
    fn any_parsed_packet_can_be_answered(
        v6: bool,
        protocol: u8,
        rest in prop::collection::vec(any::<u8>(), 0..99),
        source: [u8; 4],
        destination: [u8; 4],
    ) {
        let mut packet = ip(v6, protocol.into(), &rest);
        let (from, to) = if v6 { (8, 24) } else { (12, 16) };
        packet[from..from + 4].copy_from_slice(&source);
        packet[to..to + 4].copy_from_slice(&destination);
        if let Ok(inner) = Inner::parse(&packet) {
            let whole = Datagram { header: &[], payload: &packet };
            for message in MESSAGES {
                let source = if v6 { B6.into() } else { B.into() };
                let (mut reply, mut again) = (Vec::new(), Vec::new());
                let Some(reply) = answer(message, whole, &inner, source, &mut reply) else {
                    continue;
                };
                let error = Inner::parse(reply).unwrap();
                prop_assert_eq!(error.destination, inner.source);
                let whole = Datagram { header: &[], payload: reply };
                prop_assert_eq!(answer(message, whole, &error, source, &mut again), None);
            }
        }
    }
}
