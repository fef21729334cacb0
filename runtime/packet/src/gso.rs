//! Splits a packet from the device into datagrams (generic segmentation offload): does what the
//! kernel left undone.
//!
//! The kernel hands over up to 64 KiB of a TCP stream, or of UDP datagrams of one size, as one
//! packet to be segmented. Each segment gets its own headers. The payload is only read, for the
//! checksum, and not copied.

use etherparse::checksum::u64_16bit_word::{
    add_2bytes, add_4bytes, add_slice, ones_complement, ones_complement_with_no_zero,
};
use etherparse::{TcpHeaderSlice, UdpHeader, ip_number};
use heddle_core::address::Family;

use crate::checksum;
use crate::datagrams::{Datagrams, Pieces};
use crate::headers::Inner;
use crate::numbers::{saturating_u16, saturating_u32};
use crate::transport::{CWR, FIN, PSH, Transport, put, word};
use crate::vnet::{self, Vnet};

/// The reason why a packet from the device is dropped: its virtio header does not match it. The
/// kernel sends no such packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsplittable {
    /// A kind of segmentation that we do not offer to the kernel, or one that does not match the
    /// packet.
    #[error("segmentation of type {0}: expected one of TCP or UDP, and a packet of that kind")]
    Kind(u8),
    /// The segment size is 0.
    #[error("segments of 0 bytes")]
    SegmentSize,
    /// The packet is to be segmented, but its pseudo-header's sum is not in the checksum field.
    #[error("segmentation of type {0} without a checksum to complete in the transport header")]
    NoChecksum(u8),
    /// The checksum would cover the IP header.
    #[error("a checksum to complete from byte {0} on, within the IP header")]
    IpHeader(u16),
    /// The transport header or the checksum is beyond the end of the packet.
    #[error("the transport header or the checksum is beyond the end of the packet of {0} bytes")]
    Short(usize),
}

/// Splits a packet from the device into datagrams.
///
/// A packet that needs no segmentation becomes one datagram, and its checksum is completed in
/// place. Otherwise `headers` is filled with the headers of all segments, and the headers in
/// `packet` are overwritten. Segments are made as by the kernel (`tcp_gso_segment`,
/// `__udp_gso_segment` and `inet_gso_segment`): sequence numbers continue, FIN and PSH are only on
/// the last segment, CWR only on the first, and the identification of IPv4 is incremented.
///
/// # Errors
///
/// [`Unsplittable`], if the virtio header does not match the packet.
pub fn split<'a>(
    vnet: &Vnet,
    packet: &'a mut [u8],
    inner: &Inner,
    headers: &'a mut Vec<u8>,
) -> Result<Datagrams<'a>, Unsplittable> {
    let kind = vnet.segmentation;
    let needs_checksum = vnet.flags & vnet::NEEDS_CHECKSUM != 0;
    let transport = match (kind & !vnet::ECN, inner.family(), inner.protocol) {
        (vnet::NONE, _, _) => {
            if needs_checksum {
                if vnet.checksum_start < inner.header_length {
                    return Err(Unsplittable::IpHeader(vnet.checksum_start));
                }
                complete(packet, vnet)?;
            }
            return Ok(Datagrams::whole(packet));
        }
        (vnet::TCP_V4, Family::V4, ip_number::TCP) => Transport::Tcp,
        (vnet::TCP_V6, Family::V6, ip_number::TCP) => Transport::Tcp,
        (vnet::UDP, _, ip_number::UDP) => Transport::Udp,
        _ => return Err(Unsplittable::Kind(kind)),
    };
    if inner.is_fragment() {
        return Err(Unsplittable::Kind(kind));
    }
    let checksum = (vnet.checksum_start, vnet.checksum_offset);
    if !needs_checksum || checksum != (inner.header_length, transport.checksum()) {
        return Err(Unsplittable::NoChecksum(kind));
    }
    let size = usize::from(vnet.segment_size);
    if size == 0 {
        return Err(Unsplittable::SegmentSize);
    }
    let start = usize::from(inner.header_length);
    let short = Unsplittable::Short(packet.len());
    let length = start
        + match transport {
            Transport::Tcp => {
                TcpHeaderSlice::from_slice(&packet[start..]).map_err(|_| short)?.slice().len()
            }
            Transport::Udp => UdpHeader::LEN,
        };
    if packet.len() < length {
        return Err(short);
    }
    if packet.len() <= length + size {
        complete(packet, vnet)?;
        return Ok(Datagrams::whole(packet));
    }
    let (original, payload) = packet.split_at_mut(length);
    let payload = &*payload;
    headers.resize(payload.len().div_ceil(size) * length, 0);
    let template = Template::new(original, start, transport, payload.len());
    let last = headers.len() / length - 1;
    let segments = headers.chunks_exact_mut(length).zip(payload.chunks(size));
    for (i, (header, payload)) in segments.enumerate() {
        template.write(header, payload, i, i * size, i == last);
    }
    let pieces = Pieces { header: length, payload: size };
    Ok(Datagrams::new(headers, payload, pieces, pieces))
}

