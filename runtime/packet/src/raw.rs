//! Sends ICMP errors to senders behind this host.
//!
//! They are sent from the host itself. Written to the device instead, they would be packets from
//! outside with one of the host's own addresses as their source, which the kernel drops
//! (`fib_validate_source`, martian source).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with,
};
use tracing::info;

/// Raw sockets for whole IP packets (raw(7), `IPPROTO_RAW`).
#[derive(Debug)]
pub(crate) struct RawSockets {
    v4: Option<OwnedFd>,
    v6: Option<OwnedFd>,
}

impl RawSockets {
    /// Opens the sockets. Without CAP_NET_RAW there are none, and no ICMP errors are sent.
    pub(crate) fn open() -> Self {
        let open = |family| {
            socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))
                .inspect_err(|error| {
                    info!(%error, "packets: cannot open a raw socket (CAP_NET_RAW); senders get no ICMP errors");
                })
                .ok()
        };
        Self { v4: open(AddressFamily::INET), v6: open(AddressFamily::INET6) }
    }

    /// Sends a packet to its destination address.
    pub(crate) fn send(&self, packet: &[u8], to: IpAddr) -> io::Result<()> {
        let socket = match to {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        let socket = socket.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        sendto(socket, packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &SocketAddr::new(to, 0))?;
        Ok(())
    }
}
