//! Convergence of the reconcile loop against a model of the kernel: observe, compare, apply,
//! repeat. From any state the loop reaches the desired one, touches nothing foreign, and then has
//! nothing to do.
//!
//! The model has the kernel's rules that `core::diff` and its callers rely on. Their sources: the
//! kernel's `net/core/rtnetlink.c`, `net/ipv4/{arp,devinet,fib_frontend}.c` and
//! `drivers/net/vxlan/vxlan_core.c`, and what `heddle-kernel` observes and refuses.

use std::collections::{BTreeMap, BTreeSet};

use heddle_core::address::{LinkName, MacAddress};
use heddle_core::diff::{ObjectChange, Observation, Observed, Scope, diff};
use heddle_core::host_network::{
    Claims, Guard, HostAddress, HostNetwork, HostRoute, HostRouting, Vital,
};
use heddle_core::object::{
    Address, FdbEntry, Link, LinkKind, Metric, Neighbour, Object, ObjectKey, Route, RouteAction,
    Vxlan,
};
use ipnet::IpNet;
use proptest::prelude::*;

/// The owner of a device, which the kernel shows by its alias and kind.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mark {
    /// This daemon.
    Ours,
    /// flannel: a VXLAN device without an alias. It may be adopted.
    Flannel,
    /// Another Heddle daemon, by the alias.
    Another,
    /// Another program: the device is of a kind that Heddle does not use.
    Foreign,
}

impl Mark {
    fn untouchable(self) -> bool {
        matches!(self, Self::Another | Self::Foreign)
    }
}

/// The creator of a route.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Maker {
    Heddle,
    /// The kernel, for an address.
    Kernel,
    Other,
}

#[derive(Clone, Debug, Default)]
struct Kernel {
    devices: BTreeMap<LinkName, (Link, Mark)>,
    /// Addresses, neighbours, FDB entries and routes. The kernel records the creator of routes
    /// only.
    entries: BTreeMap<ObjectKey, (Object, Maker)>,
}

/// The kernel, or `heddle-kernel` on its behalf, refused a change.
#[derive(Debug)]
struct Refused;

