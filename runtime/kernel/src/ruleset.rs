//! Changes of nftables' ruleset, as they happen.
//!
//! What the rules are is another crate's business. They are listened to here because it takes a netlink socket.

use std::io;

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use crate::socket::receive;

/// `NFNLGRP_NFTABLES`, `linux/netfilter/nfnetlink.h`.
const GROUP: u32 = 7;

/// Tells that the ruleset of nftables has changed in the network namespace of the thread that asked, and so that of
/// iptables where it is made of nftables. What iptables-legacy does is not told by anybody.
pub struct RulesetChanges {
    socket: TokioSocket,
    datagram: Vec<u8>,
}

impl RulesetChanges {
    pub(crate) fn listen() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        socket.socket_mut().add_membership(GROUP)?;
        Ok(Self { socket, datagram: Vec::new() })
    }

    /// Waits for a change, and takes all that there have been for one. Who made them is not told: changes of one's own
    /// are seen as well. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) {
        self.datagram.clear();
        // More than the socket could hold (ENOBUFS) is a change as well.
        if let Err(error) = self.socket.recv(&mut self.datagram).await {
            tracing::debug!(%error, "notices of the ruleset were lost");
        }
        let there = MsgFlags::MSG_DONTWAIT.bits();
        loop {
            match receive(self.socket.socket_ref(), &mut self.datagram, there) {
                Err(error) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => return,
                _ => {}
            }
        }
    }
}

impl std::fmt::Debug for RulesetChanges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RulesetChanges").finish_non_exhaustive()
    }
}
