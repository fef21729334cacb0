//! Events from the kernel, as they happen.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use heddle_core::address::LinkName;
use heddle_core::diff::{Observation, Scope};
use heddle_core::host_network::HostRoute;
use heddle_core::object::ObjectKey;
use ipnet::IpNet;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::MsgFlags;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::sys::SocketAddr;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use tokio::sync::Notify;

use crate::addresses::Assigned;
use crate::error::Refusal;
use crate::links::Device;
use crate::observe::{assigned, devices};
use crate::socket::{Socket, enlarge, messages, receive};
use crate::view::View;

/// Size of the receive buffer in bytes, to absorb a burst until the thread runs: about 1 KiB of
/// kernel memory per event.
const RECEIVE_BUFFER: usize = 16 << 20;

/// The maximum number of events that wait for the consumer. Beyond that, a full resync is cheaper
/// than reading them.
const MOST_WAITING: usize = 1 << 17;

/// The multicast groups to join, by their bits in the socket's address: link, neighbour, IPv4
/// address and route, IPv6 address and route (`RTMGRP_*`, `linux/rtnetlink.h`).
const GROUPS: u32 = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400;

/// Something that happened in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An object in the scope appeared or changed. Carries its current state, as
    /// [`Kernel::observe`](crate::Kernel::observe) would return it.
    Seen(Observation),
    /// There is no longer a plannable object under this key in the scope. Objects on a deleted
    /// device are gone as well, not always with an event of their own.
    Gone(ObjectKey),
    /// Any device of the host, by name: it appeared, vanished, was renamed, went up or down,
    /// changed its MTU, or got or lost an address.
    ///
    /// When a device goes down or loses an address, the kernel drops IPv4 routes without
    /// notification, so everything that goes through the device needs a resync.
    LinkChanged(LinkName),
    /// A route of the host that overlaps the scope's networks appeared or vanished.
    HostRoute {
        /// The route.
        route: HostRoute,
        /// True if it appeared, false if it vanished.
        there: bool,
    },
    /// Events were lost. A full resync is needed.
    Lost,
}

/// The events of a [`Scope`], from the time of the subscription. Dropping this ends the thread that
/// collects them.
#[derive(Debug)]
pub struct Events {
    queue: Arc<Queue>,
    stop: Arc<EventFd>,
}

impl Events {
    /// Waits for events, and returns all that have arrived, in order; never empty. Cancel-safe:
    /// dropping the future loses nothing.
    pub async fn next_batch(&mut self) -> Vec<Event> {
        loop {
            let batch = self.queue.take();
            if !batch.is_empty() {
                return batch;
            }
            self.queue.filled.notified().await;
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // Cannot fail: the eventfd counter is far from overflowing.
        let _ = self.stop.write(1);
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Vec<Event>>,
    filled: Notify,
}

impl Queue {
    fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() + events.len() > MOST_WAITING {
            *waiting = vec![Event::Lost];
        } else if waiting.is_empty() {
            *waiting = events;
        } else {
            waiting.extend(events);
        }
        drop(waiting);
        self.filled.notify_one();
    }
}

/// Starts a thread that collects events, in the network namespace of the calling thread.
pub(crate) fn subscribe(scope: Scope) -> io::Result<Events> {
    let collector = Collector::open(scope, RECEIVE_BUFFER)?;
    let queue = Arc::new(Queue::default());
    let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?);
    let events = Events { queue: queue.clone(), stop: stop.clone() };
    thread::Builder::new()
        .name("netlink-events".into())
        .spawn(move || collector.run(&queue, &stop))?;
    Ok(events)
}

struct Collector {
    multicast: rtnetlink::sys::Socket,
    questions: Socket,
    datagram: Vec<u8>,
    watcher: Watcher,
}

impl Collector {
    fn open(scope: Scope, buffer: usize) -> io::Result<Self> {
        let mut multicast = rtnetlink::sys::Socket::new(NETLINK_ROUTE)?;
        enlarge(&multicast, buffer)?;
        multicast.bind(&SocketAddr::new(0, GROUPS))?;
        let questions = Socket::open()?;
        let watcher = Watcher::new(scope);
        let mut collector = Self { multicast, questions, datagram: vec![], watcher };
        collector.look().map_err(|refusal| io::Error::from_raw_os_error(refusal.errno()))?;
        Ok(collector)
    }

