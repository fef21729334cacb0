//! A model of one host's kernel: devices, addresses, routes, neighbours and FDB entries, with its faults.
//!
//! It has the kernel's rules that the reconcile loop relies on. Their sources: `net/core/rtnetlink.c`,
//! `net/ipv4/{arp,devinet,fib_frontend}.c` and `drivers/net/vxlan/vxlan_core.c`, and what `heddle-kernel` observes and refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use heddle_core::address::{LinkName, MacAddress};
use heddle_core::diff::{ObjectChange, Observation, Observed, Scope};
use heddle_core::host_network::{HostAddress, HostRoute, HostRouting};
use heddle_core::interface::{Facts, Interface};
use heddle_core::link_counters::LinkCounters;
use heddle_core::object::{
    Address, Link, LinkKind, Metric, Object, ObjectKey, Route, RouteAction, Sysctl,
};
use heddle_kernel::{ApplyError, Event, Failure, KernelError, Refusal};
use heddle_node::ports::{Dataplane, Events};
use ipnet::IpNet;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::trace::Trace;

/// The interface between hosts.
pub const UNDERLAY: &str = "eth0";

/// The MTU of [`UNDERLAY`].
const MTU: u32 = 1500;

/// Most calls that a node may make within one second. More is a busy loop.
const CALLS_PER_SECOND: u32 = 200;

/// The owner of a device, which the kernel shows by its alias and kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// This daemon.
    Ours,
    /// Another program: the device is of a kind that Heddle does not use.
    Foreign,
}

/// The creator of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// A Heddle daemon.
    Heddle,
    /// The kernel, for an address.
    Kernel,
    /// Another program.
    Other,
}

/// Subject of a kernel event, before it is filtered by a subscriber's scope.
#[derive(Default)]
struct Touched {
    /// Devices that changed, appeared or disappeared. The kernel says nothing of what was on them.
    links: BTreeSet<LinkName>,
    keys: BTreeSet<ObjectKey>,
}

struct Subscriber {
    scope: Scope,
    events: mpsc::UnboundedSender<Vec<Event>>,
}

/// The state of a kernel.
#[derive(Default)]
pub struct State {
    /// Devices by name, each with its owner.
    pub devices: BTreeMap<LinkName, (Link, Mark)>,
    /// Addresses, neighbours, FDB entries and routes. The kernel records the creator of routes only.
    pub entries: BTreeMap<ObjectKey, (Object, Maker)>,
    /// Connected routes behind another route to the same network: the kernel appends them (`fib_add_ifaddr`).
    behind: BTreeMap<ObjectKey, (Object, Maker)>,
    /// True while the underlay is down.
    pub underlay_down: bool,
    /// Devices at the daemon's last read, and those that it made since. It cannot know better while
    /// nothing can be read.
    known_devices: BTreeSet<LinkName>,
    /// Devices that were refused, and are not known to be there. What is on them has to wait.
    refused_devices: BTreeSet<LinkName>,
    /// The number of changes that are refused from now on.
    pub refusals: u32,
    /// The number of changes of single objects that are refused from now on.
    pub refuse: BTreeMap<ObjectKey, u32>,
    /// The number of times that the daemon has read everything in its scope.
    pub looks: u64,
    /// The changes that the daemon asked for, if they are recorded.
    pub asked: Option<Vec<ObjectChange>>,
    /// The time that each call takes longer.
    pub slow: Duration,
    /// The time until which nothing can be read.
    pub unreadable_until: Option<Instant>,
    /// True while events are lost. The loss is told when it ends.
    pub deaf: bool,
    /// The number of changes that were made for the daemon.
    pub made: u64,
    /// Objects of other programs that a daemon has touched.
    pub violations: Vec<String>,
    /// The last time at which another program changed something.
    pub disturbed: Option<Instant>,
    subscribers: Vec<Subscriber>,
    /// The address of the underlay.
    pub address: Option<IpAddr>,
    calls: (u64, u32),
}

/// A kernel. Clones are the same.
#[derive(Clone)]
pub struct ModelKernel {
    state: Arc<Mutex<State>>,
    trace: Trace,
    name: String,
}

