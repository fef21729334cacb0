//! Coalesces datagrams into packets for the device (generic receive offload): consecutive segments
//! of a flow become one packet, which passes the kernel's stack once.
//!
//! The rules are those of the kernel's own GRO (`tcp_gro_receive`, `udp_gro_receive_segment` and
//! `inet_gro_receive`): segments of one size whose headers differ only in what follows from their
//! position. Neither this module nor the kernel verifies the checksum of a coalesced segment, so
//! the checksum of the datagram that carried it must have been verified. The payload is not copied.

use std::iter::FusedIterator;
use std::ops::Range;

use etherparse::checksum::u64_16bit_word::{add_2bytes, add_slice, ones_complement};
use etherparse::{IpNumber, TcpHeaderSlice, UdpHeader, ip_number};
use heddle_core::address::Family;

use crate::headers::Inner;
use crate::numbers::{saturating_u16, saturating_u32};
use crate::transport::{CWR, FIN, PSH, RST, SYN, Transport, URG, put, word};
use crate::vnet::{self, Vnet};

/// The maximum length of a coalesced packet in bytes.
const LONGEST: usize = 65535;

/// The maximum number of pieces of a packet: `writev` takes 1024 (`UIO_MAXIOV`), and the first is
/// the virtio header.
pub const MOST: usize = 1023;

/// The maximum number of coalesced UDP datagrams: `UDP_MAX_SEGMENTS` in kernels up to 6.8; later
/// ones allow 128.
const MOST_UDP: usize = 64;

/// The maximum number of flows coalesced at a time. A further flow replaces the one with the oldest
/// open packet.
const FLOWS: usize = 8;

/// Coalesces the datagrams that one or several receive calls left in a buffer.
///
/// Keeps the order within a flow. Flows may be reordered, as by the kernel.
#[derive(Debug, Default)]
pub struct Coalescer {
    udp: bool,
    pieces: Vec<Piece>,
    groups: Vec<Group>,
    /// The groups that may grow, newest last.
    open: Vec<usize>,
}

/// A packet for the device.
#[derive(Clone, Debug)]
pub struct Packet<'a> {
    /// Its virtio header.
    pub vnet: Vnet,
    /// Its bytes without the virtio header: at most [`MOST`] pieces.
    pub pieces: Pieces<'a>,
    /// The length of all pieces in bytes.
    pub length: usize,
    /// The number of its datagrams.
    pub datagrams: usize,
}

/// A piece of a packet, and the index of the next piece.
#[derive(Clone, Debug)]
struct Piece {
    at: Range<usize>,
    next: Option<usize>,
}

/// The datagrams of one packet.
#[derive(Clone, Debug)]
struct Group {
    /// The index of the first piece, which is the first datagram with all its headers.
    first: usize,
    last: usize,
    count: usize,
    /// The length of all pieces in bytes.
    length: usize,
    /// `None` for a datagram that can never be coalesced; it is the only one in its group.
    segment: Option<Segment>,
    vnet: Vnet,
}

/// The properties of a datagram, or of a group, that decide whether others can be appended.
#[derive(Clone, Copy, Debug)]
struct Segment {
    family: Family,
    transport: Transport,
    /// The length of all headers in bytes.
    header: usize,
    /// The payload of the first datagram in bytes.
    payload: usize,
    /// TCP: the sequence number after the last payload.
    next: u32,
    /// TCP: the flags FIN and PSH, if set. They end a group.
    flags: u8,
}

impl Coalescer {
    /// Creates a coalescer for TCP, and for UDP if the device can segment it again (`TUN_F_USO4`
    /// and `TUN_F_USO6`).
    pub fn new(udp: bool) -> Self {
        Self { udp, ..Self::default() }
    }