impl Kernel {
    /// Returns the objects in the scope, and whether they are ours (`heddle-kernel`, `view`).
    fn observe(&self, scope: &Scope) -> Observed {
        let managed = |name: &LinkName| match self.devices.get(name) {
            Some((_, mark)) if mark.untouchable() => false,
            Some((_, mark)) => *mark == Mark::Ours || scope.links.contains(name),
            None => false,
        };
        let mut observed = Observed { host: self.host(scope, managed), ..Observed::default() };
        for (name, (link, mark)) in &self.devices {
            let ours = *mark == Mark::Ours;
            if ours || scope.links.contains(name) {
                let object = Object::Link(link.clone());
                observed.objects.insert(object.key(), Observation { object, ours });
            }
        }
        for (key, (object, maker)) in &self.entries {
            let on_managed = object.link().is_some_and(|link| managed(&link));
            let ours = match object {
                Object::Route(route) => {
                    let covered = scope.covers(route.destination);
                    let near = covered || on_managed;
                    let device = object.link().and_then(|link| self.devices.get(&link));
                    let on_anothers = device.is_some_and(|(_, mark)| *mark == Mark::Another);
                    match maker {
                        Maker::Heddle => Some(near && !on_anothers),
                        Maker::Other if near => Some(covered && on_managed),
                        Maker::Kernel if near => Some(false),
                        _ => None,
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

    /// Returns the host's own routes and addresses (`heddle-kernel`, `view`).
    fn host(&self, scope: &Scope, managed: impl Fn(&LinkName) -> bool) -> HostRouting {
        let mut host = HostRouting::default();
        for (object, maker) in self.entries.values() {
            let link = object.link();
            if link.is_some_and(|link| managed(&link)) {
                continue;
            }
            match object {
                Object::Address(address) => {
                    host.addresses.insert(HostAddress {
                        link: address.link,
                        network: address.network,
                        up: true,
                        prefix_route: true,
                    });
                }
                Object::Route(route) => {
                    let device = link.and_then(|link| self.devices.get(&link));
                    let on_anothers = device.is_some_and(|(_, mark)| *mark == Mark::Another);
                    let meets = |network: &IpNet| {
                        network.contains(&route.destination) || route.destination.contains(network)
                    };
                    if (*maker != Maker::Heddle || on_anothers) && scope.networks.iter().any(meets)
                    {
                        let connected =
                            matches!(route.action, RouteAction::Forward { gateway: None, .. });
                        let destination = route.destination;
                        let partial = false;
                        host.routes.insert(HostRoute { destination, link, connected, partial });
                    }
                }
                _ => {}
            }
        }
        host
    }

    fn change(&mut self, change: &ObjectChange) -> Result<(), Refused> {
        match (change, change.object()) {
            (_, Object::Link(link)) => self.change_device(change, link),
            (ObjectChange::Remove(_), Object::Address(address)) => {
                self.entries.remove(&change.object().key());
                // The connected route that the kernel added for the address is removed with it; a
                // route that replaced it is not.
                let connected = connected(address).key();
                if self.entries.get(&connected).is_some_and(|(_, maker)| *maker == Maker::Kernel) {
                    self.entries.remove(&connected);
                }
                Ok(())
            }
            (ObjectChange::Remove(object), _) => {
                self.entries.remove(&object.key());
                Ok(())
            }
            (ObjectChange::Create(object @ Object::Route(_)), _)
                if self.entries.contains_key(&object.key()) =>
            {
                Err(Refused)
            }
            (
                ObjectChange::Create(object)
                | ObjectChange::Put(object)
                | ObjectChange::Replace(object),
                _,
            ) => self.put(object, Maker::Heddle),
        }
    }

    fn change_device(&mut self, change: &ObjectChange, link: &Link) -> Result<(), Refused> {
        let mark = self.devices.get(&link.name).map(|(_, mark)| *mark);
        match change {
            ObjectChange::Remove(_) if mark == Some(Mark::Ours) => self.delete(link.name),
            ObjectChange::Remove(_) => {}
            _ if mark.is_some_and(Mark::untouchable) => return Err(Refused),
            ObjectChange::Create(_) | ObjectChange::Put(_) if mark.is_some() => {
                self.configure(link);
            }
            ObjectChange::Create(_) | ObjectChange::Put(_) | ObjectChange::Replace(_) => {
                self.delete(link.name);
                if self.has_number(link) {
                    return Err(Refused);
                }
                let mac = link.mac.or(Some(MacAddress([2, 0, 0, 0, 1, 0])));
                self.devices.insert(link.name, (Link { mac, ..link.clone() }, Mark::Ours));
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
            // The kernel drops the neighbours on the device when its MAC changes
            // (`NETDEV_CHANGEADDR`).
            let name = wanted.name;
            self.entries.retain(|_, (object, _)| {
                !matches!(object, Object::Neighbour(neighbour) if neighbour.link == name)
            });
        }
    }

    /// Returns true if there is a device with the same VNI and port. The kernel permits only one.
    fn has_number(&self, link: &Link) -> bool {
        let number = |link: &Link| match &link.kind {
            LinkKind::Vxlan(vxlan) => Some((vxlan.vni, vxlan.port)),
            _ => None,
        };
        let number_of = number(link);
        number_of.is_some() && self.devices.values().any(|(other, _)| number(other) == number_of)
    }

    /// Deletes a device and the objects on it.
    fn delete(&mut self, name: LinkName) {
        self.devices.remove(&name);
        self.entries.retain(|_, (object, _)| object.link() != Some(name));
    }

    fn put(&mut self, object: &Object, maker: Maker) -> Result<(), Refused> {
        let device =
            object.link().map(|name| self.devices.get(&name).ok_or(Refused)).transpose()?;
        let is_vxlan = |(link, _): &(Link, Mark)| matches!(link.kind, LinkKind::Vxlan(_));
        match object {
            Object::FdbEntry(_) if !device.is_some_and(is_vxlan) => return Err(Refused),
            Object::Route(route) if !self.reachable(route) => return Err(Refused),
            Object::Address(address) => {
                let route = connected(address);
                if address.network.prefix_len() < 32 && !self.entries.contains_key(&object.key()) {
                    self.entries.entry(route.key()).or_insert((route, Maker::Kernel));
                }
            }
            _ => {}
        }
        self.entries.insert(object.key(), (object.clone(), maker));
        Ok(())
    }

    /// Returns true if the next hop is on its link, or assumed to be.
    fn reachable(&self, route: &Route) -> bool {
        let RouteAction::Forward { link, gateway: Some(gateway), onlink: false } = route.action
        else {
            return true;
        };
        self.entries.values().any(|(object, _)| match object {
            Object::Address(it) => it.link == link && it.network.contains(&gateway),
            _ => false,
        })
    }
}

/// Returns the connected route that the kernel adds for an address.
fn connected(address: &Address) -> Object {
    Object::Route(Route {
        destination: address.network.trunc(),
        metric: Metric::Default,
        action: RouteAction::Forward { link: address.link, gateway: None, onlink: false },
    })
}

/// Returns the daemon's guard for a host as observed.
fn guard(scope: &Scope, observed: &Observed) -> Guard {
    let host = HostNetwork::new(&Claims::of(scope), &observed.host, Vital::default());
    let mut guard = Guard::default();
    guard.set_host(host);
    guard
}

/// Runs one resync as the daemon does: devices first, nothing on devices that were refused, and
/// nothing that the host needs for itself. Returns the changes, and the refused devices.
fn look(
    kernel: &mut Kernel,
    scope: &Scope,
    desired: &BTreeMap<ObjectKey, &Object>,
) -> (Vec<ObjectChange>, BTreeSet<LinkName>) {
    let observed = kernel.observe(scope);
    let changes = diff(&guard(scope, &observed).permitted(desired.clone()), &observed);
    let mut refused = BTreeSet::new();
    let (devices, others): (Vec<_>, Vec<_>) =
        changes.iter().partition(|change| matches!(change.object(), Object::Link(_)));
    for change in devices {
        if let (Err(Refused), Object::Link(link)) = (kernel.change(change), change.object()) {
            refused.insert(link.name);
        }
    }
    for change in others {
        let is_removal = matches!(change, ObjectChange::Remove(_));
        if is_removal || change.object().link().is_none_or(|link| !refused.contains(&link)) {
            let result = kernel.change(change);
            assert!(result.is_ok(), "in the order of the changes each can be made: {change:?}");
        }
    }
    (changes, refused)
}

fn name(name: &str) -> LinkName {
    name.parse().unwrap()
}

const NAMES: [&str; 2] = ["flannel.1", "flannel.2"];

fn device(link: &str, vni: u32, port: u16, mtu: u32, mac: Option<u8>) -> Link {
    let kind = LinkKind::Vxlan(Vxlan {
        vni,
        local: [192, 168, 0, 72].into(),
        underlay: name("eth0"),
        port,
        learning: false,
        gbp: false,
    });
    let mac = mac.map(|last| MacAddress([2, 0, 0, 0, 0, last]));
    Link { name: name(link), mtu, mac, up: true, kind }
}

/// Generates a device that exists under this name.
fn found(link: &'static str) -> impl Strategy<Value = Option<(Link, Mark)>> {
    let marks = prop::sample::select(vec![
        Mark::Ours,
        Mark::Ours,
        Mark::Flannel,
        Mark::Another,
        Mark::Foreign,
    ]);
    let found = (1u32..=2, 8472u16..8474, 0u8..3, prop::bool::ANY, marks);
    let found = found.prop_map(move |(vni, port, mac, low, mark)| {
        let mut device = device(link, vni, port, if low { 1400 } else { 1450 }, Some(mac));
        if mark == Mark::Foreign {
            device.kind = LinkKind::Other("bridge".into());
        }
        (device, mark)
    });
    prop::option::weighted(0.8, found)
}

/// Generates a device that is planned under this name. Two planned devices have different VNIs.
fn planned(link: &'static str, swap: bool) -> impl Strategy<Value = Option<Link>> {
    let vni = if (link == NAMES[0]) == swap { 2 } else { 1 };
    let planned = (8472u16..8474, prop::option::of(0u8..3))
        .prop_map(move |(port, mac)| device(link, vni, port, 1450, mac));
    prop::option::weighted(0.8, planned)
}

/// Generates any object but a device.
fn entry() -> impl Strategy<Value = Object> {
    (0u8..7, 0u8..2, 0u8..4, 0u8..4).prop_map(|(kind, index, a, b)| {
        let link = name(NAMES[usize::from(index)]);
        // A network of the device's own: a second address in it, or one on another device, would
        // get no route.
        let near = format!("10.244.{}.1/24", 16 * (index + 1) + a).parse().unwrap();
        let far = format!("10.244.{a}.0/24").parse().unwrap();
        let address = |network| Address { link, network };
        let route = |destination, action| {
            Object::Route(Route { destination, metric: Metric::Default, action })
        };
        let onlink = |gateway: [u8; 4]| RouteAction::Forward {
            link,
            gateway: Some(gateway.into()),
            onlink: true,
        };
        match kind {
            0 if b == 0 => Object::Address(address(near)),
            0 => Object::Address(address(format!("10.244.{a}.{b}/32").parse().unwrap())),
            1 => Object::FdbEntry(FdbEntry {
                link,
                mac: MacAddress([2, 0, 0, 0, 0, a]),
                destination: [192, 168, 0, b].into(),
            }),
            2 => Object::Neighbour(Neighbour {
                link,
                address: [10, 244, a, 0].into(),
                mac: MacAddress([2, 0, 0, 0, 0, b]),
            }),
            3 => route(far, onlink([10, 244, b, 0])),
            // Where the kernel may have one for an address.
            4 => route(near.trunc(), onlink([10, 244, b, 0])),
            // As host-gw plans them.
            5 => {
                let gateway = Some([192, 168, 0, 100 + b].into());
                route(far, RouteAction::Forward { link: name("eth0"), gateway, onlink: false })
            }
            _ => route(far, RouteAction::Blackhole),
        }
    })
}

/// Generates a host in any state: its interface, leftover devices, and objects on them.
fn host() -> impl Strategy<Value = Kernel> {
    let makers = prop::sample::select(vec![Maker::Heddle, Maker::Other]);
    let entries = prop::collection::vec((entry(), makers), 0..20);
    // A network inside the overlay, the overlay itself, and one around it.
    let lan = (0_u8..4, prop::sample::select(vec![12_u8, 16, 20, 23, 24, 25, 28]));
    let lan = lan.prop_map(|(a, length)| format!("10.244.{a}.1/{length}").parse().unwrap());
    let lan = prop::option::of(lan);
    (found(NAMES[0]), found(NAMES[1]), lan, entries).prop_map(|(one, two, lan, entries)| {
        let mut kernel = Kernel::default();
        let eth0 = Link {
            name: name("eth0"),
            mtu: 1500,
            mac: None,
            up: true,
            kind: LinkKind::Other(String::new()),
        };
        kernel.devices.insert(eth0.name, (eth0, Mark::Foreign));
        let network = "192.168.0.72/24".parse().unwrap();
        let own = Object::Address(Address { link: name("eth0"), network });
        kernel.put(&own, Maker::Other).unwrap();
        if let Some(network) = lan {
            let lan0 = Link {
                name: name("lan0"),
                mtu: 1500,
                mac: None,
                up: true,
                kind: LinkKind::Other(String::new()),
            };
            kernel.devices.insert(lan0.name, (lan0, Mark::Foreign));
            let own = Object::Address(Address { link: name("lan0"), network });
            kernel.put(&own, Maker::Other).unwrap();
        }
        for (link, mark) in [one, two].into_iter().flatten() {
            if !kernel.has_number(&link) {
                kernel.devices.insert(link.name, (link, mark));
            }
        }
        for (object, maker) in entries {
            // Objects that the kernel refuses are not there.
            let _ = kernel.put(&object, maker);
        }
        kernel
    })
}

fn desired() -> impl Strategy<Value = Vec<Object>> {
    let devices =
        any::<bool>().prop_flat_map(|swap| (planned(NAMES[0], swap), planned(NAMES[1], swap)));
    (devices, prop::collection::vec(entry(), 0..20)).prop_map(|((one, two), entries)| {
        let links: Vec<Object> = [one, two].into_iter().flatten().map(Object::Link).collect();
        let planned: BTreeSet<_> = links.iter().map(Object::key).collect();
        let possible = |object: &Object| match object.link() {
            Some(link) => link == name("eth0") || planned.contains(&ObjectKey::Link(link)),
            None => true,
        };
        // Plans have devices of their own.
        links.into_iter().chain(entries.into_iter().filter(possible)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn reconcile_loop_converges_and_then_changes_nothing(host in host(), wanted in desired()) {
        let desired: BTreeMap<_, _> = wanted.iter().map(|object| (object.key(), object)).collect();
        let links = desired.keys().filter_map(|key| match key {
            ObjectKey::Link(name) => Some(*name),
            _ => None,
        });
        let scope = Scope {
            networks: vec!["10.244.0.0/16".parse().unwrap()],
            granted: vec![],
            reserved: vec![],
            own: vec![],
            links: links.collect(),
            alias: "heddle /coreos.com/network".into(),
        };
        let mut kernel = host.clone();
        let seen = kernel.observe(&scope);
        let (changes, refused) = look(&mut kernel, &scope, &desired);
        // One resync suffices, except where devices are refused (perhaps for a VNI that another
        // device is about to give up), and where a device lost its neighbours.
        let forgets = |change: &ObjectChange| match change {
            ObjectChange::Put(Object::Link(link)) => {
                let before = host.devices.get(&link.name);
                before.is_some_and(|(before, _)| link.mac.is_some() && link.mac != before.mac)
            }
            _ => false,
        };
        let permitted = |kernel: &Kernel| {
            guard(&scope, &kernel.observe(&scope)).permitted(desired.clone())
        };
        if refused.is_empty() && !changes.iter().any(forgets) {
            prop_assert_eq!(diff(&permitted(&kernel), &kernel.observe(&scope)), vec![]);
        }
        for _ in 0..2 {
            look(&mut kernel, &scope, &desired);
        }
        let (left, refused) = look(&mut kernel, &scope, &desired);

        // Nothing is left to change, except on devices that are refused.
        let waits = |object: &Object| match object {
            Object::Link(link) => refused.contains(&link.name),
            other => other.link().is_some_and(|link| refused.contains(&link)),
        };
        prop_assert!(left.iter().all(|change| waits(change.object())), "{left:?}");
        // A foreign device has the name or the VNI.
        let others = host.devices.iter().filter(|(_, (_, mark))| *mark != Mark::Ours);
        let others: Vec<_> = others.filter(|(device, _)| **device != name("eth0")).collect();
        prop_assert!(refused.is_empty() || !others.is_empty(), "{refused:?}");

        // The desired objects are there, except where the host needs their place.
        let now = kernel.observe(&scope);
        let desired = permitted(&kernel);
        for object in desired.values().copied().filter(|object| !waits(object)) {
            let found = now.objects.get(&object.key()).map(|seen| &seen.object);
            match (object, found) {
                (Object::Link(wanted), Some(Object::Link(found))) => {
                    prop_assert_eq!(found, &Link { mac: wanted.mac.or(found.mac), ..wanted.clone() });
                }
                _ => prop_assert_eq!(found, Some(object)),
            }
        }
        // The host's own networks are connected as before, and no overlay route takes packets from
        // them.
        for (key, (object, maker)) in &host.entries {
            let Object::Route(route) = object else { continue };
            let RouteAction::Forward { link, gateway: None, .. } = route.action else { continue };
            let foreign = host.devices.get(&link).is_some_and(|(_, mark)| *mark == Mark::Foreign);
            let inside = scope.networks[0].contains(&route.destination);
            if *maker == Maker::Kernel && foreign && inside {
                prop_assert_eq!(kernel.entries.get(key), Some(&(object.clone(), *maker)));
                let takes = |object: &&Object| match object {
                    Object::Route(taker) => route.destination.contains(&taker.destination),
                    _ => false,
                };
                let ours = now.objects.values().filter(|seen| seen.ours).map(|seen| &seen.object);
                prop_assert_eq!(ours.filter(takes).count(), 0, "{}", route.destination);
            }
        }
        // Objects of ours are desired.
        for (key, seen) in &now.objects {
            prop_assert!(!seen.ours || desired.contains_key(key) || waits(&seen.object), "{key}");
        }
        // Foreign objects are unchanged, unless they were in the very place of a desired object, or
        // on a device that was flannel's or ours.
        for (name, device) in host.devices.iter().filter(|(_, (_, mark))| mark.untouchable()) {
            prop_assert_eq!(kernel.devices.get(name), Some(device));
        }
        for (key, entry) in &host.entries {
            let ours = seen.objects.get(key).is_some_and(|seen| seen.ours);
            let device = entry.0.link().and_then(|link| host.devices.get(&link));
            let went_along = device.is_some_and(|(_, mark)| !mark.untouchable());
            if !ours && !went_along && !desired.contains_key(key) {
                prop_assert_eq!(kernel.entries.get(key), Some(entry));
            }
        }
    }
}