impl fmt::Debug for ModelKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelKernel").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ModelKernel {
    /// Returns the kernel of a host with an address on the underlay.
    pub fn new(name: String, address: IpAddr, trace: Trace) -> Self {
        let state = State { address: Some(address), ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), trace, name }
    }

    /// Adds a line about this host to the history.
    pub fn trace(&self, text: &str) {
        self.trace.note(&self.name, text);
    }

    /// Reads or changes the state, without events.
    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes something on behalf of another program, with events.
    pub fn disturb(&self, text: &str, change: impl FnOnce(&mut State) -> Vec<ObjectKey>) {
        self.trace.note(&self.name, text);
        self.with(|state| {
            state.disturbed = Some(Instant::now());
            let before = state.snapshots();
            let keys = change(state);
            let mut touched = Touched::default();
            for key in keys {
                match key {
                    ObjectKey::Link(name) => _ = touched.links.insert(name),
                    key => _ = touched.keys.insert(key),
                }
            }
            state.tell(&before, &touched);
        });
    }

    /// Returns the kernel's routing that is not a daemon's.
    pub fn routing(&self, scope: &Scope) -> HostRouting {
        self.with(|state| state.host(scope))
    }

    /// Loses events from now on, or tells that it has.
    pub fn set_deaf(&self, deaf: bool) {
        self.with(|state| {
            if state.deaf && !deaf {
                // As far as the daemon knows, everything happens now that it did not hear of.
                state.disturbed = Some(Instant::now());
                for subscriber in &state.subscribers {
                    // Whoever subscribed may have ended.
                    let _ = subscriber.events.send(vec![Event::Lost]);
                }
            }
            state.deaf = deaf;
        });
    }

    async fn call(&self, what: &str) {
        let second = self.trace.elapsed().as_secs();
        self.with(|state| {
            if state.calls.0 != second {
                state.calls = (second, 0);
            }
            state.calls.1 += 1;
            assert!(
                state.calls.1 <= CALLS_PER_SECOND,
                "busy loop: {} calls within one second, the last is {what}",
                state.calls.1
            );
        });
        let slow = self.with(|state| state.slow);
        sleep(slow + Duration::from_millis(fastrand::u64(0..3))).await;
    }

    async fn read<T>(
        &self,
        what: &'static str,
        look: impl FnOnce(&mut State) -> T + Send,
    ) -> Result<T, KernelError> {
        self.call(what).await;
        self.with(|state| match state.unreadable_until {
            Some(until) if Instant::now() < until => {
                let refusal = refusal(105);
                Err(KernelError::Refused { what, refusal })
            }
            _ => Ok(look(state)),
        })
    }
}

fn refusal(errno: i32) -> Refusal {
    Refusal::from(io::Error::from_raw_os_error(errno))
}

impl State {
    fn managed(&self, name: LinkName) -> bool {
        self.devices.get(&name).is_some_and(|(_, mark)| *mark == Mark::Ours)
    }

    /// Returns the objects in a scope, and whether they are the daemon's (`heddle-kernel`, `view`).
    pub fn observe(&self, scope: &Scope) -> Observed {
        let mut observed = Observed { host: self.host(scope), ..Observed::default() };
        for (name, (link, mark)) in &self.devices {
            let ours = *mark == Mark::Ours;
            if ours || scope.links.contains(name) {
                let object = Object::Link(link.clone());
                observed.objects.insert(object.key(), Observation { object, ours });
            }
        }
        for (key, (object, maker)) in &self.entries {
            let on_managed = object.link().is_some_and(|link| self.managed(link));
            let ours = match object {
                Object::Route(route) => {
                    let covered = scope.covers(route.destination);
                    let near = covered || on_managed;
                    match maker {
                        Maker::Heddle => Some(near),
                        Maker::Other if near => Some(covered && on_managed),
                        Maker::Kernel if near => Some(false),
                        Maker::Kernel | Maker::Other => None,
                    }
                }
                _ => on_managed.then_some(true),
            };
            if let Some(ours) = ours {
                let object = object.clone();
                observed.objects.insert(key.clone(), Observation { object, ours });
            }
        }
        observed
    }

    fn host(&self, scope: &Scope) -> HostRouting {
        let mut host = HostRouting::default();
        for (object, maker) in self.entries.values().chain(self.behind.values()) {
            let link = object.link();
            if link.is_some_and(|link| self.managed(link)) {
                continue;
            }
            match object {
                Object::Address(address) if scope.meets(address.network.trunc()) => {
                    host.addresses.insert(HostAddress {
                        link: address.link,
                        network: address.network,
                        up: true,
                        prefix_route: true,
                    });
                }
                Object::Route(route) => host.routes.extend(host_route(scope, route, *maker)),
                _ => {}
            }
        }
        host
    }

    fn snapshots(&self) -> Vec<Observed> {
        self.subscribers.iter().map(|subscriber| self.observe(&subscriber.scope)).collect()
    }

