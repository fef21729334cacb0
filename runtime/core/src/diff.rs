//! The difference between the kernel as it should be and as it is.
//!
//! [`diff`] compares everything; [`diff_keys`] only some keys, which is what makes the change of one lease cheap
//! among ten thousand. Both are pure, and applying their answer leaves nothing to change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::LinkName;
use crate::host_network::{HostRouting, meet};
use crate::object::{Link, LinkKind, Object, ObjectKey};

/// Which part of the kernel is this daemon's business.
///
/// Ownership is read off the kernel itself, so that it survives the daemon: routes carry Heddle's protocol id,
/// devices carry an alias, and what hangs on such a device goes with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The overlay's networks. Routes to a destination inside one of them are looked at.
    pub networks: Vec<IpNet>,
    /// Destinations beyond the overlay that plans may have routes to, through devices of their own.
    pub granted: Vec<IpNet>,
    /// The parts of the networks that `SubnetMin` and `SubnetMax` keep subnets to, where they do: the first and the last
    /// address.
    pub reserved: Vec<(IpAddr, IpAddr)>,
    /// This node's own subnets. Routes and addresses of others inside them are containers'.
    pub own: Vec<IpNet>,
    /// The devices that are planned.
    pub links: BTreeSet<LinkName>,
    /// The alias (`ip link set … alias`) that marks a device as made by this daemon. Names the etcd prefix, so
    /// that two daemons on one host leave each other's devices alone.
    pub alias: String,
}

impl Scope {
    /// Whether a destination lies inside the overlay.
    pub fn covers(&self, destination: IpNet) -> bool {
        self.networks.iter().any(|network| network.contains(&destination))
    }

    /// Returns true if a network of the host's can be in the way of what plans may have: it has addresses in common with
    /// the overlay or with a granted destination, and is not inside this node's own subnets.
    pub fn meets(&self, network: IpNet) -> bool {
        meet(&self.networks, &self.granted, &self.own, network)
    }
}

/// Something found in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// What it is.
    pub object: Object,
    /// Whether it is ours to remove. What is not ours is replaced where it stands in a plan's way, and otherwise
    /// never touched.
    pub ours: bool,
}

/// The part of the kernel within a [`Scope`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Everything found, by what the kernel tells it apart by.
    pub objects: BTreeMap<ObjectKey, Observation>,
    /// The host's own routes and addresses that meet the scope's networks.
    pub host: HostRouting,
}

impl Observed {
    /// The devices found.
    pub fn links(&self) -> impl Iterator<Item = LinkName> {
        // Keys are in order, devices first.
        self.objects.keys().map_while(|key| match key {
            ObjectKey::Link(name) => Some(*name),
            _ => None,
        })
    }

    /// Takes note of a change that was applied.
    pub fn note(&mut self, change: &Change) {
        match change {
            Change::Create(object) | Change::Put(object) => self.note_put(object),
            Change::Replace(object) => {
                if let Object::Link(link) = object {
                    self.forget_link(link.name);
                }
                self.note_put(object);
            }
            Change::Remove(object) => {
                if let Object::Link(link) = object {
                    self.forget_link(link.name);
                }
                self.objects.remove(&object.key());
            }
        }
    }

    fn note_put(&mut self, object: &Object) {
        self.objects.insert(object.key(), Observation { object: object.clone(), ours: true });
    }

    fn forget_link(&mut self, name: LinkName) {
        self.objects.retain(|_, observation| observation.object.link() != Some(name));
    }
}

/// One step towards the desired state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Create it: nothing stood under its key when last looked at. A route that has appeared there since is not touched.
    Create(Object),
    /// Make it so: change what stands under its key, or create it.
    Put(Object),
    /// Remove what stands under its name, then create it: it cannot be changed in place.
    Replace(Object),
    /// Remove it. The object is as it was observed.
    Remove(Object),
}

impl Change {
    /// The object concerned.
    pub fn object(&self) -> &Object {
        match self {
            Self::Create(object)
            | Self::Put(object)
            | Self::Replace(object)
            | Self::Remove(object) => object,
        }
    }
}

/// Everything that has to change, in the order in which it has to be applied: removals first, the last built first;
/// then devices, settings, addresses, FDB entries, neighbours and routes.
pub fn diff(desired: &BTreeMap<ObjectKey, &Object>, observed: &Observed) -> Vec<Change> {
    let keys: BTreeSet<&ObjectKey> = desired.keys().chain(observed.objects.keys()).collect();
    diff_keys(keys, |key| desired.get(key).copied(), observed)
}

