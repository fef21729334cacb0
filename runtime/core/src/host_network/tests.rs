use super::*;
use crate::object::{Address, Metric, Object, Route, RouteAction};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn link(name: &str) -> LinkName {
    name.parse().unwrap()
}

fn claims(overlay: &str) -> Claims {
    Claims { overlay: vec![net(overlay)], ..Claims::default() }
}

fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn address(device: &str, network: &str) -> HostAddress {
    HostAddress { link: link(device), network: net(network), up: true, prefix_route: true }
}

fn route(destination: &str, device: &str, connected: bool) -> HostRoute {
    HostRoute { destination: net(destination), link: Some(link(device)), connected, partial: false }
}

/// Returns a host on 10.1.2.0/24 with a second network, a static route, a default route, and a
/// store behind the latter.
fn host(overlay: &str) -> HostNetwork {
    host_with(&claims(overlay))
}

fn host_with(claims: &Claims) -> HostNetwork {
    let routing = HostRouting {
        routes: [
            route("0.0.0.0/0", "eth0", false),
            route("10.1.2.0/24", "eth0", true),
            route("10.50.0.0/16", "eth0", false),
            route("192.168.7.0/24", "eth2", true),
        ]
        .into(),
        addresses: [address("eth0", "10.1.2.1/24"), address("eth1", "10.9.8.1/28")].into(),
    };
    let vital =
        Vital { store: addresses(&["10.200.0.9", "10.1.2.9"]), own: addresses(&["10.1.2.1"]) };
    HostNetwork::new(claims, &routing, vital)
}

fn kind(host: &HostNetwork, destination: &str) -> Option<&'static str> {
    host.conflict(net(destination)).map(|conflict| conflict.kind())
}

#[test]
fn destination_in_host_network_conflicts() {
    let host = host("10.0.0.0/8");
    for (destination, expected) in [
        // The connected network, parts of it, and networks around it.
        ("10.1.2.0/24", Some("connected")),
        ("10.1.2.128/25", Some("connected")),
        ("10.1.2.77/32", Some("connected")),
        ("10.1.3.0/24", None),
        ("10.1.0.0/16", Some("own-address")),
        // Networks known only from an address, as on a device that is down.
        ("10.9.8.0/28", Some("connected")),
        ("10.9.8.8/29", Some("connected")),
        ("10.9.8.0/24", None),
        // A static route: destinations that shadow it, and ones that replace it.
        ("10.50.3.0/24", Some("route")),
        ("10.50.0.0/16", None),
        ("10.50.0.0/15", None),
        // The store behind the default route, and the one on the link.
        ("10.200.0.0/24", Some("store")),
        ("10.200.0.9/32", Some("store")),
        ("10.200.1.0/24", None),
        ("10.1.2.9/32", Some("connected")),
        ("10.77.0.0/24", None),
    ] {
        assert_eq!(kind(&host, destination), expected, "{destination}");
    }
}

#[test]
fn network_equal_to_overlay_is_kept() {
    let routing = HostRouting {
        routes: [route("10.0.0.0/8", "eth0", true)].into(),
        ..HostRouting::default()
    };
    let host = HostNetwork::new(&claims("10.0.0.0/8"), &routing, Vital::default());
    assert_eq!(kind(&host, "10.0.0.0/8"), Some("connected"));
    assert_eq!(kind(&host, "10.3.4.0/24"), Some("connected"));
}

#[test]
fn network_around_overlay_sets_it_aside() {
    let routing = HostRouting {
        routes: [route("10.0.0.0/8", "eth0", true), route("10.244.0.0/15", "eth0", false)].into(),
        ..HostRouting::default()
    };
    let vital = Vital { store: addresses(&["10.244.5.9"]), own: BTreeSet::new() };
    let host = HostNetwork::new(&claims("10.244.0.0/16"), &routing, vital);
    assert_eq!(kind(&host, "10.244.3.0/24"), None);
    assert_eq!(kind(&host, "10.244.5.0/24"), Some("store"));
    assert_eq!(host.overlapping().count(), 1);
    assert_eq!(host.occupied().collect::<Vec<_>>(), [net("10.244.5.9/32")]);
}