    /// Tells subscribers what has changed since `before`.
    fn tell(&mut self, before: &[Observed], touched: &Touched) {
        if self.deaf {
            return;
        }
        for (subscriber, before) in self.subscribers.iter().zip(before) {
            let now = self.observe(&subscriber.scope);
            let mut events: Vec<_> =
                touched.links.iter().map(|name| Event::LinkChanged(*name)).collect();
            for key in &touched.keys {
                match now.objects.get(key) {
                    Some(seen) => events.push(Event::Seen(seen.clone())),
                    None if before.objects.contains_key(key) => {
                        events.push(Event::Gone(key.clone()));
                    }
                    None => {}
                }
            }
            let route = |(route, there): (&HostRoute, bool)| Event::HostRoute {
                route: route.clone(),
                there,
            };
            let gone = before.host.routes.difference(&now.host.routes).map(|route| (route, false));
            let new = now.host.routes.difference(&before.host.routes).map(|route| (route, true));
            if touched.links.is_empty() {
                events.extend(gone.map(route));
            }
            events.extend(new.map(route));
            if !events.is_empty() {
                // Whoever subscribed may have ended.
                let _ = subscriber.events.send(events);
            }
        }
        self.subscribers.retain(|subscriber| !subscriber.events.is_closed());
    }

    fn change(&mut self, change: &ObjectChange) -> Result<(), ApplyError> {
        let refused = |errno| ApplyError::Refused { refusal: refusal(errno), hint: None };
        if let Some(link) = change.object().link()
            && self.refused_devices.contains(&link)
            && !matches!(change, ObjectChange::Remove(_))
        {
            self.violations.push(format!("{} does not wait for its device", change.object()));
        }
        if let Some(asked) = &mut self.asked {
            asked.push(change.clone());
        }
        if let Some(left) = self.refuse.get_mut(&change.object().key())
            && *left > 0
        {
            *left -= 1;
            self.note_refused(change.object());
            return Err(refused(16));
        }
        if self.refusals > 0 {
            self.refusals -= 1;
            self.note_refused(change.object());
            return Err(refused(16));
        }
        match (change, change.object()) {
            (_, Object::Link(link)) => self.change_device(change, link),
            (ObjectChange::Remove(object @ Object::Route(_)), _)
                if self.entries.get(&object.key()).is_some_and(|(there, _)| there != object) =>
            {
                // The kernel compares the attributes of the request: another route is left alone.
                Ok(())
            }
            (ObjectChange::Remove(object), _) => {
                let key = object.key();
                self.check(&key);
                if let Object::Address(address) = object {
                    self.remove_connected(address);
                }
                self.remove(&key);
                Ok(())
            }
            (ObjectChange::Create(object @ Object::Route(route)), _)
                if self.entries.contains_key(&object.key()) =>
            {
                Err(ApplyError::Appeared(route.destination))
            }
            (
                ObjectChange::Create(object)
                | ObjectChange::Put(object)
                | ObjectChange::Replace(object),
                _,
            ) => {
                if self.entries.get(&object.key()).is_some_and(|(there, _)| there != object) {
                    self.check(&object.key());
                }
                self.put(object, Maker::Heddle)
            }
        }
    }

    fn note_refused(&mut self, object: &Object) {
        if let Object::Link(link) = object
            && !self.devices.contains_key(&link.name)
            && !self.known_devices.contains(&link.name)
        {
            self.refused_devices.insert(link.name);
        }
    }

    /// Notes a violation if an entry is another program's, on a device of another program. A route
    /// through a gateway inside the overlay gives way to a lease for exactly its destination.
    fn check(&mut self, key: &ObjectKey) {
        let Some((object, maker)) = self.entries.get(key) else { return };
        if matches!(object, Object::Route(route) if gives_way(route)) {
            return;
        }
        let on_foreign = object.link().is_some_and(|link| {
            link.as_str() == UNDERLAY
                || self.devices.get(&link).is_some_and(|(_, mark)| *mark == Mark::Foreign)
        });
        if *maker != Maker::Heddle && on_foreign {
            self.violations.push(format!("{object} of {maker:?} was touched"));
        }
    }

    fn change_device(&mut self, change: &ObjectChange, link: &Link) -> Result<(), ApplyError> {
        let mark = self.devices.get(&link.name).map(|(_, mark)| *mark);
        self.refused_devices.remove(&link.name);
        match change {
            ObjectChange::Remove(_) if mark == Some(Mark::Ours) => self.delete(link.name),
            ObjectChange::Remove(_) => {}
            _ if mark == Some(Mark::Foreign) => {
                let kind = "bridge".to_owned();
                return Err(ApplyError::Foreign { name: link.name, kind });
            }
            ObjectChange::Create(_) | ObjectChange::Put(_) if mark.is_some() => {
                self.configure(link);
            }
            ObjectChange::Create(_) | ObjectChange::Put(_) | ObjectChange::Replace(_) => {
                self.delete(link.name);
                let mac = link.mac.or(Some(MacAddress([2, 0, 0, 0, 1, 0])));
                self.devices.insert(link.name, (Link { mac, ..link.clone() }, Mark::Ours));
                self.known_devices.insert(link.name);
            }
        }
        Ok(())
    }

