use super::*;
use crate::config::NetworkConfig;
use crate::interface::tests::interface;
use crate::interface::{SelectionError, select};

fn requirements(config: &str) -> Requirements {
    Requirements::of(&NetworkConfig::parse(config.as_bytes()).unwrap().networks)
}

/// Returns the requirements of a network with IPv4 only.
fn v4() -> Requirements {
    requirements(r#"{"Network":"10.244.0.0/16"}"#)
}

fn bridge(name: &str, addresses: &[&str]) -> Interface {
    Interface { kind: "bridge".into(), ..interface(name, addresses) }
}

fn device(name: &str, kind: &str, alias: &str, address: &str) -> Interface {
    Interface { kind: kind.into(), alias: alias.into(), ..interface(name, &[address]) }
}

/// Returns facts with the default routes through the last interface.
fn facts(interfaces: Vec<Interface>) -> Facts {
    let routes: Vec<_> = interfaces.iter().next_back().map(|last| last.name).into_iter().collect();
    Facts {
        interfaces,
        default_routes_v4: routes.clone(),
        default_routes_v6: routes,
        ..Facts::default()
    }
}

fn names(names: &[&str]) -> Selection {
    Selection { names: names.iter().map(ToString::to_string).collect(), ..Selection::default() }
}

fn pattern(pattern: &str) -> Selection {
    Selection { patterns: vec![regex::Regex::new(pattern).unwrap()], ..Selection::default() }
}

fn chosen(selection: &Selection, facts: &Facts) -> (String, String) {
    let underlay = select(&v4(), selection, facts).unwrap();
    (underlay.link.to_string(), underlay.public_addresses.v4.unwrap().to_string())
}

fn error(selection: &Selection, facts: &Facts) -> SelectionError {
    let error = select(&v4(), selection, facts).unwrap_err();
    assert!(error.is_passing(), "{error}");
    error
}

#[test]
fn pattern_skips_the_bridge_of_containers() {
    let docker0 = || bridge("docker0", &["10.244.8.1/24"]);
    let eth0 = || interface("eth0", &["192.0.2.1/24"]);
    let late = facts(vec![docker0(), interface("eth1", &["10.9.0.1/24"]), eth0()]);
    assert_eq!(chosen(&pattern(r"^10\."), &late), ("eth1".into(), "10.9.0.1".into()));
    let early = facts(vec![docker0(), eth0()]);
    assert_eq!(
        error(&pattern(r"^10\."), &early).to_string(),
        r"--iface-regex ^10\. selects docker0, but its address 10.244.8.1 is inside the overlay network 10.244.0.0/16; name an interface that leads to other hosts"
    );
}

#[test]
fn every_flag_that_selects_the_overlay_is_named() {
    let cni0 = bridge("cni0", &["10.244.8.1/24"]);
    let flannel = device("flannel.1", "vxlan", "heddle /coreos.com/network", "10.244.8.0/32");
    let mut facts = facts(vec![cni0, flannel, interface("eth0", &["192.0.2.1/24"])]);
    for (selection, by) in [
        (names(&["cni0"]), "--iface cni0 selects cni0"),
        (names(&["10.244.8.1"]), "--iface 10.244.8.1 selects cni0"),
        (names(&["flannel.1"]), "--iface flannel.1 selects flannel.1"),
        (names(&["10.244.8.0"]), "--iface 10.244.8.0 selects flannel.1"),
        (pattern("^cni"), "--iface-regex ^cni selects cni0"),
        (pattern("^flannel"), "--iface-regex ^flannel selects flannel.1"),
    ] {
        let text = error(&selection, &facts).to_string();
        assert!(text.starts_with(by), "{text}");
    }
    facts.route_to = Some(("flannel.1".parse().unwrap(), None));
    let can_reach = Some("10.244.36.1".parse().unwrap());
    let text = error(&Selection { can_reach, ..Selection::default() }, &facts).to_string();
    assert!(text.starts_with("--iface-can-reach 10.244.36.1 selects flannel.1, but"), "{text}");
    // A flag that selects something else as well is fine.
    let both = names(&["cni0", "flannel.1", "eth0"]);
    assert_eq!(chosen(&both, &facts), ("eth0".into(), "192.0.2.1".into()));
}

#[test]
fn device_of_an_overlay_is_known_by_alias_or_kind() {
    for (name, kind, alias, expected) in [
        ("flannel.1", "vxlan", "heddle /coreos.com/network", true),
        ("flannel.1", "vxlan", "", true),
        ("flannel-v6.4096", "vxlan", "", true),
        ("flannel0", "tun", "", true),
        ("flannel0", "tun", "heddle dir:/srv/net", true),
        ("mine", "vxlan", "heddle /other", true),
        ("vxlan7", "vxlan", "", false),
        ("tun0", "tun", "", false),
        ("flannel.1", "bridge", "", false),
        ("eth0", "", "uplink", false),
    ] {
        let found = device(name, kind, alias, "192.0.2.1/24");
        assert_eq!(is_device(&found), expected, "{name} {kind} {alias}");
    }
}

#[test]
fn default_route_through_the_overlay_is_skipped() {
    let flannel = device("flannel.1", "vxlan", "", "10.244.8.0/32");
    let mut facts = facts(vec![flannel, interface("eth0", &["192.0.2.1/24"])]);
    facts.default_routes_v4.insert(0, "flannel.1".parse().unwrap());
    assert_eq!(chosen(&Selection::default(), &facts).0, "eth0");
    facts.default_routes_v4.truncate(1);
    let text = error(&Selection::default(), &facts).to_string();
    assert!(text.starts_with("the IPv4 default route selects flannel.1, but"), "{text}");
}

#[test]
fn address_outside_the_overlay_comes_first() {
    let eth0 = interface("eth0", &["10.244.99.7/24", "192.0.2.1/24"]);
    let last = interface("eth1", &["198.51.100.1/24"]);
    let chosen_of = |facts| chosen(&names(&["eth0"]), &facts).1;
    assert_eq!(chosen_of(facts(vec![eth0.clone(), last])), "192.0.2.1");
    assert_eq!(chosen_of(facts(vec![eth0])), "192.0.2.1");
}

#[test]
fn hosts_network_inside_the_overlay_can_be_the_underlay() {
    let inside = || interface("eth0", &["10.244.99.7/24"]);
    let found = chosen(&Selection::default(), &facts(vec![inside()]));
    assert_eq!(found, ("eth0".into(), "10.244.99.7".into()));
    // Without the default route, it could as well be a bridge of containers.
    let other = facts(vec![inside(), interface("eth1", &["192.0.2.1/24"])]);
    assert!(matches!(error(&names(&["eth0"]), &other), SelectionError::Overlaid { .. }));
    // The operator has set the rest of the network aside.
    let config =
        r#"{"Network":"10.244.0.0/16","SubnetMin":"10.244.1.0","SubnetMax":"10.244.90.0"}"#;
    assert!(select(&requirements(config), &names(&["eth0"]), &other).is_ok());
}

#[test]
fn public_address_inside_the_overlay_is_refused() {
    let public = |address: &str| Selection {
        public_ip: Some(address.parse().unwrap()),
        ..Selection::default()
    };
    let found = facts(vec![
        bridge("docker0", &["10.244.8.1/24"]),
        interface("eth0", &["192.0.2.1/24", "10.244.99.7/24"]),
    ]);
    assert_eq!(chosen(&public("203.0.113.7"), &found).1, "203.0.113.7");
    for address in ["10.244.8.1", "10.244.7.7"] {
        assert_eq!(
            error(&public(address), &found).to_string(),
            format!(
                "--public-ip {address}: inside the overlay network 10.244.0.0/16, where other hosts cannot reach this one; give an address outside"
            )
        );
    }
    // As above: the host's own network.
    assert_eq!(chosen(&public("10.244.99.7"), &found).1, "10.244.99.7");
    let dual = requirements(
        r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:244::/48"}"#,
    );
    let public_ipv6 = Some("fd00:244::8:1".parse().unwrap());
    let selection = Selection { public_ipv6, ..Selection::default() };
    let text = select(&dual, &selection, &found).unwrap_err().to_string();
    assert!(text.starts_with("--public-ipv6 fd00:244::8:1: inside"), "{text}");
}

#[test]
fn each_family_has_its_own_overlay() {
    let dual = requirements(
        r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:244::/48"}"#,
    );
    let eth0 = interface("eth0", &["192.0.2.1/24", "fd00:244:0:8::1/64", "2001:db8::1/64"]);
    let underlay = select(&dual, &names(&["eth0"]), &facts(vec![eth0])).unwrap();
    let public: Vec<_> = underlay.public_addresses.iter().map(ToString::to_string).collect();
    assert_eq!(public, ["192.0.2.1", "2001:db8::1"]);
    let cni0 = bridge("cni0", &["192.0.2.1/24", "fd00:244:0:8::1/64"]);
    let eth1 = interface("eth1", &["198.51.100.1/24", "2001:db8::1/64"]);
    let found = facts(vec![cni0, eth1]);
    let text = select(&dual, &names(&["cni0"]), &found).unwrap_err().to_string();
    assert!(text.contains("its address fd00:244:0:8::1 is inside"), "{text}");
}
