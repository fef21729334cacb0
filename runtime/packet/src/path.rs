//! The life cycle of a path.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::counters::Tally;
use crate::forwarding::Slot;
use crate::inbound::Receiver;
use crate::outbound::Transmitter;
use crate::shared::{Failure, Settings, Shared, Stop};
use crate::socket::Socket;
use crate::tun::Tun;
use crate::{Counters, Forwarding, OpenError};

/// An open device and sockets, without threads yet.
pub struct Path {
    shared: Shared,
    tun: Tun,
}

/// A running path. Dropping it ends the threads after their current batch, and removes the device
/// and the sockets.
pub struct Running {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Path {
    /// Creates the device and opens the sockets. The device is down and has no addresses.
    ///
    /// # Errors
    ///
    /// [`OpenError`], if the device or a socket cannot be opened.
    pub fn open(settings: Settings) -> Result<Self, OpenError> {
        Self::open_with(settings, true)
    }

    /// Does the same without offloads: packets and datagrams are handled one by one, as on a kernel
    /// that has no offloads for TUN devices and UDP.
    ///
    /// # Errors
    ///
    /// The same as [`open`](Self::open).
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
            outbound: Slot::default(),
            inbound: sockets.iter().map(|_| Slot::default()).collect(),
            devices: sockets.iter().map(|_| Slot::default()).collect(),
            sockets,
            settings,
            offload,
        };
        Ok(Self { shared, tun })
    }

    /// Starts the threads. They drop packets until the first [`Running::set`]. The threads call
    /// `on_failure` when a plugin fails; it must not block.
    ///
    /// # Errors
    ///
    /// [`OpenError::Start`], if a thread cannot be started.
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

    /// Replaces the forwarding. Each thread switches to it before its next packets.
    pub fn set(&self, forwarding: Forwarding) {
        let (outbound, inbound) = forwarding.split(self.shared.inbound.len());
        // Update receivers before the sender, so that a new peer's replies are accepted before
        // anything is sent to it.
        for (slot, inbound) in self.shared.inbound.iter().zip(inbound) {
            slot.put_after(|before| inbound.after(before));
        }
        self.shared.outbound.put_after(|before| outbound.after(before));
    }

    /// Returns the counters.
    pub fn counters(&self) -> Counters {
        self.shared.tally.snapshot()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop.now();
        for thread in self.threads.drain(..) {
            // The panic was already reported by the thread.
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