/// Completes the checksum of a packet, whose checksum field contains the sum of the pseudo-header.
fn complete(packet: &mut [u8], vnet: &Vnet) -> Result<(), Unsplittable> {
    let start = usize::from(vnet.checksum_start);
    let at = start + usize::from(vnet.checksum_offset);
    if packet.len() < at + 2 {
        return Err(Unsplittable::Short(packet.len()));
    }
    let sum = checksum::add(0, &packet[start..]);
    let checksum = finish(sum, vnet.checksum_offset == Transport::Tcp.checksum());
    packet[at..at + 2].copy_from_slice(&checksum.to_ne_bytes());
    Ok(())
}

/// Folds a sum into a checksum. In UDP, 0 means that there is none (RFC 768). In TCP, 0 is a
/// checksum like any other, and software stacks write it, although the kernel would accept the
/// other zero as well.
fn finish(sum: u64, tcp: bool) -> u16 {
    if tcp { ones_complement(sum) } else { ones_complement_with_no_zero(sum) }
}

/// The headers shared by all segments, without the fields that differ, and their sums.
struct Template<'a> {
    header: &'a [u8],
    start: usize,
    transport: Transport,
    /// IPv4: the identification of the first segment, and the sum of the IP header.
    network: Option<(u16, u64)>,
    /// TCP: the sequence number of the first segment.
    sequence: u32,
    /// TCP: the flags of the whole packet.
    flags: u8,
    /// The sum of the transport header and of the pseudo-header without its length.
    sum: u64,
}

impl<'a> Template<'a> {
    /// Builds a template from the headers of the whole packet.
    fn new(header: &'a mut [u8], start: usize, transport: Transport, payload: usize) -> Self {
        let (network, rest) = header.split_at_mut(start);
        let network = (network[0] >> 4 == 4).then(|| {
            let id = word(network, 4);
            network[2..6].fill(0);
            network[10..12].fill(0);
            (id, add_slice(0, network))
        });
        // The kernel supplies the sum of the pseudo-header with the whole length. Correcting it,
        // rather than computing it anew, also works if a routing header names another destination.
        let length = saturating_u16(rest.len() + payload);
        let (mut sequence, mut flags) = (0, 0);
        match transport {
            Transport::Tcp => {
                sequence = u32::from_be_bytes([rest[4], rest[5], rest[6], rest[7]]);
                flags = rest[13];
                rest[4..8].fill(0);
                rest[13] = 0;
            }
            Transport::Udp => rest[4..6].fill(0),
        }
        let sum = add_2bytes(add_slice(0, rest), (!length).to_be_bytes());
        rest[usize::from(transport.checksum())..][..2].fill(0);
        Self { header, start, transport, network, sequence, flags, sum }
    }

    /// Writes the headers of the segment with this index, whose payload begins at `offset` in the
    /// whole payload.
    fn write(&self, header: &mut [u8], payload: &[u8], index: usize, offset: usize, last: bool) {
        header.copy_from_slice(self.header);
        let (network, rest) = header.split_at_mut(self.start);
        let length = saturating_u16(rest.len() + payload.len());
        if let Some((id, sum)) = self.network {
            let total = length + saturating_u16(self.start);
            let id = id.wrapping_add(saturating_u16(index));
            put(network, 2, total);
            put(network, 4, id);
            let sum = add_2bytes(add_2bytes(sum, total.to_be_bytes()), id.to_be_bytes());
            network[10..12].copy_from_slice(&ones_complement(sum).to_ne_bytes());
        } else {
            put(network, 4, length + saturating_u16(self.start - 40));
        }
        let mut sum = add_2bytes(self.sum, length.to_be_bytes());
        match self.transport {
            Transport::Tcp => {
                let sequence = self.sequence.wrapping_add(saturating_u32(offset)).to_be_bytes();
                let mut flags = self.flags;
                if index > 0 {
                    flags &= !CWR;
                }
                if !last {
                    flags &= !(FIN | PSH);
                }
                rest[4..8].copy_from_slice(&sequence);
                rest[13] = flags;
                sum = add_2bytes(add_4bytes(sum, sequence), [0, flags]);
            }
            Transport::Udp => {
                put(rest, 4, length);
                sum = add_2bytes(sum, length.to_be_bytes());
            }
        }
        let checksum = finish(checksum::add(sum, payload), self.transport == Transport::Tcp);
        let at = usize::from(self.transport.checksum());
        rest[at..at + 2].copy_from_slice(&checksum.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests;
