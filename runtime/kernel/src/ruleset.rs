//! Notifications of changes to the nftables ruleset.
//!
//! The contents of the rules are the firewall crate's business. This crate listens for changes
//! because that takes a netlink socket.

use std::io;

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use crate::socket::receive;

/// `NFNLGRP_NFTABLES`, `linux/netfilter/nfnetlink.h`.
const GROUP: u32 = 7;

/// Receives a notification whenever the nftables ruleset changes in the network namespace of the
/// thread that subscribed. That includes changes by iptables-nft. The kernel sends none for
/// iptables-legacy.
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

    /// Waits for a change, and coalesces all pending notifications into one. They do not name the
    /// author, so the caller's own changes are reported as well. Cancel-safe: dropping the future
    /// loses nothing.
    pub async fn next(&mut self) {
        self.datagram.clear();
        // An overflow of the socket (ENOBUFS) means that there were changes.
        if let Err(error) = self.socket.recv(&mut self.datagram).await {
            tracing::debug!(%error, "kernel: ruleset notifications lost; checking the rules");
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
