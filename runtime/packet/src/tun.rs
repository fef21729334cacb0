//! The TUN device.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use heddle_core::address::LinkName;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use tracing::info;
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::OpenError;

/// A TUN device. The kernel removes it when this value is dropped.
pub(crate) struct Tun {
    device: SyncDevice,
    /// True if packets have a virtio header, and TCP super-packets are enabled (`IFF_VNET_HDR`,
    /// `TUN_F_TSO4`).
    pub(crate) offload: bool,
    /// True if UDP super-packets are enabled as well (`TUN_F_USO4`, Linux 6.2).
    pub(crate) udp: bool,
}

impl Tun {
    /// Creates the device, with the offloads that the kernel supports if `offload` is set. The
    /// device is down, and has only its name and MTU.
    pub(crate) fn make(name: LinkName, mtu: u32, offload: bool) -> Result<Self, OpenError> {
        let failed = |source: io::Error| OpenError::Device { device: name, source };
        // The kernel would open a persistent TUN device that no program has open. It belongs to
        // somebody else.
        match if_nametoindex(name.as_str()) {
            Ok(_) => return Err(OpenError::DeviceExists(name)),
            Err(Errno::ENODEV) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        let build = |offload| {
            DeviceBuilder::new()
                .name(name.as_str())
                .offload(offload)
                .inherit_enable_state()
                .build_sync()
        };
        let device = build(offload)
            .or_else(|error| {
                let device = build(false)?;
                info!(device = %name, %error, "packets: kernel refused TUN offloads; reading and writing packets singly");
                Ok(device)
            })
            .map_err(failed)?;
        device.set_nonblocking(true).map_err(failed)?;
        // The library takes 16 bits, and no packet can be longer than that.
        device.set_mtu(u16::try_from(mtu).unwrap_or(u16::MAX)).map_err(failed)?;
        let (offload, udp) = (device.tcp_gso(), device.udp_gso());
        if offload && !udp {
            info!(device = %name, "packets: kernel lacks the UDP offload for TUN; reading and writing UDP packets singly");
        }
        Ok(Self { device, offload, udp })
    }

    /// Reads a packet, after its virtio header if offload is enabled. Returns `None` if there is
    /// none.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
        match self.device.recv(buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) => match errno(&error) {
                Errno::EAGAIN | Errno::EINTR => Ok(None),
                errno => Err(errno),
            },
        }
    }

    /// Writes a packet, after its virtio header if offload is enabled.
    pub(crate) fn write(&self, pieces: &[IoSlice<'_>]) -> Result<(), Errno> {
        self.device.send_vectored(pieces).map(drop).map_err(|error| errno(&error))
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
