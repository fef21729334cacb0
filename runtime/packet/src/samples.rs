//! Packets for tests, built with etherparse.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::checksum::u64_16bit_word::{add_2bytes, add_slice, ones_complement};
use etherparse::{
    IpNumber, IpSlice, Ipv4Header, Ipv6FlowLabel, Ipv6Header, TcpHeader, TcpSlice, UdpHeader,
    UdpSlice, ip_number,
};

use crate::headers::Inner;
use crate::vnet::{self, Vnet};

pub(crate) const A: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 2);
pub(crate) const B: Ipv4Addr = Ipv4Addr::new(10, 244, 2, 3);
pub(crate) const A6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0, 0, 1, 0, 0, 0, 2);
pub(crate) const B6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0, 0, 2, 0, 0, 0, 3);

/// Builds a packet of these bytes after an IP header with correct lengths and checksums.
pub(crate) fn ip(v6: bool, protocol: IpNumber, rest: &[u8]) -> Vec<u8> {
    let mut packet = if v6 {
        Ipv6Header {
            traffic_class: 0b10,
            flow_label: Ipv6FlowLabel::try_new(0xabcde).unwrap(),
            payload_length: rest.len().try_into().unwrap(),
            next_header: protocol,
            hop_limit: 61,
            source: A6.octets(),
            destination: B6.octets(),
        }
        .to_bytes()
        .to_vec()
    } else {
        let length = rest.len().try_into().unwrap();
        let mut header = Ipv4Header::new(length, 61, protocol, A.octets(), B.octets()).unwrap();
        header.identification = 0xfffe;
        header.header_checksum = header.calc_header_checksum();
        header.to_bytes().to_vec()
    };
    packet.extend(rest);
    packet
}

/// Builds a TCP header from port 5000 to port 80, with options and without a checksum.
pub(crate) fn tcp_header(sequence: u32) -> TcpHeader {
    let mut header = TcpHeader::new(5000, 80, sequence, 509);
    header.ack = true;
    header.acknowledgment_number = 77;
    header.set_options_raw(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]).unwrap();
    header
}

/// Builds a TCP segment with correct checksums.
pub(crate) fn tcp(v6: bool, header: &TcpHeader, payload: &[u8]) -> Vec<u8> {
    let mut header = header.clone();
    header.checksum = if v6 {
        header.calc_checksum_ipv6_raw(A6.octets(), B6.octets(), payload).unwrap()
    } else {
        header.calc_checksum_ipv4_raw(A.octets(), B.octets(), payload).unwrap()
    };
    ip(v6, ip_number::TCP, &[&header.to_bytes()[..], payload].concat())
}

/// Builds a UDP datagram with correct checksums.
pub(crate) fn udp(v6: bool, payload: &[u8]) -> Vec<u8> {
    let header = if v6 {
        let mut header = UdpHeader::without_ipv4_checksum(5000, 53, payload.len()).unwrap();
        header.checksum = header.calc_checksum_ipv6_raw(A6.octets(), B6.octets(), payload).unwrap();
        header
    } else {
        let ip = Ipv4Header::new(0, 1, ip_number::UDP, A.octets(), B.octets()).unwrap();
        UdpHeader::with_ipv4_checksum(5000, 53, &ip, payload).unwrap()
    };
    ip(v6, ip_number::UDP, &[&header.to_bytes()[..], payload].concat())
}

/// Returns the header that the kernel would put before this packet for this segment size, and
/// replaces the packet's checksum with the sum of the pseudo-header.
pub(crate) fn unfinished(packet: &mut [u8], segment_size: u16) -> Vnet {
    let inner = Inner::parse(packet).unwrap();
    let start = usize::from(inner.header_length);
    let length = u16::try_from(packet.len() - start).unwrap();
    let hosts = if inner.source.is_ipv6() { 8..40 } else { 12..20 };
    let sum = add_2bytes(add_slice(0, &packet[hosts]), [0, inner.protocol.0]);
    let sum = !ones_complement(add_2bytes(sum, length.to_be_bytes()));
    let (offset, header) = match inner.protocol {
        ip_number::TCP => (16, usize::from(packet[start + 12] >> 4) * 4),
        _ => (6, 8),
    };
    packet[start + usize::from(offset)..][..2].copy_from_slice(&sum.to_ne_bytes());
    let segmented = usize::from(segment_size) < packet.len() - start - header;
    let cwr = inner.protocol == ip_number::TCP && packet[start + 13] & 0x80 != 0;
    Vnet {
        flags: vnet::NEEDS_CHECKSUM,
        segmentation: match (inner.protocol, inner.source) {
            _ if !segmented => vnet::NONE,
            (ip_number::TCP, IpAddr::V4(_)) => vnet::TCP_V4,
            (ip_number::TCP, IpAddr::V6(_)) => vnet::TCP_V6,
            _ => vnet::UDP,
        } | if cwr && segmented { vnet::ECN } else { 0 },
        header_length: (start + header).try_into().unwrap(),
        segment_size: if segmented { segment_size } else { 0 },
        checksum_start: inner.header_length,
        checksum_offset: offset,
    }
}

/// Panics unless the lengths and checksums of a TCP or UDP packet are correct according to
/// etherparse.
pub(crate) fn assert_sound(packet: &[u8]) {
    let sliced = IpSlice::from_slice(packet).expect("an IP packet");
    let payload = sliced.payload();
    if let Some(v4) = sliced.ipv4() {
        let header = v4.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum(), "IPv4 header");
        assert_eq!(usize::from(header.total_len), packet.len());
    }
    match payload.ip_number {
        ip_number::TCP => {
            let tcp = TcpSlice::from_slice(payload.payload).expect("a TCP segment");
            let checksum = match (sliced.source_addr(), sliced.destination_addr()) {
                (IpAddr::V4(a), IpAddr::V4(b)) => tcp.calc_checksum_ipv4(a.octets(), b.octets()),
                (IpAddr::V6(a), IpAddr::V6(b)) => tcp.calc_checksum_ipv6(a.octets(), b.octets()),
                _ => unreachable!("one family"),
            };
            assert!(same_sum(tcp.checksum(), checksum.unwrap()), "TCP checksum");
        }
        ip_number::UDP => {
            let udp = UdpSlice::from_slice(payload.payload).expect("a UDP datagram");
            let (header, data) = (udp.to_header(), udp.payload());
            assert_eq!(usize::from(header.length), payload.payload.len());
            let checksum = match (sliced.source_addr(), sliced.destination_addr()) {
                (IpAddr::V4(a), IpAddr::V4(b)) => {
                    header.calc_checksum_ipv4_raw(a.octets(), b.octets(), data)
                }
                (IpAddr::V6(a), IpAddr::V6(b)) => {
                    header.calc_checksum_ipv6_raw(a.octets(), b.octets(), data)
                }
                _ => unreachable!("one family"),
            };
            assert!(same_sum(header.checksum, checksum.unwrap()), "UDP checksum");
        }
        other => panic!("protocol {other:?}"),
    }
}

/// Compares two checksums: zero has two representations.
fn same_sum(a: u16, b: u16) -> bool {
    a == b || (a.is_multiple_of(0xffff) && b.is_multiple_of(0xffff))
}
