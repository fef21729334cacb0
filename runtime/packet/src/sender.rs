//! Sends datagrams to peers, in as few messages as the kernel accepts.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;
use tracing::warn;

use crate::message::{Outgoing, together};
use crate::notice::Notices;
use crate::path_mtu::PathMtus;
use crate::shared::{Shared, Wake};
use crate::socket::Socket;

/// Time to wait for a full socket before the datagrams are dropped.
const PATIENCE: Duration = Duration::from_millis(100);

/// The sender of one thread.
pub(crate) struct Sender {
    shared: Arc<Shared>,
    mtus: PathMtus,
    notices: Notices<Errno>,
}

impl Sender {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, mtus: PathMtus::default(), notices: Notices::default() }
    }

    /// Returns the longest UDP payload that reaches an address, in bytes. `None` if no limit is
    /// known.
    pub(crate) fn limit(&self, to: IpAddr, now: Instant) -> Option<usize> {
        self.mtus.payload(to, now)
    }

    /// Sends datagrams in order. Calls `too_long` with each that exceeds the path MTU, and with the
    /// longest payload that would fit; [`limit`](Self::limit) returns that value from then on.
    pub(crate) fn send<'a>(
        &mut self,
        mut datagrams: &[Outgoing<'a>],
        now: Instant,
        mut too_long: impl FnMut(&Outgoing<'a>, usize),
    ) {
        let shared = Arc::clone(&self.shared);
        while let Some(first) = datagrams.first() {
            let Some(socket) = shared.socket_to(first.to) else {
                // A peer only has an endpoint of a family without a socket if this node cannot
                // reach that family.
                shared.tally.no_route.one();
                datagrams = &datagrams[1..];
                continue;
            };
            let count = if socket.segments() { together(datagrams) } else { 1 };
            let (message, rest) = datagrams.split_at(count);
            datagrams = rest;
            match self.message(socket, message) {
                Ok(()) => {}
                Err(Errno::EMSGSIZE) => self.learn(socket, message, now, &mut too_long),
                // The path or the kernel cannot segment (`udp_send_skb` in net/ipv4/udp.c), so send
                // the datagrams one by one. This costs at most one failed call for each message.
                Err(Errno::EINVAL | Errno::EIO | Errno::EOPNOTSUPP) if count > 1 => {
                    for datagram in message {
                        match self.message(socket, std::slice::from_ref(datagram)) {
                            Ok(()) => {}
                            Err(Errno::EMSGSIZE) => {
                                let one = std::slice::from_ref(datagram);
                                self.learn(socket, one, now, &mut too_long);
                            }
                            Err(errno) => self.failed(errno, datagram, 1, now),
                        }
                    }
                }
                Err(errno) => self.failed(errno, first, count, now),
            }
        }
    }

    /// Asks the kernel for the path MTU, and sends those datagrams that fit.
    fn learn<'a>(
        &mut self,
        socket: &Socket,
        message: &[Outgoing<'a>],
        now: Instant,
        too_long: &mut impl FnMut(&Outgoing<'a>, usize),
    ) {
        let Some(first) = message.first() else { return };
        match socket.path_mtu(first.to) {
            Ok(mtu) => self.mtus.learn(first.to, mtu, now),
            Err(error) => {
                if let Some(unsaid) = self.notices.due(Errno::EMSGSIZE, now) {
                    warn!(peer = %first.to, %error, unsaid, "packets: cannot read the path MTU; datagrams dropped");
                }
                self.shared.tally.send_errors.add(message.len());
                return;
            }
        }
        let limit = self.mtus.payload(first.to, now).unwrap_or(usize::MAX);
        for datagram in message {
            if datagram.length() > limit {
                too_long(datagram, limit);
                continue;
            }
            if let Err(errno) = self.message(socket, std::slice::from_ref(datagram)) {
                self.failed(errno, datagram, 1, now);
            }
        }
    }

    /// Sends one message; waits up to [`PATIENCE`] if the socket is full.
    fn message(&self, socket: &Socket, message: &[Outgoing<'_>]) -> Result<(), Errno> {
        let tally = &self.shared.tally;
        loop {
            match socket.send(message) {
                Ok(()) => {
                    tally.sent_packets.add(message.len());
                    tally.sent_bytes.add(message.iter().map(Outgoing::length).sum());
                    return Ok(());
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    let stop = &self.shared.stop;
                    match stop.wait_for(socket.as_fd(), PollFlags::POLLOUT, Some(PATIENCE)) {
                        Wake::Ready => {}
                        Wake::Late | Wake::Stop => return Err(Errno::EAGAIN),
                    }
                }
                Err(errno) => return Err(errno),
            }
        }
    }

    fn failed(&mut self, errno: Errno, datagram: &Outgoing<'_>, count: usize, now: Instant) {
        self.shared.tally.send_errors.add(count);
        if let Some(unsaid) = self.notices.due(errno, now) {
            warn!(peer = %datagram.to, error = %errno.desc(), unsaid, "packets: cannot send; datagrams dropped");
        }
    }
}
