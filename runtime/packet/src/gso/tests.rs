use etherparse::{IpSlice, TcpSlice};
use proptest::prelude::*;

use super::*;
use crate::samples::{assert_sound, ip, tcp, tcp_header, udp, unfinished};

/// Splits a packet and returns each datagram in one piece.
fn split_up(vnet: &Vnet, packet: &mut [u8]) -> Result<Vec<Vec<u8>>, Unsplittable> {
    let inner = Inner::parse(packet).unwrap();
    let mut headers = vec![0xaa; 7];
    let datagrams = split(vnet, packet, &inner, &mut headers)?;
    assert_eq!(datagrams.len(), datagrams.clone().count());
    Ok(datagrams.map(|it| [it.header, it.payload].concat()).collect())
}

fn segment(packet: &[u8]) -> (IpSlice<'_>, TcpSlice<'_>) {
    let sliced = IpSlice::from_slice(packet).unwrap();
    let payload = sliced.payload().payload;
    (sliced, TcpSlice::from_slice(payload).unwrap())
}

proptest! {
    #[test]
    fn tcp_segments_are_valid_and_in_order(
        v6: bool,
        first: u32,
        flags in 0u8..8,
        size in 1u16..2000,
        payload in prop::collection::vec(any::<u8>(), 1..9000),
    ) {
        let mut header = tcp_header(first);
        (header.psh, header.fin, header.cwr) = (flags & 1 > 0, flags & 2 > 0, flags & 4 > 0);
        let mut packet = tcp(v6, &header, &payload);
        let vnet = unfinished(&mut packet, size);
        let datagrams = split_up(&vnet, &mut packet).unwrap();
        prop_assert_eq!(datagrams.len(), payload.len().div_ceil(size.into()));
        let mut stream: Vec<u8> = Vec::new();
        for (i, datagram) in datagrams.iter().enumerate() {
            assert_sound(datagram);
            let (ip, tcp) = segment(datagram);
            let last = i == datagrams.len() - 1;
            let offset = u32::try_from(stream.len()).unwrap();
            prop_assert_eq!(tcp.sequence_number(), first.wrapping_add(offset));
            prop_assert_eq!((tcp.psh(), tcp.fin()), (header.psh && last, header.fin && last));
            prop_assert_eq!((tcp.cwr(), tcp.ack()), (header.cwr && i == 0, true));
            prop_assert_eq!((tcp.options(), tcp.window_size()), (header.options.as_slice(), 509));
            prop_assert!(last || tcp.payload().len() == usize::from(size));
            if let Some(v4) = ip.ipv4() {
                let index = u16::try_from(i).unwrap();
                prop_assert_eq!(v4.header().identification(), 0xfffeu16.wrapping_add(index));
            }
            stream.extend(tcp.payload());
        }
        prop_assert_eq!(stream, payload);
    }

    #[test]
    fn udp_segments_are_valid_and_in_order(
        v6: bool,
        size in 1u16..2000,
        payload in prop::collection::vec(any::<u8>(), 1..9000),
    ) {
        let mut packet = udp(v6, &payload);
        let vnet = unfinished(&mut packet, size);
        let datagrams = split_up(&vnet, &mut packet).unwrap();
        let start = if v6 { 48 } else { 28 };
        for datagram in &datagrams {
            assert_sound(datagram);
        }
        let data: Vec<_> = datagrams.iter().flat_map(|it| &it[start..]).copied().collect();
        prop_assert_eq!(data, payload);
    }

    #[test]
    fn plain_packet_gets_its_checksum_completed(
        v6: bool,
        is_tcp: bool,
        payload in prop::collection::vec(any::<u8>(), 0..99),
    ) {
        let whole = if is_tcp { tcp(v6, &tcp_header(9), &payload) } else { udp(v6, &payload) };
        let mut packet = whole.clone();
        let vnet = unfinished(&mut packet, 2000);
        let datagrams = split_up(&vnet, &mut packet).unwrap();
        assert_sound(&datagrams[0]);
        prop_assert_eq!(datagrams, vec![whole]);
    }
}

#[test]
fn finished_packet_is_one_datagram() {
    let mut packet = udp(false, b"abc");
    let whole = packet.clone();
    assert_eq!(split_up(&Vnet::default(), &mut packet), Ok(vec![whole]));
}

#[test]
fn extension_headers_precede_every_segment() {
    // A destination options header without options, before TCP.
    let header = tcp_header(1);
    let extension = [6, 0, 1, 4, 0, 0, 0, 0];
    let rest = [&extension[..], &header.to_bytes(), &[1; 300]].concat();
    let mut packet = ip(true, ip_number::IPV6_DEST_OPTIONS, &rest);
    let vnet = unfinished(&mut packet, 100);
    assert_eq!(vnet.checksum_start, 48);
    let datagrams = split_up(&vnet, &mut packet).unwrap();
    assert_eq!(datagrams.len(), 3);
    for datagram in datagrams {
        assert_sound(&datagram);
        assert_eq!(datagram[40..48], extension);
    }
}

#[test]
fn mismatched_vnet_header_is_refused() {
    let mut packet = tcp(false, &tcp_header(1), &[0; 300]);
    let vnet = unfinished(&mut packet, 100);
    let refused = |change: fn(&mut Vnet)| {
        let mut vnet = vnet;
        change(&mut vnet);
        split_up(&vnet, &mut packet.clone()).unwrap_err()
    };
    use Unsplittable::{IpHeader, Kind, NoChecksum, SegmentSize, Short};
    assert_eq!(refused(|it| it.segmentation = 3), Kind(3));
    assert_eq!(refused(|it| it.segmentation = vnet::TCP_V6), Kind(vnet::TCP_V6));
    assert_eq!(refused(|it| it.segmentation = vnet::UDP), Kind(vnet::UDP));
    assert_eq!(refused(|it| it.flags = 0), NoChecksum(vnet::TCP_V4));
    assert_eq!(refused(|it| it.checksum_start = 24), NoChecksum(vnet::TCP_V4));
    assert_eq!(refused(|it| it.checksum_offset = 6), NoChecksum(vnet::TCP_V4));
    assert_eq!(refused(|it| it.segment_size = 0), SegmentSize);
    let plain = |it: &mut Vnet| (it.segmentation, it.checksum_start) = (vnet::NONE, 335);
    assert_eq!(refused(plain), Short(352));
    let plain = |it: &mut Vnet| (it.segmentation, it.checksum_start) = (vnet::NONE, 19);
    assert_eq!(refused(plain), IpHeader(19));

    // A TCP header that is longer than the packet.
    let mut packet = ip(false, ip_number::TCP, &[0xf0; 30]);
    packet[39] = 0;
    let vnet = Vnet { checksum_start: 20, ..vnet };
    assert_eq!(split_up(&vnet, &mut packet), Err(Short(50)));
    // A fragment.
    let mut packet = tcp(false, &tcp_header(1), &[0; 300]);
    packet[6] = 0x20;
    assert_eq!(split_up(&vnet, &mut packet), Err(Kind(vnet::TCP_V4)));
}

#[test]
fn zero_checksum_is_kept_in_tcp_and_replaced_in_udp() {
    assert_eq!((finish(0xffff, true), finish(0xffff, false)), (0, 0xffff));
    assert_eq!((finish(1, true), finish(1, false)), (!1, !1));
}