    fn run(mut self, queue: &Queue, stop: &EventFd) {
        loop {
            let mut ready = [
                PollFd::new(self.multicast.as_fd(), PollFlags::POLLIN),
                PollFd::new(stop.as_fd(), PollFlags::POLLIN),
            ];
            // Only fails if interrupted by a signal.
            let _ = poll(&mut ready, PollTimeout::NONE);
            if ready[1].any() == Some(true) {
                return;
            }
            queue.put(self.drain());
        }
    }

    /// Reads all events that have arrived.
    fn drain(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let mut lost = false;
        loop {
            match receive(&self.multicast, &mut self.datagram, MsgFlags::MSG_DONTWAIT.bits()) {
                Ok(()) => self.watcher.read(&self.datagram, &mut events),
                Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EAGAIN) => break,
                    Some(Errno::EINTR) => {}
                    // The kernel reports ENOBUFS once and then drops all events until the buffer is
                    // empty, so the events read before that are not reliable.
                    error => {
                        tracing::debug!(
                            ?error,
                            "kernel: netlink events lost; re-reading the kernel"
                        );
                        lost = true;
                    }
                },
            }
            if events.len() > MOST_WAITING {
                lost = true;
                events.clear();
            }
        }
        if lost {
            if let Err(refusal) = self.look() {
                tracing::warn!(error = %refusal, "kernel: cannot re-read devices after lost netlink events; changes may go unnoticed until the next resync");
            }
            events = vec![Event::Lost];
        }
        events
    }

    /// Re-reads the devices and addresses that the watcher tracks.
    fn look(&mut self) -> Result<(), Refusal> {
        self.watcher.view.devices = devices(&mut self.questions)?.into_iter().collect();
        let addresses = assigned(&mut self.questions)?;
        self.watcher.addresses = addresses.iter().map(|a| (a.device, a.network)).collect();
        Ok(())
    }
}

/// Turns the netlink messages behind [`Events`] into events. Separate from the socket, so that
/// tests and fuzzing can feed it arbitrary input.
pub struct Watcher {
    view: View,
    addresses: HashSet<(u32, IpNet)>,
}

impl Watcher {
    /// Creates a watcher that knows no devices yet.
    pub fn new(scope: Scope) -> Self {
        let view = View { scope, devices: Default::default() };
        Self { view, addresses: HashSet::new() }
    }

    /// Decodes the messages in a datagram (netlink(7), rtnetlink(7)) and appends their events to
    /// `events`. Skips messages that cannot be decoded.
    pub fn read(&mut self, datagram: &[u8], events: &mut Vec<Event>) {
        for message in messages(datagram).filter_map(|message| message.decode()) {
            self.interpret(message, events);
        }
    }

    fn interpret(&mut self, message: RouteNetlinkMessage, events: &mut Vec<Event>) {
        match message {
            RouteNetlinkMessage::NewLink(message) => {
                if let Some(device) = Device::decode(&message) {
                    self.device_seen(device, events);
                }
            }
            RouteNetlinkMessage::DelLink(message) => {
                if let Some(device) = Device::decode(&message) {
                    self.device_gone(&device, events);
                }
            }
            RouteNetlinkMessage::NewAddress(message) => {
                if let Some(assigned) = Assigned::decode(&message) {
                    if self.addresses.insert((assigned.device, assigned.network)) {
                        self.changed(assigned.device, events);
                    }
                    events.extend(self.view.address(&assigned).map(Event::Seen));
                }
            }
            RouteNetlinkMessage::DelAddress(message) => {
                if let Some(assigned) = Assigned::decode(&message) {
                    if self.addresses.remove(&(assigned.device, assigned.network)) {
                        self.changed(assigned.device, events);
                    }
                    events.extend(self.view.address(&assigned).map(gone));
                }
            }
            RouteNetlinkMessage::NewNeighbour(message) => {
                let seen = self.view.neighbour(&message);
                events.extend(seen.map(|(key, there)| there.map_or(Event::Gone(key), Event::Seen)));
            }
            RouteNetlinkMessage::DelNeighbour(message) => {
                events.extend(self.view.neighbour(&message).map(|(key, _)| Event::Gone(key)));
            }
            RouteNetlinkMessage::NewRoute(message) => {
                events.extend(self.host_route(&message, true));
                events.extend(self.view.route(&message).map(Event::Seen));
            }
            RouteNetlinkMessage::DelRoute(message) => {
                events.extend(self.host_route(&message, false));
                events.extend(self.view.route(&message).map(gone));
            }
            _ => {}
        }
    }

