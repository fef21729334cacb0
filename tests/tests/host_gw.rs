//! The host-gw backend: the routes it programs, and the configurations it refuses.

use std::time::Duration;

use heddle_lab::{Families, KernelState, Route, Signal, wait_until};
use heddle_tests::{Cluster, HEALED, Node, Overlay, PROTOCOL, SOON};

const DUAL: [Overlay; 2] = [Overlay::V4, Overlay::V6];

/// Returns the route to a peer's subnet, with the peer as the gateway.
fn route(subnet: &str, gateway: &str) -> Route {
    Route {
        dst: subnet.to_owned(),
        gateway: Some(gateway.to_owned()),
        dev: Some("eth0".into()),
        kind: None,
        protocol: Some(PROTOCOL.into()),
        flags: vec![],
        // The kernel's default metric for IPv6 is IP6_RT_PRIO_USER.
        metric: gateway.contains(':').then_some(1024),
    }
}

/// Returns the routes that a node should have for these peers.
fn routes_to(cluster: &Cluster, overlays: &[Overlay], peers: &[&Node]) -> Vec<Route> {
    let mut routes = Vec::new();
    for peer in peers {
        for &overlay in overlays {
            let gateway = overlay.address_of(&peer.host).to_string();
            routes.push(route(&cluster.subnet(peer, overlay).to_string(), &gateway));
        }
    }
    routes.sort();
    routes
}

/// Waits until the node's routes of Heddle are exactly these.
fn wait_routes(node: &Node, mut expected: Vec<Route>) {
    expected.sort();
    wait_until("the routes", HEALED, || {
        let found = node.routes();
        if found == expected { Ok(()) } else { Err(format!("{found:#?}")) }
    })
    .unwrap();
}

fn check_ping(from: &Node, to: &Node) {
    let [from, to] = [from, to].map(|node| node.host.container().unwrap());
    for &address in to.addresses() {
        from.ping(address, 56).unwrap();
    }
}

fn two_nodes(families: Families) {
    let overlays = Overlay::all(families);
    let cluster = Cluster::with_backend(families, "host-gw");
    let [a, b] = cluster.nodes(["a", "b"]);
    for (node, peer) in [(&a, &b), (&b, &a)] {
        wait_routes(node, routes_to(&cluster, overlays, &[peer]));
        assert_eq!(node.devices(), [""; 0]);
        let lease = cluster.lease(node).value;
        assert_eq!(lease, node.lease_value(overlays, Some("host-gw"), |_| None));
        let env = std::fs::read_to_string(node.host.subnet_file()).unwrap();
        assert_eq!(env, cluster.subnet_env(node, 1500));
    }
}

#[test]
fn node_has_exactly_one_route_for_each_peer() {
    for families in [Families::V4, Families::V6, Families::Dual] {
        two_nodes(families);
    }
}

#[test]
fn host_gw_behind_nat_waits_for_config_without_changes() {
    for (flag, overlay, public) in [
        ("--public-ip", Overlay::V4, "203.0.113.9"),
        ("--public-ipv6", Overlay::V6, "2001:db8:9::9"),
    ] {
        let cluster = Cluster::with_backend(Families::Dual, "host-gw");
        let [mut a, b] = cluster.nodes(["a", "b"]);
        check_ping(&b, &a);
        let everything = |a: &Node| -> (KernelState, _) {
            (a.host.kernel_state().unwrap(), cluster.etcd().leases().unwrap())
        };
        let before = everything(&a);

        a.stop(Signal::TERM);
        let mut command = cluster.heddled(&a.host);
        command.arg(format!("{flag}={public}"));
        let mut daemon = a.host.start(command).unwrap();
        let own = overlay.address_of(&a.host).to_string();
        daemon.wait_log(&["host-gw", public, "eth0", "NAT", flag, &own], SOON).unwrap();
        let (status, reasons) = daemon.health("/readyz").unwrap();
        assert_eq!(status, 503, "{reasons}");
        assert!(reasons.contains(public), "{reasons}");
        // The config is read again every second; a repeated error must be logged once.
        std::thread::sleep(Duration::from_millis(2500));
        daemon.check_running().unwrap();
        assert_eq!(daemon.log().matches("(NAT)").count(), 1, "{}", daemon.log());
        assert_eq!(everything(&a), before);
        check_ping(&b, &a);

        cluster.store().put_config(&Families::Dual.config_with("vxlan")).unwrap();
        daemon.wait_ready().unwrap();
        let leases = cluster.etcd().leases().unwrap();
        assert!(leases.values().any(|value| value.contains(public)), "{leases:#?}");
    }
}