    /// Removes all datagrams.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.groups.clear();
        self.open.clear();
    }

    /// Adds the datagram at this range of the buffer; `inner` are its parsed headers.
    pub fn push(&mut self, buffer: &[u8], at: Range<usize>, inner: &Inner) {
        let packet = &buffer[at.clone()];
        let Some(segment) = Segment::of(packet, inner, self.udp) else {
            // Later segments of its flow must not overtake it. It may not have ports to identify
            // the flow.
            let (groups, pieces) = (&self.groups, &self.pieces);
            self.open.retain(|&open| {
                let first = &buffer[pieces[groups[open].first].at.clone()];
                !groups[open].segment.is_some_and(|it| it.concerns(first, packet, inner))
            });
            self.begin(at, None);
            return;
        };
        for place in (0..self.open.len()).rev() {
            let open = self.open[place];
            let group = &mut self.groups[open];
            let first = &buffer[self.pieces[group.first].at.clone()];
            if !group.segment.is_some_and(|it| it.is_flow(first, &segment, packet)) {
                continue;
            }
            if !group.takes(first, &segment, packet) {
                self.open.remove(place);
                break;
            }
            let piece = Piece { at: at.start + segment.header..at.end, next: None };
            self.pieces[group.last].next = Some(self.pieces.len());
            group.last = self.pieces.len();
            self.pieces.push(piece);
            if !group.grow(&segment) {
                self.open.remove(place);
            }
            return;
        }
        self.begin(at, Some(segment));
    }

    /// Begins a group. It is open if other datagrams may be appended.
    fn begin(&mut self, at: Range<usize>, segment: Option<Segment>) {
        if segment.is_some_and(|segment| segment.flags == 0) {
            if self.open.len() == FLOWS {
                self.open.remove(0);
            }
            self.open.push(self.groups.len());
        }
        let (first, length) = (self.pieces.len(), at.len());
        self.pieces.push(Piece { at, next: None });
        let vnet = Vnet::default();
        self.groups.push(Group { first, last: first, count: 1, length, segment, vnet });
    }

    /// Returns the resulting packets, which refer to this buffer. Rewrites the headers of coalesced
    /// packets in the buffer.
    pub fn packets<'a>(&'a mut self, buffer: &'a mut [u8]) -> Packets<'a> {
        for group in &mut self.groups {
            if let Some(segment) = group.segment.filter(|_| group.count > 1) {
                let start = self.pieces[group.first].at.start;
                let header = &mut buffer[start..start + segment.header];
                group.vnet = segment.amend(header, group.length);
            }
        }
        Packets { buffer, pieces: &self.pieces, groups: self.groups.iter() }
    }
}

impl Group {
    /// Returns true if a segment of the same flow continues the group, whose first datagram is
    /// `first`.
    fn takes(&self, first: &[u8], segment: &Segment, packet: &[u8]) -> bool {
        let Some(group) = &self.segment else { return false };
        let (first_network, first) = first.split_at(group.network());
        let (network, rest) = packet.split_at(segment.network());
        let same = |part: Range<usize>| first.get(part.clone()) == rest.get(part);
        segment.payload <= group.payload
            && self.length + segment.payload <= LONGEST
            && match group.family {
                // Header length and type of service; fragmentation and time to live.
                Family::V4 => {
                    let dont_fragment = network[6] & 0x40 != 0;
                    let id = word(first_network, 4).wrapping_add(saturating_u16(self.count));
                    network[..2] == first_network[..2]
                        && network[6..9] == first_network[6..9]
                        // The identification has no meaning without fragmentation (RFC 6864, 4.1).
                        && (dont_fragment || word(network, 4) == id)
                }
                // Traffic class and flow label; hop limit.
                Family::V6 => network[..4] == first_network[..4] && network[7] == first_network[7],
            }
            && match group.transport {
                Transport::Tcp => {
                    let sequence = u32::from_be_bytes([rest[4], rest[5], rest[6], rest[7]]);
                    self.count < MOST
                        && sequence == group.next
                        // Only the first segment may have CWR, and only the last may have flags
                        // that end a group.
                        && (first[13] ^ rest[13]) & !(FIN | PSH | CWR) == 0
                        && rest[13] & CWR == 0
                        // Acknowledgement; header length; window; options.
                        && same(8..13)
                        && same(14..16)
                        && same(20..group.header - group.network())
                }
                Transport::Udp => self.count < MOST_UDP,
            }
    }

    /// Appends a segment that continues the group. Returns true if another one may follow.
    fn grow(&mut self, segment: &Segment) -> bool {
        self.count += 1;
        self.length += segment.payload;
        self.segment.as_mut().is_some_and(|group| {
            group.next = segment.next;
            group.flags = segment.flags;
            segment.payload == group.payload && segment.flags == 0
        })
    }
}

impl Segment {
    /// Extracts the properties of a datagram. Returns `None` if it can never be coalesced.
    fn of(packet: &[u8], inner: &Inner, udp: bool) -> Option<Self> {
        let family = inner.family();
        let start = network(family);
        // Options or extension headers prevent coalescing.
        if inner.is_fragment() || usize::from(inner.header_length) != start {
            return None;
        }
        let rest = &packet[start..];
        let (transport, header, next, flags) = match inner.protocol {
            ip_number::TCP => {
                let header = TcpHeaderSlice::from_slice(rest).ok()?;
                let length = header.slice().len();
                let payload = saturating_u32(rest.len() - length);
                let next = header.sequence_number().wrapping_add(payload);
                let flags = rest[13];
                if flags & (SYN | RST | URG) != 0 {
                    return None;
                }
                (Transport::Tcp, length, next, flags & (FIN | PSH))
            }
            ip_number::UDP if udp => {
                // A coalesced packet would have a checksum, and this sender sends none.
                if rest.len() < UdpHeader::LEN || word(rest, 6) == 0 {
                    return None;
                }
                if usize::from(word(rest, 4)) != rest.len() {
                    return None;
                }
                (Transport::Udp, UdpHeader::LEN, 0, 0)
            }
            _ => return None,
        };
        // Rewriting the header would hide a wrong checksum.
        if family == Family::V4 && ones_complement(add_slice(0, &packet[..start])) != 0 {
            return None;
        }
        let payload = rest.len() - header;
        let header = start + header;
        (payload > 0).then_some(Self { family, transport, header, payload, next, flags })
    }