    fn host_route(&self, message: &RouteMessage, there: bool) -> Option<Event> {
        self.view.host_route(message).map(|route| Event::HostRoute { route, there })
    }

    fn changed(&self, index: u32, events: &mut Vec<Event>) {
        let device = self.view.devices.get(index);
        events.extend(device.map(|device| Event::LinkChanged(device.name)));
    }

    fn device_seen(&mut self, device: Device, events: &mut Vec<Event>) {
        let before = self.view.devices.insert(device.clone());
        // Messages without a relevant change, such as statistics.
        if before.as_ref() == Some(&device) {
            return;
        }
        if let Some(before) = before.as_ref().filter(|before| before.name != device.name) {
            events.push(Event::LinkChanged(before.name));
            events.extend(self.view.link(before).map(gone));
        }
        let essence = |device: &Device| (device.name, device.up, device.mtu);
        if before.as_ref().map(essence) != Some(essence(&device)) {
            events.push(Event::LinkChanged(device.name));
        }
        events.extend(self.view.link(&device).map(Event::Seen));
    }

    fn device_gone(&mut self, device: &Device, events: &mut Vec<Event>) {
        events.push(Event::LinkChanged(device.name));
        events.extend(self.view.link(device).map(gone));
        self.view.devices.remove(device.index);
        self.addresses.retain(|(index, _)| *index != device.index);
    }
}

fn gone(observation: Observation) -> Event {
    Event::Gone(observation.object.key())
}

#[cfg(test)]
mod tests {
    use heddle_core::diff::ObjectChange;
    use heddle_core::object::{Metric, Object, Route, RouteAction};
    use heddle_requires::requires;
    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::apply::apply;

    #[test]
    fn queue_overflow_becomes_one_lost_event() {
        let queue = Queue::default();
        queue.put(vec![Event::LinkChanged("eth0".parse().unwrap())]);
        queue.put(vec![Event::LinkChanged("eth1".parse().unwrap()); MOST_WAITING]);
        assert_eq!(queue.take(), [Event::Lost]);
        assert_eq!(queue.take(), []);
    }

    fn blackhole(number: u32) -> Object {
        let [_, _, high, low] = number.to_be_bytes();
        let destination = format!("10.{high}.{low}.0/24").parse().unwrap();
        Object::Route(Route {
            metric: Metric::Default,
            destination,
            action: RouteAction::Blackhole,
        })
    }

    #[test]
    fn socket_overflow_is_reported_once_and_recovers() {
        requires!(Namespaces);
        let test = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let scope = Scope { networks: vec!["10.0.0.0/8".parse().unwrap()], ..Scope::default() };
            let mut collector = Collector::open(scope.clone(), 64 << 10).unwrap();
            let mut socket = Socket::open().unwrap();
            let many: Vec<ObjectChange> = (1..2000).map(blackhole).map(ObjectChange::Put).collect();
            assert!(apply(&mut socket, &scope, &many).is_empty());
            assert_eq!(collector.drain(), [Event::Lost]);
            assert_eq!(collector.drain(), []);
            let one = blackhole(0);
            assert!(apply(&mut socket, &scope, &[ObjectChange::Put(one.clone())]).is_empty());
            assert_eq!(collector.drain(), [Event::Seen(Observation { object: one, ours: true })]);
        };
        thread::spawn(test).join().unwrap();
    }
}
