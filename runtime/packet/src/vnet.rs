//! The header in front of every packet on a TUN device opened with `IFF_VNET_HDR`: what of the packet is left to be done.
//!
//! `struct virtio_net_hdr` of `linux/virtio_net.h`, in the byte order of the machine.

/// Its length in bytes, unless `TUNSETVNETHDRSZ` sets another.
pub const LENGTH: usize = 10;

/// The checksum at `checksum_start + checksum_offset` is yet to be made (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
pub const NEEDS_CHECKSUM: u8 = 1;

/// The packet is one (`VIRTIO_NET_HDR_GSO_NONE`).
pub const NONE: u8 = 0;
/// It is to be split into segments of TCP over IPv4 (`VIRTIO_NET_HDR_GSO_TCPV4`).
pub const TCP_V4: u8 = 1;
/// It is to be split into segments of TCP over IPv6 (`VIRTIO_NET_HDR_GSO_TCPV6`).
pub const TCP_V6: u8 = 4;
/// It is to be split into UDP datagrams of either family (`VIRTIO_NET_HDR_GSO_UDP_L4`).
pub const UDP: u8 = 5;
/// Joined to a TCP type: the first segment has the flag CWR (`VIRTIO_NET_HDR_GSO_ECN`).
pub const ECN: u8 = 0x80;

/// The header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vnet {
    /// [`NEEDS_CHECKSUM`] or 0. Other flags mean nothing here.
    pub flags: u8,
    /// [`NONE`], [`TCP_V4`], [`TCP_V6`] or [`UDP`], and maybe [`ECN`].
    pub segmentation: u8,
    /// The length of all headers. A hint: the kernel states more where the first bytes lie together in its memory.
    pub header_length: u16,
    /// Of the payload of each segment but the last, in bytes.
    pub segment_size: u16,
    /// Where what is summed up begins.
    pub checksum_start: u16,
    /// Where the checksum is, from there. It holds the sum of the pseudo-header, not complemented.
    pub checksum_offset: u16,
}

impl Vnet {
    /// Takes it off what was read from the device. None where not even the header was read.
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

    /// As the device takes it.
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
    fn it_reads_back_as_written() {
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