#[test]
fn granted_destination_in_host_network_conflicts() {
    let routing = HostRouting {
        addresses: [address("eth1", "172.20.1.1/24")].into(),
        ..HostRouting::default()
    };
    let claims = Claims { granted: vec![net("172.20.0.0/16")], ..claims("10.0.0.0/8") };
    let host = HostNetwork::new(&claims, &routing, Vital::default());
    assert_eq!(kind(&host, "172.20.1.0/24"), Some("connected"));
    assert_eq!(kind(&host, "172.20.0.0/16"), None);
}

#[test]
fn conflict_names_both_networks_and_device() {
    let host = host("10.0.0.0/8");
    let text = |destination| host.conflict(net(destination)).unwrap().to_string();
    assert_eq!(text("10.1.2.0/25"), "10.1.2.0/25 overlaps 10.1.2.0/24, which is connected to eth0");
    assert_eq!(
        text("10.50.3.0/24"),
        "10.50.3.0/24 is inside 10.50.0.0/16, which this host routes through eth0"
    );
    assert_eq!(
        text("10.200.0.0/24"),
        "10.200.0.0/24 contains 10.200.0.9, an address of the lease store"
    );
}

#[test]
fn addresses_outside_overlay_make_no_difference() {
    let host = |store: &[&str], own: &[&str]| {
        let vital = Vital { store: addresses(store), own: addresses(own) };
        HostNetwork::new(&claims("10.0.0.0/8"), &HostRouting::default(), vital)
    };
    let known = host(&["10.9.0.1"], &[]);
    assert_eq!(host(&["10.9.0.1", "192.0.2.1", "2001:db8::1"], &["198.51.100.1"]), known);
    assert_ne!(host(&["10.9.0.1", "10.9.0.2"], &[]), known);
    assert_ne!(host(&["10.9.0.1"], &["10.9.0.3"]), known);
}

#[test]
fn warnings_name_twenty_networks_and_count_the_rest() {
    let networks = (0..300)
        .map(|number| address("lan0", &format!("10.{}.{}.1/24", number / 200, number % 200)));
    let routing = HostRouting { addresses: networks.collect(), ..HostRouting::default() };
    let host = HostNetwork::new(&claims("10.0.0.0/8"), &routing, Vital::default());
    let warnings = host.warnings();
    assert_eq!(warnings.len(), 21);
    assert!(warnings[0].starts_with("10.0.0.0/8 overlaps 10.0.0.0/24, which is connected to lan0"));
    assert_eq!(warnings[20], "further networks of this host that overlap the overlay: 280");
}

#[test]
fn bridge_of_own_subnet_is_no_host_network() {
    let routing = HostRouting {
        addresses: [address("docker0", "10.244.8.1/24")].into(),
        ..HostRouting::default()
    };
    let claims_of_node = Claims { own: vec![net("10.244.8.0/24")], ..claims("10.244.0.0/16") };
    let host = HostNetwork::new(&claims_of_node, &routing, Vital::default());
    assert_eq!((host.overlapping().count(), host.occupied().count()), (0, 0));
    // A bridge with a former subnet that belongs to another node by now.
    let host = HostNetwork::new(&claims("10.244.0.0/16"), &routing, Vital::default());
    assert_eq!(kind(&host, "10.244.8.0/24"), Some("connected"));
}

#[test]
fn own_subnet_conflicts_with_host_networks_but_not_its_bridge() {
    let addresses_of_host = [
        address("docker0", "10.3.4.1/24"),
        address("eth0", "10.1.2.1/24"),
        address("eth1", "10.8.0.1/16"),
        address("br0", "10.8.3.1/24"),
    ];
    let routing = HostRouting {
        routes: [route("10.50.0.0/16", "eth1", false), route("0.0.0.0/0", "eth0", false)].into(),
        addresses: addresses_of_host.into(),
    };
    let vital = Vital { store: addresses(&["10.7.7.7"]), own: addresses(&["10.1.2.1"]) };
    let host = HostNetwork::new(&claims("10.0.0.0/8"), &routing, vital);
    let kind = |subnet| host.conflict_of_own(net(subnet), link("eth0")).map(|found| found.kind());
    assert_eq!(kind("10.3.4.0/24"), None);
    assert_eq!(kind("10.1.2.0/24"), Some("connected"));
    assert_eq!(kind("10.1.2.64/26"), Some("connected"));
    assert_eq!(kind("10.1.0.0/16"), Some("connected"));
    assert_eq!(kind("10.7.7.0/24"), Some("store"));
    // Inside a larger network, with a bridge and without.
    assert_eq!(kind("10.8.2.0/24"), Some("connected"));
    assert_eq!(kind("10.8.3.0/24"), Some("connected"));
    assert_eq!(kind("10.50.2.0/24"), Some("route"));
    assert_eq!(kind("10.50.0.0/16"), None);
}

