use etherparse::TcpHeader;
use proptest::prelude::*;

use super::*;
use crate::gso::split;
use crate::samples::{assert_sound, ip, tcp, tcp_header, udp, unfinished};

/// Coalesces the datagrams. Returns each packet in one piece, with its virtio header.
fn join(udp: bool, datagrams: &[Vec<u8>]) -> Vec<(Vnet, Vec<u8>)> {
    let mut coalescer = Coalescer::new(udp);
    let mut buffer = datagrams.concat();
    let mut start = 0;
    for datagram in datagrams {
        let at = start..start + datagram.len();
        start = at.end;
        coalescer.push(&buffer, at.clone(), &Inner::parse(&buffer[at]).unwrap());
    }
    let packets = coalescer.packets(&mut buffer);
    assert_eq!(packets.clone().map(|it| it.datagrams).sum::<usize>(), datagrams.len());
    packets
        .map(|it| {
            let bytes = it.pieces.collect::<Vec<_>>().concat();
            assert_eq!(bytes.len(), it.length);
            (it.vnet, bytes)
        })
        .collect()
}

/// Returns how many datagrams of equal size were coalesced into each packet.
fn counts(datagrams: &[Vec<u8>]) -> Vec<usize> {
    let mut counts = Vec::new();
    for (vnet, packet) in join(true, datagrams) {
        let payload = packet.len() - usize::from(vnet.header_length);
        counts.push(payload.checked_div(vnet.segment_size.into()).unwrap_or(1));
    }
    counts
}

/// Builds `count` consecutive segments of 100 bytes. `change` modifies each before its checksum is
/// computed.
fn segments(v6: bool, count: u16, change: impl Fn(u16, &mut TcpHeader)) -> Vec<Vec<u8>> {
    (0..count)
        .map(|i| {
            let mut header = tcp_header(1000 + 100 * u32::from(i));
            change(i, &mut header);
            tcp(v6, &header, &[(i & 0xff) as u8; 100])
        })
        .collect()
}

fn same(_: u16, _: &mut TcpHeader) {}

proptest! {
    #[test]
    fn gso_segments_coalesce_to_the_original(
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
    fn interleaved_flows_are_coalesced_separately(
        order in prop::collection::vec((0u16..12, any::<bool>(), 1usize..300), 1..99),
    ) {
        // Segments of several flows in any order and of any size; the first byte identifies the
        // flow.
        let mut next = std::collections::BTreeMap::new();
        let mut sent = std::collections::BTreeMap::<_, Vec<u8>>::new();
        let datagrams: Vec<_> = order
            .iter()
            .map(|&(flow, v6, length)| {
                let sequence = next.entry((flow, v6)).or_insert(1u32);
                let mut header = tcp_header(*sequence);
                header.source_port = 1000 + flow;
                let payload = vec![(*sequence & 0xff) as u8; length];
                *sequence += u32::try_from(length).unwrap();
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
fn parallel_flows_are_each_coalesced() {
    let mut other = segments(false, 3, |_, header| header.source_port = 7);
    let mut datagrams = segments(false, 3, same);
    for i in [1, 2, 3] {
        datagrams.insert(2 * i - 1, other.remove(0));
    }
    assert_eq!(counts(&datagrams), [3, 3]);
}

#[test]
fn differing_headers_prevent_coalescing() {
    let changes: [fn(u16, &mut TcpHeader); 8] = [
        |i, header| header.acknowledgment_number += u32::from(i),
        |i, header| header.window_size += i,
        |i, header| header.ece = i == 1,
        |i, header| header.cwr = i == 1,
        |i, header| header.ns = i == 1,
        |i, header| header.set_options_raw(&[1, 1, 8, 10, 0, 0, 0, u8::from(i == 1)]).unwrap(),
        |i, header| header.sequence_number += u32::from(i),
        |i, header| header.destination_port += i,
    ];
    for (i, change) in changes.into_iter().enumerate() {
        for v6 in [false, true] {
            assert_eq!(counts(&segments(v6, 2, change)), [1, 1], "change {i}");
        }
    }
    for v6 in [false, true] {
        // Type of service, hop limit; flow label, fragmentation.
        for (at, change) in [(1, 0x10), (if v6 { 7 } else { 8 }, 1), (if v6 { 2 } else { 6 }, 0x40)]
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
fn segments_with_special_flags_are_not_coalesced() {
    let changes: [fn(u16, &mut TcpHeader); 3] = [
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
fn push_ends_packet_and_is_kept() {
    let datagrams = segments(false, 4, |i, header| header.psh = i == 1);
    let packets = join(false, &datagrams);
    assert_eq!(counts(&datagrams), [2, 2]);
    let flags = |i: usize| packets[i].1[33] & PSH;
    assert_eq!((flags(0), flags(1)), (PSH, 0));
}

#[test]
fn short_segment_ends_packet_and_long_one_starts_another() {
    let part = |sequence, length| tcp(false, &tcp_header(sequence), &vec![0; length]);
    assert_eq!(counts(&[part(0, 100), part(100, 50), part(150, 100)]), [1, 1]);
    let datagrams = [part(0, 100), part(100, 50), part(150, 50), part(200, 100)];
    let lengths: Vec<_> = join(false, &datagrams).iter().map(|it| it.1.len() - 52).collect();
    assert_eq!(lengths, [150, 50, 100]);
}

#[test]
fn order_within_a_flow_is_kept() {
    // An urgent segment between two otherwise consecutive ones, and a fragment without ports.
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
fn wrong_header_checksum_prevents_coalescing() {
    let mut datagrams = segments(false, 3, same);
    datagrams[1][10] ^= 1;
    let broken = datagrams[1].clone();
    assert_eq!(counts(&datagrams), [1, 1, 1]);
    assert_eq!(join(false, &datagrams)[1], (Vnet::default(), broken));
}

#[test]
fn identification_must_increment_without_df() {
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
fn coalesced_packet_stays_within_ip_length() {
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
fn udp_is_coalesced_only_if_device_supports_it() {
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
fn coalescer_is_reusable_after_clear() {
    let mut coalescer = Coalescer::new(true);
    let mut buffer = segments(false, 2, same).concat();
    let half = buffer.len() / 2;
    for _ in 0..2 {
        coalescer.clear();
        for at in [0..half, half..2 * half] {
            coalescer.push(&buffer, at.clone(), &Inner::parse(&buffer[at]).unwrap());
        }
        let mut fresh = buffer.clone();
        assert_eq!(coalescer.packets(&mut fresh).len(), 1);
    }
    coalescer.clear();
    assert_eq!(coalescer.packets(&mut buffer).len(), 0);
}
