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
mod tests;
