//! Which datagrams go to the kernel together.

use std::net::IpAddr;

/// The most datagrams of one message: `UDP_MAX_SEGMENTS` in `linux/udp.h` since Linux 4.18 (later kernels take more).
pub(crate) const SEGMENTS: usize = 64;

/// The most bytes of one message: what UDP over IPv4 or IPv6 can carry, less the headers in its length field.
pub(crate) fn limit(endpoint: IpAddr) -> usize {
    match endpoint {
        IpAddr::V4(_) => 65_507,
        IpAddr::V6(_) => 65_487,
    }
}

/// A datagram to be sent, in two pieces that lie where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outgoing<'a> {
    /// The peer it is for, by its index.
    pub(crate) peer: u32,
    /// Its address.
    pub(crate) to: IpAddr,
    /// What was made for this datagram. May be empty.
    pub(crate) header: &'a [u8],
    /// What was read.
    pub(crate) payload: &'a [u8],
}

impl Outgoing<'_> {
    /// In bytes.
    pub(crate) fn length(&self) -> usize {
        self.header.len() + self.payload.len()
    }
}

/// How many of the first datagrams make one message: to one peer, of one size but for the last, which may be shorter
/// (`UDP_SEGMENT` in udp(7)). At least one, where there is one.
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
    fn equal_neighbours_go_together_and_a_shorter_one_ends_the_message() {
        assert_eq!(messages(&[(1, 1400), (1, 1400), (1, 100), (1, 100)]), [3, 1]);
        assert_eq!(messages(&[(1, 100), (1, 1400), (1, 1400)]), [1, 2]);
        assert_eq!(messages(&[(1, 1400), (2, 1400), (2, 1400), (1, 1400)]), [1, 2, 1]);
    }

    #[test]
    fn a_message_has_at_most_64_datagrams() {
        assert_eq!(messages(&[(1, 92); 150]), [64, 64, 22]);
    }

    #[test]
    fn a_message_fits_udp() {
        // A super-packet of 64 KiB in segments of 1472 bytes is one too many.
        assert_eq!(messages(&[(1, 1472); 45]), [44, 1]);
        let six = |length| Outgoing { to: "2001:db8::1".parse().unwrap(), ..datagram(1, length) };
        assert_eq!(together(&[six(32_743), six(32_743)]), 2);
        assert_eq!(together(&[six(32_744), six(32_744)]), 1);
    }

    #[test]
    fn nothing_is_no_message() {
        assert_eq!(together(&[]), 0);
    }

    proptest! {
        #[test]
        fn every_datagram_is_in_one_message_that_the_kernel_takes(
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