#[test]
fn partial_route_is_host_network_but_no_route_to_store() {
    let partial = |destination| HostRoute { partial: true, ..route(destination, "eth1", false) };
    let routing = HostRouting {
        routes: [partial("10.50.0.0/16"), route("0.0.0.0/0", "eth0", false)].into(),
        ..HostRouting::default()
    };
    let vital = Vital { store: addresses(&["10.50.7.7"]), own: BTreeSet::new() };
    let host = HostNetwork::new(&claims("10.0.0.0/8"), &routing, vital);
    assert_eq!(kind(&host, "10.50.2.0/24"), Some("route"));
    // Other packets to the store take the default route.
    assert_eq!(kind(&host, "10.0.0.0/9"), Some("store"));
    assert!(host.loses("10.50.7.7".parse().unwrap(), net("10.0.0.0/9")));
}

#[test]
fn guard_withholds_routes_and_connected_addresses() {
    let own = vec![net("10.1.2.0/30")];
    let mut guard = Guard::default();
    guard.set_host(host_with(&Claims { own, ..claims("10.0.0.0/8") }));
    let route = |destination: &str, metric| {
        let action = RouteAction::Forward { link: link("flannel.1"), gateway: None, onlink: false };
        Object::Route(Route { destination: net(destination), metric, action })
    };
    let address =
        |network: &str| Object::Address(Address { link: link("flannel.1"), network: net(network) });
    assert!(guard.withholds(&route("10.1.2.0/24", Metric::Default)).is_some());
    assert_eq!(guard.withholds(&route("10.1.2.0/24", Metric::Last)), None);
    assert_eq!(guard.withholds(&route("10.7.0.0/24", Metric::Default)), None);
    assert!(guard.withholds(&address("10.9.8.9/28")).is_some());
    assert_eq!(guard.withholds(&address("10.1.2.0/30")), None, "in the own subnet");
    let owner = "b".to_owned();
    let (destination, address) = (net("10.7.0.0/24"), "10.7.0.1".parse().unwrap());
    let conflict = Conflict::PeerAddress { destination, address, owner };
    guard.set_others([(destination, conflict.clone())].into());
    assert_eq!(guard.withholds(&route("10.7.0.0/24", Metric::Default)), Some(conflict));
}

#[test]
fn connected_route_is_missing_only_if_kernel_adds_one() {
    let up = address("eth1", "10.1.2.1/24");
    let addresses: BTreeSet<_> = [
        up.clone(),
        HostAddress { up: false, ..address("eth2", "10.1.3.1/24") },
        HostAddress { prefix_route: false, ..address("eth3", "10.1.4.1/24") },
        address("lo", "10.1.5.1/32"),
        address("eth5", "10.1.6.1/24"),
        address("eth6", "192.168.1.1/24"),
    ]
    .into();
    // The route of eth5, in any table.
    let routed =
        [(net("10.1.6.0/24"), link("eth5")), (net("10.1.2.0/24"), link("flannel.1"))].into();
    let overlay = net("10.0.0.0/8");
    let missing = |routes: &[HostRoute]| {
        let routes = routes.iter().cloned().collect();
        let routing = HostRouting { routes, addresses: addresses.clone() };
        missing_connected(&routing, &routed, |network| overlay.contains(&network))
    };
    assert_eq!(missing(&[]), std::slice::from_ref(&up));
    assert_eq!(missing(&[route("10.0.0.0/8", "eth9", false)]), [up]);
    // Another program routes the network elsewhere, or parts of it through the same device.
    assert_eq!(missing(&[route("10.1.2.0/24", "eth9", false)]), []);
    assert_eq!(missing(&[route("10.1.2.128/25", "eth1", true)]), []);
}

