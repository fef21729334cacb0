//! IP packets as the tests write and parse them, with a library that the product does not use for
//! that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{
    IcmpEchoHeader, Icmpv4Type, Icmpv6Type, IpFragOffset, IpHeaders, IpNumber, Ipv4Header,
    Ipv6Extensions, Ipv6FragmentHeader, Ipv6Header, NetHeaders, PacketBuilder, PacketHeaders,
    TcpHeader, TransportHeader, icmpv4, icmpv6,
};

/// Hop limit of packets that do not set one: Linux's default.
pub const HOP_LIMIT: u8 = 64;

/// An IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The IP header and its extensions.
    pub ip: IpHeaders,
    /// Transport header; none in a fragment.
    pub transport: Option<TransportHeader>,
    /// Payload behind the transport header.
    pub payload: Vec<u8>,
}

/// Position of a fragment in its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fragment {
    /// Identification of the packet.
    pub identification: u32,
    /// Offset in bytes.
    pub offset: u16,
    /// True if more fragments follow.
    pub more: bool,
}

impl Packet {
    /// Parses a packet.
    ///
    /// # Panics
    ///
    /// Unless the bytes are exactly one packet in which every length and every checksum is right,
    /// so that writing it again gives the same bytes.
    pub fn parse(bytes: &[u8]) -> Self {
        let headers = PacketHeaders::from_ip_slice(bytes)
            .unwrap_or_else(|error| panic!("{error} in {bytes:02x?}"));
        let ip = match headers.net {
            Some(NetHeaders::Ipv4(header, extensions)) => IpHeaders::Ipv4(header, extensions),
            Some(NetHeaders::Ipv6(header, extensions)) => IpHeaders::Ipv6(header, extensions),
            other => panic!("{other:?} in {bytes:02x?}"),
        };
        let payload = headers.payload.slice().to_vec();
        let packet = Self { ip, transport: headers.transport, payload };
        let again = packet.to_bytes();
        assert!(
            again == bytes,
            "a length or a checksum is wrong:\n{bytes:02x?}\ninstead of\n{again:02x?}"
        );
        packet
    }