/// What has to change for these keys, in the order in which it has to be applied.
pub fn diff_keys<'k, 'd>(
    keys: BTreeSet<&'k ObjectKey>,
    desired: impl Fn(&ObjectKey) -> Option<&'d Object>,
    observed: &Observed,
) -> Vec<Change> {
    let mut removals = Vec::new();
    let mut additions = Vec::new();
    // What is on a device that is removed goes with it. What is on one that is replaced does as well, unless the device
    // is another program's and stays: so it is built anew, and what is not desired is removed all the same.
    let (mut removed, mut replaced) = (BTreeSet::new(), BTreeSet::new());
    // The kernel makes routes to these by itself, which are to be replaced.
    let mut connected = BTreeSet::new();
    for key in keys {
        let on = |links: &BTreeSet<LinkName>, seen: &Observation| {
            seen.object.link().is_some_and(|link| links.contains(&link))
        };
        let wanted = desired(key);
        let present = observed.objects.get(key).filter(|seen| !on(&removed, seen));
        let present = present.filter(|seen| wanted.is_none() || !on(&replaced, seen));
        match (wanted, present) {
            (None, None) => {}
            (None, Some(seen)) if seen.ours => {
                if let Object::Link(link) = &seen.object {
                    removed.insert(link.name);
                }
                removals.push(Change::Remove(seen.object.clone()));
            }
            (None, Some(_)) => {}
            (Some(wanted), None) => {
                if let Object::Address(address) = wanted {
                    connected.insert(address.network.trunc());
                }
                let is_in_place = match wanted {
                    Object::Route(route) if connected.contains(&route.destination) => true,
                    _ => observed.objects.contains_key(key),
                };
                let change = if is_in_place { Change::Put } else { Change::Create };
                additions.push(change(wanted.clone()));
            }
            (Some(wanted), Some(seen)) => match compare(wanted, seen) {
                Verdict::Same => {}
                Verdict::Changeable => additions.push(Change::Put(wanted.clone())),
                Verdict::Incompatible => {
                    if let Object::Link(link) = wanted {
                        replaced.insert(link.name);
                    }
                    additions.push(Change::Replace(wanted.clone()));
                }
            },
        }
    }
    removals.reverse();
    removals.append(&mut additions);
    removals
}

/// Whether a sighting of one object agrees with what is desired, so that there is no need to look further.
///
/// `seen` is what stands under the key now, none if it is gone.
pub fn agrees(desired: Option<&Object>, seen: Option<&Observation>) -> bool {
    match (desired, seen) {
        (Some(wanted), Some(seen)) => matches!(compare(wanted, seen), Verdict::Same),
        (Some(_), None) => false,
        (None, Some(seen)) => !seen.ours,
        (None, None) => true,
    }
}

/// Whether a change puts right what somebody else did: what stood under its key at the last look, and by all that this
/// daemon did since, was as desired.
pub fn is_repair(change: &Change, desired: Option<&Object>, before: &Observed) -> bool {
    agrees(desired, before.objects.get(&change.object().key()))
}

/// Whether a device carries what is on it although it is not as desired: it is ours, and a setting of it is wrong at most.
/// One that is not there, or somebody else's, or that has to be made anew, does not.
pub fn carries(desired: Option<&Object>, seen: Option<&Observation>) -> bool {
    match (desired, seen) {
        (Some(wanted), Some(seen)) => {
            seen.ours && !matches!(compare(wanted, seen), Verdict::Incompatible)
        }
        _ => false,
    }
}

enum Verdict {
    Same,
    Changeable,
    Incompatible,
}

fn compare(wanted: &Object, seen: &Observation) -> Verdict {
    match (wanted, &seen.object) {
        (Object::Link(wanted), Object::Link(link)) if !compatible(wanted, link) => {
            Verdict::Incompatible
        }
        (Object::Link(wanted), Object::Link(link)) if seen.ours && same_link(wanted, link) => {
            Verdict::Same
        }
        (wanted, found) if seen.ours && wanted == found => Verdict::Same,
        _ => Verdict::Changeable,
    }
}

/// Whether a device can be made what is wanted without taking it down: the options that the kernel fixes at creation
/// agree. flannel keeps the same devices (`vxlanLinksIncompat` in `pkg/backend/vxlan/device.go`).
fn compatible(wanted: &Link, found: &Link) -> bool {
    match (&wanted.kind, &found.kind) {
        (LinkKind::Vxlan(wanted), LinkKind::Vxlan(found)) => {
            (wanted.vni, wanted.local, wanted.underlay, wanted.port, wanted.gbp)
                == (found.vni, found.local, found.underlay, found.port, found.gbp)
        }
        (LinkKind::Tun, LinkKind::Tun) => true,
        _ => false,
    }
}