#[test]
fn network_on_two_devices_is_restored_once() {
    let addresses = [address("eth1", "10.1.2.1/24"), address("eth2", "10.1.2.2/24")];
    let routing = HostRouting { addresses: addresses.clone().into(), ..HostRouting::default() };
    assert_eq!(missing_connected(&routing, &BTreeSet::new(), |_| true), addresses[..1]);
}

#[test]
fn leftovers_on_store_and_connected_networks_are_harmful() {
    let leftover = |destination: &str| Route {
        destination: net(destination),
        metric: Metric::Default,
        action: RouteAction::Forward { link: link("flannel.1"), gateway: None, onlink: false },
    };
    let routes = [
        "10.1.2.0/24",
        "10.98.1.0/24",
        "10.98.1.128/25",
        "10.200.0.0/24",
        "10.77.0.0/24",
        "10.5.0.0/24",
    ];
    let routes = routes.map(leftover);
    let routing = HostRouting {
        routes: [route("0.0.0.0/0", "eth0", false)].into(),
        // The first network lost its route to the leftover. The last was set aside for the overlay.
        addresses: [
            address("lan0", "10.98.1.1/24"),
            address("eth0", "10.1.2.1/24"),
            address("eth1", "10.5.0.1/16"),
        ]
        .into(),
    };
    let (former, own) = ([net("10.0.0.0/8")], [net("10.5.7.0/24")]);
    let harmful = |store: &[&str], former: &[IpNet]| -> Vec<String> {
        let found = harmful_leftovers(&routes, &routing, &addresses(store), former, &own);
        found.iter().map(|route| route.destination.to_string()).collect()
    };
    assert_eq!(
        harmful(&["10.200.0.9"], &former),
        ["10.1.2.0/24", "10.98.1.0/24", "10.98.1.128/25", "10.200.0.0/24"]
    );
    assert_eq!(harmful(&["10.1.2.9"], &[]), ["10.1.2.0/24"]);
    assert_eq!(harmful(&[], &[]), [""; 0]);
}

#[test]
fn route_to_store_counts_only_while_present() {
    // The store is inside a network whose device is down, and is reached by the default route.
    let routing = HostRouting {
        routes: [route("0.0.0.0/0", "eth0", false)].into(),
        addresses: [HostAddress { up: false, ..address("lan0", "10.60.0.1/25") }].into(),
    };
    let vital = Vital { store: addresses(&["10.60.0.9"]), own: BTreeSet::new() };
    let host = HostNetwork::new(&claims("10.0.0.0/8"), &routing, vital.clone());
    assert_eq!(kind(&host, "10.60.0.0/24"), Some("store"));
    assert_eq!(kind(&host, "10.60.0.0/26"), Some("connected"));
    let routing = HostRouting {
        routes: [route("0.0.0.0/0", "eth0", false), route("10.60.0.0/25", "lan0", true)].into(),
        ..routing
    };
    let host = HostNetwork::new(&claims("10.0.0.0/8"), &routing, vital);
    assert_eq!(kind(&host, "10.60.0.0/24"), None);
}

#[test]
fn range_of_subnets_in_larger_network_is_set_aside() {
    let routing = HostRouting {
        addresses: [address("eth0", "10.1.0.1/16")].into(),
        ..HostRouting::default()
    };
    let reserved = vec![("10.1.128.0".parse().unwrap(), "10.1.255.255".parse().unwrap())];
    for overlay in ["10.1.0.0/16", "10.0.0.0/8"] {
        let claims = Claims { reserved: reserved.clone(), ..claims(overlay) };
        let host = HostNetwork::new(&claims, &routing, Vital::default());
        assert_eq!(kind(&host, "10.1.130.0/24"), None);
        assert_eq!(kind(&host, "10.1.3.0/24"), Some("connected"));
        assert_eq!(host.occupied().count(), 0);
        assert_eq!(host.conflict_of_own(net("10.1.130.0/24"), link("eth0")), None);
    }
    // For an overlay that is not wholly part of the larger network, the range is named.
    let claims_of_node = Claims { reserved: reserved.clone(), ..claims("10.0.0.0/8") };
    let host = HostNetwork::new(&claims_of_node, &routing, Vital::default());
    assert_eq!(
        host.warnings(),
        [
            "10.1.128.0 to 10.1.255.255, the range of SubnetMin and SubnetMax, is part of 10.1.0.0/16, which is \
             connected to eth0: hosts of eth0 with addresses in that range cannot be reached"
        ]
    );
    // A network no larger than the range belongs to the host.
    let routing = HostRouting {
        addresses: [address("eth0", "10.1.128.1/17")].into(),
        ..HostRouting::default()
    };
    let claims = Claims { reserved, ..claims("10.0.0.0/8") };
    let host = HostNetwork::new(&claims, &routing, Vital::default());
    assert_eq!(kind(&host, "10.1.130.0/24"), Some("connected"));
}

