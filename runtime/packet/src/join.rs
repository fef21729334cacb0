//! From datagrams to packets for the device: consecutive segments of a flow become one packet, which the kernel takes
//! through its stack as one.
//!
//! The rules are the kernel's own for joining what it receives (`tcp_gro_receive`, `udp_gro_receive_segment` and
//! `inet_gro_receive`): segments of one size whose headers differ in nothing but what follows from their position.
//! The checksum of a joined segment is verified neither here nor by the kernel: that of the datagram which it came in
//! must have been. The payload stays where it is.

use std::iter::FusedIterator;
use std::ops::Range;

use etherparse::checksum::u64_16bit_word::{add_2bytes, add_slice, ones_complement};
use etherparse::{IpNumber, TcpHeaderSlice, UdpHeader, ip_number};
use heddle_core::address::Family;

use crate::headers::Inner;
use crate::transport::{CWR, FIN, PSH, RST, SYN, Transport, URG, put, word};
use crate::vnet::{self, Vnet};

/// The longest packet that segments are joined to, in bytes.
const LONGEST: usize = 65535;

/// How many pieces a packet has at most: `writev` takes 1024 (`UIO_MAXIOV`), and the first is the device's header.
pub const MOST: usize = 1023;

/// How many UDP datagrams are joined at most: `UDP_MAX_SEGMENTS` in kernels up to 6.8, later ones have 128.
const MOST_UDP: usize = 64;

/// How many flows are joined side by side. With more, the one whose last packet was begun first goes on with a new one.
const FLOWS: usize = 8;

/// Joins the datagrams that one or several calls left in a buffer.
///
/// The order within a flow is kept. Flows may change places, as with the kernel.
#[derive(Debug, Default)]
pub struct Joiner {
    udp: bool,
    pieces: Vec<Piece>,
    groups: Vec<Group>,
    /// The groups that may grow, the one begun last at the end.
    open: Vec<usize>,
}

/// A packet for the device.
#[derive(Clone, Debug)]
pub struct Packet<'a> {
    /// What the device is told about it.
    pub vnet: Vnet,
    /// Its bytes without that: at most [`MOST`] pieces.
    pub pieces: Pieces<'a>,
    /// Of all pieces, in bytes.
    pub length: usize,
    /// How many datagrams it is.
    pub datagrams: usize,
}

/// A piece of a packet, and which piece is next.
#[derive(Clone, Debug)]
struct Piece {
    at: Range<usize>,
    next: Option<usize>,
}

/// What becomes one packet.
#[derive(Clone, Debug)]
struct Group {
    /// Its first piece is the first datagram with all its headers.
    first: usize,
    last: usize,
    count: usize,
    /// Of all pieces, in bytes.
    length: usize,
    /// None if its one datagram is none that is ever joined.
    segment: Option<Segment>,
    vnet: Vnet,
}

/// What is to be known of a datagram, or of a group of them, for others to be joined to it.
#[derive(Clone, Copy, Debug)]
struct Segment {
    family: Family,
    transport: Transport,
    /// Of all headers, in bytes.
    header: usize,
    /// Of the first datagram, in bytes.
    payload: usize,
    /// TCP: the sequence number behind the last payload.
    next: u32,
    /// TCP: those of FIN and PSH that are set. They end a group.
    flags: u8,
}

impl Joiner {
    /// Joins TCP, and UDP if the device can split it again, which it can if it takes `TUN_F_USO4` and `TUN_F_USO6`.
    pub fn new(udp: bool) -> Self {
        Self { udp, ..Self::default() }
    }

