//! Parses the headers of an inner packet.

use std::net::IpAddr;

use etherparse::{
    IpAuthHeaderSlice, IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice,
    Ipv6RawExtHeaderSlice, ip_number,
};
use heddle_core::address::Family;

use crate::numbers::saturating_u16;

/// The relevant fields of an inner packet with valid headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The number of remaining hops: time to live or hop limit.
    pub hop_limit: u8,
    /// The offset of the transport header in bytes, after the IP header with its options or
    /// extension headers.
    pub header_length: u16,
    /// The length of the whole packet in bytes, at least `header_length`.
    pub length: u16,
    /// The protocol after the headers. For IPv6 the first that is not an extension header, or the
    /// first of the fragmented part if `fragment_offset` is not 0.
    pub protocol: IpNumber,
    /// True if routers must not fragment it; always true for IPv6.
    pub dont_fragment: bool,
    /// The offset of the payload in the original packet's payload, in bytes.
    pub fragment_offset: u16,
    /// True if more fragments follow.
    pub more_fragments: bool,
    /// True if the sender prescribes a route: `destination` may be an intermediate stop (IPv4
    /// source route options, RFC 791, 3.1; an IPv6 routing header with segments left, RFC 8200,
    /// 4.4).
    pub source_routed: bool,
}

/// The reason why bytes are not a valid packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The packet ends within the IP header.
    #[error("{0} bytes do not hold an IP header")]
    Short(usize),
    /// The version is neither IPv4 nor IPv6.
    #[error("IP version {0}: expected 4 or 6")]
    Version(u8),
    /// The length of the IPv4 header, in units of four bytes, is below its minimum.
    #[error("an IPv4 header of {0} words: expected 5 or more")]
    HeaderLength(u8),
    /// The length in the header differs from the length of the datagram. Trailing bytes are
    /// refused, not cut off: nothing pads a datagram on its way, so its sender must mean something
    /// else by it. IPv6 jumbograms (RFC 2675) state no length and do not fit in a datagram.
    #[error("the header states a length of {stated} bytes, and there are {found}")]
    Length {
        /// The length in the header, in bytes.
        stated: usize,
        /// The actual length in bytes.
        found: usize,
    },
    /// An IPv6 extension header is malformed or exceeds the packet.
    #[error("an IPv6 extension header ({}) does not fit in the packet", .0.0)]
    Extension(IpNumber),
    /// A fragment ends beyond 65,535 bytes, the maximum length of a packet.
    #[error("a fragment of {length} bytes at {offset} goes beyond the longest packet")]
    Fragment {
        /// The fragment's offset in bytes.
        offset: u16,
        /// The fragment's payload in bytes.
        length: u16,
    },
}