#[test]
fn store_in_own_container_does_not_discard_own_subnet() {
    let routing = HostRouting {
        routes: [route("0.0.0.0/0", "eth0", false), route("10.240.36.0/24", "docker0", true)]
            .into(),
        ..HostRouting::default()
    };
    let vital = Vital { store: addresses(&["10.240.36.5", "10.241.0.9"]), own: BTreeSet::new() };
    let host = HostNetwork::new(&claims("10.0.0.0/8"), &routing, vital);
    let kind = |subnet| host.conflict_of_own(net(subnet), link("eth0")).map(|found| found.kind());
    assert_eq!(kind("10.240.36.0/24"), None);
    assert_eq!(kind("10.241.0.0/24"), Some("store"));
}

#[test]
fn whole_network_route_yields_to_equal_foreign_route() {
    let routing = HostRouting {
        routes: [route("10.0.0.0/8", "eth0", false)].into(),
        ..HostRouting::default()
    };
    let host = HostNetwork::new(&claims("10.0.0.0/8"), &routing, Vital::default());
    assert_eq!(host.conflict(net("10.0.0.0/8")), None);
    assert_eq!(host.conflict_of_whole(net("10.0.0.0/8")).unwrap().kind(), "route");
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// Generates one of a few networks, so that many overlap.
    fn network() -> impl Strategy<Value = IpNet> {
        (0_u32..256, 8_u8..=32).prop_map(|(bits, length)| {
            let address = std::net::Ipv4Addr::from((10 << 24) | (bits << 12) | bits);
            IpNet::new(address.into(), length).unwrap().trunc()
        })
    }

    /// Returns the destination of the longest route that contains an address.
    fn way(address: IpAddr, routes: &[IpNet]) -> Option<IpNet> {
        let matching = routes.iter().filter(|route| route.contains(&address));
        matching.max_by_key(|route| route.prefix_len()).copied()
    }

    proptest! {
        /// Whichever destinations are permitted, packets to connected networks and to the store
        /// take the same routes as before.
        #[test]
        fn permitted_routes_leave_host_traffic_alone(
            connected in prop::collection::btree_set(network(), 0..6),
            wanted in prop::collection::btree_set(network(), 0..12),
            store in 0_u32..256,
            inside in prop::collection::vec(any::<u32>(), 8),
        ) {
            let store: IpAddr = std::net::Ipv4Addr::from((10 << 24) | (store << 12) | store).into();
            let device = link("eth0");
            let own = |network: &IpNet| HostRoute { destination: *network, link: Some(device), connected: true, partial: false };
            let mut routes: BTreeSet<_> = connected.iter().map(own).collect();
            routes.insert(route("0.0.0.0/0", "eth0", false));
            let before: Vec<_> = routes.iter().map(|route| route.destination).collect();
            let vital = Vital { store: [store].into(), own: BTreeSet::new() };
            let routing = HostRouting { routes, ..HostRouting::default() };
            let host = HostNetwork::new(&claims("10.0.0.0/8"), &routing, vital);
            let permitted = wanted.iter().filter(|wanted| host.conflict(**wanted).is_none());
            let mut after = before.clone();
            after.extend(permitted);
            let probes = connected.iter().zip(inside).map(|(network, offset)| {
                let IpNet::V4(network) = network else { unreachable!() };
                let host = u32::from(network.network()) | (offset & u32::from(network.hostmask()));
                IpAddr::from(std::net::Ipv4Addr::from(host))
            });
            for address in probes.chain([store]) {
                let (then, now) = (way(address, &before), way(address, &after));
                prop_assert_eq!(then, now, "{}", address);
                // The overlay does not duplicate the host's route, either.
                let twice = after.iter().filter(|route| Some(**route) == now).count();
                prop_assert_eq!(twice, before.iter().filter(|route| Some(**route) == now).count());
            }
        }
    }
}