    /// Returns the length of the IP header in bytes.
    fn network(&self) -> usize {
        network(self.family)
    }

    fn protocol(&self) -> IpNumber {
        match self.transport {
            Transport::Tcp => ip_number::TCP,
            Transport::Udp => ip_number::UDP,
        }
    }

    /// Returns true if both belong to one flow: same addresses and ports, which are adjacent.
    fn is_flow(&self, packet: &[u8], other: &Self, others: &[u8]) -> bool {
        let hosts = hosts(self.family);
        let flow = hosts.start..hosts.end + 4;
        (self.family, self.transport) == (other.family, other.transport)
            && packet[flow.clone()] == others[flow]
    }

    /// Returns true if a datagram that cannot be coalesced may belong to the same flow.
    fn concerns(&self, packet: &[u8], other: &[u8], inner: &Inner) -> bool {
        let hosts = hosts(self.family);
        (self.family, self.protocol()) == (inner.family(), inner.protocol)
            && packet[hosts.clone()] == other[hosts]
    }

    /// Rewrites the headers of the first segment for the whole packet, which is `length` bytes
    /// including them.
    fn amend(&self, header: &mut [u8], length: usize) -> Vnet {
        let start = self.network();
        let (network, rest) = header.split_at_mut(start);
        let transport = saturating_u16(length - start);
        match self.family {
            Family::V4 => {
                put(network, 2, saturating_u16(length));
                network[10..12].fill(0);
                let checksum = ones_complement(add_slice(0, network));
                network[10..12].copy_from_slice(&checksum.to_ne_bytes());
            }
            Family::V6 => put(network, 4, transport),
        }
        let mut ecn = 0;
        match self.transport {
            Transport::Tcp => {
                rest[13] |= self.flags;
                if rest[13] & CWR != 0 {
                    ecn = vnet::ECN;
                }
            }
            Transport::Udp => put(rest, 4, transport),
        }
        // The sum of the pseudo-header. The kernel completes it, or leaves that to the packet's
        // next stage.
        let sum = add_slice(0, &network[hosts(self.family)]);
        let sum = add_2bytes(sum, [0, self.protocol().0]);
        let sum = !ones_complement(add_2bytes(sum, transport.to_be_bytes()));
        let at = usize::from(self.transport.checksum());
        rest[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
        Vnet {
            flags: vnet::NEEDS_CHECKSUM,
            segmentation: ecn
                | match (self.transport, self.family) {
                    (Transport::Tcp, Family::V4) => vnet::TCP_V4,
                    (Transport::Tcp, Family::V6) => vnet::TCP_V6,
                    (Transport::Udp, _) => vnet::UDP,
                },
            header_length: saturating_u16(self.header),
            segment_size: saturating_u16(self.payload),
            checksum_start: saturating_u16(start),
            checksum_offset: self.transport.checksum(),
        }
    }
}

/// Returns the length of an IP header without options or extension headers, in bytes.
const fn network(family: Family) -> usize {
    match family {
        Family::V4 => 20,
        Family::V6 => 40,
    }
}

/// Returns the range of source and destination in it.
const fn hosts(family: Family) -> Range<usize> {
    match family {
        Family::V4 => 12..20,
        Family::V6 => 8..40,
    }
}

/// The coalesced packets.
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    buffer: &'a [u8],
    pieces: &'a [Piece],
    groups: std::slice::Iter<'a, Group>,
}

impl<'a> Iterator for Packets<'a> {
    type Item = Packet<'a>;

    fn next(&mut self) -> Option<Packet<'a>> {
        let group = self.groups.next()?;
        let pieces = Pieces { buffer: self.buffer, pieces: self.pieces, next: Some(group.first) };
        let Group { vnet, length, count, .. } = *group;
        Some(Packet { vnet, pieces, length, datagrams: count })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.groups.size_hint()
    }
}

impl ExactSizeIterator for Packets<'_> {}

impl FusedIterator for Packets<'_> {}

/// The pieces of a packet, in order.
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    buffer: &'a [u8],
    pieces: &'a [Piece],
    next: Option<usize>,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let piece = &self.pieces[self.next?];
        self.next = piece.next;
        Some(&self.buffer[piece.at.clone()])
    }
}

impl FusedIterator for Pieces<'_> {}

#[cfg(test)]
mod tests;
