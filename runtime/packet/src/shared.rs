//! The settings and state that all threads of a path share, and how they are stopped.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use heddle_core::address::{Family, LinkName};
use heddle_core::rate::{Bucket, Rate};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::Destinations;
use crate::counters::Tally;
use crate::forwarding::{Inbound, Outbound, Slot};
use crate::socket::Socket;
use crate::tun::Tun;

/// The configuration of a path.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name of the TUN device.
    pub device: LinkName,
    /// The device's MTU in bytes: the underlay's MTU, less the headers of the datagrams and the
    /// transform's overhead.
    pub mtu: u32,
    /// The device's own addresses, used as the source of ICMP errors. No errors are sent in a
    /// family without one.
    pub addresses: Vec<IpAddr>,
    /// The local addresses to bind sockets to: one per family.
    pub sockets: Vec<SocketAddr>,
    /// The UDP port of the peers.
    pub port: u16,
    /// Networks that packets from peers may go to, besides the subnets of other peers.
    pub destinations: Destinations,
}

/// A failure of a plugin, whose instance is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason, in the plugin's or its engine's words.
    pub reason: String,
}

/// The state shared by all threads.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    /// True if the kernel's offloads are used.
    pub(crate) offload: bool,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) tally: Tally,
    pub(crate) stop: Stop,
    pub(crate) on_failure: Box<dyn Fn(Failure) + Send + Sync>,
    /// The slot of the sending thread.
    pub(crate) outbound: Slot<Outbound>,
    /// The slots of the receiving threads, in the order of the sockets.
    pub(crate) inbound: Vec<Slot<Inbound>>,
    /// The slots in which the receiving threads get a re-created device from the sending thread.
    pub(crate) devices: Vec<Slot<Arc<Tun>>>,
}

impl Shared {
    /// Returns the source address for ICMP errors in this family.
    pub(crate) fn own_address(&self, family: Family) -> Option<IpAddr> {
        self.settings.addresses.iter().copied().find(|&address| Family::of(address) == family)
    }

    /// Returns the socket that reaches an address.
    pub(crate) fn socket_to(&self, address: IpAddr) -> Option<&Socket> {
        self.sockets.iter().find(|socket| socket.reaches(address))
    }
}

/// Returns the rate limit of a thread for ICMP errors, the kernel's default
/// (`net.ipv4.icmp_msgs_per_sec` and `icmp_msgs_burst`, ip-sysctl).
pub(crate) fn icmp_limit() -> Bucket {
    Bucket::new(Rate { burst: 50, interval: Duration::from_millis(1) })
}

/// Stops the threads, and wakes those that wait.
pub(crate) struct Stop {
    event: EventFd,
    requested: AtomicBool,
}

/// The result of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// There is something to read or write, or an error.
    Ready,
    /// The time limit has passed.
    Late,
    /// The path stops.
    Stop,
}

impl Stop {
    pub(crate) fn new() -> std::io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { event, requested: AtomicBool::new(false) })
    }

    pub(crate) fn now(&self) {
        self.requested.store(true, Ordering::Relaxed);
        // Never read, so it stays readable. The counter cannot overflow.
        let _ = self.event.write(1);
    }

    /// Returns true if the path stops.
    pub(crate) fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// Waits until a file is ready.
    pub(crate) fn wait_for(
        &self,
        file: BorrowedFd<'_>,
        flags: PollFlags,
        limit: Option<Duration>,
    ) -> Wake {
        self.wait(
            &mut [PollFd::new(self.event.as_fd(), PollFlags::POLLIN), PollFd::new(file, flags)],
            limit,
        )
    }

    /// Waits until one of several files can be read.
    pub(crate) fn wait_for_any<'a>(&self, files: impl Iterator<Item = BorrowedFd<'a>>) -> Wake {
        let mut waiting = vec![PollFd::new(self.event.as_fd(), PollFlags::POLLIN)];
        waiting.extend(files.map(|file| PollFd::new(file, PollFlags::POLLIN)));
        self.wait(&mut waiting, None)
    }

    /// Waits for some time, unless the path stops.
    pub(crate) fn pause(&self, time: Duration) -> Wake {
        self.wait(&mut [PollFd::new(self.event.as_fd(), PollFlags::POLLIN)], Some(time))
    }

    fn wait(&self, files: &mut [PollFd<'_>], limit: Option<Duration>) -> Wake {
        let limit = limit.map_or(PollTimeout::NONE, |limit| {
            PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX)
        });
        match poll(files, limit) {
            _ if self.is_requested() => Wake::Stop,
            Ok(0) => Wake::Late,
            // Interrupted by a signal: the caller finds nothing to do and waits again.
            Ok(_) | Err(_) => Wake::Ready,
        }
    }
}
