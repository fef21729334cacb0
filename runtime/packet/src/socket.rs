//! The UDP socket: datagrams to and from peers, many with one call where the kernel can.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, getsockopt, recvmsg, sendmsg,
    setsockopt, sockopt,
};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tracing::info;

use crate::OpenError;
use crate::message::{Outgoing, SEGMENTS};

/// Bytes of datagrams that wait to be received, and to be sent: some ten milliseconds' worth at gigabits.
const RECEIVE_BUFFER: usize = 8 << 20;
const SEND_BUFFER: usize = 4 << 20;

/// A socket of one family.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    local: SocketAddr,
    port: u16,
    /// Whether the kernel splits what it is given (`UDP_SEGMENT`, Linux 4.18).
    segmentation: bool,
}

/// Datagrams of one size from one address, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// Their source.
    pub(crate) from: IpAddr,
    /// Of all, in bytes.
    pub(crate) length: usize,
    /// Of each but the last.
    pub(crate) size: usize,
}

impl Received {
    /// How many there are.
    pub(crate) fn count(self) -> usize {
        self.length.div_ceil(self.size.max(1)).max(1)
    }
}

impl Socket {
    /// A socket bound to `local`, that sends to `port`, with what the kernel can do for it or without.
    pub(crate) fn open(local: SocketAddr, port: u16, offload: bool) -> Result<Self, OpenError> {
        let failed = |error: io::Error| OpenError::Socket { local, source: error };
        let fd = bound(local).map_err(failed)?;
        // Without the privilege the kernel's limits hold (net.core.rmem_max).
        let (receive, send) = (&RECEIVE_BUFFER, &SEND_BUFFER);
        setsockopt(&fd, sockopt::RcvBufForce, receive)
            .or_else(|_| setsockopt(&fd, sockopt::RcvBuf, receive))
            .and_then(|()| setsockopt(&fd, sockopt::SndBufForce, send))
            .or_else(|_| setsockopt(&fd, sockopt::SndBuf, send))
            .map_err(|errno| failed(errno.into()))?;
        let segmentation = offload && getsockopt(&fd, sockopt::UdpGsoSegment).is_ok();
        let joined = offload && setsockopt(&fd, sockopt::UdpGroSegment, &true).is_ok();
        if offload && !(segmentation && joined) {
            info!(
                %local, UDP_SEGMENT = segmentation, UDP_GRO = joined,
                "the kernel carries datagrams one by one, which takes more of its time"
            );
        }
        Ok(Self { fd, local, port, segmentation })
    }

    /// What it is bound to.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether it reaches an address of this family.
    pub(crate) fn reaches(&self, address: IpAddr) -> bool {
        self.local.is_ipv4() == address.is_ipv4()
    }

    /// Whether several datagrams can be sent with one call.
    pub(crate) fn segments(&self) -> bool {
        self.segmentation
    }

    /// Sends datagrams to one address: one, or as many as go [`together`](crate::message::together). Does not block.
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
        let size = first.length() as u16;
        let segments = [ControlMessage::UdpGsoSegments(&size)];
        let control = if datagrams.len() > 1 { &segments[..] } else { &[] };
        let to = SockaddrStorage::from(SocketAddr::new(first.to, self.port));
        sendmsg(
            self.fd.as_raw_fd(),
            &pieces[..count],
            control,
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            Some(&to),
        )
        .map(drop)
    }

    /// Receives datagrams. None when there are none. Does not block.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Result<Option<Received>, Errno> {
        let mut control = cmsg_space!(i32);
        let mut pieces = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let message = match recvmsg::<SockaddrStorage>(
            self.fd.as_raw_fd(),
            &mut pieces,
            Some(&mut control),
            flags,
        ) {
            Ok(message) => message,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let length = message.bytes;
        let size = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
            _ => None,
        });
        let from = message.address.as_ref().and_then(address).ok_or(Errno::EAFNOSUPPORT)?;
        Ok(Some(Received { from, length, size: size.unwrap_or(length) }))
    }

    /// The longest packet that reaches an address by what the kernel knows now, with its IP header, in bytes.
    pub(crate) fn path_mtu(&self, to: IpAddr) -> io::Result<usize> {
        // Only a connected socket has a path. Ours is to receive from everybody.
        let probe = bound(SocketAddr::new(self.local.ip(), 0))?;
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
        self.fd.as_fd()
    }
}

/// A UDP socket that never fragments (`IP_PMTUDISC_DO`): what is too long is told to its sender.
fn bound(local: SocketAddr) -> io::Result<OwnedFd> {
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    if local.is_ipv4() {
        rustix::net::sockopt::set_ip_mtu_discover(&fd, Ipv4PathMtuDiscovery::DO)?;
    } else {
        rustix::net::sockopt::set_ipv6_v6only(&fd, true)?;
        rustix::net::sockopt::set_ipv6_mtu_discover(&fd, Ipv6PathMtuDiscovery::DO)?;
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
mod tests {
    use super::*;
    use std::net::UdpSocket;

    fn outgoing<'a>(header: &'a [u8], payload: &'a [u8]) -> Outgoing<'a> {
        Outgoing { peer: 0, to: [127, 0, 0, 1].into(), header, payload }
    }

    fn receive(socket: &Socket) -> Vec<(usize, usize)> {
        let mut buffer = vec![0; 65_536];
        let received = std::iter::from_fn(|| socket.receive(&mut buffer).unwrap());
        received.map(|received| (received.length, received.size)).collect()
    }

    #[test]
    fn datagrams_of_one_size_travel_together() {
        let receiver = Socket::open("127.0.0.1:0".parse().unwrap(), 0, true).unwrap();
        let port = rustix::net::getsockname(&receiver.fd).unwrap();
        let port = SocketAddr::try_from(port).unwrap().port();
        let sender = Socket::open("127.0.0.1:0".parse().unwrap(), port, true).unwrap();
        sender
            .send(
                &[outgoing(b"head", b"body"), outgoing(b"he", b"ad"), outgoing(b"", b"tail")][..2],
            )
            .unwrap();
        sender.send(&[outgoing(b"", b"alone")]).unwrap();
        sender.send(&[outgoing(b"", b"")]).unwrap();
        assert_eq!(receive(&receiver), [(12, 8), (5, 5), (0, 0)]);
    }

    #[test]
    fn a_port_that_is_taken_is_refused() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = Socket::open(taken.local_addr().unwrap(), 1, true).unwrap_err().to_string();
        assert!(error.contains("another program has the port"), "{error}");
    }

    #[test]
    fn an_address_that_is_not_there_is_refused() {
        let error = Socket::open("192.0.2.1:0".parse().unwrap(), 1, true).unwrap_err().to_string();
        assert!(error.contains("no interface has the address"), "{error}");
    }

    #[test]
    fn what_does_not_fit_the_path_is_not_fragmented() {
        let socket = Socket::open("127.0.0.1:0".parse().unwrap(), 9, true).unwrap();
        assert_eq!(socket.path_mtu([127, 0, 0, 1].into()).unwrap(), 65_535);
        assert_eq!(socket.send(&[outgoing(&[], &[0; 65_508])]), Err(Errno::EMSGSIZE));
    }
}
