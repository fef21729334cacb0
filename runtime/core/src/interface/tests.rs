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
        route_to: None,
    }
}

fn names(names: &[&str]) -> Selection {
    Selection { names: names.iter().map(ToString::to_string).collect(), ..Selection::default() }
}

fn pattern(pattern: &str) -> Selection {
    Selection { patterns: vec![Regex::new(pattern).unwrap()], ..Selection::default() }
}

fn selected(families: &[Family], selection: &Selection) -> (String, Vec<String>) {
    let underlay = select(families, selection, &facts()).unwrap();
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
    let underlay = select(V4, &selection, &Facts { route_to, ..facts() }).unwrap();
    assert_eq!(underlay.link.as_str(), "eth1");
    let error = select(V4, &selection, &facts()).unwrap_err();
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
        select(families, selection, facts).unwrap_err().to_string()
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