/// Whether a compatible device is what is wanted. A MAC that is not planned may be any.
fn same_link(wanted: &Link, found: &Link) -> bool {
    let mac = wanted.mac.or(found.mac);
    *found == Link { mac, ..wanted.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::MacAddress;
    use crate::object::{Address, FdbEntry, Metric, Neighbour, Route, RouteAction, Vxlan};
    use proptest::prelude::*;

    fn name(name: &str) -> LinkName {
        name.parse().unwrap()
    }

    fn device(port: u16, mtu: u32, mac: u8) -> Link {
        Link {
            name: name("flannel.1"),
            mtu,
            mac: Some(MacAddress([2, 0, 0, 0, 0, mac])),
            up: true,
            kind: LinkKind::Vxlan(Vxlan {
                vni: 1,
                local: "192.168.0.72".parse().unwrap(),
                underlay: name("eth0"),
                port,
                learning: false,
                gbp: false,
            }),
        }
    }

    fn vxlan(port: u16, mtu: u32, mac: u8) -> Object {
        Object::Link(device(port, mtu, mac))
    }

    fn route(index: u8, gateway: u8) -> Object {
        Object::Route(Route {
            metric: Metric::Default,
            destination: format!("10.244.{index}.0/24").parse().unwrap(),
            action: RouteAction::Forward {
                link: name("flannel.1"),
                gateway: Some(format!("10.244.{gateway}.0").parse().unwrap()),
                onlink: true,
            },
        })
    }

    fn seen(objects: &[(Object, bool)]) -> Observed {
        let observation = |(object, ours): &(Object, bool)| {
            (object.key(), Observation { object: object.clone(), ours: *ours })
        };
        Observed { objects: objects.iter().map(observation).collect(), ..Observed::default() }
    }

    fn wanted(objects: &[Object]) -> BTreeMap<ObjectKey, &Object> {
        objects.iter().map(|object| (object.key(), object)).collect()
    }

    #[test]
    fn what_is_as_it_should_be_is_left_alone() {
        let objects = [vxlan(8472, 1450, 1), route(36, 36)];
        let observed = seen(&objects.clone().map(|object| (object, true)));
        assert_eq!(diff(&wanted(&objects), &observed), []);
    }

    #[test]
    fn a_compatible_device_is_changed_in_place() {
        let link = [vxlan(8472, 1450, 1)];
        for found in [vxlan(8472, 1400, 1), vxlan(8472, 1450, 9)] {
            let changes = diff(&wanted(&link), &seen(&[(found, true)]));
            assert_eq!(changes, link.clone().map(Change::Put));
        }
    }

    #[test]
    fn a_repair_is_what_nobody_asked_for() {
        let route = route(36, 36);
        let held = seen(&[(route.clone(), true)]);
        let none = Observed::default();
        // Somebody removed it.
        assert!(is_repair(&Change::Put(route.clone()), Some(&route), &held));
        // It was never there: a lease asks for it.
        assert!(!is_repair(&Change::Put(route.clone()), Some(&route), &none));
        // Somebody added it.
        assert!(is_repair(&Change::Remove(route.clone()), None, &none));
        // It was there with reason, and its lease is gone.
        assert!(!is_repair(&Change::Remove(route), None, &held));
    }

    #[test]
    fn a_device_of_ours_with_a_wrong_setting_carries_what_is_on_it() {
        let link = vxlan(8472, 1450, 1);
        let seen = |object, ours| Some(Observation { object, ours });
        let carries = |found: Option<Observation>| carries(Some(&link), found.as_ref());
        assert!(carries(seen(vxlan(8472, 1400, 9), true)));
        assert!(!carries(seen(vxlan(4789, 1450, 1), true)));
        assert!(!carries(seen(link.clone(), false)));
        assert!(!carries(None));
    }

    #[test]
    fn a_device_made_by_flannel_is_adopted_with_what_is_on_it() {
        let objects = [vxlan(8472, 1450, 1), route(36, 36)];
        let observed = seen(&objects.clone().map(|object| (object, false)));
        assert_eq!(diff(&wanted(&objects), &observed), objects.clone().map(Change::Put));
    }

    #[test]
    fn an_incompatible_device_is_replaced_and_everything_on_it_built_anew() {
        let objects = [vxlan(8472, 1450, 1), route(36, 36)];
        let observed = seen(&[(vxlan(4789, 1450, 1), true), (objects[1].clone(), true)]);
        let changes = diff(&wanted(&objects), &observed);
        let [link, route] = objects.clone();
        assert_eq!(changes, [Change::Replace(link), Change::Put(route)]);
    }

    #[test]
    fn a_mac_that_is_not_planned_may_be_any() {
        let any = [Object::Link(Link { mac: None, ..device(8472, 1450, 1) })];
        assert_eq!(diff(&wanted(&any), &seen(&[(vxlan(8472, 1450, 7), true)])), []);
    }

    #[test]
    fn a_route_with_another_gateway_is_replaced_even_if_foreign() {
        let route = |gateway| [route(36, gateway)];
        for ours in [true, false] {
            let [found] = route(99);
            let changes = diff(&wanted(&route(36)), &seen(&[(found, ours)]));
            assert_eq!(changes, route(36).map(Change::Put));
        }
    }

    #[test]
    fn what_is_ours_and_not_planned_goes_and_what_is_foreign_stays() {
        let observed = seen(&[(route(1, 1), true), (route(2, 2), false)]);
        assert_eq!(diff(&wanted(&[]), &observed), [Change::Remove(route(1, 1))]);
    }

    #[test]
    fn a_device_takes_what_is_on_it_along() {
        let observed = seen(&[(vxlan(8472, 1450, 1), true), (route(1, 1), true)]);
        assert_eq!(diff(&wanted(&[]), &observed), [Change::Remove(vxlan(8472, 1450, 1))]);
    }

    #[test]
    fn an_echo_of_our_own_change_agrees_and_anything_else_does_not() {
        let (wanted, other) = (route(36, 36), route(36, 99));
        let sighting = |object: &Object, ours| Observation { object: object.clone(), ours };
        assert!(agrees(Some(&wanted), Some(&sighting(&wanted, true))));
        assert!(agrees(None, None));
        assert!(agrees(None, Some(&sighting(&other, false))));
        assert!(!agrees(Some(&wanted), None));
        assert!(!agrees(Some(&wanted), Some(&sighting(&wanted, false))));
        assert!(!agrees(Some(&wanted), Some(&sighting(&other, true))));
        assert!(!agrees(None, Some(&sighting(&other, true))));
    }

    /// Objects out of a small world, so that keys meet.
    fn object() -> impl Strategy<Value = Object> {
        let (links, small) = (prop::sample::select(vec!["flannel.1", "flannel.2"]), 0u8..3);
        (0u8..5, links, small.clone(), small).prop_map(|(kind, link, a, b)| {
            let link = name(link);
            let mac = MacAddress([2, 0, 0, 0, 0, b]);
            match kind {
                0 => Object::Link(Link { name: link, ..device(8472 + u16::from(a), 1450, b) }),
                1 => Object::Address(Address {
                    link,
                    network: format!("10.244.{a}.0/32").parse().unwrap(),
                }),
                2 => Object::FdbEntry(FdbEntry {
                    link,
                    mac: MacAddress([2, 0, 0, 0, 0, a]),
                    destination: format!("192.168.0.{b}").parse().unwrap(),
                }),
                3 => Object::Neighbour(Neighbour {
                    link,
                    address: format!("10.244.{a}.0").parse().unwrap(),
                    mac,
                }),
                _ => Object::Route(Route {
                    metric: Metric::Default,
                    destination: format!("10.244.{a}.0/24").parse().unwrap(),
                    action: RouteAction::Forward {
                        link,
                        gateway: Some(format!("10.244.{b}.0").parse().unwrap()),
                        onlink: true,
                    },
                }),
            }
        })
    }

    proptest! {
        /// The loop rests on this: whatever stands in the kernel, applying the difference gives what is desired,
        /// nothing foreign is touched unless it is in the way, and nothing is left to do.
        #[test]
        fn applying_the_difference_leaves_nothing_to_change(
            desired in prop::collection::vec(object(), 0..20),
            found in prop::collection::vec((object(), any::<bool>()), 0..20),
        ) {
            let desired = wanted(&desired);
            let mut observed = seen(&found);
            let before = observed.clone();
            for change in diff(&desired, &observed) {
                observed.note(&change);
            }
            for (key, object) in &desired {
                let found = observed.objects.get(key).map(|seen| &seen.object);
                prop_assert_eq!(found, Some(*object));
            }
            for (key, seen) in &before.objects {
                let link = |observed: &Observed| {
                    let key = ObjectKey::Link(seen.object.link()?);
                    observed.objects.get(&key).cloned()
                };
                let kept = seen.ours || desired.contains_key(key) || link(&before) != link(&observed);
                prop_assert!(kept || observed.objects.get(key) == Some(seen));
            }
            for (key, seen) in &observed.objects {
                prop_assert!(!seen.ours || desired.contains_key(key));
            }
            prop_assert_eq!(diff(&desired, &observed), vec![]);
        }
    }
}
