use super::*;
use crate::interface::{Facts, Requirements, Selection, select};

fn interface(name: &str, up: bool, addresses: &[&str]) -> Interface {
    Interface { up, ..crate::interface::tests::interface(name, addresses) }
}

/// Returns facts with the default route on the last interface that is up, if there is one.
fn facts(interfaces: Vec<Interface>) -> Facts {
    let up = interfaces.iter().rev().find(|found| found.up);
    let routes: Vec<_> = up.map(|found| found.name).into_iter().collect();
    Facts {
        interfaces,
        default_routes_v4: routes.clone(),
        default_routes_v6: routes,
        ..Facts::default()
    }
}

/// Returns the state with these interfaces after a start with `before`.
fn compare(before: Interface, now: Vec<Interface>, selection: &Selection) -> UnderlayState {
    let families: Vec<_> = [Family::V4, Family::V6]
        .into_iter()
        .filter(|family| before.address(*family).is_some())
        .collect();
    let started_with =
        select(&Requirements::families_only(&families), selection, &facts(vec![before])).unwrap();
    let now = facts(now);
    underlay_state(
        &started_with,
        &now.interfaces,
        &select(&Requirements::families_only(&families), selection, &now),
    )
}

const V4: [&str; 1] = ["192.168.0.2/24"];

fn check(now: Vec<Interface>, expected: UnderlayState) {
    let state = compare(interface("eth0", true, &V4), now, &Selection::default());
    assert_eq!(state, expected);
}

#[test]
fn underlay_unchanged_is_intact_despite_other_interfaces() {
    check(vec![interface("eth0", true, &V4)], UnderlayState::Intact);
    check(
        vec![
            interface("eth0", true, &["192.168.0.9/24", "192.168.0.2/16", "fd00::9/64"]),
            // The other interface has the default route now.
            interface("eth1", true, &["10.0.0.1/8"]),
        ],
        UnderlayState::Intact,
    );
}

#[test]
fn interface_down_is_missing_even_if_there_is_another() {
    let down = || UnderlayState::Missing("interface eth0 is down".into());
    check(vec![interface("eth0", false, &V4)], down());
    let eth1 = || interface("eth1", true, &["10.0.0.1/8", "fd01::1/64"]);
    check(vec![interface("eth0", false, &V4), eth1()], down());
    let state = compare(
        interface("eth0", true, &["fd00::2/64"]),
        vec![interface("eth0", false, &[]), eth1()],
        &Selection::default(),
    );
    assert_eq!(state, down());
}

#[test]
fn underlay_lost_without_alternative_is_missing() {
    let missing = |text: &str| UnderlayState::Missing(text.into());
    check(
        vec![interface("eth0", true, &[])],
        missing(
            "interface eth0 has lost 192.168.0.2: interface eth0 has no IPv4 address of global \
             scope; the network config enables IPv4",
        ),
    );
    check(
        vec![],
        missing(
            "interface eth0 is gone: no IPv4 default route selects an interface; name one with \
             --iface",
        ),
    );
    let selection = Selection { names: vec!["192.168.0.2".into()], ..Selection::default() };
    let renumbered = interface("eth0", true, &["192.168.0.9/24"]);
    let state = compare(interface("eth0", true, &V4), vec![renumbered], &selection);
    let expected = "interface eth0 has lost 192.168.0.2: no interface matches --iface 192.168.0.2; \
                    there are eth0 (192.168.0.9)";
    assert_eq!(state, missing(expected));
}

#[test]
fn changed_address_or_name_is_elsewhere() {
    let elsewhere = |lacking: &str, next: &str, readdressed| UnderlayState::Elsewhere {
        reason: format!(
            "interface eth0 {lacking}: this daemon was started with eth0 with 192.168.0.2, \
             and the next one would use {next}"
        ),
        readdressed,
    };
    check(
        vec![interface("eth0", true, &["192.168.0.9/24"])],
        elsewhere("has lost 192.168.0.2", "eth0 with 192.168.0.9", true),
    );
    check(vec![interface("lan0", true, &V4)], elsewhere("is gone", "lan0 with 192.168.0.2", false));
}

