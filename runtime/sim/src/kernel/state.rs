//! The state of the model, and the rules by which it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use heddle_core::address::{LinkName, MacAddress};
use heddle_core::diff::{ObjectChange, Observation, Observed, Scope};
use heddle_core::host_network::{HostAddress, HostRoute, HostRouting};
use heddle_core::interface::{Facts, Interface};
use heddle_core::object::{Address, Link, LinkKind, Metric, Object, ObjectKey, Route, RouteAction};
use heddle_kernel::{ApplyError, Event};
use ipnet::IpNet;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{MTU, UNDERLAY, name, refusal};

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
pub(super) struct Touched {
    /// Devices that changed, appeared or disappeared. The kernel says nothing of what was on them.
    pub(super) links: BTreeSet<LinkName>,
    pub(super) keys: BTreeSet<ObjectKey>,
}

pub(super) struct Subscriber {
    pub(super) scope: Scope,
    pub(super) events: mpsc::UnboundedSender<Vec<Event>>,
}

/// The state of a kernel.
#[derive(Default)]
pub struct State {
    /// Devices by name, each with its owner.
    pub devices: BTreeMap<LinkName, (Link, Mark)>,
    /// Addresses, neighbours, FDB entries and routes. The kernel records the creator of routes only.
    pub entries: BTreeMap<ObjectKey, (Object, Maker)>,
    /// Connected routes behind another route to the same network: the kernel appends them (`fib_add_ifaddr`).
    pub(super) behind: BTreeMap<ObjectKey, (Object, Maker)>,
    /// True while the underlay is down.
    pub underlay_down: bool,
    /// Devices at the daemon's last read, and those that it made since. It cannot know better while
    /// nothing can be read.
    pub(super) known_devices: BTreeSet<LinkName>,
    /// Devices that were refused, and are not known to be there. What is on them has to wait.
    pub(super) refused_devices: BTreeSet<LinkName>,
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
    pub(super) subscribers: Vec<Subscriber>,
    /// The first address of the underlay.
    pub address: Option<IpAddr>,
    /// The underlay's further addresses.
    pub more_addresses: Vec<IpNet>,
    pub(super) calls: (u64, u32),
}

impl State {
    pub(super) fn managed(&self, name: LinkName) -> bool {
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

    pub(super) fn host(&self, scope: &Scope) -> HostRouting {
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

    pub(super) fn snapshots(&self) -> Vec<Observed> {
        self.subscribers.iter().map(|subscriber| self.observe(&subscriber.scope)).collect()
    }

    /// Tells subscribers what has changed since `before`.
    pub(super) fn tell(&mut self, before: &[Observed], touched: &Touched) {
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

    pub(super) fn change(&mut self, change: &ObjectChange) -> Result<(), ApplyError> {
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

    /// Forgets what the daemon knows about devices: a daemon that starts has read nothing.
    pub(super) fn forget_knowledge(&mut self) {
        self.known_devices.clear();
        self.refused_devices.clear();
    }

    pub(super) fn note_refused(&mut self, object: &Object) {
        if let Object::Link(link) = object
            && !self.devices.contains_key(&link.name)
            && !self.known_devices.contains(&link.name)
        {
            self.refused_devices.insert(link.name);
        }
    }

    /// Notes a violation if an entry is another program's, on a device of another program. A route
    /// through a gateway inside the overlay gives way to a lease for exactly its destination.
    pub(super) fn check(&mut self, key: &ObjectKey) {
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

    pub(super) fn facts(&self) -> Facts {
        let address = self.address.map(|address| IpNet::new_assert(address, 24));
        let addresses = address.into_iter().chain(self.more_addresses.iter().copied());
        let addresses = if self.underlay_down { Vec::new() } else { addresses.collect() };
        let has_v6 = addresses.iter().any(|address: &IpNet| address.addr().is_ipv6());
        let underlay = Interface {
            name: name(UNDERLAY),
            mtu: MTU,
            up: !self.underlay_down,
            loopback: false,
            kind: String::new(),
            mac: None,
            local: None,
            alias: String::new(),
            unusable: Vec::new(),
            addresses,
        };
        let others = self.devices.values().map(|(link, _)| Interface {
            name: link.name,
            mtu: link.mtu,
            up: link.up,
            loopback: false,
            kind: link.kind.name().to_owned(),
            mac: link.mac,
            local: None,
            alias: String::new(),
            unusable: Vec::new(),
            addresses: Vec::new(),
        });
        let default = if self.underlay_down { Vec::new() } else { vec![name(UNDERLAY)] };
        Facts {
            interfaces: [underlay].into_iter().chain(others).collect(),
            default_routes_v6: if has_v6 { default.clone() } else { Vec::new() },
            default_routes_v4: default,
            ..Facts::default()
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
pub(super) fn connected(address: &Address) -> Object {
    Object::Route(Route {
        destination: address.network.trunc(),
        metric: Metric::Default,
        action: RouteAction::Forward { link: address.link, gateway: None, onlink: false },
    })
}
