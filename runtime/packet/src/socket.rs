//! The UDP sockets of one family: datagrams to and from peers, many per system call if the kernel
//! supports it.
//!
//! Several sockets share one address and port, in a `SO_REUSEPORT` group (socket(7)), so that a
//! source that fills the receive buffer of one can be steered to another: see
//! [`lanes`](crate::lanes). Datagrams are sent from the first.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use heddle_core::address::Family;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::sock_fprog;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, getsockopt, recvmsg, sendmsg,
    setsockopt, sockopt,
};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tracing::{info, warn};

use crate::OpenError;
use crate::lane_filter;
use crate::lanes::{Arrival, LANES, SHARED};
use crate::message::{Outgoing, SEGMENTS};

/// Sizes of the receive and send buffers in bytes: some ten milliseconds of traffic at gigabit
/// rates.
const RECEIVE_BUFFER: usize = 8 << 20;
const SEND_BUFFER: usize = 4 << 20;

/// Size of the receive buffer of an isolated source's lane, in bytes.
const LANE_BUFFER: usize = 2 << 20;

/// The sockets of one family.
#[derive(Debug)]
pub(crate) struct Socket {
    /// The first is the shared lane. It is the only one if the kernel cannot steer.
    lanes: Vec<OwnedFd>,
    /// Size of the shared lane's receive buffer, in bytes as the kernel accounts them
    /// (`SO_RCVBUF`).
    buffer: usize,
    local: SocketAddr,
    port: u16,
    /// True if the kernel segments messages (`UDP_SEGMENT`, Linux 4.18).
    segmentation: bool,
}

/// Contiguous datagrams of one size from one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// The source address.
    pub(crate) from: IpAddr,
    /// The total length in bytes.
    pub(crate) length: usize,
    /// The size of every datagram but the last, in bytes.
    pub(crate) size: usize,
    /// Number of datagrams that the kernel dropped before this one because the receive buffer was
    /// full, since the socket was opened (`SO_RXQ_OVFL` in socket(7)). `None` before the first
    /// drop.
    pub(crate) dropped: Option<u32>,
}

impl Received {
    /// Returns the number of datagrams.
    pub(crate) fn count(self) -> usize {
        self.length.div_ceil(self.size.max(1)).max(1)
    }

    /// Returns the part that concerns lanes.
    pub(crate) fn arrival(self) -> Arrival {
        let Self { from, length, dropped, .. } = self;
        Arrival { from, length, count: self.count(), dropped }
    }
}

impl Socket {
    /// Opens sockets bound to `local` that send to `port`; with `offload`, enables the offloads
    /// that the kernel supports.
    pub(crate) fn open(local: SocketAddr, port: u16, offload: bool) -> Result<Self, OpenError> {
        let failed = |error: io::Error| OpenError::Socket { local, source: error };
        // Bind it without `SO_REUSEPORT` first, so that a conflict with another program, such as
        // another heddled, is detected.
        let fd = bound(local, false).map_err(failed)?;
        let send = &SEND_BUFFER;
        let buffer = receive_buffer(&fd, RECEIVE_BUFFER)
            .and_then(|buffer| {
                setsockopt(&fd, sockopt::SndBufForce, send)
                    .or_else(|_| setsockopt(&fd, sockopt::SndBuf, send))?;
                Ok(buffer)
            })
            .map_err(|errno| failed(errno.into()))?;
        let segmentation = offload && getsockopt(&fd, sockopt::UdpGsoSegment).is_ok();
        let joined = offload && setsockopt(&fd, sockopt::UdpGroSegment, &true).is_ok();
        if offload && !(segmentation && joined) {
            info!(
                %local, UDP_SEGMENT = segmentation, UDP_GRO = joined,
                "packets: kernel lacks a UDP offload; sending and receiving takes more CPU time"
            );
        }
        let mut socket = Self { lanes: vec![fd], buffer, local, port, segmentation };
        if let Err(error) = socket.open_lanes(joined) {
            socket.lanes.truncate(1);
            // Prevents other sockets from joining the group. An error can be ignored: the option
            // was not set then.
            let _ = setsockopt(&socket.lanes[SHARED], sockopt::ReusePort, &false);
            warn!(
                %local, %error,
                "packets: kernel cannot steer datagrams; one flooding peer can fill the receive buffer of all"
            );
        }
        Ok(socket)
    }

    /// Opens the other lanes. Nothing is steered to them yet.
    fn open_lanes(&mut self, joined: bool) -> io::Result<()> {
        let shared = &self.lanes[SHARED];
        let local = SocketAddr::try_from(rustix::net::getsockname(shared)?)?;
        setsockopt(shared, sockopt::ReusePort, &true)?;
        for _ in SHARED + 1..LANES {
            let lane = bound(local, true)?;
            receive_buffer(&lane, LANE_BUFFER)?;
            if joined {
                setsockopt(&lane, sockopt::UdpGroSegment, &true)?;
            }
            self.lanes.push(lane);
        }
        self.steer(std::iter::empty())?;
        Ok(())
    }

    /// Makes the kernel steer datagrams from these sources to these lanes, and those of all others
    /// to the shared one.
    ///
    /// # Errors
    ///
    /// The kernel's error. The previous steering then stays in effect.
    pub(crate) fn steer(
        &self,
        steering: impl Iterator<Item = (IpAddr, usize)>,
    ) -> Result<(), Errno> {
        let program = lane_filter::program(Family::of(self.local.ip()), steering);
        let len = u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?;
        // The kernel only reads the program, and copies it.
        let program = sock_fprog { len, filter: program.as_ptr().cast_mut() };
        setsockopt(&self.lanes[SHARED], sockopt::AttachReusePortCbpf, &program)
    }

