use super::*;

const V4: &[Family] = &[Family::V4];
const BOTH: &[Family] = &[Family::V4, Family::V6];

/// Returns an interface that is up, with these addresses. `lo` is a loopback interface.
pub(crate) fn interface(name: &str, addresses: &[&str]) -> Interface {
    Interface {
        name: name.parse().unwrap(),
        mtu: 1500,
        up: true,
        loopback: name == "lo",
        kind: String::new(),
        mac: None,
        local: None,
        alias: String::new(),
        unusable: vec![],
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    }
}

fn facts() -> Facts {
    Facts {
        interfaces: vec![
            interface("lo", &[]),
            interface("eth0", &["192.168.0.72/24", "192.168.0.73/24", "fd00::72/64"]),
            interface("eth1", &["10.9.0.1/16"]),
        ],
        default_routes_v4: vec!["eth0".parse().unwrap()],
        default_routes_v6: vec!["eth0".parse().unwrap()],
        ..Facts::default()
    }
}

fn names(names: &[&str]) -> Selection {
    Selection { names: names.iter().map(ToString::to_string).collect(), ..Selection::default() }
}

fn pattern(pattern: &str) -> Selection {
    Selection { patterns: vec![Regex::new(pattern).unwrap()], ..Selection::default() }
}

fn selected(families: &[Family], selection: &Selection) -> (String, Vec<String>) {
    let underlay = select(&Requirements::families_only(families), selection, &facts()).unwrap();
    let addresses = underlay.public_addresses.iter().map(ToString::to_string).collect();
    (underlay.link.to_string(), addresses)
}

fn expect(link: &str, addresses: &[&str]) -> (String, Vec<String>) {
    (link.into(), addresses.iter().map(ToString::to_string).collect())
}

#[test]
fn default_route_interface_is_chosen_without_flags() {
    assert_eq!(selected(V4, &Selection::default()), expect("eth0", &["192.168.0.72"]));
    assert_eq!(
        selected(BOTH, &Selection::default()),
        expect("eth0", &["192.168.0.72", "fd00::72"])
    );
}

#[test]
fn published_address_is_chosen_of_several() {
    let known = |selection: Selection| {
        let published = ["192.168.0.73", "10.9.0.1", "fd00::99"].map(|it| it.parse().unwrap());
        Selection { published: published.into(), ..selection }
    };
    // Neither the interface nor an address that a flag names depends on it.
    for (selection, ambiguous, expected) in [
        (Selection::default(), true, expect("eth0", &["192.168.0.73", "fd00::72"])),
        (names(&["eth0"]), true, expect("eth0", &["192.168.0.73", "fd00::72"])),
        (names(&["192.168.0.72"]), false, expect("eth0", &["192.168.0.72", "fd00::72"])),
    ] {
        let selection = known(selection);
        let requirements = Requirements::families_only(BOTH);
        assert_eq!(is_ambiguous(&requirements, &selection, &facts()), ambiguous, "{selection:?}");
        assert_eq!(selected(BOTH, &selection), expected, "{selection:?}");
    }
    let requirements = Requirements::families_only(V4);
    assert!(!is_ambiguous(&requirements, &names(&["eth1"]), &facts()));
}

#[test]
fn first_matching_name_or_address_wins() {
    assert_eq!(selected(V4, &names(&["eth7", "eth1", "eth0"])), expect("eth1", &["10.9.0.1"]));
    assert_eq!(selected(V4, &names(&["192.168.0.73"])), expect("eth0", &["192.168.0.73"]));
    assert_eq!(
        selected(BOTH, &names(&["fd00::72"])),
        expect("eth0", &["192.168.0.72", "fd00::72"])
    );
}

#[test]
fn patterns_match_addresses_first_and_follow_names() {
    assert_eq!(selected(V4, &pattern(r"^10\.9\.")), expect("eth1", &["10.9.0.1"]));
    assert_eq!(selected(V4, &pattern(r"\.73$")), expect("eth0", &["192.168.0.73"]));
    assert_eq!(selected(V4, &pattern("^eth1$")), expect("eth1", &["10.9.0.1"]));
    let both = Selection { names: vec!["eth0".into()], ..pattern("^eth1$") };
    assert_eq!(selected(V4, &both), expect("eth0", &["192.168.0.72"]));
}

#[test]
fn match_without_address_of_every_family_is_skipped() {
    let eth0 = expect("eth0", &["192.168.0.72", "fd00::72"]);
    let patterns = |patterns: &[&str]| {
        patterns.iter().map(|pattern| Regex::new(pattern).unwrap()).collect::<Vec<_>>()
    };
    for (by_name, by_pattern) in [
        (&["eth1", "eth0"][..], &[][..]),
        (&["10.9.0.1", "eth0"], &[]),
        (&["lo", "eth1", "eth7", "eth0"], &[]),
        (&["eth1"], &["^eth0$"]),
        (&[], &["^eth1$", "^eth0$"]),
        (&[], &["^lo$", "^wlan", "72$"]),
    ] {
        let selection = Selection { patterns: patterns(by_pattern), ..names(by_name) };
        assert_eq!(selected(BOTH, &selection), eth0, "{by_name:?} {by_pattern:?}");
    }
    let public_ipv6 = Some("2001:db8::7".parse().unwrap());
    let selection = Selection { public_ipv6, ..names(&["eth1", "eth0"]) };
    assert_eq!(selected(BOTH, &selection), expect("eth0", &["192.168.0.72", "2001:db8::7"]));
}

