//! Numbers in the widths that headers and plugins have for them.
//!
//! Lengths, offsets and counts within one packet are `usize` in this crate, and never exceed 65,535:
//! `Inner::parse` rejects longer packets, and the coalescer makes none. So these conversions never
//! change a number. They saturate rather than panic, because a packet must not end the path.

/// Converts a length, offset or count within one packet.
pub(crate) fn saturating_u16(number: usize) -> u16 {
    debug_assert!(number <= usize::from(u16::MAX), "{number} in one packet");
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// Converts a length, an MTU or an index.
pub(crate) fn saturating_u32(number: usize) -> u32 {
    debug_assert!(u32::try_from(number).is_ok(), "{number} is too large");
    u32::try_from(number).unwrap_or(u32::MAX)
}