#[test]
fn peer_beyond_router_is_reported_and_others_work() {
    let cluster = Cluster::with_backend(Families::Dual, "host-gw");
    // Reachable only through the router.
    let key = "10.244.250.0-24&fd00:10:244:250::-64";
    let far = r#"{"PublicIP":"172.16.0.9","PublicIPv6":"fd77::9","BackendType":"host-gw","NodeName":"far"}"#;
    cluster.put_lease(key, far);
    let [mut a, mut b] = cluster.nodes(["a", "b"]);
    for gateway in ["172.16.0.9", "fd77::9"] {
        let texts = [key, "far at 172.16.0.9", "cannot put route", gateway];
        let line = a.daemon().wait_log(&texts, SOON).unwrap();
        assert!(line.contains("the gateway is on no network of that device"), "{line}");
    }
    wait_routes(&a, routes_to(&cluster, &DUAL, &[&b]));
    check_ping(&a, &b);
    check_ping(&b, &a);

    // The peer moves to the local network after several failed attempts, when the next retry is
    // seconds away.
    std::thread::sleep(Duration::from_secs(4));
    let near = cluster.host("near");
    let (v4, v6) = (near.v4().to_string(), near.v6().to_string());
    cluster.put_lease(key, &far.replace("172.16.0.9", &v4).replace("fd77::9", &v6));
    for (node, peer) in [(&a, &b), (&b, &a)] {
        let mut routes = routes_to(&cluster, &DUAL, &[peer]);
        routes.push(route("10.244.250.0/24", &v4));
        routes.push(route("fd00:10:244:250::/64", &v6));
        wait_routes(node, routes);
    }
    for node in [&mut a, &mut b] {
        node.daemon().check_running().unwrap();
        assert_eq!(node.daemon().health("/readyz").unwrap().0, 200);
    }
}

#[test]
fn peer_route_with_other_gateway_is_replaced() {
    let cluster = Cluster::with_backend(Families::Dual, "host-gw");
    let b = cluster.node("b");
    let subnets = DUAL.map(|overlay| cluster.subnet(&b, overlay).to_string());
    let gateways = ["192.168.255.254", "fd00::ffff"];
    let mut a = cluster.starting_node("a", &[]);
    a.daemon().wait_ready().unwrap();
    let expected = routes_to(&cluster, &DUAL, &[&b]);
    let routes = |a: &Node| {
        let mut routes = a.host.kernel_state().unwrap().routes;
        routes.retain(|route| subnets.contains(&route.dst));
        routes.into_iter().collect::<Vec<_>>()
    };
    let wrong = |a: &Node| {
        for (subnet, gateway) in subnets.iter().zip(gateways) {
            a.ip(&format!("route replace {subnet} via {gateway} dev eth0 proto static"));
        }
    };

    // While the daemon runs …
    wrong(&a);
    wait_until("the peer's routes", HEALED, || {
        let found = routes(&a);
        if found == expected { Ok(()) } else { Err(format!("{found:#?}")) }
    })
    .unwrap();

    // … and before it starts. A route to a subnet without a lease is left alone.
    a.stop(Signal::TERM);
    wrong(&a);
    a.ip("route add 10.244.240.0/24 via 192.168.255.254 dev eth0");
    cluster.restart(&mut a);
    assert_eq!(routes(&a), expected);
    let foreign = a.host.kernel_state().unwrap().route("10.244.240.0/24").cloned().unwrap();
    assert_eq!(foreign.gateway.as_deref(), Some("192.168.255.254"));
    check_ping(&a, &b);
}