#[test]
fn can_reach_address_selects_interface_of_its_route() {
    let selection =
        Selection { can_reach: Some("10.9.7.7".parse().unwrap()), ..Selection::default() };
    let route_to = Some(("eth1".parse().unwrap(), Some("10.9.0.1".parse().unwrap())));
    let underlay =
        select(&Requirements::families_only(V4), &selection, &Facts { route_to, ..facts() })
            .unwrap();
    assert_eq!(underlay.link.as_str(), "eth1");
    let error = select(&Requirements::families_only(V4), &selection, &facts()).unwrap_err();
    assert_eq!(error.to_string(), "--iface-can-reach 10.9.7.7: no route to this address");
}

#[test]
fn public_ip_replaces_interface_address() {
    let selection =
        Selection { public_ip: Some("203.0.113.7".parse().unwrap()), ..names(&["eth0"]) };
    assert_eq!(selected(BOTH, &selection), expect("eth0", &["203.0.113.7", "fd00::72"]));
}

#[test]
fn public_ip_of_the_host_selects_its_interface() {
    let public_ip = |address: &str| Selection {
        public_ip: Some(address.parse().unwrap()),
        ..Selection::default()
    };
    assert_eq!(selected(V4, &public_ip("10.9.0.1")), expect("eth1", &["10.9.0.1"]));
    assert_eq!(selected(V4, &public_ip("203.0.113.7")), expect("eth0", &["203.0.113.7"]));
}

#[test]
fn selection_errors_list_the_available_interfaces() {
    let error = |families, selection: &Selection, facts: &Facts| {
        select(&Requirements::families_only(families), selection, facts).unwrap_err().to_string()
    };
    assert_eq!(
        error(V4, &Selection { patterns: pattern("^wlan").patterns, ..names(&["eth7"]) }, &facts()),
        "no interface matches --iface eth7, --iface-regex ^wlan; there are lo (no address), eth0 (192.168.0.72, 192.168.0.73, fd00::72), eth1 (10.9.0.1)"
    );
    assert_eq!(
        error(BOTH, &names(&["eth1"]), &facts()),
        "interface eth1 has no IPv6 address of global scope; the network config enables IPv6"
    );
    assert_eq!(
        error(
            BOTH,
            &Selection { patterns: pattern("^lo$").patterns, ..names(&["eth7", "eth1"]) },
            &facts()
        ),
        "interface eth1 has no IPv6 address of global scope; the network config enables IPv6"
    );
    let elsewhere = Facts { default_routes_v6: vec!["eth1".parse().unwrap()], ..facts() };
    assert_eq!(
        error(BOTH, &Selection::default(), &elsewhere),
        "the IPv4 default route is on eth0 and the IPv6 one on eth1: both must be on the same interface, or name one with --iface"
    );
    let none = Facts { default_routes_v4: vec![], ..facts() };
    assert_eq!(
        error(V4, &Selection::default(), &none),
        "no IPv4 default route selects an interface; name one with --iface"
    );
}

#[test]
fn device_of_a_former_address_is_not_recognized() {
    let interface = |name: &str, kind: &str, local: Option<&str>| Interface {
        kind: kind.into(),
        local: local.map(|address| address.parse().unwrap()),
        ..interface(name, &["192.168.0.72/24"])
    };
    let found = [
        interface("eth0", "", None),
        interface("flannel.1", "vxlan", Some("192.168.0.72")),
        interface("flannel.2", "vxlan", Some("192.168.0.71")),
        interface("flannel.3", "vxlan", None),
        interface("flannel0", "tun", None),
    ];
    let names: Vec<_> = existing_links(&found).iter().map(|link| link.name.to_string()).collect();
    assert_eq!(names, ["flannel.1", "flannel.3", "flannel0"]);
}

/// Returns facts about a host whose address is on the loopback device, with these uplinks.
fn routing_on_the_host(uplinks: &[(&str, u32)], egress: &[&str]) -> Facts {
    let loopback = Interface { mtu: 65536, ..interface("lo", &["192.0.2.1/32"]) };
    let uplink = |(name, mtu): &(&str, u32)| Interface { mtu: *mtu, ..interface(name, &[]) };
    Facts {
        interfaces: [loopback].into_iter().chain(uplinks.iter().map(uplink)).collect(),
        egress: egress.iter().map(|link| (Family::V4, link.parse().unwrap())).collect(),
        ..Facts::default()
    }
}

