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

/// Between which places a path carries packets.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The TUN device.
    pub device: LinkName,
    /// Its MTU in bytes: what fits the underlay, less the headers of the datagrams and the transform's overhead.
    pub mtu: u32,
    /// The device's own addresses: the sources of ICMP errors. None of a family: no errors in it.
    pub addresses: Vec<IpAddr>,
    /// Where datagrams are sent from and arrive: one per family.
    pub sockets: Vec<SocketAddr>,
    /// Where peers receive.
    pub port: u16,
    /// Networks that packets from peers may go to, besides the subnets of other peers.
    pub destinations: Destinations,
}

/// A plugin failed; its instance is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In the plugin's or its engine's words.
    pub reason: String,
}

/// What all threads know.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    /// Whether the kernel is asked for help.
    pub(crate) offload: bool,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) tally: Tally,
    pub(crate) stop: Stop,
    pub(crate) on_failure: Box<dyn Fn(Failure) + Send + Sync>,
    /// To the thread that sends.
    pub(crate) outbound: Slot<Outbound>,
    /// To each thread that receives, in the order of the sockets.
    pub(crate) inbound: Vec<Slot<Inbound>>,
    /// Likewise, from the one that sends: the device was made again.
    pub(crate) devices: Vec<Slot<Arc<Tun>>>,
}

impl Shared {
    /// The source of an ICMP error in this family.
    pub(crate) fn own_address(&self, family: Family) -> Option<IpAddr> {
        self.settings.addresses.iter().copied().find(|&address| Family::of(address) == family)
    }

    /// The socket that reaches an address.
    pub(crate) fn socket_to(&self, address: IpAddr) -> Option<&Socket> {
        self.sockets.iter().find(|socket| socket.reaches(address))
    }
}

/// How often a thread may send an ICMP error: as the kernel by default (`net.ipv4.icmp_msgs_per_sec` and
/// `icmp_msgs_burst`, ip-sysctl).
pub(crate) fn icmp_limit() -> Bucket {
    Bucket::new(Rate { burst: 50, interval: Duration::from_millis(1) })
}

/// Tells the threads to end, wherever they wait.
pub(crate) struct Stop {
    event: EventFd,
    told: AtomicBool,
}

/// What came of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// There is something to do, or an error to be read.
    Ready,
    /// The time is over.
    Late,
    /// The path ends.
    Stop,
}

impl Stop {
    pub(crate) fn new() -> std::io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { event, told: AtomicBool::new(false) })
    }

    pub(crate) fn now(&self) {
        self.told.store(true, Ordering::Relaxed);
        // Never read, so it stays readable. It cannot be full.
        let _ = self.event.write(1);
    }

    /// Whether the path ends.
    pub(crate) fn told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
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

    /// Lets some time pass.
    pub(crate) fn pause(&self, time: Duration) -> Wake {
        self.wait(&mut [PollFd::new(self.event.as_fd(), PollFlags::POLLIN)], Some(time))
    }

    fn wait(&self, files: &mut [PollFd<'_>], limit: Option<Duration>) -> Wake {
        let limit = limit.map_or(PollTimeout::NONE, |limit| {
            PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX)
        });
        match poll(files, limit) {
            _ if self.told() => Wake::Stop,
            Ok(0) => Wake::Late,
            // Interrupted: whoever waits looks, finds nothing and waits again.
            Ok(_) | Err(_) => Wake::Ready,
        }
    }
}