    /// Returns the packet's bytes, with correct lengths and checksums.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ip(self.ip.clone());
        let payload = &self.payload;
        match &self.transport {
            Some(TransportHeader::Udp(udp)) => {
                builder.udp(udp.source_port, udp.destination_port).write(&mut bytes, payload)
            }
            Some(TransportHeader::Tcp(tcp)) => {
                builder.tcp_header(tcp.clone()).write(&mut bytes, payload)
            }
            Some(TransportHeader::Icmpv4(icmp)) => {
                builder.icmpv4(icmp.icmp_type.clone()).write(&mut bytes, payload)
            }
            Some(TransportHeader::Icmpv6(icmp)) => {
                builder.icmpv6(icmp.icmp_type).write(&mut bytes, payload)
            }
            Some(other) => panic!("no test uses {other:?}"),
            None => builder.write(&mut bytes, self.protocol(), payload),
        }
        .unwrap();
        bytes
    }

    /// Creates an empty packet.
    fn between(source: IpAddr, destination: IpAddr, protocol: IpNumber) -> Self {
        let ip = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let (source, destination) = (source.octets(), destination.octets());
                let header = Ipv4Header::new(0, HOP_LIMIT, protocol, source, destination).unwrap();
                IpHeaders::Ipv4(header, Default::default())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = Ipv6Header {
                    hop_limit: HOP_LIMIT,
                    next_header: protocol,
                    source: source.octets(),
                    destination: destination.octets(),
                    ..Default::default()
                };
                IpHeaders::Ipv6(header, Ipv6Extensions::default())
            }
            _ => panic!("{source} and {destination} are of two families"),
        };
        Self { ip, transport: None, payload: Vec::new() }
    }

    /// Creates a UDP datagram.
    pub fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Self {
        let mut packet = Self::between(source.ip(), destination.ip(), IpNumber::UDP);
        packet.transport = Some(TransportHeader::Udp(etherparse::UdpHeader {
            source_port: source.port(),
            destination_port: destination.port(),
            ..Default::default()
        }));
        packet.payload = payload.to_vec();
        packet
    }

    /// Creates a TCP segment.
    pub fn tcp(source: IpAddr, destination: IpAddr, header: TcpHeader, payload: &[u8]) -> Self {
        let mut packet = Self::between(source, destination, IpNumber::TCP);
        // Linux sets DF on TCP segments.
        if let IpHeaders::Ipv4(header, _) = &mut packet.ip {
            header.dont_fragment = true;
        }
        packet.transport = Some(TransportHeader::Tcp(header));
        packet.payload = payload.to_vec();
        packet
    }

    /// Creates an ICMP echo request.
    pub fn echo_request(
        source: IpAddr,
        destination: IpAddr,
        sequence: u16,
        payload: &[u8],
    ) -> Self {
        let echo = IcmpEchoHeader { id: 72, seq: sequence };
        let (v4, v6) = (Icmpv4Type::EchoRequest(echo), Icmpv6Type::EchoRequest(echo));
        Self::icmp(source, destination, v4, v6, payload)
    }

    /// Returns the reply, if this is an echo request.
    pub fn echo_reply(&self) -> Option<Self> {
        let echo = match self.transport.as_ref()? {
            TransportHeader::Icmpv4(header) => match header.icmp_type {
                Icmpv4Type::EchoRequest(echo) => echo,
                _ => return None,
            },
            TransportHeader::Icmpv6(header) => match header.icmp_type {
                Icmpv6Type::EchoRequest(echo) => echo,
                _ => return None,
            },
            _ => return None,
        };
        let (v4, v6) = (Icmpv4Type::EchoReply(echo), Icmpv6Type::EchoReply(echo));
        Some(Self::icmp(self.destination(), self.source(), v4, v6, &self.payload))
    }

    fn icmp(
        source: IpAddr,
        destination: IpAddr,
        v4: Icmpv4Type,
        v6: Icmpv6Type,
        payload: &[u8],
    ) -> Self {
        let v4_underneath = source.is_ipv4();
        let protocol = if v4_underneath { IpNumber::ICMP } else { IpNumber::IPV6_ICMP };
        let mut packet = Self::between(source, destination, protocol);
        packet.transport = Some(if v4_underneath {
            TransportHeader::Icmpv4(etherparse::Icmpv4Header::new(v4))
        } else {
            TransportHeader::Icmpv6(etherparse::Icmpv6Header::new(v6))
        });
        packet.payload = payload.to_vec();
        packet
    }

    /// Sets the TTL or hop limit.
    #[must_use]
    pub fn with_hop_limit(mut self, hop_limit: u8) -> Self {
        match &mut self.ip {
            IpHeaders::Ipv4(header, _) => header.time_to_live = hop_limit,
            IpHeaders::Ipv6(header, _) => header.hop_limit = hop_limit,
        }
        self
    }

    /// Returns the TTL or hop limit.
    pub fn hop_limit(&self) -> u8 {
        match &self.ip {
            IpHeaders::Ipv4(header, _) => header.time_to_live,
            IpHeaders::Ipv6(header, _) => header.hop_limit,
        }
    }

    /// Returns the source address.
    pub fn source(&self) -> IpAddr {
        match &self.ip {
            IpHeaders::Ipv4(header, _) => Ipv4Addr::from(header.source).into(),
            IpHeaders::Ipv6(header, _) => Ipv6Addr::from(header.source).into(),
        }
    }

    /// Returns the destination address.
    pub fn destination(&self) -> IpAddr {
        match &self.ip {
            IpHeaders::Ipv4(header, _) => Ipv4Addr::from(header.destination).into(),
            IpHeaders::Ipv6(header, _) => Ipv6Addr::from(header.destination).into(),
        }
    }

    /// Returns the transport protocol, behind the extensions.
    fn protocol(&self) -> IpNumber {
        self.ip.next_header().unwrap()
    }

    /// Returns the TCP header, if there is one.
    pub fn tcp_header(&self) -> Option<&TcpHeader> {
        match &self.transport {
            Some(TransportHeader::Tcp(header)) => Some(header),
            _ => None,
        }
    }

    /// Returns the UDP ports, source first, if there are any.
    pub fn udp_ports(&self) -> Option<(u16, u16)> {
        match &self.transport {
            Some(TransportHeader::Udp(header)) => {
                Some((header.source_port, header.destination_port))
            }
            _ => None,
        }
    }

    /// Returns ICMP type and code (RFC 792, RFC 4443), if this is an ICMP error.
    pub fn icmp_error(&self) -> Option<(u8, u8)> {
        let (kind, code) = match self.transport.as_ref()? {
            TransportHeader::Icmpv4(header) => {
                let bytes = header.to_bytes();
                (bytes[0], bytes[1])
            }
            TransportHeader::Icmpv6(header) => {
                (header.icmp_type.type_u8(), header.icmp_type.code_u8())
            }
            _ => return None,
        };
        let error = if self.source().is_ipv4() {
            [icmpv4::TYPE_DEST_UNREACH, icmpv4::TYPE_TIME_EXCEEDED].contains(&kind)
        } else {
            // "Error messages are identified as such by a zero in the high-order bit."
            kind < 128
        };
        error.then_some((kind, code))
    }

    /// Returns the position in the packet, if this is a fragment.
    pub fn fragment(&self) -> Option<Fragment> {
        let fragment = match &self.ip {
            IpHeaders::Ipv4(header, _) => Fragment {
                identification: header.identification.into(),
                offset: header.fragment_offset.byte_offset(),
                more: header.more_fragments,
            },
            IpHeaders::Ipv6(_, extensions) => {
                let header = extensions.fragment.as_ref()?;
                Fragment {
                    identification: header.identification,
                    offset: header.fragment_offset.byte_offset(),
                    more: header.more_fragments,
                }
            }
        };
        (fragment.offset > 0 || fragment.more).then_some(fragment)
    }

    /// Splits the packet into fragments with `size` bytes in each but the last; `size` is a
    /// multiple of 8.
    pub fn fragments(&self, identification: u16, size: usize) -> Vec<Self> {
        let whole = self.to_bytes();
        let contents = &whole[self.ip.header_len()..];
        let count = contents.len().div_ceil(size);
        let part = |(number, contents): (usize, &[u8])| {
            let fragment_offset = u16::try_from(number * size / 8).unwrap();
            let fragment_offset = IpFragOffset::try_new(fragment_offset).unwrap();
            let more_fragments = number + 1 < count;
            let mut ip = self.ip.clone();
            match &mut ip {
                IpHeaders::Ipv4(header, _) => {
                    header.identification = identification;
                    header.fragment_offset = fragment_offset;
                    header.more_fragments = more_fragments;
                    header.dont_fragment = false;
                }
                IpHeaders::Ipv6(header, extensions) => {
                    let next = header.next_header;
                    header.next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
                    extensions.fragment = Some(Ipv6FragmentHeader {
                        next_header: next,
                        fragment_offset,
                        more_fragments,
                        identification: identification.into(),
                    });
                }
            }
            Self { ip, transport: None, payload: contents.to_vec() }
        };
        contents.chunks(size).enumerate().map(part).collect()
    }

    /// Reassembles a packet, once all its fragments are there.
    pub fn reassemble(fragments: &[Self]) -> Option<Self> {
        let mut parts: Vec<_> =
            fragments.iter().filter_map(|part| Some((part.fragment()?, part))).collect();
        parts.sort_by_key(|(fragment, _)| *fragment);
        let (last, first) = (parts.last()?, parts.first()?.1);
        let mut contents = Vec::new();
        for (fragment, part) in &parts {
            if usize::from(fragment.offset) != contents.len() {
                return None;
            }
            contents.extend_from_slice(&part.payload);
        }
        if last.0.more {
            return None;
        }
        let protocol = first.protocol();
        let mut whole = Self { ip: first.ip.clone(), transport: None, payload: contents };
        match &mut whole.ip {
            IpHeaders::Ipv4(header, _) => header.more_fragments = false,
            IpHeaders::Ipv6(header, extensions) => {
                header.next_header = protocol;
                extensions.fragment = None;
            }
        }
        Some(Self::parse(&whole.to_bytes()))
    }
}

