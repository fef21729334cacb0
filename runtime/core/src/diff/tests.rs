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
fn matching_objects_need_no_change() {
    let objects = [vxlan(8472, 1450, 1), route(36, 36)];
    let observed = seen(&objects.clone().map(|object| (object, true)));
    assert_eq!(diff(&wanted(&objects), &observed), []);
}

#[test]
fn compatible_device_is_changed_in_place() {
    let link = [vxlan(8472, 1450, 1)];
    for found in [vxlan(8472, 1400, 1), vxlan(8472, 1450, 9)] {
        let changes = diff(&wanted(&link), &seen(&[(found, true)]));
        assert_eq!(changes, link.clone().map(ObjectChange::Put));
    }
}

#[test]
fn repair_is_a_change_without_a_request() {
    let route = route(36, 36);
    let held = seen(&[(route.clone(), true)]);
    let none = Observed::default();
    // Another program removed it.
    assert!(is_repair(&ObjectChange::Put(route.clone()), Some(&route), &held));
    // It was never there: a new lease asks for it.
    assert!(!is_repair(&ObjectChange::Put(route.clone()), Some(&route), &none));
    // Another program added it.
    assert!(is_repair(&ObjectChange::Remove(route.clone()), None, &none));
    // We had planned it, and its lease is gone.
    assert!(!is_repair(&ObjectChange::Remove(route), None, &held));
}

#[test]
fn own_device_with_wrong_setting_still_carries_objects() {
    let link = vxlan(8472, 1450, 1);
    let seen = |object, ours| Some(Observation { object, ours });
    let carries = |found: Option<Observation>| carries(Some(&link), found.as_ref());
    assert!(carries(seen(vxlan(8472, 1400, 9), true)));
    assert!(!carries(seen(vxlan(4789, 1450, 1), true)));
    assert!(!carries(seen(link.clone(), false)));
    assert!(!carries(None));
}

#[test]
fn flannel_device_is_adopted_with_its_objects() {
    let objects = [vxlan(8472, 1450, 1), route(36, 36)];
    let observed = seen(&objects.clone().map(|object| (object, false)));
    assert_eq!(diff(&wanted(&objects), &observed), objects.clone().map(ObjectChange::Put));
}

#[test]
fn incompatible_device_is_replaced_and_its_objects_recreated() {
    let objects = [vxlan(8472, 1450, 1), route(36, 36)];
    let observed = seen(&[(vxlan(4789, 1450, 1), true), (objects[1].clone(), true)]);
    let changes = diff(&wanted(&objects), &observed);
    let [link, route] = objects.clone();
    assert_eq!(changes, [ObjectChange::Replace(link), ObjectChange::Put(route)]);
}

#[test]
fn unplanned_mac_matches_any() {
    let any = [Object::Link(Link { mac: None, ..device(8472, 1450, 1) })];
    assert_eq!(diff(&wanted(&any), &seen(&[(vxlan(8472, 1450, 7), true)])), []);
}

#[test]
fn route_with_other_gateway_is_replaced_even_if_foreign() {
    let route = |gateway| [route(36, gateway)];
    for ours in [true, false] {
        let [found] = route(99);
        let changes = diff(&wanted(&route(36)), &seen(&[(found, ours)]));
        assert_eq!(changes, route(36).map(ObjectChange::Put));
    }
}

#[test]
fn unplanned_own_objects_are_removed_and_foreign_ones_kept() {
    let observed = seen(&[(route(1, 1), true), (route(2, 2), false)]);
    assert_eq!(diff(&wanted(&[]), &observed), [ObjectChange::Remove(route(1, 1))]);
}

#[test]
fn device_removal_implies_its_objects() {
    let observed = seen(&[(vxlan(8472, 1450, 1), true), (route(1, 1), true)]);
    assert_eq!(diff(&wanted(&[]), &observed), [ObjectChange::Remove(vxlan(8472, 1450, 1))]);
}

#[test]
fn only_an_echo_of_our_own_change_agrees() {
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

/// Generates objects from a small domain, so that keys collide.
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
    /// The convergence invariant of the reconcile loop: from any kernel state, applying the
    /// difference yields the desired state, touches nothing foreign unless it is in the way,
    /// and leaves nothing to change.
    #[test]
    fn diff_applied_leaves_nothing_to_change(
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
