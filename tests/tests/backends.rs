//! What an operator sees who changes `Backend.Type` and nothing else: containers reach each other.

use std::os::unix::fs::PermissionsExt;

use heddle_lab::{Container, Families, transfer};
use heddle_tests::{Cluster, Node, Overlay};

/// Every backend that carries packets.
const BACKENDS: [&str; 4] = ["vxlan", "host-gw", "udp", "vxlan-tun"];

/// How large a file is that has to arrive as it was sent.
const BYTES: u64 = 500_000_000;

/// The longest packet that gets through without being cut, where the underlay's is of 1500 bytes.
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

/// Two nodes of a cluster, and what each of them tells Docker.
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

/// A container on each node, once they have answered each other in every family, in packets as long as may be.
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

/// One after the other: each of these keeps a machine busy.
#[test]
fn any_type_alone_makes_containers_reach_each_other_and_large_files_arrive_whole() {
    for backend in BACKENDS {
        for families in [Families::V4, Families::Dual] {
            let cluster = Cluster::with_backend(families, backend);
            let nodes = pair(&cluster, backend);
            let [in_a, in_b] = reachable_containers(&nodes);
            // IPv4 there, IPv6 back.
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
fn any_type_works_with_ipv6_alone() {
    for backend in BACKENDS {
        let cluster = Cluster::with_backend(Families::V6, backend);
        let nodes = pair(&cluster, backend);
        reachable_containers(&nodes);
    }
}

#[test]
fn alloc_hands_out_subnets_and_no_more() {
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