impl Inner {
    /// Parses the packet that fills `packet` exactly.
    ///
    /// Does not verify the checksum of an IPv4 header: the kernel of the destination does that.
    ///
    /// # Errors
    ///
    /// [`Malformed`], if the headers are invalid.
    pub fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        let first = packet.first().ok_or(Malformed::Short(0))?;
        let inner = match first >> 4 {
            4 => Self::v4(packet),
            6 => Self::v6(packet),
            version => Err(Malformed::Version(version)),
        }?;
        let (offset, length) = (inner.fragment_offset, inner.length - inner.header_length);
        offset.checked_add(length).ok_or(Malformed::Fragment { offset, length })?;
        Ok(inner)
    }

    fn v4(packet: &[u8]) -> Result<Self, Malformed> {
        let header = Ipv4HeaderSlice::from_slice(packet).map_err(|_| match packet[0] & 0xf {
            words @ 0..5 => Malformed::HeaderLength(words),
            _ => Malformed::Short(packet.len()),
        })?;
        let (header_length, length) = (header.slice().len(), header.total_len());
        if usize::from(length) != packet.len() || header_length > packet.len() {
            return Err(Malformed::Length { stated: length.into(), found: packet.len() });
        }
        Ok(Self {
            source: header.source_addr().into(),
            destination: header.destination_addr().into(),
            hop_limit: header.ttl(),
            header_length: saturating_u16(header_length),
            length,
            protocol: header.protocol(),
            dont_fragment: header.dont_fragment(),
            fragment_offset: header.fragments_offset().byte_offset(),
            more_fragments: header.more_fragments(),
            source_routed: has_source_route(header.options()),
        })
    }

    fn v6(packet: &[u8]) -> Result<Self, Malformed> {
        let header =
            Ipv6HeaderSlice::from_slice(packet).map_err(|_| Malformed::Short(packet.len()))?;
        let stated = header.slice().len() + usize::from(header.payload_length());
        let length = u16::try_from(stated)
            .ok()
            .filter(|_| stated == packet.len())
            .ok_or(Malformed::Length { stated, found: packet.len() })?;
        let mut inner = Self {
            source: header.source_addr().into(),
            destination: header.destination_addr().into(),
            hop_limit: header.hop_limit(),
            header_length: saturating_u16(header.slice().len()),
            length,
            protocol: header.next_header(),
            dont_fragment: true,
            fragment_offset: 0,
            more_fragments: false,
            source_routed: false,
        };
        // After the header of a fragment other than the first comes the middle of a payload, not a
        // header.
        while inner.fragment_offset == 0 && inner.skip_extension(packet)? {}
        Ok(inner)
    }

    /// Skips the current extension header. Returns false if there is none.
    fn skip_extension(&mut self, packet: &[u8]) -> Result<bool, Malformed> {
        use ip_number::{AUTH, IPV6_DEST_OPTIONS, IPV6_FRAG, IPV6_HOP_BY_HOP, IPV6_ROUTE};
        let bad = Malformed::Extension(self.protocol);
        let rest = &packet[usize::from(self.header_length)..];
        let (length, next) = match self.protocol {
            IPV6_HOP_BY_HOP | IPV6_DEST_OPTIONS | IPV6_ROUTE => {
                let header = Ipv6RawExtHeaderSlice::from_slice(rest).map_err(|_| bad)?;
                // The field "segments left" of a routing header of any type.
                self.source_routed |= self.protocol == IPV6_ROUTE && header.slice()[3] != 0;
                (header.slice().len(), header.next_header())
            }
            IPV6_FRAG => {
                let header = Ipv6FragmentHeaderSlice::from_slice(rest).map_err(|_| bad)?;
                self.fragment_offset = header.fragment_offset().byte_offset();
                self.more_fragments = header.more_fragments();
                (header.slice().len(), header.next_header())
            }
            AUTH => {
                let header = IpAuthHeaderSlice::from_slice(rest).map_err(|_| bad)?;
                (header.slice().len(), header.next_header())
            }
            _ => return Ok(false),
        };
        self.header_length += saturating_u16(length);
        self.protocol = next;
        Ok(true)
    }

    /// Returns the family of its addresses.
    pub fn family(&self) -> Family {
        Family::of(self.source)
    }

    /// Returns true if it is a fragment.
    pub fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset != 0
    }
}

/// Returns true if the options of an IPv4 header include a source route, loose or strict. Malformed
/// options are searched up to the first error; the kernel refuses such packets
/// (`__ip_options_compile` in net/ipv4/ip_options.c).
fn has_source_route(mut options: &[u8]) -> bool {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    while let [kind, rest @ ..] = options {
        match *kind {
            END => return false,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return true,
            NO_OPERATION => options = rest,
            _ => {
                let length = usize::from(rest.first().copied().unwrap_or(0));
                let Some(behind) = options.get(length..).filter(|_| length >= 2) else {
                    return false;
                };
                options = behind;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
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
        PacketBuilder::ipv4(A.octets(), B.octets(), 9)
            .udp(1, 2)
            .write(&mut packet, b"abc")
            .unwrap();
        let inner = Inner::parse(&packet).unwrap();
        assert_eq!((inner.source, inner.destination), (A.into(), B.into()));
        assert_eq!((inner.hop_limit, inner.header_length, inner.length), (9, 20, 31));
        assert_eq!((inner.protocol, inner.dont_fragment), (ip_number::UDP, true));
        assert!(!inner.is_fragment());

        let mut packet = Vec::new();
        PacketBuilder::ipv6(A6.octets(), B6.octets(), 9)
            .udp(1, 2)
            .write(&mut packet, b"abc")
            .unwrap();
        let inner = Inner::parse(&packet).unwrap();
        assert_eq!((inner.source, inner.destination), (A6.into(), B6.into()));
        assert_eq!((inner.hop_limit, inner.header_length, inner.length), (9, 40, 51));
        assert_eq!((inner.protocol, inner.dont_fragment), (ip_number::UDP, true));
    }

    #[test]
    fn malformed_packet_is_rejected_with_its_fault() {
        let mut packet = Vec::new();
        PacketBuilder::ipv4(A.octets(), B.octets(), 9)
            .udp(1, 2)
            .write(&mut packet, b"abc")
            .unwrap();
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
}
