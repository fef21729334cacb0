//! Builds ICMP errors for the sender of a packet that cannot be forwarded.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::icmpv4::{DestUnreachableHeader, TimeExceededCode as TimeExceededV4};
use etherparse::icmpv6::{DestUnreachableCode, TimeExceededCode as TimeExceededV6};
use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpDscp, Ipv4Header, Ipv6Header, ip_number,
};

use crate::datagrams::Datagram;
use crate::headers::Inner;
use crate::numbers::saturating_u16;

/// The error to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// There is no peer for the destination.
    NetUnreachable,
    /// The time to live has expired.
    TimeExceeded,
    /// The packet exceeds the path MTU and must not be fragmented.
    TooBig {
        /// The path MTU for inner packets, in bytes.
        mtu: u32,
    },
}

/// Maximum lengths of a message in bytes: RFC 1812, 4.3.2.3, and RFC 4443, 2.4 (c).
const LONGEST_V4: usize = 576;
const LONGEST_V6: usize = 1280;

/// The time to live of a message.
const HOP_LIMIT: u8 = 64;

/// The length of both kinds of ICMP header in bytes.
const HEADER: usize = 8;

/// Builds the message about a packet for its sender in `reply`; quotes as much of the packet as
/// allowed. `source` is the address that sends it, one of ours in the packet's family.
///
/// The packet may be a segment of the one that `inner` was parsed from. Returns `None` if no
/// message may be sent (RFC 1812, 4.3.2.7; RFC 4443, 2.4 (e)), such as about an ICMP error, or to
/// or because of an address that does not identify a host. Also returns `None` for an IPv6 fragment
/// other than the first, which may belong to an ICMP error.
pub fn answer<'a>(
    message: Message,
    packet: Datagram<'_>,
    inner: &Inner,
    source: IpAddr,
    reply: &'a mut Vec<u8>,
) -> Option<&'a [u8]> {
    if inner.fragment_offset != 0 || is_error(packet, inner) {
        return None;
    }
    match (source, inner.source, inner.destination) {
        (IpAddr::V4(from), IpAddr::V4(to), IpAddr::V4(about)) => {
            if !names_host_v4(to) || about.is_multicast() || about.is_broadcast() {
                return None;
            }
            let start = Ipv4Header::MIN_LEN + HEADER;
            quote(packet, start, LONGEST_V4, reply);
            let kind = match message {
                Message::NetUnreachable => {
                    Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Network)
                }
                Message::TimeExceeded => {
                    Icmpv4Type::TimeExceeded(TimeExceededV4::TtlExceededInTransit)
                }
                Message::TooBig { mtu } => {
                    let next_hop_mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
                    Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
                        next_hop_mtu,
                    })
                }
            };
            let icmp = Icmpv4Header::with_checksum(kind, &reply[start..]);
            let length = saturating_u16(reply.len() - Ipv4Header::MIN_LEN);
            let (from, to) = (from.octets(), to.octets());
            let mut ip = Ipv4Header::new(length, HOP_LIMIT, ip_number::ICMP, from, to).ok()?;
            // Internetwork control (RFC 1812, 4.3.2.5).
            ip.dscp = IpDscp::try_new(0b11_0000).ok()?;
            ip.header_checksum = ip.calc_header_checksum();
            reply[..Ipv4Header::MIN_LEN].copy_from_slice(&ip.to_bytes());
            reply[Ipv4Header::MIN_LEN..start].copy_from_slice(&icmp.to_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to), IpAddr::V6(about)) => {
            let too_big = matches!(message, Message::TooBig { .. });
            if !names_host_v6(to) || (about.is_multicast() && !too_big) {
                return None;
            }
            let start = Ipv6Header::LEN + HEADER;
            quote(packet, start, LONGEST_V6, reply);
            let kind = match message {
                Message::NetUnreachable => {
                    Icmpv6Type::DestinationUnreachable(DestUnreachableCode::NoRoute)
                }
                Message::TimeExceeded => Icmpv6Type::TimeExceeded(TimeExceededV6::HopLimitExceeded),
                Message::TooBig { mtu } => Icmpv6Type::PacketTooBig { mtu },
            };
            let (source, destination) = (from.octets(), to.octets());
            let icmp =
                Icmpv6Header::with_checksum(kind, source, destination, &reply[start..]).ok()?;
            let ip = Ipv6Header {
                payload_length: saturating_u16(reply.len() - Ipv6Header::LEN),
                next_header: ip_number::IPV6_ICMP,
                hop_limit: HOP_LIMIT,
                source,
                destination,
                ..Ipv6Header::default()
            };
            reply[..Ipv6Header::LEN].copy_from_slice(&ip.to_bytes());
            reply[Ipv6Header::LEN..start].copy_from_slice(&icmp.to_bytes());
        }
        _ => return None,
    }
    Some(reply)
}