    /// Changes the settings that can be changed in place.
    fn configure(&mut self, wanted: &Link) {
        let Some((link, mark)) = self.devices.get_mut(&wanted.name) else { return };
        *mark = Mark::Ours;
        (link.mtu, link.up) = (wanted.mtu, true);
        if let (LinkKind::Vxlan(found), LinkKind::Vxlan(wanted)) = (&mut link.kind, &wanted.kind) {
            found.learning = wanted.learning;
        }
        if wanted.mac.is_some() && wanted.mac != link.mac {
            link.mac = wanted.mac;
            // The kernel drops the neighbours on a device whose MAC changes (`NETDEV_CHANGEADDR`).
            let name = wanted.name;
            self.entries.retain(|_, (object, _)| {
                !matches!(object, Object::Neighbour(neighbour) if neighbour.link == name)
            });
        }
    }

    /// Deletes a device and what is on it.
    pub fn delete(&mut self, name: LinkName) {
        self.devices.remove(&name);
        self.behind.retain(|_, (object, _)| object.link() != Some(name));
        self.entries.retain(|_, (object, _)| object.link() != Some(name));
        let (free, behind) = std::mem::take(&mut self.behind)
            .into_iter()
            .partition(|(key, _)| !self.entries.contains_key(key));
        self.behind = behind;
        let mut free: BTreeMap<_, _> = free;
        self.entries.append(&mut free);
    }

    /// Removes an entry. A route behind it takes its place.
    pub fn remove(&mut self, key: &ObjectKey) {
        self.entries.remove(key);
        if let Some(behind) = self.behind.remove(key) {
            self.entries.insert(key.clone(), behind);
        }
    }

    fn remove_connected(&mut self, address: &Address) {
        let key = connected(address).key();
        if self.entries.get(&key).is_some_and(|(_, maker)| *maker == Maker::Kernel) {
            self.entries.remove(&key);
        }
    }

    /// Adds an entry, or replaces it.
    ///
    /// # Errors
    ///
    /// The kernel's reasons: there is no such device, or no such next hop.
    pub fn put(&mut self, object: &Object, maker: Maker) -> Result<(), ApplyError> {
        if let Some(link) = object.link()
            && link.as_str() != UNDERLAY
            && !self.devices.contains_key(&link)
        {
            return Err(ApplyError::NoDevice(link));
        }
        if let Object::Route(route) = object
            && maker == Maker::Other
            && self.entries.contains_key(&object.key())
        {
            // `ip route add`: File exists.
            return Err(ApplyError::Appeared(route.destination));
        }
        if let Object::Address(address) = object
            && address.network.prefix_len() < 32
            && !self.entries.contains_key(&object.key())
        {
            let route = connected(address);
            let place = match self.entries.contains_key(&route.key()) {
                true => &mut self.behind,
                false => &mut self.entries,
            };
            place.insert(route.key(), (route, Maker::Kernel));
        }
        self.entries.insert(object.key(), (object.clone(), maker));
        Ok(())
    }

    fn facts(&self) -> Facts {
        let address = self.address.map(|address| IpNet::new_assert(address, 24));
        let underlay = Interface {
            name: name(UNDERLAY),
            mtu: MTU,
            up: !self.underlay_down,
            loopback: false,
            kind: String::new(),
            mac: None,
            local: None,
            addresses: if self.underlay_down { Vec::new() } else { address.into_iter().collect() },
        };
        let others = self.devices.values().map(|(link, _)| Interface {
            name: link.name,
            mtu: link.mtu,
            up: link.up,
            loopback: false,
            kind: link.kind.name().to_owned(),
            mac: link.mac,
            local: None,
            addresses: Vec::new(),
        });
        let default = if self.underlay_down { Vec::new() } else { vec![name(UNDERLAY)] };
        Facts {
            interfaces: [underlay].into_iter().chain(others).collect(),
            default_routes_v4: default,
            default_routes_v6: Vec::new(),
            route_to: None,
        }
    }
}

fn gives_way(route: &Route) -> bool {
    let has_gateway = matches!(route.action, RouteAction::Forward { gateway: Some(_), .. });
    has_gateway && route.destination.addr().to_string().starts_with("10.244.")
}

