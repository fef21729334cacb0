//! `Backend.Type`, or the network, is changed and the daemons are restarted one after another: the
//! objects of the former one are removed, and until the last node has followed, the only effect is
//! that some nodes do not reach each other.

use heddle_lab::{Container, Families, Signal, wait_until};
use heddle_tests::{Cluster, Node, SOON};

/// Backends that follow vxlan, in this order. The two that carry VXLAN follow each other, because
/// they use the same port. udp and alloc do not, because neither writes a backend type to its
/// leases.
const BACKENDS: [&str; 6] = ["udp", "host-gw", "vxlan", "vxlan-tun", "vxlan", "alloc"];

/// Returns the node's devices with this backend.
fn devices(backend: &str) -> &'static [&'static str] {
    match backend {
        "vxlan" => &["flannel-v6.1", "flannel.1"],
        "udp" => &["flannel0"],
        "vxlan-tun" => &["vtun.1"],
        _ => &[],
    }
}

/// Returns the destinations of the node's routes with this backend, to these peers.
fn destinations(cluster: &Cluster, backend: &str, peers: &[&Node]) -> Vec<String> {
    let mut destinations: Vec<_> = match backend {
        "alloc" => vec![],
        "udp" | "vxlan-tun" => vec!["10.244.0.0/16".to_owned(), "fd00:10:244::/48".to_owned()],
        _ => {
            let subnets = peers.iter().flat_map(|peer| cluster.subnets(peer));
            subnets.map(|subnet| subnet.to_string()).collect()
        }
    };
    destinations.sort();
    destinations
}

/// Asserts that a node has exactly the objects of one backend, with these peers of the same
/// backend.
fn check_node(cluster: &Cluster, backend: &str, node: &Node, peers: &[&Node]) {
    let expected = destinations(cluster, backend, peers);
    heddle_lab::wait_until(format!("{backend} alone on {}", node.host.name()), SOON, || {
        let mut found = node.devices();
        found.sort();
        let mut routes: Vec<_> = node.routes().into_iter().map(|route| route.dst).collect();
        routes.sort();
        // No other route is left, of any origin, except the default routes.
        let others = node.host.kernel_state().unwrap().routes.len() - routes.len();
        if found == devices(backend) && routes == expected && others == 2 {
            return Ok(());
        }
        Err(format!("devices {found:?}, routes {routes:?}, {others} others"))
    })
    .unwrap();
}

/// Asserts that two containers reach each other in both families.
fn check_ping(one: &Container, other: &Container) {
    for (from, to) in [(one, other), (other, one)] {
        for &address in to.addresses() {
            from.ping(address, 56).unwrap();
        }
    }
}

/// Asserts that a node's log names a peer, and the backend of its lease.
fn check_named(cluster: &Cluster, node: &mut Node, peer: &Node, backend: &str) {
    // A lease without a type is read as one of udp.
    let backend = if backend == "alloc" { "udp" } else { backend };
    let key = cluster.lease(peer).key.rsplit('/').next().unwrap().to_owned();
    let owner = format!("(node id {})", peer.host.name());
    let what = format!("the lease is for the backend {backend}");
    node.daemon().wait_log(&[&key, &owner, &what], SOON).unwrap();
    node.daemon().check_running().unwrap();
    let (code, body) = node.daemon().health("/readyz").unwrap();
    assert!(code == 200 && body.contains("no plan"), "{body}");
}

fn start_again(cluster: &Cluster, node: &mut Node) {
    assert_eq!(node.stop(Signal::TERM), Some(0));
    cluster.restart(node);
}

#[test]
fn backend_change_node_by_node_leaves_no_objects() {
    let cluster = Cluster::with_backend(Families::Dual, "vxlan");
    let mut nodes = cluster.nodes(["a", "b", "c"]);
    let containers = nodes.each_ref().map(|node| node.host.container().unwrap());
    let [in_a, in_b, in_c] = &containers;
    let keys = |nodes: &[Node; 3]| nodes.each_ref().map(|node| cluster.lease(node).key);
    let before = keys(&nodes);
    let mut former = "vxlan";

    for backend in BACKENDS {
        println!("from {former} to {backend}");
        cluster.store().put_config(&Families::Dual.config_with(backend)).unwrap();
        let [a, b, c] = &mut nodes;

        // The first node follows. The others only see that it is unreachable.
        check_ping(in_b, in_c);
        let streams = in_c.addresses().iter().map(|address| in_b.ping_stream(*address).unwrap());
        let streams: Vec<_> = streams.collect();
        start_again(&cluster, a);
        for peer in [&mut *b, &mut *c] {
            check_named(&cluster, a, peer, former);
            check_named(&cluster, peer, a, backend);
        }
        check_node(&cluster, backend, a, &[]);
        check_node(&cluster, former, b, &[c]);
        for stream in streams {
            stream.wait_answers(20).unwrap();
            let pings = stream.finish().unwrap();
            assert!(pings.lost.is_empty(), "{former}, while a leaves for {backend}: {pings:?}");
        }

        // The second node follows, and reaches the first.
        start_again(&cluster, b);
        check_named(&cluster, b, c, former);
        check_named(&cluster, c, b, backend);
        check_node(&cluster, backend, b, &[a]);
        if backend != "alloc" {
            check_ping(in_a, in_b);
        }

        start_again(&cluster, c);
        let [a, b, c] = &nodes;
        check_node(&cluster, backend, a, &[b, c]);
        check_node(&cluster, backend, b, &[a, c]);
        check_node(&cluster, backend, c, &[a, b]);
        if backend != "alloc" {
            check_ping(in_a, in_b);
            check_ping(in_b, in_c);
            check_ping(in_c, in_a);
        }
        assert_eq!(keys(&nodes), before, "{former} to {backend}");
        former = backend;
    }
}

#[test]
fn changed_network_removes_routes_of_former_one() {
    for backend in [r#"{"Type": "host-gw"}"#, r#"{"Type": "vxlan", "DirectRouting": true}"#] {
        let former = Families::Dual.config_of(backend);
        let cluster = Cluster::with_config(Families::Dual, Some(&former));
        let mut nodes = cluster.nodes(["a", "b"]);
        let destinations = |node: &Node| {
            let destinations = node.routes().into_iter().map(|route| route.dst);
            destinations.collect::<Vec<_>>()
        };
        wait_until("routes to the peer", SOON, || match destinations(&nodes[0]) {
            found if found.len() == 2 => Ok(()),
            found => Err(format!("{backend}: {found:?}")),
        })
        .unwrap();
        // A foreign route is left alone.
        let foreign = "10.244.255.0/24";
        nodes[0].ip(&format!("route add {foreign} via 192.168.255.254 dev eth0 proto static"));

        let other = former.replace("10.244.", "10.245.").replace("10:244:", "10:245:");
        cluster.store().put_config(&other).unwrap();
        let [a, b] = &mut nodes;
        start_again(&cluster, a);
        // READY means that the cleanup is complete.
        assert_eq!(destinations(a), [""; 0], "{backend}");
        start_again(&cluster, b);
        wait_until("routes in the other network", SOON, || {
            let found = destinations(a);
            let there = |prefix| found.iter().any(|route: &String| route.starts_with(prefix));
            if found.len() == 2 && there("10.245.") && there("fd00:10:245:") {
                return Ok(());
            }
            Err(format!("{backend}: {found:?}"))
        })
        .unwrap();
        assert!(a.host.kernel_state().unwrap().route(foreign).is_some(), "{backend}");
    }
}