/// Returns ICMP type and code for “net unreachable”, or “no route to destination” in IPv6.
pub fn net_unreachable(address: IpAddr) -> (u8, u8) {
    if address.is_ipv4() {
        (icmpv4::TYPE_DEST_UNREACH, icmpv4::CODE_DST_UNREACH_NET)
    } else {
        (icmpv6::TYPE_DST_UNREACH, 0)
    }
}

/// Returns ICMP type and code for “time exceeded in transit”.
pub fn time_exceeded(address: IpAddr) -> (u8, u8) {
    if address.is_ipv4() {
        (icmpv4::TYPE_TIME_EXCEEDED, 0)
    } else {
        (icmpv6::TYPE_TIME_EXCEEDED, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagrams() -> [Packet; 2] {
        let payload: Vec<u8> = (0..300u32).map(|n| (n & 0xff) as u8).collect();
        [("10.1.2.3:7", "10.4.5.6:8"), ("[fd00::1]:7", "[fd00::2]:8")]
            .map(|(from, to)| Packet::udp(from.parse().unwrap(), to.parse().unwrap(), &payload))
    }

    #[test]
    fn packet_survives_write_and_parse() {
        for packet in datagrams() {
            let bytes = packet.to_bytes();
            assert_eq!(Packet::parse(&bytes).to_bytes(), bytes);
        }
    }

    #[test]
    fn packet_with_flipped_bit_panics() {
        for packet in datagrams() {
            let mut bytes = packet.to_bytes();
            *bytes.last_mut().unwrap() ^= 1;
            assert!(std::panic::catch_unwind(|| Packet::parse(&bytes)).is_err());
        }
    }

    #[test]
    fn fragments_reassemble_to_the_packet() {
        for packet in datagrams() {
            let mut parts = packet.fragments(9, 120);
            assert_eq!(parts.len(), 3);
            parts.reverse();
            let parts: Vec<_> = parts.iter().map(|part| Packet::parse(&part.to_bytes())).collect();
            assert_eq!(Packet::reassemble(&parts[1..]), None);
            assert_eq!(Packet::reassemble(&parts).unwrap().payload, packet.payload);
        }
    }

    #[test]
    fn echo_request_has_a_reply() {
        let request =
            Packet::echo_request("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap(), 3, b"abc");
        let reply = Packet::parse(&request.echo_reply().unwrap().to_bytes());
        assert_eq!(
            (reply.source(), reply.payload.as_slice()),
            (request.destination(), &b"abc"[..])
        );
        assert_eq!(reply.echo_reply(), None);
        assert_eq!(reply.icmp_error(), None);
    }
}
