//! A packet from the device, processed like on the transmit path: parsed, hop limit decremented,
//! segmented by GSO, fragmented.
//!
//! The input is an action byte (see the constants), an MTU, the number of bytes to extend the
//! payload by, the device's header and the packet.

#![no_main]
#![forbid(unsafe_code)]

use std::net::IpAddr;

use etherparse::checksum::u64_16bit_word::ones_complement;
use etherparse::{TcpHeaderSlice, ip_number};
use heddle_fuzz::packet::{
    complain, header_is_sound, hop, pseudo_header_sum, repair, transport_sum,
};
use heddle_packet::datagrams::Datagram;
use heddle_packet::fragment::fragment;
use heddle_packet::gso::split;
use heddle_packet::headers::Inner;
use heddle_packet::vnet::{self, Vnet};
use libfuzzer_sys::fuzz_target;

/// Lengths and checksum are corrected.
const REPAIR: u8 = 1;
/// The virtio header is made consistent with the packet, as the kernel would.
const SAY: u8 = 2;
/// The payload may have any length. Otherwise it is kept short, for more executions per second.
const LONG: u8 = 4;

/// Returns the virtio header that the kernel would pass with the packet, and sets the packet's
/// checksum to that of the pseudo-header. None if the packet cannot be segmented.
fn say(packet: &mut [u8], vnet: &Vnet) -> Option<Vnet> {
    let inner = Inner::parse(packet).ok().filter(|inner| !inner.is_fragment())?;
    let start = usize::from(inner.header_length);
    let (offset, header) = match inner.protocol {
        ip_number::TCP => (16, TcpHeaderSlice::from_slice(&packet[start..]).ok()?.slice().len()),
        ip_number::UDP => (6, 8),
        _ => return None,
    };
    let kind = match (inner.protocol, inner.source) {
        (ip_number::UDP, _) => vnet::UDP,
        (_, IpAddr::V4(_)) => vnet::TCP_V4,
        (_, IpAddr::V6(_)) => vnet::TCP_V6,
    };
    let sum = !ones_complement(pseudo_header_sum(packet, &inner));
    let field = packet.get_mut(start + usize::from(offset)..start + header)?.first_chunk_mut()?;
    *field = sum.to_ne_bytes();
    let segmentation = if vnet.segmentation == vnet::NONE { vnet::NONE } else { kind };
    Some(Vnet {
        flags: vnet::NEEDS_CHECKSUM,
        segmentation,
        segment_size: vnet.segment_size.max(1),
        checksum_start: inner.header_length,
        checksum_offset: offset,
        ..*vnet
    })
}

/// Asserts that the packet's fragments are valid, fit the MTU, and carry the payload in order.
fn take_apart(packet: &[u8], inner: &Inner, mtu: usize) {
    let mut headers = Vec::new();
    let Ok(fragments) = fragment(packet, inner, mtu, &mut headers) else { return };
    let whole = fragments.len() == 1;
    let (mut offset, mut left) = (inner.fragment_offset, fragments.len());
    for piece in fragments {
        left -= 1;
        assert!(piece.length() <= mtu);
        let bytes = [piece.header, piece.payload].concat();
        let part = Inner::parse(&bytes).expect("a fragment is a packet");
        assert_eq!((part.source, part.destination), (inner.source, inner.destination));
        assert_eq!(part.fragment_offset, offset);
        assert_eq!(part.more_fragments, left > 0 || inner.more_fragments);
        assert!(whole || header_is_sound(&bytes, &part));
        offset += part.length - part.header_length;
    }
    assert_eq!(offset, inner.fragment_offset + (inner.length - inner.header_length));
}

fuzz_target!(|input: &[u8]| {
    let [action, mtu_high, mtu_low, more_high, more_low, rest @ ..] = input else { return };
    let mtu = usize::from(u16::from_be_bytes([*mtu_high, *mtu_low]));
    let most = if action & LONG != 0 { 0xffff } else { 0x7ff };
    let more = usize::from(u16::from_be_bytes([*more_high, *more_low]) & most);
    let mut bytes = rest.to_vec();
    let longest = vnet::LENGTH + 65535;
    bytes.resize((bytes.len() + more).min(longest), 0x5a);
    let head = bytes.first_chunk().copied();
    let Some((mut vnet, packet)) = Vnet::split_off(&mut bytes) else { return };
    assert_eq!(Some(vnet.to_bytes()), head);
    if action & REPAIR != 0 {
        repair(packet);
    }
    let said = if action & SAY != 0 { say(packet, &vnet) } else { None };
    vnet = said.unwrap_or(vnet);

    let Ok(inner) = Inner::parse(packet) else { return };
    complain(Datagram { header: &[], payload: packet }, &inner);
    if !hop(packet, &inner) {
        return;
    }
    take_apart(packet, &inner, mtu);

    let before = packet.to_vec();
    let sound = header_is_sound(packet, &inner);
    let mut headers = Vec::new();
    let Ok(datagrams) = split(&vnet, packet, &inner, &mut headers) else {
        assert!(said.is_none(), "what the kernel says is taken");
        return;
    };
    let (count, mut payload) = (datagrams.len(), Vec::<u8>::new());
    let size = usize::from(vnet.segment_size);
    for (i, datagram) in datagrams.enumerate() {
        let bytes = [datagram.header, datagram.payload].concat();
        assert_eq!(bytes.len(), datagram.length());
        let part = Inner::parse(&bytes).expect("a segment is a packet");
        assert_eq!(part, Inner { length: part.length, hop_limit: inner.hop_limit - 1, ..inner });
        if count > 1 {
            assert!(
                datagram.payload.len() == size || i == count - 1 && datagram.payload.len() < size
            );
            assert!(header_is_sound(&bytes, &part));
        }
        if i == 1 {
            complain(datagram, &inner);
        }
        assert!(!sound || header_is_sound(&bytes, &part));
        assert!(said.is_none() || transport_sum(&bytes, &part) == 0, "the checksum is right");
        payload.extend(datagram.payload);
    }
    if count > 1 {
        assert_eq!(payload, before[before.len() - payload.len()..]);
    } else {
        assert_eq!(payload.len(), before.len());
    }
});
