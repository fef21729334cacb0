//! Decrements the time to live.

use heddle_core::address::Family;

use crate::headers::Inner;

/// The packet's time to live has expired. The packet is unchanged, as its sender's ICMP error has
/// to quote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet's hop limit is exhausted")]
pub struct Expired;

/// Decrements the time to live of an IPv4 packet or the hop limit of an IPv6 packet. Updates the
/// checksum of the IPv4 header incrementally, so a wrong checksum stays wrong (RFC 1624).
///
/// # Errors
///
/// [`Expired`], if the result would be 0: the packet must not be forwarded (RFC 1812, 5.3.1; RFC
/// 8200, 3).
pub fn decrement(packet: &mut [u8], inner: &Inner) -> Result<(), Expired> {
    if inner.hop_limit <= 1 {
        return Err(Expired);
    }
    match inner.family() {
        Family::V4 => {
            packet[8] -= 1;
            // HC' = ~(~HC + ~m + m'), and ~m + m' is -0x0100: the time to live is the upper half of
            // its word.
            let checksum = u16::from_be_bytes([packet[10], packet[11]]);
            let (sum, carry) = (!checksum).overflowing_add(!0x0100);
            packet[10..12].copy_from_slice(&(!(sum + u16::from(carry))).to_be_bytes());
        }
        Family::V6 => packet[7] -= 1,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use etherparse::{IpNumber, Ipv4Header, PacketBuilder};
    use proptest::prelude::*;

    use super::*;
    use crate::samples::{A, A6, B, B6};

    proptest! {
        #[test]
        fn decrement_keeps_checksum_valid(
            id: u16,
            ttl in 2u8..,
            source: [u8; 4],
            destination: [u8; 4],
            payload in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let length = payload.len().try_into().unwrap();
            let mut header = Ipv4Header::new(length, ttl, IpNumber(99), source, destination).unwrap();
            header.identification = id;
            header.header_checksum = header.calc_header_checksum();
            let mut packet = header.to_bytes().to_vec();
            packet.extend(&payload);
            let inner = Inner::parse(&packet).unwrap();
            decrement(&mut packet, &inner).unwrap();

            header.time_to_live -= 1;
            header.header_checksum = header.calc_header_checksum();
            prop_assert_eq!(&packet[..20], &header.to_bytes()[..]);
            prop_assert_eq!(&packet[20..], &payload[..]);
        }
    }

    #[test]
    fn expired_packet_is_unchanged() {
        for hops in [0, 1] {
            let mut packets = [Vec::new(), Vec::new()];
            let [v4, v6] = &mut packets;
            PacketBuilder::ipv4(A.octets(), B.octets(), hops).udp(1, 2).write(v4, &[]).unwrap();
            PacketBuilder::ipv6(A6.octets(), B6.octets(), hops).udp(1, 2).write(v6, &[]).unwrap();
            for mut packet in packets {
                let before = packet.clone();
                let inner = Inner::parse(&packet).unwrap();
                assert_eq!(decrement(&mut packet, &inner), Err(Expired));
                assert_eq!(packet, before);
            }
        }
    }

    #[test]
    fn ipv6_decrement_changes_only_hop_limit() {
        let mut packet = Vec::new();
        PacketBuilder::ipv6(A6.octets(), B6.octets(), 2).udp(1, 2).write(&mut packet, &[]).unwrap();
        let mut expected = packet.clone();
        expected[7] = 1;
        let inner = Inner::parse(&packet).unwrap();
        decrement(&mut packet, &inner).unwrap();
        assert_eq!(packet, expected);
    }
}
