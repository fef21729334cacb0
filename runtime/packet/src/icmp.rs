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
            answer_v4(message, packet, (from, to), reply)
        }
        (IpAddr::V6(from), IpAddr::V6(to), IpAddr::V6(about)) => {
            let too_big = matches!(message, Message::TooBig { .. });
            if !names_host_v6(to) || (about.is_multicast() && !too_big) {
                return None;
            }
            answer_v6(message, packet, (from, to), reply)
        }
        _ => None,
    }
}

fn answer_v4<'a>(
    message: Message,
    packet: Datagram<'_>,
    (from, to): (Ipv4Addr, Ipv4Addr),
    reply: &'a mut Vec<u8>,
) -> Option<&'a [u8]> {
    let start = Ipv4Header::MIN_LEN + HEADER;
    quote(packet, start, LONGEST_V4, reply);
    let kind = match message {
        Message::NetUnreachable => {
            Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Network)
        }
        Message::TimeExceeded => Icmpv4Type::TimeExceeded(TimeExceededV4::TtlExceededInTransit),
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
    Some(reply)
}

fn answer_v6<'a>(
    message: Message,
    packet: Datagram<'_>,
    (from, to): (Ipv6Addr, Ipv6Addr),
    reply: &'a mut Vec<u8>,
) -> Option<&'a [u8]> {
    let start = Ipv6Header::LEN + HEADER;
    quote(packet, start, LONGEST_V6, reply);
    let kind = match message {
        Message::NetUnreachable => Icmpv6Type::DestinationUnreachable(DestUnreachableCode::NoRoute),
        Message::TimeExceeded => Icmpv6Type::TimeExceeded(TimeExceededV6::HopLimitExceeded),
        Message::TooBig { mtu } => Icmpv6Type::PacketTooBig { mtu },
    };
    let (source, destination) = (from.octets(), to.octets());
    let icmp = Icmpv6Header::with_checksum(kind, source, destination, &reply[start..]).ok()?;
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
mod tests;
