//! Changing `Backend.Type`, and nothing else, keeps containers reachable.

use std::os::unix::fs::PermissionsExt;

use heddle_lab::{Container, Families, transfer};
use heddle_tests::{Cluster, Node, Overlay};

/// All backends that carry packets.
const BACKENDS: [&str; 4] = ["vxlan", "host-gw", "udp", "vxlan-tun"];

/// Size of the transferred file, which must arrive intact.
const BYTES: u64 = 500_000_000;

/// Returns the largest packet that is not fragmented over an underlay with an MTU of 1500.
fn mtu(backend: &str, families: Families) -> u32 {
    let outer = if families.v6() { 40 } else { 20 };
    let around = match backend {
        // VXLAN and Ethernet.
        "vxlan" | "vxlan-tun" => outer + 8 + 22,
        "udp" => outer + 8,
        _ => 0,
    };
    1500 - around
}

/// Starts two nodes, and checks the `subnet.env` that each writes for Docker.
fn pair(cluster: &Cluster, backend: &str) -> [Node; 2] {
    let nodes = cluster.nodes(["a", "b"]);
    for node in &nodes {
        let expected = cluster.subnet_env(node, mtu(backend, cluster.lab().families()));
        let file = node.host.subnet_file();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), expected, "{backend}");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o644);
    }
    nodes
}

/// Starts a container on each node, and waits until they answer each other in every family, with
/// packets of the full MTU.
fn reachable_containers(nodes: &[Node; 2]) -> [Container; 2] {
    let containers = nodes.each_ref().map(|node| node.host.container().unwrap());
    let [in_a, in_b] = &containers;
    let mtu = nodes[0].host.subnet_env().unwrap().mtu.unwrap();
    for (from, to) in [(in_a, in_b), (in_b, in_a)] {
        for &address in to.addresses() {
            let headers = if address.is_ipv4() { 28 } else { 48 };
            from.ping(address, mtu - headers).unwrap();
        }
    }
    containers
}

/// Runs the backends sequentially, because each of them keeps a machine busy.
#[test]
fn backend_type_alone_connects_containers_and_carries_files() {
    for backend in BACKENDS {
        for families in [Families::V4, Families::Dual] {
            let cluster = Cluster::with_backend(families, backend);
            let nodes = pair(&cluster, backend);
            let [in_a, in_b] = reachable_containers(&nodes);
            // IPv4 in one direction, IPv6 in the other.
            let ways = [(&in_a, &in_b), (&in_b, &in_a)];
            for (number, (from, to)) in ways.into_iter().enumerate() {
                let Some(&address) = to.addresses().get(number) else { continue };
                let (from, to) = (from.namespace(), to.namespace());
                let moved = transfer(from, to, address, BYTES, None).unwrap();
                println!("{backend}, {families:?}, to {address}: {moved:?}");
                assert_eq!(moved.bytes, BYTES, "{backend}, {families:?}: {moved:?}");
                assert!(moved.is_whole(), "{backend}, {families:?}: {moved:?}");
            }
        }
    }
}

#[test]
fn any_backend_type_works_with_ipv6_only() {
    for backend in BACKENDS {
        let cluster = Cluster::with_backend(Families::V6, backend);
        let nodes = pair(&cluster, backend);
        reachable_containers(&nodes);
    }
}

#[test]
fn alloc_assigns_subnets_and_plans_nothing() {
    for families in [Families::V4, Families::Dual] {
        let cluster = Cluster::with_backend(families, "alloc");
        let mut nodes = pair(&cluster, "alloc");
        assert_ne!(cluster.lease(&nodes[0]).key, cluster.lease(&nodes[1]).key);
        for node in &mut nodes {
            let lease = cluster.lease(node);
            assert_eq!(lease.value, node.lease_value(Overlay::all(families), None, |_| None));
            assert_eq!(cluster.etcd().time_to_live(lease.lease).unwrap().0, 86_400);
            assert_eq!(node.devices(), [""; 0]);
            assert_eq!(node.routes(), []);
            node.daemon().check_running().unwrap();
        }
    }
}