    /// Forgets all datagrams.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.groups.clear();
        self.open.clear();
    }

    /// Adds the datagram at this place of the buffer, which is read as `inner`.
    pub fn push(&mut self, buffer: &[u8], at: Range<usize>, inner: &Inner) {
        let packet = &buffer[at.clone()];
        let Some(segment) = Segment::of(packet, inner, self.udp) else {
            // What follows in its flow must not overtake it. It may have no ports to know the flow by.
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

    /// Begins a group, open if others may be joined to its datagram.
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

    /// The packets that became of the datagrams, which are in this buffer. The headers of what was joined are changed
    /// there.
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
    /// Whether a segment of its flow continues it, `first` being its first datagram.
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
                    let id = word(first_network, 4).wrapping_add(self.count as u16);
                    network[..2] == first_network[..2]
                        && network[6..9] == first_network[6..9]
                        // Without meaning where nothing is fragmented (RFC 6864, 4.1).
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
                        // Of the flags, the first segment alone may have CWR, and the last ones of those that end a group.
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

    /// Counts in a segment that continues it. Returns whether another one may.
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
    /// Reads a datagram. None if it is one that is never joined.
    fn of(packet: &[u8], inner: &Inner, udp: bool) -> Option<Self> {
        let family = inner.family();
        let start = network(family);
        // No options, no extension headers.
        if inner.is_fragment() || usize::from(inner.header_length) != start {
            return None;
        }
        let rest = &packet[start..];
        let (transport, header, next, flags) = match inner.protocol {
            ip_number::TCP => {
                let header = TcpHeaderSlice::from_slice(rest).ok()?;
                let length = header.slice().len();
                let next = header.sequence_number().wrapping_add((rest.len() - length) as u32);
                let flags = rest[13];
                if flags & (SYN | RST | URG) != 0 {
                    return None;
                }
                (Transport::Tcp, length, next, flags & (FIN | PSH))
            }
            ip_number::UDP if udp => {
                // Joined, it would have a checksum, and this sender wants none.
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
        // Amended, a broken header would look sound.
        if family == Family::V4 && ones_complement(add_slice(0, &packet[..start])) != 0 {
            return None;
        }
        let payload = rest.len() - header;
        let header = start + header;
        (payload > 0).then_some(Self { family, transport, header, payload, next, flags })
    }

    /// The length of the IP header.
    fn network(&self) -> usize {
        network(self.family)
    }

    fn protocol(&self) -> IpNumber {
        match self.transport {
            Transport::Tcp => ip_number::TCP,
            Transport::Udp => ip_number::UDP,
        }
    }

    /// Whether both are of one flow: hosts and ports, which follow on them.
    fn is_flow(&self, packet: &[u8], other: &Self, others: &[u8]) -> bool {
        let hosts = hosts(self.family);
        let flow = hosts.start..hosts.end + 4;
        (self.family, self.transport) == (other.family, other.transport)
            && packet[flow.clone()] == others[flow]
    }

    /// Whether what is no segment may be of the same flow.
    fn concerns(&self, packet: &[u8], other: &[u8], inner: &Inner) -> bool {
        let hosts = hosts(self.family);
        (self.family, self.protocol()) == (inner.family(), inner.protocol)
            && packet[hosts.clone()] == other[hosts]
    }

    /// Makes the headers of the first segment those of all, which are `length` bytes with them.
    fn amend(&self, header: &mut [u8], length: usize) -> Vnet {
        let start = self.network();
        let (network, rest) = header.split_at_mut(start);
        let transport = (length - start) as u16;
        match self.family {
            Family::V4 => {
                put(network, 2, length as u16);
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
        // Of the pseudo-header. The kernel adds the rest, or leaves it to who takes the packet on.
        let sum = add_slice(0, &network[hosts(self.family)]);
        let sum = add_2bytes(sum, [0, self.protocol().0]);
        let sum = !ones_complement(add_2bytes(sum, transport.to_be_bytes()));
        let at = self.transport.checksum();
        rest[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
        Vnet {
            flags: vnet::NEEDS_CHECKSUM,
            segmentation: ecn
                | match (self.transport, self.family) {
                    (Transport::Tcp, Family::V4) => vnet::TCP_V4,
                    (Transport::Tcp, Family::V6) => vnet::TCP_V6,
                    (Transport::Udp, _) => vnet::UDP,
                },
            header_length: self.header as u16,
            segment_size: self.payload as u16,
            checksum_start: start as u16,
            checksum_offset: at as u16,
        }
    }
}

/// The length of an IP header without options or extension headers.
const fn network(family: Family) -> usize {
    match family {
        Family::V4 => 20,
        Family::V6 => 40,
    }
}

/// Where in it source and destination are.
const fn hosts(family: Family) -> Range<usize> {
    match family {
        Family::V4 => 12..20,
        Family::V6 => 8..40,
    }
}

/// The packets that datagrams became.
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

/// The pieces of a packet in their order.
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
mod tests {
    use etherparse::TcpHeader;
    use proptest::prelude::*;

    use super::*;
    use crate::samples::{assert_sound, ip, tcp, tcp_header, udp, unfinished};
    use crate::split::split;

    /// What the datagrams become: packets in one piece, with what the device is told.
    fn join(udp: bool, datagrams: &[Vec<u8>]) -> Vec<(Vnet, Vec<u8>)> {
        let mut joiner = Joiner::new(udp);
        let mut buffer = datagrams.concat();
        let mut start = 0;
        for datagram in datagrams {
            let at = start..start + datagram.len();
            start = at.end;
            joiner.push(&buffer, at.clone(), &Inner::parse(&buffer[at]).unwrap());
        }
        let packets = joiner.packets(&mut buffer);
        assert_eq!(packets.clone().map(|it| it.datagrams).sum::<usize>(), datagrams.len());
        packets
            .map(|it| {
                let bytes = it.pieces.collect::<Vec<_>>().concat();
                assert_eq!(bytes.len(), it.length);
                (it.vnet, bytes)
            })
            .collect()
    }

    /// How many datagrams of equal size became each packet.
    fn counts(datagrams: &[Vec<u8>]) -> Vec<usize> {
        let mut counts = Vec::new();
        for (vnet, packet) in join(true, datagrams) {
            let payload = packet.len() - usize::from(vnet.header_length);
            counts.push(payload.checked_div(vnet.segment_size.into()).unwrap_or(1));
        }
        counts
    }

    /// `count` consecutive segments of 100 bytes, each of which may be changed before its checksum is made.
    fn segments(v6: bool, count: u32, change: impl Fn(u32, &mut TcpHeader)) -> Vec<Vec<u8>> {
        (0..count)
            .map(|i| {
                let mut header = tcp_header(1000 + 100 * i);
                change(i, &mut header);
                tcp(v6, &header, &[i as u8; 100])
            })
            .collect()
    }

    fn same(_: u32, _: &mut TcpHeader) {}

    proptest! {
        #[test]
        fn what_was_split_is_joined_to_what_it_was(
            v6: bool,
            is_tcp: bool,
            dont_fragment: bool,
            flags in 0u8..8,
            first: u32,
            size in 200u16..2000,
            payload in prop::collection::vec(any::<u8>(), 1..9000),
        ) {
            let mut header = tcp_header(first);
            (header.psh, header.fin, header.cwr) = (flags & 1 > 0, flags & 2 > 0, flags & 4 > 0);
            let mut packet = if is_tcp { tcp(v6, &header, &payload) } else { udp(v6, &payload) };
            if !v6 && !dont_fragment {
                packet[6] = 0;
                packet[10..12].fill(0);
                let checksum = ones_complement(add_slice(0, &packet[..20]));
                packet[10..12].copy_from_slice(&checksum.to_ne_bytes());
            }
            let finished = packet.clone();
            let vnet = unfinished(&mut packet, size);
            let original = packet.clone();
            let inner = Inner::parse(&packet).unwrap();
            let mut headers = Vec::new();
            let datagrams: Vec<_> = split(&vnet, &mut packet, &inner, &mut headers)
                .unwrap()
                .map(|it| [it.header, it.payload].concat())
                .collect();
            let expected = match datagrams.len() {
                1 => (Vnet::default(), finished),
                _ => (vnet, original),
            };
            prop_assert_eq!(join(true, &datagrams), vec![expected]);
        }

        #[test]
        fn flows_are_joined_without_being_mixed(
            order in prop::collection::vec((0u16..12, any::<bool>(), 1usize..300), 1..99),
        ) {
            // Segments of several flows in any order and of any size, the first byte telling the flow.
            let mut next = std::collections::BTreeMap::new();
            let mut sent = std::collections::BTreeMap::<_, Vec<u8>>::new();
            let datagrams: Vec<_> = order
                .iter()
                .map(|&(flow, v6, length)| {
                    let sequence = next.entry((flow, v6)).or_insert(1u32);
                    let mut header = tcp_header(*sequence);
                    header.source_port = 1000 + flow;
                    let payload = vec![*sequence as u8; length];
                    *sequence += length as u32;
                    sent.entry((flow, v6)).or_default().extend(&payload);
                    tcp(v6, &header, &payload)
                })
                .collect();
            let mut received = std::collections::BTreeMap::<_, Vec<u8>>::new();
            for (vnet, mut packet) in join(true, &datagrams) {
                let inner = Inner::parse(&packet).unwrap();
                let mut headers = Vec::new();
                for it in split(&vnet, &mut packet, &inner, &mut headers).unwrap() {
                    let datagram = [it.header, it.payload].concat();
                    assert_sound(&datagram);
                    let rest = &datagram[usize::from(inner.header_length)..];
                    let flow = (word(rest, 0) - 1000, inner.source.is_ipv6());
                    let stream = received.entry(flow).or_default();
                    let header = TcpHeaderSlice::from_slice(rest).unwrap();
                    prop_assert_eq!(header.sequence_number() as usize, 1 + stream.len());
                    stream.extend(&rest[header.slice().len()..]);
                }
            }
            prop_assert_eq!(received, sent);
        }
    }

    #[test]
    fn consecutive_segments_become_one_packet() {
        for v6 in [false, true] {
            let (vnet, packet) = join(false, &segments(v6, 4, same)).remove(0);
            let payload = [[0; 100], [1; 100], [2; 100], [3; 100]].concat();
            let mut expected = tcp(v6, &tcp_header(1000), &payload);
            assert_eq!((vnet, packet), (unfinished(&mut expected, 100), expected));
        }
    }

    #[test]
    fn flows_side_by_side_are_joined_each() {
        let mut other = segments(false, 3, |_, header| header.source_port = 7);
        let mut datagrams = segments(false, 3, same);
        for i in [1, 2, 3] {
            datagrams.insert(2 * i - 1, other.remove(0));
        }
        assert_eq!(counts(&datagrams), [3, 3]);
    }

    #[test]
    fn headers_that_differ_are_not_joined() {
        let changes: [fn(u32, &mut TcpHeader); 8] = [
            |i, header| header.acknowledgment_number += i,
            |i, header| header.window_size += i as u16,
            |i, header| header.ece = i == 1,
            |i, header| header.cwr = i == 1,
            |i, header| header.ns = i == 1,
            |i, header| header.set_options_raw(&[1, 1, 8, 10, 0, 0, 0, i as u8]).unwrap(),
            |i, header| header.sequence_number += i,
            |i, header| header.destination_port += i as u16,
        ];
        for (i, change) in changes.into_iter().enumerate() {
            for v6 in [false, true] {
                assert_eq!(counts(&segments(v6, 2, change)), [1, 1], "change {i}");
            }
        }
        for v6 in [false, true] {
            // Type of service, hop limit; flow label, fragmentation.
            for (at, change) in
                [(1, 0x10), (if v6 { 7 } else { 8 }, 1), (if v6 { 2 } else { 6 }, 0x40)]
            {
                let mut datagrams = segments(v6, 2, same);
                datagrams[1][at] ^= change;
                if !v6 {
                    datagrams[1][10..12].fill(0);
                    let checksum = ones_complement(add_slice(0, &datagrams[1][..20]));
                    datagrams[1][10..12].copy_from_slice(&checksum.to_ne_bytes());
                }
                assert_eq!(counts(&datagrams), [1, 1], "byte {at}");
            }
        }
    }

    #[test]
    fn segments_that_say_something_of_their_own_stay_alone() {
        let changes: [fn(u32, &mut TcpHeader); 3] = [
            |_, header| header.syn = true,
            |_, header| header.rst = true,
            |_, header| header.urg = true,
        ];
        for change in changes {
            assert_eq!(counts(&segments(false, 3, change)), [1, 1, 1]);
        }
        let empty: Vec<_> = (0..3).map(|_| tcp(false, &tcp_header(1), &[])).collect();
        assert_eq!(counts(&empty), [1, 1, 1]);
    }

    #[test]
    fn a_push_ends_a_packet_and_is_kept() {
        let datagrams = segments(false, 4, |i, header| header.psh = i == 1);
        let packets = join(false, &datagrams);
        assert_eq!(counts(&datagrams), [2, 2]);
        let flags = |i: usize| packets[i].1[33] & PSH;
        assert_eq!((flags(0), flags(1)), (PSH, 0));
    }

    #[test]
    fn a_shorter_segment_is_the_last_and_a_longer_one_the_first() {
        let part = |sequence, length| tcp(false, &tcp_header(sequence), &vec![0; length]);
        assert_eq!(counts(&[part(0, 100), part(100, 50), part(150, 100)]), [1, 1]);
        let datagrams = [part(0, 100), part(100, 50), part(150, 50), part(200, 100)];
        let lengths: Vec<_> = join(false, &datagrams).iter().map(|it| it.1.len() - 52).collect();
        assert_eq!(lengths, [150, 50, 100]);
    }

    #[test]
    fn nothing_overtakes_within_a_flow() {
        // An urgent segment between two that would be consecutive, and a fragment that has no ports.
        let mut datagrams = segments(false, 2, same);
        let mut urgent = tcp_header(1100);
        urgent.urg = true;
        datagrams.insert(1, tcp(false, &urgent, &[0; 100]));
        assert_eq!(counts(&datagrams), [1, 1, 1]);

        let mut datagrams = segments(false, 2, same);
        let mut fragment = ip(false, ip_number::TCP, &[0; 8]);
        fragment[7] = 9;
        datagrams.insert(1, fragment);
        assert_eq!(counts(&datagrams), [1, 1, 1]);

        // Another protocol between the same hosts is another flow.
        let mut datagrams = segments(false, 2, same);
        datagrams.insert(1, ip(false, ip_number::ICMP, &[0; 8]));
        assert_eq!(counts(&datagrams), [2, 1]);
    }

    #[test]
    fn a_broken_header_is_not_repaired() {
        let mut datagrams = segments(false, 3, same);
        datagrams[1][10] ^= 1;
        let broken = datagrams[1].clone();
        assert_eq!(counts(&datagrams), [1, 1, 1]);
        assert_eq!(join(false, &datagrams)[1], (Vnet::default(), broken));
    }

    #[test]
    fn without_the_flag_against_fragments_identifications_count_up() {
        let joined = |ids: [u16; 3]| {
            let datagrams: Vec<_> = segments(false, 3, same)
                .into_iter()
                .zip(ids)
                .map(|(mut packet, id)| {
                    packet[4..6].copy_from_slice(&id.to_be_bytes());
                    packet[6] = 0;
                    packet[10..12].fill(0);
                    let checksum = ones_complement(add_slice(0, &packet[..20]));
                    packet[10..12].copy_from_slice(&checksum.to_ne_bytes());
                    packet
                })
                .collect();
            counts(&datagrams)
        };
        assert_eq!(joined([0xffff, 0, 1]), [3]);
        assert_eq!(joined([7, 7, 8]), [1, 2]);
        assert_eq!(joined([7, 8, 10]), [2, 1]);
    }

    #[test]
    fn a_packet_is_no_longer_than_ip_allows() {
        for v6 in [false, true] {
            let datagrams: Vec<_> =
                (0..60).map(|i| tcp(v6, &tcp_header(1400 * i), &[0; 1400])).collect();
            let lengths: Vec<_> = join(false, &datagrams).iter().map(|it| it.1.len()).collect();
            let header = if v6 { 72 } else { 52 };
            assert_eq!(lengths, [46 * 1400 + header, 14 * 1400 + header]);
        }
        let datagrams: Vec<_> = (0..1100).map(|i| tcp(false, &tcp_header(i), &[0])).collect();
        assert_eq!(counts(&datagrams), [MOST, 1100 - MOST]);
    }

    #[test]
    fn udp_is_joined_if_the_device_can_split_it() {
        for v6 in [false, true] {
            let datagrams: Vec<_> = (0..70).map(|_| udp(v6, &[1; 100])).collect();
            assert_eq!(counts(&datagrams), [64, 6]);
            assert_eq!(join(false, &datagrams).len(), 70);
            let (vnet, packet) = join(true, &datagrams[..3]).remove(0);
            let mut expected = udp(v6, &[1; 300]);
            assert_eq!((vnet, packet), (unfinished(&mut expected, 100), expected));
        }
        let mut without: Vec<_> = (0..2).map(|_| udp(false, &[1; 100])).collect();
        for datagram in &mut without {
            datagram[26..28].fill(0);
        }
        assert_eq!(counts(&without), [1, 1]);
    }

    #[test]
    fn it_is_used_again_after_it_was_cleared() {
        let mut joiner = Joiner::new(true);
        let mut buffer = segments(false, 2, same).concat();
        let half = buffer.len() / 2;
        for _ in 0..2 {
            joiner.clear();
            for at in [0..half, half..2 * half] {
                joiner.push(&buffer, at.clone(), &Inner::parse(&buffer[at]).unwrap());
            }
            let mut fresh = buffer.clone();
            assert_eq!(joiner.packets(&mut fresh).len(), 1);
        }
        joiner.clear();
        assert_eq!(joiner.packets(&mut buffer).len(), 0);
    }
}