/// Fills `reply` with space for headers up to `start` and the beginning of the packet, `longest`
/// bytes at most.
fn quote(packet: Datagram<'_>, start: usize, longest: usize, reply: &mut Vec<u8>) {
    reply.clear();
    reply.resize(start, 0);
    let bytes = packet.header.iter().chain(packet.payload);
    reply.extend(bytes.take(longest - start));
}

/// Returns true if the packet is an ICMP error, or if that cannot be ruled out.
fn is_error(packet: Datagram<'_>, inner: &Inner) -> bool {
    let mut bytes = packet.header.iter().chain(packet.payload);
    let kind = bytes.nth(inner.header_length.into());
    match inner.protocol {
        // Echo, router discovery, timestamp, information and address mask (RFC 1122, 3.2.2).
        ip_number::ICMP => !matches!(kind, Some(0 | 8..=10 | 13..=18)),
        // Informational messages except redirects (RFC 4443, 2.1 and 2.4 (e.2)).
        ip_number::IPV6_ICMP => !matches!(kind, Some(128..=136 | 138..)),
        _ => false,
    }
}

/// Returns false for "this" network, loopback, multicast, and the reserved addresses above,
/// including the broadcast address.
fn names_host_v4(address: Ipv4Addr) -> bool {
    !matches!(address.octets()[0], 0 | 127 | 224..)
}

fn names_host_v6(address: Ipv6Addr) -> bool {
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
}

#[cfg(test)]
mod tests {
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

    fn told(message: Message, packet: &[u8]) -> Option<Vec<u8>> {
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
            let reply = told(message, &packet).unwrap();
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
            let reply = told(message, &packet).unwrap();
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
        assert_eq!(told(Message::TimeExceeded, &packet).unwrap()[28..], packet);
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
                assert_eq!(told(message, &packet).is_some(), asks, "ICMP {kind}");
                let packet = ip(true, ip_number::IPV6_ICMP, &[kind, 0, 0, 0, 0, 0, 0, 0]);
                let informs = kind >= 128 && kind != 137;
                assert_eq!(told(message, &packet).is_some(), informs, "ICMPv6 {kind}");
            }
            assert_eq!(told(message, &ip(false, ip_number::ICMP, &[])), None);
            // An error after an extension header.
            let packet = ip(true, ip_number::IPV6_DEST_OPTIONS, &[58, 0, 1, 4, 0, 0, 0, 0, 1, 0]);
            assert_eq!(told(message, &packet), None);
        }
    }

    #[test]
    fn later_fragments_cause_no_error() {
        let first = changed(udp(false, &[0; 8]), 6, &[0x20, 0]);
        let second = changed(udp(false, &[0; 8]), 6, &[0, 1]);
        assert!(told(Message::TimeExceeded, &first).is_some());
        assert_eq!(told(Message::TimeExceeded, &second), None);
        let fragment = |offset| ip(true, ip_number::IPV6_FRAG, &[17, 0, 0, offset, 0, 0, 0, 1, 9]);
        assert!(told(Message::TimeExceeded, &fragment(1)).is_some());
        assert_eq!(told(Message::TimeExceeded, &fragment(8)), None);
    }

    #[test]
    fn source_not_naming_a_host_gets_no_error() {
        for source in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
            let octets = source.parse::<Ipv4Addr>().unwrap().octets();
            let packet = changed(udp(false, b"abc"), 12, &octets);
            assert_eq!(told(Message::NetUnreachable, &packet), None, "{source}");
        }
        for source in ["::", "::1", "ff02::1"] {
            let octets = source.parse::<Ipv6Addr>().unwrap().octets();
            let packet = changed(udp(true, b"abc"), 8, &octets);
            assert_eq!(told(Message::NetUnreachable, &packet), None, "{source}");
        }
    }

    #[test]
    fn multicast_causes_only_ipv6_packet_too_big() {
        for destination in ["224.0.0.1", "255.255.255.255"] {
            let octets = destination.parse::<Ipv4Addr>().unwrap().octets();
            let packet = changed(udp(false, b"abc"), 16, &octets);
            assert_eq!(MESSAGES.map(|it| told(it, &packet).is_some()), [false; 3]);
        }
        let packet = changed(udp(true, b"abc"), 24, &[0xff, 2]);
        assert_eq!(MESSAGES.map(|it| told(it, &packet).is_some()), [false, false, true]);
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
}
