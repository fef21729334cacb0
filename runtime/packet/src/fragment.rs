//! Fragments IPv4 packets for a link with a smaller MTU, if the sender allows it (RFC 791, 3.2).

use etherparse::checksum::u64_16bit_word::{add_slice, ones_complement};

use crate::datagrams::{Datagrams, Pieces};
use crate::headers::Inner;
use crate::numbers::saturating_u16;
use crate::transport::{put, word};

/// The reason why a packet cannot be fragmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfragmentable {
    /// The sender forbids fragmentation, as in every IPv6 packet.
    #[error("the packet must not be fragmented")]
    Forbidden,
    /// The MTU leaves no room for eight bytes after the header, the least that any fragment but the
    /// last carries.
    #[error("an MTU of {0} bytes leaves no room for a fragment")]
    Mtu(usize),
}

/// The flag in the word of flags and offset. The offset is in units of eight bytes.
const MORE_FRAGMENTS: u16 = 0x2000;

/// The flag in an option's type that it is copied to all fragments.
const COPIED: u8 = 0x80;

/// Fragments a packet for a link with this MTU in bytes. A packet that fits is returned unchanged.
///
/// The packet may itself be a fragment. `headers` is filled with the headers of all fragments. The
/// first fragment gets all options, the others only those marked as copied.
///
/// # Errors
///
/// [`Unfragmentable`], if the packet cannot be fragmented.
pub fn fragment<'a>(
    packet: &'a [u8],
    inner: &Inner,
    mtu: usize,
    headers: &'a mut Vec<u8>,
) -> Result<Datagrams<'a>, Unfragmentable> {
    if packet.len() <= mtu {
        return Ok(Datagrams::whole(packet));
    }
    // True for every IPv6 packet.
    if inner.dont_fragment {
        return Err(Unfragmentable::Forbidden);
    }
    let (original, payload) = packet.split_at(inner.header_length.into());
    headers.clear();
    headers.extend(original);
    headers.extend(&original[..20]);
    for option in options(&original[20..]).filter(|option| option[0] & COPIED != 0) {
        headers.extend(option);
    }
    headers.resize(headers.len().next_multiple_of(4), 0);

    let pieces = |header: usize| {
        let room = mtu.checked_sub(header).ok_or(Unfragmentable::Mtu(mtu))? & !7;
        if room == 0 {
            return Err(Unfragmentable::Mtu(mtu));
        }
        Ok(Pieces { header, payload: room })
    };
    let first = pieces(original.len())?;
    let others = pieces(headers.len() - original.len())?;
    // A header has at most 15 words.
    headers[first.header] = 0x40 | u8::try_from(others.header / 4).unwrap_or(0xf);
    let more = (payload.len() - first.payload).div_ceil(others.payload);
    for _ in 1..more {
        headers.extend_from_within(first.header..first.header + others.header);
    }

    let flags = word(original, 6);
    let (mut header, mut offset, mut pieces) = (&mut headers[..], 0, first);
    while !header.is_empty() {
        let (this, rest) = header.split_at_mut(pieces.header);
        let length = pieces.payload.min(payload.len() - offset);
        put(this, 2, saturating_u16(this.len() + length));
        let follows = if rest.is_empty() { 0 } else { MORE_FRAGMENTS };
        put(this, 6, (flags + saturating_u16(offset) / 8) | follows);
        this[10..12].fill(0);
        let checksum = ones_complement(add_slice(0, this));
        this[10..12].copy_from_slice(&checksum.to_ne_bytes());
        (header, offset, pieces) = (rest, offset + length, others);
    }
    Ok(Datagrams::new(headers, payload, first, others))
}

/// Iterates over the options of an IPv4 header, up to their end or the first malformed one.
fn options(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = match *rest {
            [] | [0, ..] => return None,
            [1, ..] => 1,
            // The length includes the type and itself.
            [_, length, ..] if length >= 2 => length,
            _ => return None,
        };
        let (option, behind) = rest.split_at_checked(length.into())?;
        rest = behind;
        Some(option)
    })
}