    /// Returns true if sources can be given a lane of their own.
    pub(crate) fn has_lanes(&self) -> bool {
        self.lanes.len() == LANES
    }

    /// Returns the size of the shared lane's receive buffer, in bytes.
    pub(crate) fn buffer(&self) -> usize {
        self.buffer
    }

    /// Returns a lane's socket, for polling.
    pub(crate) fn lane(&self, lane: usize) -> BorrowedFd<'_> {
        self.lanes[lane].as_fd()
    }

    /// Returns the bound address.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Returns true if it can reach an address of this family.
    pub(crate) fn reaches(&self, address: IpAddr) -> bool {
        self.local.is_ipv4() == address.is_ipv4()
    }

    /// Returns true if several datagrams can be sent with one call.
    pub(crate) fn segments(&self) -> bool {
        self.segmentation
    }

    /// Sends datagrams to one address: a single one, or as many as go
    /// [`together`](crate::message::together). Does not block.
    pub(crate) fn send(&self, datagrams: &[Outgoing<'_>]) -> Result<(), Errno> {
        let Some(first) = datagrams.first() else { return Ok(()) };
        let mut pieces = [IoSlice::new(&[]); 2 * SEGMENTS];
        let mut count = 0;
        for piece in datagrams.iter().flat_map(|datagram| [datagram.header, datagram.payload]) {
            if !piece.is_empty() {
                pieces[count] = IoSlice::new(piece);
                count += 1;
            }
        }
        // Only a message of several datagrams has a segment size, and it is within
        // `message::limit`.
        let size = u16::try_from(first.length()).unwrap_or(u16::MAX);
        let segments = [ControlMessage::UdpGsoSegments(&size)];
        let control = if datagrams.len() > 1 { &segments[..] } else { &[] };
        let to = SockaddrStorage::from(SocketAddr::new(first.to, self.port));
        sendmsg(
            self.lanes[SHARED].as_raw_fd(),
            &pieces[..count],
            control,
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            Some(&to),
        )
        .map(drop)
    }

    /// Receives datagrams from a lane. Returns `None` if there are none. Does not block.
    pub(crate) fn receive(
        &self,
        lane: usize,
        buffer: &mut [u8],
    ) -> Result<Option<Received>, Errno> {
        let mut control = cmsg_space!(i32, u32);
        let mut pieces = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let message = match recvmsg::<SockaddrStorage>(
            self.lanes[lane].as_raw_fd(),
            &mut pieces,
            Some(&mut control),
            flags,
        ) {
            Ok(message) => message,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let length = message.bytes;
        let (mut size, mut dropped) = (length, None);
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::UdpGroSegments(segment) => {
                    size = usize::try_from(segment).unwrap_or(length);
                }
                ControlMessageOwned::RxqOvfl(count) => dropped = Some(count),
                _ => {}
            }
        }
        let from = message.address.as_ref().and_then(address).ok_or(Errno::EAFNOSUPPORT)?;
        Ok(Some(Received { from, length, size, dropped }))
    }

    /// Returns the kernel's current path MTU to an address: the longest packet, with its IP header,
    /// in bytes.
    pub(crate) fn path_mtu(&self, to: IpAddr) -> io::Result<usize> {
        // Only a connected socket has a path MTU, and ours must not be connected, to receive from
        // everybody.
        let probe = bound(SocketAddr::new(self.local.ip(), 0), false)?;
        rustix::net::connect(&probe, &SocketAddr::new(to, self.port))?;
        let mtu = match to {
            IpAddr::V4(_) => rustix::net::sockopt::ip_mtu(&probe)?,
            IpAddr::V6(_) => rustix::net::sockopt::ipv6_mtu(&probe)?,
        };
        Ok(mtu as usize)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lanes[SHARED].as_fd()
    }
}

/// Sets the size of a receive buffer, and enables reports of datagrams dropped because it is full.
/// Returns the size as the kernel accounts it, which is twice as much (socket(7)).
fn receive_buffer(fd: &OwnedFd, bytes: usize) -> nix::Result<usize> {
    // Without CAP_NET_ADMIN, the kernel's limit applies (net.core.rmem_max).
    setsockopt(fd, sockopt::RcvBufForce, &bytes)
        .or_else(|_| setsockopt(fd, sockopt::RcvBuf, &bytes))?;
    setsockopt(fd, sockopt::RxqOvfl, &1)?;
    getsockopt(fd, sockopt::RcvBuf)
}

/// Opens a UDP socket that never fragments (`IP_PMTUDISC_DO`): sending a datagram that is too long
/// fails instead. With `shared`, other shared sockets of this user may use the same port.
fn bound(local: SocketAddr, shared: bool) -> io::Result<OwnedFd> {
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    if local.is_ipv4() {
        rustix::net::sockopt::set_ip_mtu_discover(&fd, Ipv4PathMtuDiscovery::DO)?;
    } else {
        rustix::net::sockopt::set_ipv6_v6only(&fd, true)?;
        rustix::net::sockopt::set_ipv6_mtu_discover(&fd, Ipv6PathMtuDiscovery::DO)?;
    }
    if shared {
        setsockopt(&fd, sockopt::ReusePort, &true)?;
    }
    rustix::net::bind(&fd, &local)?;
    Ok(fd)
}

fn address(storage: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = || storage.as_sockaddr_in().map(|address| address.ip().into());
    let v6 = || storage.as_sockaddr_in6().map(|address| address.ip().into());
    v4().or_else(v6)
}

#[cfg(test)]
mod tests;