fn mtu(selection: &Selection, facts: &Facts) -> u32 {
    select(&Requirements::families_only(V4), selection, facts).unwrap().mtu
}

#[test]
fn address_on_the_loopback_has_the_mtu_of_the_path() {
    let uplinks = &[("eth0", 1500), ("eth1", 9000), ("wg0", 1420)];
    let with = |egress| mtu(&names(&["192.0.2.1"]), &routing_on_the_host(uplinks, egress));
    assert_eq!(with(&["eth0", "eth1"]), 1500);
    assert_eq!(with(&["eth1"]), 9000);
    assert_eq!(with(&["eth1", "wg0"]), 1420);
    // No route to other hosts, or only one back to the loopback device.
    assert_eq!(with(&[]), 1500);
    assert_eq!(with(&["lo"]), 1500);
    let dummy = |facts: Facts| {
        let mut facts = facts;
        facts.interfaces[0] =
            Interface { kind: "dummy".into(), ..interface("dummy0", &["192.0.2.1/32"]) };
        facts
    };
    let facts = dummy(routing_on_the_host(&[("eth0", 1400)], &["eth0"]));
    assert_eq!(mtu(&names(&["dummy0"]), &facts), 1400);
}

#[test]
fn mtu_of_the_path_is_that_of_the_enabled_families() {
    let mut facts = routing_on_the_host(&[("eth0", 1500), ("sit0", 1480)], &["eth0"]);
    facts.egress.insert((Family::V6, "sit0".parse().unwrap()));
    assert_eq!(mtu(&names(&["lo"]), &facts), 1500);
}

#[test]
fn interface_that_carries_packets_has_its_own_mtu() {
    let mut facts = facts();
    facts.interfaces[1].mtu = 1400;
    facts.egress.insert((Family::V4, "eth1".parse().unwrap()));
    assert_eq!(mtu(&names(&["eth0"]), &facts), 1400);
}

#[test]
fn tentative_address_is_waited_for() {
    let mut facts = facts();
    let tentative = ("fd05::1/64".parse().unwrap(), Unusable::Tentative);
    facts.interfaces[2].unusable.push(tentative);
    let both = Requirements::families_only(BOTH);
    let wait = |selection: &Selection| {
        let error = select(&both, selection, &facts).unwrap_err();
        assert!(error.is_passing(), "{error}");
        error.to_string()
    };
    let expected =
        "interface eth1: fd05::1 is tentative: duplicate address detection has not ended";
    assert_eq!(wait(&names(&["eth1"])), expected);
    assert_eq!(wait(&names(&["fd05::1"])), expected);
    assert_eq!(wait(&pattern("^fd05|^10")), expected);
    // Another address does as well.
    facts.interfaces[2].addresses.push("fd05::2/64".parse().unwrap());
    let underlay = select(&both, &names(&["eth1"]), &facts).unwrap();
    assert_eq!(underlay.public_addresses.v6.unwrap().to_string(), "fd05::2");
}

#[test]
fn missing_address_names_those_that_cannot_be_published() {
    let mut facts = facts();
    for (network, reason) in [
        ("fd05::1/64", Unusable::Duplicate),
        ("fd05::2/64", Unusable::Temporary),
        ("10.9.0.9/16", Unusable::Duplicate),
    ] {
        facts.interfaces[2].unusable.push((network.parse().unwrap(), reason));
    }
    let error = select(&Requirements::families_only(BOTH), &names(&["eth1"]), &facts).unwrap_err();
    assert!(!error.is_passing());
    assert_eq!(
        error.to_string(),
        "interface eth1 has no IPv6 address of global scope; the network config enables IPv6; \
         fd05::1 is a duplicate: another host has it; fd05::2 is temporary"
    );
}

#[test]
fn own_address_to_be_reached_selects_its_interface() {
    let can_reach = Some("10.9.0.1".parse().unwrap());
    let selection = Selection { can_reach, ..Selection::default() };
    // The kernel's answer for an address of the host itself.
    let route_to = Some(("lo".parse().unwrap(), can_reach));
    let facts = Facts { route_to, ..facts() };
    let underlay = select(&Requirements::families_only(V4), &selection, &facts).unwrap();
    assert_eq!(underlay.link.as_str(), "eth1");
}

#[test]
fn source_of_a_route_that_cannot_be_published_is_not() {
    let can_reach = Some("2001:db8::9".parse().unwrap());
    let selection = Selection { can_reach, ..Selection::default() };
    // A temporary address, which is not among those that can be published.
    let source = Some("fd00::5eed".parse().unwrap());
    let facts = Facts { route_to: Some(("eth0".parse().unwrap(), source)), ..facts() };
    let underlay = select(&Requirements::families_only(BOTH), &selection, &facts).unwrap();
    assert_eq!(underlay.public_addresses.v6.unwrap().to_string(), "fd00::72");
}