/// Returns a route as one of the host's own. None if it is a daemon's, or beside the scope.
fn host_route(scope: &Scope, route: &Route, maker: Maker) -> Option<HostRoute> {
    let RouteAction::Forward { link, gateway, .. } = route.action else { return None };
    (maker != Maker::Heddle && scope.meets(route.destination)).then_some(HostRoute {
        destination: route.destination,
        link: Some(link),
        connected: gateway.is_none(),
        partial: false,
    })
}

/// Returns the connected route that the kernel adds for an address.
fn connected(address: &Address) -> Object {
    Object::Route(Route {
        destination: address.network.trunc(),
        metric: Metric::Default,
        action: RouteAction::Forward { link: address.link, gateway: None, onlink: false },
    })
}

/// Parses the name of a device.
pub fn name(text: &str) -> LinkName {
    text.parse().expect("a name of a few letters fits the kernel")
}

#[async_trait]
impl Dataplane for ModelKernel {
    async fn facts(&self, _: Option<IpAddr>) -> Result<Facts, KernelError> {
        self.read("the interfaces", |state| state.facts()).await
    }

    async fn observe(&self, scope: &Scope, _: &[Sysctl]) -> Result<Observed, KernelError> {
        self.read("links, addresses, neighbours and routes", |state| {
            state.known_devices = state.devices.keys().copied().collect();
            state.looks += 1;
            state.observe(scope)
        })
        .await
    }

    async fn host_routing(&self, scope: &Scope) -> Result<HostRouting, KernelError> {
        self.read("the host's routes", |state| state.host(scope)).await
    }

    async fn own_routes(&self, _: &Scope) -> Result<Vec<Route>, KernelError> {
        let route = |(object, maker): &(Object, Maker)| match object {
            Object::Route(route) if *maker == Maker::Heddle => Some(*route),
            _ => None,
        };
        self.read("Heddle's routes", |state| state.entries.values().filter_map(route).collect())
            .await
    }

    async fn connected_networks(&self) -> Result<BTreeSet<(IpNet, LinkName)>, KernelError> {
        let route = |(object, _): &(Object, Maker)| match object {
            Object::Route(Route {
                destination,
                action: RouteAction::Forward { link, gateway: None, .. },
                ..
            }) => Some((*destination, *link)),
            _ => None,
        };
        self.read("the connected routes", |state| {
            state.entries.values().filter_map(route).collect()
        })
        .await
    }

    async fn restore_connected(
        &self,
        addresses: Vec<HostAddress>,
    ) -> Result<Vec<(HostAddress, Refusal)>, KernelError> {
        self.read("the devices", |state| {
            for HostAddress { link, network, .. } in addresses {
                let route = connected(&Address { link, network });
                state.entries.insert(route.key(), (route, Maker::Kernel));
            }
            Vec::new()
        })
        .await
    }

    async fn apply(&self, _: &Scope, changes: Vec<ObjectChange>) -> Vec<Failure> {
        self.call("apply").await;
        self.with(|state| {
            let mut failures = Vec::new();
            for change in changes {
                let before = state.snapshots();
                let mut touched = Touched::default();
                match change.object() {
                    Object::Link(link) => _ = touched.links.insert(link.name),
                    object => _ = touched.keys.insert(object.key()),
                }
                let result = state.change(&change);
                self.trace.note(&self.name, &format!("{change:?}: {result:?}"));
                match result {
                    Ok(()) => {
                        state.made += 1;
                        state.tell(&before, &touched);
                    }
                    Err(error) => failures.push(Failure { change, error }),
                }
            }
            failures
        })
    }

    fn link_counters(&self) -> BTreeMap<LinkName, LinkCounters> {
        BTreeMap::new()
    }

    async fn subscribe(&self, scope: &Scope) -> Result<Box<dyn Events>, KernelError> {
        let scope = scope.clone();
        self.read("events", |state| {
            let (events, receiver) = mpsc::unbounded_channel();
            state.subscribers.push(Subscriber { scope, events });
            Box::new(ModelEvents(receiver)) as Box<dyn Events>
        })
        .await
    }
}

struct ModelEvents(mpsc::UnboundedReceiver<Vec<Event>>);

#[async_trait]
impl Events for ModelEvents {
    async fn next_batch(&mut self) -> Vec<Event> {
        let Some(mut events) = self.0.recv().await else {
            return std::future::pending().await;
        };
        while let Ok(more) = self.0.try_recv() {
            events.extend(more);
        }
        events
    }
}
