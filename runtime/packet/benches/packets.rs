//! The functions that run for each packet.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use etherparse::{IpSlice, PacketBuilder, SlicedPacket, TcpHeader, TcpSlice};
use heddle_bench::Comparisons;
use heddle_packet::gro::Coalescer;
use heddle_packet::gso::split;
use heddle_packet::headers::Inner;
use heddle_packet::vnet::{self, Vnet};
use heddle_packet::{Peer, Table};

const A: [u8; 4] = [10, 0, 1, 2];
const B: [u8; 4] = [10, 0, 2, 3];

/// Payload of a segment in bytes, and the number of segments in a packet of the device.
const SEGMENT: u16 = 1400;
const SEGMENTS: u16 = 46;

/// Length of the headers of each segment.
const HEADERS: usize = 40;

/// Builds a TCP packet.
fn tcp(sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4(A, B, 64).tcp(5000, 80, sequence, 500).ack(7);
    builder.write(&mut packet, payload).unwrap();
    packet
}

fn routes(comparisons: &mut Comparisons) {
    let peer = |node: u16| {
        let [high, low] = node.to_be_bytes();
        Peer {
            endpoints: vec![[192, 168, high, low].into()],
            subnets: vec![format!("10.{high}.{low}.0/24").parse().unwrap()],
        }
    };
    let peers: Vec<_> = (0..10_000).map(peer).collect();
    let table = Table::new(peers.clone());
    let subnets: Vec<_> = (0..).zip(&peers).map(|(index, peer)| (peer.subnets[0], index)).collect();
    let scan = |address: IpAddr| {
        let containing = subnets.iter().filter(|(subnet, _)| subnet.contains(&address));
        containing.max_by_key(|(subnet, _)| subnet.prefix_len()).map(|(_, index): &(_, u32)| *index)
    };
    let destination = IpAddr::from(Ipv4Addr::new(10, 19, 136, 9));
    assert_eq!((table.route(destination), scan(destination)), (Some(5000), Some(5000)));
    comparisons.compare(
        ("table/route among 10,000 peers", || table.route(black_box(destination))),
        ("a scan of all subnets", || scan(black_box(destination))),
    );
    let source = IpAddr::from([192, 168, 19, 136]);
    comparisons.compare(
        ("table/spoofing check among 10,000 peers", || {
            table.accepts(black_box(source), black_box(destination)).unwrap()
        }),
        ("a scan of all subnets", || scan(black_box(destination))),
    );
}

fn headers(comparisons: &mut Comparisons) {
    let packet = tcp(1, &[7; 1400]);
    comparisons.compare(
        ("headers/parse", || Inner::parse(black_box(&packet)).unwrap()),
        ("etherparse's SlicedPacket", || SlicedPacket::from_ip(black_box(&packet)).unwrap()),
    );
}

fn segmentation(comparisons: &mut Comparisons) {
    let payload: Vec<u8> =
        (0..u32::from(SEGMENT) * u32::from(SEGMENTS)).map(|n| (n & 0xff) as u8).collect();
    let mut packet = tcp(1, &payload);
    let inner = Inner::parse(&packet).unwrap();
    let original: [u8; HEADERS] = packet[..HEADERS].try_into().unwrap();
    let device = Vnet {
        flags: vnet::NEEDS_CHECKSUM,
        segmentation: vnet::TCP_V4,
        header_length: inner.header_length,
        segment_size: SEGMENT,
        checksum_start: inner.header_length,
        checksum_offset: 16,
    };
    let mut scratch = Vec::new();
    let template = TcpSlice::from_slice(&packet[20..]).unwrap().to_header();
    let whole = packet.clone();
    let mut built = Vec::new();
    comparisons.compare(
        ("gso/split 64 KB into 46 segments", || {
            // The headers are overwritten.
            packet[..HEADERS].copy_from_slice(&original);
            let segments = split(&device, &mut packet, &inner, &mut scratch).unwrap();
            assert_eq!(segments.map(black_box).count(), usize::from(SEGMENTS));
        }),
        ("each segment built by etherparse, with a copy", || {
            build_each(&whole, &template, &mut built);
        }),
    );
}

/// Segments a packet the way that needs no thought: each segment is a packet of its own.
fn build_each(packet: &[u8], template: &TcpHeader, segment: &mut Vec<u8>) {
    let mut header = template.clone();
    for payload in packet[HEADERS..].chunks(SEGMENT.into()) {
        segment.clear();
        PacketBuilder::ipv4(A, B, 64).tcp_header(header.clone()).write(segment, payload).unwrap();
        black_box(&segment);
        header.sequence_number += u32::from(SEGMENT);
    }
}

fn coalescing(comparisons: &mut Comparisons) {
    let segments: Vec<_> = (0..SEGMENTS)
        .map(|index| tcp(u32::from(index) * u32::from(SEGMENT), &[7; SEGMENT as usize]))
        .collect();
    let mut buffer = segments.concat();
    let length = segments[0].len();
    let inner = Inner::parse(&segments[0]).unwrap();
    let first: [u8; HEADERS] = buffer[..HEADERS].try_into().unwrap();
    let mut coalescer = Coalescer::new(true);
    let copied = buffer.clone();
    let mut whole = Vec::<u8>::with_capacity(buffer.len());
    comparisons.compare(
        ("gro/coalesce 46 segments into 64 KB", || {
            // The headers of the first are overwritten.
            buffer[..HEADERS].copy_from_slice(&first);
            coalescer.clear();
            for start in (0..buffer.len()).step_by(length) {
                coalescer.push(&buffer, start..start + length, &inner);
            }
            assert_eq!(coalescer.packets(&mut buffer).map(black_box).count(), 1);
        }),
        ("headers by etherparse, and a copy of the payload", || {
            whole.clear();
            for segment in copied.chunks(length) {
                let ip = IpSlice::from_slice(segment).unwrap();
                let tcp = TcpSlice::from_slice(ip.payload().payload).unwrap();
                whole.extend_from_slice(tcp.payload());
            }
            whole.len()
        }),
    );
}

fn main() {
    let mut comparisons = Comparisons::from_arguments();
    routes(&mut comparisons);
    headers(&mut comparisons);
    segmentation(&mut comparisons);
    coalescing(&mut comparisons);
    comparisons.print();
}