#[test]
fn changed_mtu_is_reported_and_underlay_stays_intact() {
    let selection = Selection::default();
    let before = || interface("eth0", true, &V4);
    let started_with =
        select(&Requirements::families_only(&[Family::V4]), &selection, &facts(vec![before()]))
            .unwrap();
    let narrow = Interface { mtu: 1400, ..before() };
    let other = |interfaces| other_mtu(&started_with, &[Family::V4], &facts(interfaces));
    assert_eq!(other(vec![interface("eth1", true, &[]), before()]), None);
    assert_eq!(other(vec![]), None);
    let found = PathMtu { link: narrow.name, mtu: 1400 };
    assert_eq!(other(vec![narrow.clone()]), Some(found));
    assert_eq!(compare(before(), vec![narrow], &selection), UnderlayState::Intact);
}

#[test]
fn own_interface_address_counts_behind_nat() {
    let public_ip = Some("203.0.113.7".parse().unwrap());
    let selection = Selection { public_ip, ..Selection::default() };
    let before = || interface("eth0", true, &V4);
    assert_eq!(compare(before(), vec![before()], &selection), UnderlayState::Intact);
    let renumbered = vec![interface("eth0", true, &["192.168.0.9/24"])];
    let state = compare(before(), renumbered, &selection);
    assert!(matches!(state, UnderlayState::Elsewhere { readdressed: false, .. }), "{state:?}");
}

#[test]
fn underlay_losing_an_address_of_either_family_is_elsewhere() {
    let both = ["192.168.0.2/24", "fd00::2/64"];
    let state = compare(
        interface("eth0", true, &both),
        vec![interface("eth0", true, &["192.168.0.2/24", "fd00::9/64"])],
        &Selection::default(),
    );
    let expected = "interface eth0 has lost fd00::2: this daemon was started with eth0 with \
                    192.168.0.2 and fd00::2, and the next one would use eth0 with 192.168.0.2 and fd00::9";
    assert_eq!(state, UnderlayState::Elsewhere { reason: expected.into(), readdressed: false });
}

#[test]
fn absence_interrupted_starts_anew() {
    let start = Instant::now();
    let mut absence = Absence::default();
    assert!(!absence.is_for_good(start));
    assert!(!absence.is_for_good(start + SETTLED - Duration::from_millis(1)));
    absence.over();
    assert!(!absence.is_for_good(start + SETTLED));
    assert!(!absence.is_for_good(start + 2 * SETTLED - Duration::from_millis(1)));
    assert!(absence.is_for_good(start + 2 * SETTLED));
}

#[test]
fn mtu_behind_the_loopback_is_that_of_its_uplinks() {
    let loopback = Interface { mtu: 65536, ..interface("lo", true, &["192.0.2.1/32"]) };
    let uplink = |name, mtu| Interface { mtu, ..interface(name, true, &[]) };
    let with = |one, other, links: &[&str]| Facts {
        egress: links.iter().map(|link| (Family::V4, link.parse().unwrap())).collect(),
        ..facts(vec![loopback.clone(), uplink("eth0", one), uplink("eth1", other)])
    };
    let selection = Selection { names: vec!["lo".into()], ..Selection::default() };
    let requirements = Requirements::families_only(&[Family::V4]);
    let before = with(9000, 1500, &["eth0", "eth1"]);
    let started_with = select(&requirements, &selection, &before).unwrap();
    assert_eq!(started_with.mtu, 1500);
    let other = |facts| other_mtu(&started_with, &[Family::V4], &facts);
    assert_eq!(other(with(9000, 1500, &["eth0", "eth1"])), None);
    let found = other(with(1400, 1500, &["eth0", "eth1"])).unwrap();
    assert_eq!((found.link.as_str(), found.mtu), ("eth0", 1400));
    // Another device without a route to other hosts does not count.
    assert_eq!(other(with(1400, 1500, &["eth1"])), None);
    // Routes are gone for a moment whenever a network is configured anew.
    assert_eq!(other(with(1400, 1500, &[])), None);
}

#[test]
fn published_address_that_gets_deprecated_stays_in_use() {
    let before = || interface("eth0", true, &["192.168.0.2/24"]);
    // The order of `Interface::addresses` is that of preference.
    let deprecated = vec![interface("eth0", true, &["192.168.0.9/24", "192.168.0.2/24"])];
    assert_eq!(compare(before(), deprecated, &Selection::default()), UnderlayState::Intact);
}
