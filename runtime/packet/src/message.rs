//! Groups datagrams into messages that the kernel segments (GSO).

use std::net::IpAddr;

/// The maximum number of datagrams in a message: `UDP_MAX_SEGMENTS` in `linux/udp.h` since Linux
/// 4.18 (later kernels allow more).
pub(crate) const SEGMENTS: usize = 64;

/// Returns the maximum size of a message in bytes: the length that UDP over IPv4 or IPv6 can carry,
/// less the headers that its length field includes.
pub(crate) fn limit(endpoint: IpAddr) -> usize {
    match endpoint {
        IpAddr::V4(_) => 65_507,
        IpAddr::V6(_) => 65_487,
    }
}

/// A datagram to send, in two pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outgoing<'a> {
    /// The index of the peer.
    pub(crate) peer: u32,
    /// The peer's address.
    pub(crate) to: IpAddr,
    /// The bytes made for this datagram; may be empty.
    pub(crate) header: &'a [u8],
    /// The bytes that were read from the device or the plugin.
    pub(crate) payload: &'a [u8],
}

impl Outgoing<'_> {
    /// Returns the length in bytes.
    pub(crate) fn length(&self) -> usize {
        self.header.len() + self.payload.len()
    }
}

/// Returns how many of the first datagrams make one message: same peer, same size, except that the
/// last may be shorter (`UDP_SEGMENT` in udp(7)). At least one, unless there is none.
pub(crate) fn together(datagrams: &[Outgoing<'_>]) -> usize {
    let Some(first) = datagrams.first() else { return 0 };
    let (size, limit) = (first.length(), limit(first.to));
    let (mut count, mut bytes, mut last) = (1, size, size);
    for datagram in &datagrams[1..] {
        let length = datagram.length();
        let fits = count < SEGMENTS && bytes + length <= limit;
        if !fits || last != size || length > size || length == 0 || datagram.to != first.to {
            break;
        }
        (count, bytes, last) = (count + 1, bytes + length, length);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    static BYTES: [u8; 65_536] = [0; 65_536];

    fn datagram(to: u8, length: usize) -> Outgoing<'static> {
        let (header, payload) = BYTES[..length].split_at(length.min(40));
        Outgoing { peer: to.into(), to: [192, 0, 2, to].into(), header, payload }
    }

    fn messages(datagrams: &[(u8, usize)]) -> Vec<usize> {
        let datagrams: Vec<_> =
            datagrams.iter().map(|&(to, length)| datagram(to, length)).collect();
        let (mut rest, mut counts) = (&datagrams[..], Vec::new());
        while !rest.is_empty() {
            let count = together(rest);
            counts.push(count);
            rest = &rest[count..];
        }
        counts
    }

    #[test]
    fn equal_datagrams_share_message_up_to_a_shorter_one() {
        assert_eq!(messages(&[(1, 1400), (1, 1400), (1, 100), (1, 100)]), [3, 1]);
        assert_eq!(messages(&[(1, 100), (1, 1400), (1, 1400)]), [1, 2]);
        assert_eq!(messages(&[(1, 1400), (2, 1400), (2, 1400), (1, 1400)]), [1, 2, 1]);
    }

    #[test]
    fn message_has_at_most_64_datagrams() {
        assert_eq!(messages(&[(1, 92); 150]), [64, 64, 22]);
    }

    #[test]
    fn message_fits_in_udp_length() {
        // A super-packet of 64 KiB in segments of 1472 bytes has one segment too many.
        assert_eq!(messages(&[(1, 1472); 45]), [44, 1]);
        let six = |length| Outgoing { to: "2001:db8::1".parse().unwrap(), ..datagram(1, length) };
        assert_eq!(together(&[six(32_743), six(32_743)]), 2);
        assert_eq!(together(&[six(32_744), six(32_744)]), 1);
    }

    #[test]
    fn no_datagrams_make_no_message() {
        assert_eq!(together(&[]), 0);
    }

    proptest! {
        #[test]
        fn every_datagram_is_in_one_valid_message(
            datagrams in prop::collection::vec((0..3u8, prop_oneof![Just(1472), 40..1472usize]), 0..200)
        ) {
            let counts = messages(&datagrams);
            prop_assert_eq!(counts.iter().sum::<usize>(), datagrams.len());
            let mut rest = &datagrams[..];
            for count in counts {
                let (message, later) = rest.split_at(count);
                let (to, size) = message[0];
                prop_assert!(count <= SEGMENTS);
                prop_assert!(message.iter().map(|d| d.1).sum::<usize>() <= 65_507);
                prop_assert!(message.iter().all(|d| d.0 == to && d.1 <= size));
                prop_assert!(message[..count - 1].iter().all(|d| d.1 == size));
                rest = later;
            }
        }
    }
}
