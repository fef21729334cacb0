//! The content of a VXLAN datagram: the VXLAN header (RFC 7348, section 5), an Ethernet header, and
//! an IP packet.

use heddle_sdk::{Family, MacAddress};

/// Length of the two headers, in bytes: 8 and 14.
pub(crate) const OVERHEAD: u32 = 22;

/// The same, as the length of an array.
pub(crate) const HEADERS: usize = OVERHEAD as usize;

/// The flag "I" of the VXLAN header: the VNI is valid. The other flags are reserved, and ignored by a receiver.
const VNI_VALID: u8 = 0x08;

/// EtherTypes (IANA "IEEE 802 Numbers").
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// Fields of the headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) vni: u32,
    pub(crate) destination: MacAddress,
    pub(crate) source: MacAddress,
    /// Family of the packet behind the headers.
    pub(crate) family: Family,
}

impl Frame {
    /// Returns the headers that precede a packet.
    pub(crate) fn headers(&self) -> [u8; HEADERS] {
        let mut headers = [0; HEADERS];
        headers[0] = VNI_VALID;
        headers[4..7].copy_from_slice(&self.vni.to_be_bytes()[1..]);
        headers[8..14].copy_from_slice(&self.destination.0);
        headers[14..20].copy_from_slice(&self.source.0);
        headers[20..].copy_from_slice(match self.family {
            Family::V4 => &IPV4,
            Family::V6 => &IPV6,
        });
        headers
    }

    /// Parses the headers of a payload, and returns them with the packet behind them. None if it is
    /// not a VXLAN frame with an IP packet.
    pub(crate) fn read(payload: &[u8]) -> Option<(Self, &[u8])> {
        let (headers, packet) = payload.split_first_chunk::<HEADERS>()?;
        let [flags, _, _, _, vni @ .., _] = headers.first_chunk::<8>()?;
        if flags & VNI_VALID == 0 {
            return None;
        }
        let [a, b, c] = *vni;
        let family = match [headers[20], headers[21]] {
            IPV4 => Family::V4,
            IPV6 => Family::V6,
            _ => return None,
        };
        let mac = |at: usize| headers[at..].first_chunk().copied().map(MacAddress);
        let (destination, source) = (mac(8)?, mac(14)?);
        Some((Self { vni: u32::from_be_bytes([0, a, b, c]), destination, source, family }, packet))
    }
}

/// Returns the family of an IP packet, by its version field.
pub(crate) fn family(packet: &[u8]) -> Option<Family> {
    match packet.first()? >> 4 {
        4 => Some(Family::V4),
        6 => Some(Family::V6),
        _ => None,
    }
}
