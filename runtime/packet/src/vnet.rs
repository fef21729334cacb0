//! The header in front of every packet on a TUN device opened with `IFF_VNET_HDR`. It says which
//! segmentation and checksums are left to do.
//!
//! `struct virtio_net_hdr` of `linux/virtio_net.h`, in native byte order.

/// The length of the header in bytes, unless `TUNSETVNETHDRSZ` sets another.
pub const LENGTH: usize = 10;

/// Flag: the checksum at `checksum_start + checksum_offset` is incomplete
/// (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
pub const NEEDS_CHECKSUM: u8 = 1;

/// No segmentation (`VIRTIO_NET_HDR_GSO_NONE`).
pub const NONE: u8 = 0;
/// Segmentation into TCP over IPv4 (`VIRTIO_NET_HDR_GSO_TCPV4`).
pub const TCP_V4: u8 = 1;
/// Segmentation into TCP over IPv6 (`VIRTIO_NET_HDR_GSO_TCPV6`).
pub const TCP_V6: u8 = 4;
/// Segmentation into UDP datagrams of either family (`VIRTIO_NET_HDR_GSO_UDP_L4`).
pub const UDP: u8 = 5;
/// Flag on a TCP type: the first segment has the flag CWR (`VIRTIO_NET_HDR_GSO_ECN`).
pub const ECN: u8 = 0x80;

/// The header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vnet {
    /// [`NEEDS_CHECKSUM`] or 0. Other flags are ignored.
    pub flags: u8,
    /// [`NONE`], [`TCP_V4`], [`TCP_V6`] or [`UDP`], optionally with [`ECN`].
    pub segmentation: u8,
    /// The length of all headers in bytes. Only a hint: the kernel reports more if the first bytes
    /// of the packet are contiguous in its memory.
    pub header_length: u16,
    /// The payload of every segment but the last, in bytes.
    pub segment_size: u16,
    /// The offset at which the checksummed data begins.
    pub checksum_start: u16,
    /// The offset of the checksum from `checksum_start`. It contains the sum of the pseudo-header,
    /// not complemented.
    pub checksum_offset: u16,
}

impl Vnet {
    /// Splits the header off bytes read from the device. `None` if they are shorter than the
    /// header.
    pub fn split_off(bytes: &mut [u8]) -> Option<(Self, &mut [u8])> {
        let (header, packet) = bytes.split_first_chunk_mut::<LENGTH>()?;
        let [flags, segmentation, ref fields @ ..] = *header;
        let field = |i: usize| u16::from_ne_bytes([fields[2 * i], fields[2 * i + 1]]);
        let vnet = Self {
            flags,
            segmentation,
            header_length: field(0),
            segment_size: field(1),
            checksum_start: field(2),
            checksum_offset: field(3),
        };
        Some((vnet, packet))
    }

    /// Returns the header in the device's format.
    pub fn to_bytes(self) -> [u8; LENGTH] {
        let mut bytes = [self.flags, self.segmentation, 0, 0, 0, 0, 0, 0, 0, 0];
        let fields =
            [self.header_length, self.segment_size, self.checksum_start, self.checksum_offset];
        for (to, field) in bytes[2..].chunks_exact_mut(2).zip(fields) {
            to.copy_from_slice(&field.to_ne_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vnet_header_reads_back_as_written() {
        let vnet = Vnet {
            flags: NEEDS_CHECKSUM,
            segmentation: TCP_V4 | ECN,
            header_length: 52,
            segment_size: 1398,
            checksum_start: 20,
            checksum_offset: 16,
        };
        let mut bytes = vnet.to_bytes().to_vec();
        bytes.extend(b"packet");
        let (read, packet) = Vnet::split_off(&mut bytes).unwrap();
        assert_eq!((read, &*packet), (vnet, &b"packet"[..]));
        assert_eq!(Vnet::split_off(&mut [0; LENGTH - 1]), None);
    }
}
