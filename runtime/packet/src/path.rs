//! A path from its opening to its end.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use heddle_core::address::{Family, LinkName};
use heddle_core::rate::{Bucket, Rate};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::counters::Tally;
use crate::forwarding::{Handover, Inbound, Outbound};
use crate::inbound::Receiver;
use crate::outbound::Transmitter;
use crate::socket::Socket;
use crate::tun::Tun;
use crate::{Counters, Destinations, Forwarding, OpenError};

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

/// A device and sockets, open, with nobody to carry packets yet.
pub struct Path {
    shared: Shared,
    tun: Tun,
}

/// A path at work. Ends when dropped: the threads end after the batch they are at, the device and the sockets go.
pub struct Running {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
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
    pub(crate) outbound: Handover<Outbound>,
    /// To each thread that receives, in the order of the sockets.
    pub(crate) inbound: Vec<Handover<Inbound>>,
    /// Likewise, from the one that sends: the device was made again.
    pub(crate) devices: Vec<Handover<Arc<Tun>>>,
}

impl Path {
    /// Makes the device and opens the sockets. The device is down and has no addresses.
    ///
    /// # Errors
    ///
    /// What is missing, or in the way.
    pub fn open(settings: Settings) -> Result<Self, OpenError> {
        Self::open_with(settings, true)
    }

    /// Does the same without any help of the kernel's: packets and datagrams go one by one, as on a kernel that has
    /// no offloads for TUN devices and UDP.
    ///
    /// # Errors
    ///
    /// As of [`open`](Self::open).
    pub fn open_without_offload(settings: Settings) -> Result<Self, OpenError> {
        Self::open_with(settings, false)
    }

    fn open_with(settings: Settings, offload: bool) -> Result<Self, OpenError> {
        let open = |local: &SocketAddr| Socket::open(*local, settings.port, offload);
        let sockets: Vec<_> = settings.sockets.iter().map(open).collect::<Result<_, _>>()?;
        let tun = Tun::make(settings.device, settings.mtu, offload)?;
        let shared = Shared {
            tally: Tally::default(),
            stop: Stop::new().map_err(OpenError::Start)?,
            on_failure: Box::new(|_| {}),
            outbound: Handover::default(),
            inbound: sockets.iter().map(|_| Handover::default()).collect(),
            devices: sockets.iter().map(|_| Handover::default()).collect(),
            sockets,
            settings,
            offload,
        };
        Ok(Self { shared, tun })
    }

    /// Starts the threads. Until the first [`Running::set`] packets are dropped. `on_failure` is called on them, and
    /// must not block.
    ///
    /// # Errors
    ///
    /// No threads.
    pub fn start(
        self,
        on_failure: impl Fn(Failure) + Send + Sync + 'static,
    ) -> Result<Running, OpenError> {
        let Self { mut shared, tun } = self;
        shared.on_failure = Box::new(on_failure);
        let (shared, tun) = (Arc::new(shared), Arc::new(tun));
        let mut running = Running { shared: Arc::clone(&shared), threads: Vec::new() };
        for (index, socket) in shared.sockets.iter().enumerate() {
            let family = if socket.local().is_ipv4() { "v4" } else { "v6" };
            let receiver = Receiver::new(Arc::clone(&shared), index, Arc::clone(&tun));
            running.spawn(format!("packets in {family}"), || receiver.run())?;
        }
        let transmitter = Transmitter::new(shared, tun);
        running.spawn("packets out".to_owned(), || transmitter.run())?;
        Ok(running)
    }
}

impl Running {
    fn spawn(
        &mut self,
        name: String,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), OpenError> {
        let thread = thread::Builder::new().name(name).spawn(work).map_err(OpenError::Start)?;
        self.threads.push(thread);
        Ok(())
    }

    /// Replaces what the path goes by. The threads take it before their next packets, each by itself.
    pub fn set(&self, forwarding: Forwarding) {
        let (outbound, inbound) = forwarding.split(self.shared.inbound.len());
        // First who is believed, then who is sent to.
        for (handover, inbound) in self.shared.inbound.iter().zip(inbound) {
            handover.put_after(|before| inbound.after(before));
        }
        self.shared.outbound.put_after(|before| outbound.after(before));
    }

    /// What it did so far.
    pub fn counters(&self) -> Counters {
        self.shared.tally.snapshot()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop.now();
        for thread in self.threads.drain(..) {
            // A panic there was reported there.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Path").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
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
    fn new() -> std::io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { event, told: AtomicBool::new(false) })
    }

    fn now(&self) {
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
