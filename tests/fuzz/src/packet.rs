//! Operations on packets, shared by the targets of the packet path.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::checksum::u64_16bit_word::{add_2bytes, add_slice, ones_complement};
use etherparse::ip_number;
use heddle_packet::datagrams::Datagram;
use heddle_packet::headers::Inner;
use heddle_packet::icmp::{Message, answer};
use heddle_packet::ttl;

/// Sets the lengths in the IP and UDP headers and the checksum of an IPv4 header to match the
/// bytes, so that the fuzzer's reach does not depend on a chance of one in 2^32.
pub fn repair(packet: &mut [u8]) {
    let length = u16::try_from(packet.len()).unwrap_or(u16::MAX);
    match packet.first().map(|first| first >> 4) {
        Some(4) if packet.len() >= 20 => {
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            let header = 4 * usize::from(packet[0] & 0xf);
            if let Some(header) = packet.get_mut(..header).filter(|it| it.len() >= 20) {
                header[10..12].fill(0);
                let checksum = ones_complement(add_slice(0, header));
                header[10..12].copy_from_slice(&checksum.to_ne_bytes());
            }
        }
        Some(6) if packet.len() >= 40 => {
            packet[4..6].copy_from_slice(&(length - 40).to_be_bytes());
        }
        _ => return,
    }
    let Ok(inner) = Inner::parse(packet) else { return };
    let transport = &mut packet[usize::from(inner.header_length)..];
    if inner.protocol == ip_number::UDP && transport.len() >= 8 {
        let length = u16::try_from(transport.len()).unwrap_or(u16::MAX);
        transport[4..6].copy_from_slice(&length.to_be_bytes());
    }
}

/// Returns true if an IPv4 header's checksum is correct; always true for IPv6.
pub fn header_is_sound(packet: &[u8], inner: &Inner) -> bool {
    inner.source.is_ipv6() || {
        let header = 4 * usize::from(packet[0] & 0xf);
        ones_complement(add_slice(0, &packet[..header])) == 0
    }
}

/// Returns the sum of the pseudo-header.
pub fn pseudo_header_sum(packet: &[u8], inner: &Inner) -> u64 {
    let hosts = if inner.source.is_ipv6() { 8..40 } else { 12..20 };
    let sum = add_2bytes(add_slice(0, &packet[hosts]), [0, inner.protocol.0]);
    add_2bytes(sum, (inner.length - inner.header_length).to_be_bytes())
}

/// Returns the checksum over the transport including its checksum field: 0 if that is correct.
pub fn transport_sum(packet: &[u8], inner: &Inner) -> u16 {
    let transport = &packet[usize::from(inner.header_length)..];
    ones_complement(add_slice(pseudo_header_sum(packet, inner), transport))
}

/// Decrements the hop limit, and asserts that nothing else changes. Returns false if the packet has
/// no hops left.
pub fn hop(packet: &mut [u8], inner: &Inner) -> bool {
    let before = packet.to_vec();
    let sound = header_is_sound(packet, inner);
    if ttl::decrement(packet, inner).is_err() {
        assert!(inner.hop_limit <= 1);
        assert_eq!(packet, before);
        return false;
    }
    let after = Inner::parse(packet).expect("a packet as before");
    assert_eq!(after, Inner { hop_limit: inner.hop_limit - 1, ..*inner });
    assert!(!sound || header_is_sound(packet, inner));
    true
}

/// Asserts that every ICMP message about the packet is permitted, well-formed, within the size
/// limit, addressed to its sender, and not itself answered.
pub fn complain(packet: Datagram<'_>, inner: &Inner) {
    let (source, longest) = match inner.source {
        IpAddr::V4(_) => (IpAddr::from(Ipv4Addr::new(10, 244, 0, 1)), 576),
        IpAddr::V6(_) => (IpAddr::from(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 1)), 1280),
    };
    let (mut reply, mut again) = (Vec::new(), Vec::new());
    for message in [Message::NetUnreachable, Message::TimeExceeded, Message::TooBig { mtu: 1280 }] {
        let Some(reply) = answer(message, packet, inner, source, &mut reply) else { continue };
        assert!(reply.len() <= longest);
        assert!(inner.fragment_offset == 0 && !inner.source.is_multicast());
        assert!(!inner.source.is_unspecified() && !inner.source.is_loopback());
        let bytes = [packet.header, packet.payload].concat();
        let kind = bytes.get(usize::from(inner.header_length)).copied();
        match inner.protocol {
            ip_number::ICMP => assert!(!matches!(kind, None | Some(3 | 4 | 5 | 11 | 12))),
            ip_number::IPV6_ICMP => assert!(!matches!(kind, None | Some(..128 | 137))),
            _ => {}
        }
        let error = Inner::parse(reply).expect("a message is a packet");
        assert_eq!((error.source, error.destination), (source, inner.source));
        assert!(header_is_sound(reply, &error));
        match source {
            IpAddr::V4(_) => assert_eq!(ones_complement(add_slice(0, &reply[20..])), 0),
            IpAddr::V6(_) => assert_eq!(transport_sum(reply, &error), 0),
        }
        let whole = Datagram { header: &[], payload: reply };
        assert!(answer(message, whole, &error, source, &mut again).is_none());
    }
}