#[cfg(test)]
mod tests {
    use etherparse::defrag::IpDefragPool;
    use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv4HeaderSlice, SlicedPacket};
    use proptest::prelude::*;

    use super::*;
    use crate::samples::{A, B, udp};

    fn packet(offset: u16, more_fragments: bool, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() + options.len()).try_into().unwrap();
        let mut header = Ipv4Header::new(length, 9, IpNumber(99), A.octets(), B.octets()).unwrap();
        header.options = options.try_into().unwrap();
        header.identification = 7;
        header.dont_fragment = false;
        header.more_fragments = more_fragments;
        header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
        header.header_checksum = header.calc_header_checksum();
        [&header.to_bytes()[..], payload].concat()
    }

    fn fragments(packet: &[u8], mtu: usize) -> Result<Vec<Vec<u8>>, Unfragmentable> {
        let mut headers = vec![0xaa; 7];
        let fragments = fragment(packet, &Inner::parse(packet).unwrap(), mtu, &mut headers)?;
        assert_eq!(fragments.len(), fragments.clone().count());
        Ok(fragments.map(|it| [it.header, it.payload].concat()).collect())
    }

    /// Returns the payload as reassembled by etherparse.
    fn reassembled(fragments: &[Vec<u8>]) -> Option<Vec<u8>> {
        let mut pool = IpDefragPool::<(), ()>::new();
        fragments.iter().find_map(|fragment| {
            let header = Ipv4HeaderSlice::from_slice(fragment).unwrap().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            let sliced = SlicedPacket::from_ip(fragment).unwrap();
            Some(pool.process_sliced_packet(&sliced, (), ()).unwrap()?.payload)
        })
    }

    proptest! {
        #[test]
        fn fragments_of_fragments_reassemble_to_the_packet(
            options in 0usize..11,
            payload in prop::collection::vec(any::<u8>(), 1001..5000),
            first_mtu in 500usize..1000,
            mtu in 80usize..500,
        ) {
            let packet = packet(0, false, &vec![1; 4 * options], &payload);
            let once = fragments(&packet, first_mtu).unwrap();
            prop_assert_eq!(reassembled(&once), Some(payload.clone()));
            let twice: Vec<_> = once.iter().flat_map(|it| fragments(it, mtu).unwrap()).collect();
            prop_assert!(twice.iter().all(|fragment| fragment.len() <= mtu));
            prop_assert_eq!(reassembled(&twice), Some(payload));
        }
    }

    #[test]
    fn fragments_of_a_fragment_keep_its_offset() {
        let flags = |more| -> Vec<_> {
            let fragments = fragments(&packet(100, more, &[], &[0; 100]), 68).unwrap();
            fragments.iter().map(|fragment| word(fragment, 6)).collect()
        };
        assert_eq!(flags(true), [0x2000 | 100, 0x2000 | 106, 0x2000 | 112]);
        assert_eq!(flags(false), [0x2000 | 100, 0x2000 | 106, 112]);
    }

    #[test]
    fn options_are_copied_only_if_marked() {
        // No operation, record route (not copied), loose source route (copied), end.
        let options = [1, 7, 3, 4, 131, 3, 4, 0];
        let fragments = fragments(&packet(0, false, &options, &[0; 100]), 68).unwrap();
        assert_eq!((fragments[0][0], &fragments[0][20..28]), (0x47, &options[..]));
        for fragment in &fragments[1..] {
            assert_eq!((fragment[0], &fragment[20..24]), (0x46, &[131, 3, 4, 0][..]));
        }
    }

    #[test]
    fn fitting_packet_is_not_fragmented() {
        let packet = udp(true, b"abc");
        assert_eq!(fragments(&packet, packet.len()), Ok(vec![packet]));
    }

    #[test]
    fn unfragmentable_packet_is_refused() {
        assert_eq!(fragments(&udp(false, &[0; 99]), 100), Err(Unfragmentable::Forbidden));
        assert_eq!(fragments(&udp(true, &[0; 99]), 100), Err(Unfragmentable::Forbidden));
        let packet = packet(0, false, &[1; 40], &[0; 99]);
        assert_eq!(fragments(&packet, 67), Err(Unfragmentable::Mtu(67)));
        assert_eq!(fragments(&packet, 7), Err(Unfragmentable::Mtu(7)));
    }
}
