//! The udp backend: the objects it programs, and the configurations it refuses.

use std::net::SocketAddr;

use heddle_lab::{Families, Route, Signal, transfer};
use heddle_tests::{Cluster, Node, Overlay, PROTOCOL, SOON, UDP_PORT};
use serde_json::json;

/// Name of the device, as in flannel.
const DEVICE: &str = "flannel0";

/// Returns the device's MTU over an underlay with an MTU of 1500, less the longest outer headers.
fn mtu(families: Families) -> u32 {
    if families.v6() { 1500 - 48 } else { 1500 - 28 }
}

/// Checks every property of the device that the specification names.
fn check_device(cluster: &Cluster, node: &Node) {
    let families = cluster.lab().families();
    assert_eq!(node.devices(), [DEVICE]);
    let link = node.link(DEVICE);
    assert_eq!(link["linkinfo"]["info_kind"], "tun", "{link:#}");
    assert_eq!(link["linkinfo"]["info_data"]["type"], "tun", "{link:#}");
    // The device ends with the daemon.
    assert_eq!(link["linkinfo"]["info_data"]["persist"], false, "{link:#}");
    assert_eq!(link["mtu"], mtu(families), "{link:#}");
    assert!(link["flags"].as_array().unwrap().contains(&json!("UP")), "{link:#}");
    let addresses: Vec<_> = link["addr_info"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|info| info["scope"] == "global")
        .map(|info| (info["local"].as_str().unwrap().to_owned(), info["prefixlen"].clone()))
        .collect();
    let expected: Vec<_> = cluster
        .subnets(node)
        .iter()
        .map(|subnet| (subnet.addr().to_string(), json!(subnet.max_prefix_len())))
        .collect();
    assert_eq!(addresses, expected);
    let accept_ra = node.host.namespace().sysctl(&format!("ipv6/conf/{DEVICE}/accept_ra"));
    assert_eq!(accept_ra.unwrap(), "0");
}

/// Returns the only route, which covers the whole overlay.
fn route(overlay: Overlay) -> Route {
    Route {
        dst: overlay.network().to_owned(),
        gateway: None,
        dev: Some(DEVICE.into()),
        kind: None,
        protocol: Some(PROTOCOL.into()),
        flags: vec![],
        metric: (overlay == Overlay::V6).then_some(1024),
    }
}

fn two_nodes(families: Families) {
    let overlays = Overlay::all(families);
    let cluster = Cluster::with_backend(families, "udp");
    let [mut a, b] = cluster.nodes(["a", "b"]);
    for node in [&a, &b] {
        check_device(&cluster, node);
        let objects = node.objects(DEVICE);
        let expected = overlays.iter().map(|&overlay| route(overlay)).collect();
        assert_eq!(objects.routes, expected);
        assert_eq!(objects.len(), overlays.len(), "{objects:#?}");
        assert_eq!(node.routes().len(), overlays.len());
        assert_eq!(cluster.lease(node).value, node.lease_value(overlays, None, |_| None));
        let env = std::fs::read_to_string(node.host.subnet_file()).unwrap();
        assert_eq!(env, cluster.subnet_env(node, mtu(families)));
    }

    // The device is gone while the daemon is stopped, and the same afterwards.
    let [in_a, in_b] = [&a, &b].map(|node| node.host.container().unwrap());
    let ping = || {
        for &address in in_b.addresses() {
            in_a.ping(address, 56).unwrap();
        }
    };
    ping();
    let lease = cluster.lease(&a);
    assert_eq!(a.stop(Signal::TERM), Some(0));
    assert_eq!(a.devices(), [""; 0]);
    assert_eq!(a.routes(), []);
    cluster.restart(&mut a);
    check_device(&cluster, &a);
    assert_eq!((cluster.lease(&a).key, cluster.lease(&a).value), (lease.key, lease.value));
    ping();
}

#[test]
fn node_has_one_device_and_one_route_per_family() {
    for families in [Families::V4, Families::V6, Families::Dual] {
        two_nodes(families);
    }
}

/// A container's device sends super-packets as large as IP allows. If the TUN device accepted less,
/// the kernel would segment each of them first, and the daemon would read every segment separately.
#[test]
fn super_packets_of_container_reach_device_unsegmented() {
    const BYTES: u64 = 200 << 20;
    let cluster = Cluster::with_backend(Families::Dual, "udp");
    let [a, b] = cluster.nodes(["a", "b"]);
    let [in_a, in_b] = [&a, &b].map(|node| node.host.container().unwrap());
    for &address in in_b.addresses() {
        let before = a.packets(DEVICE, "tx");
        let done = transfer(in_a.namespace(), in_b.namespace(), address, BYTES, None).unwrap();
        assert!(done.is_whole(), "{done:?}");
        let handed_over = a.packets(DEVICE, "tx") - before;
        let segments = BYTES / u64::from(mtu(Families::Dual));
        println!("{handed_over} packets for {segments} segments to {address}");
        assert!(handed_over * 5 < segments, "{handed_over} packets for {segments} segments");
    }
}

/// Asserts that a daemon waits because of an obstacle, and becomes ready once `free` has removed
/// it.
fn waits_for<T>(prepare: impl FnOnce(&Node) -> T, complaint: &[&str], free: impl FnOnce(&Node, T)) {
    let cluster = Cluster::with_backend(Families::Dual, "udp");
    let mut node = cluster.node("a");
    let lease = cluster.lease(&node).key;
    node.stop(Signal::TERM);
    let obstacle = prepare(&node);
    let before = node.host.kernel_state().unwrap();

    let mut daemon = node.host.start(cluster.heddled(&node.host)).unwrap();
    daemon.wait_log(complaint, SOON).unwrap();
    let (status, reasons) = daemon.health("/readyz").unwrap();
    assert_eq!(status, 503, "{reasons}");
    assert!(complaint.iter().all(|text| reasons.contains(text)), "{reasons}");
    // The daemon retries every second, and logs the error once.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    daemon.check_running().unwrap();
    assert_eq!(daemon.log().matches(complaint[0]).count(), 1, "{}", daemon.log());
    assert_eq!(node.host.kernel_state().unwrap(), before);

    free(&node, obstacle);
    daemon.wait_ready().unwrap();
    check_device(&cluster, &node);
    assert_eq!(cluster.lease(&node).key, lease);
}

#[test]
fn foreign_device_of_same_name_is_kept_and_waited_for() {
    let complaint = ["device flannel0 exists already", "ip link delete flannel0"];
    for add in ["link add name flannel0 type bridge", "tuntap add dev flannel0 mode tun"] {
        waits_for(
            |node| {
                node.ip(add);
                node.link(DEVICE)
            },
            &complaint,
            |node, device| {
                assert_eq!(node.link(DEVICE), device);
                node.ip("link delete flannel0");
            },
        );
    }
}

#[test]
fn port_in_use_is_reported_and_waited_for() {
    for overlay in [Overlay::V4, Overlay::V6] {
        let taken = match overlay {
            Overlay::V4 => "cannot use UDP 192.168.0.2:8285",
            Overlay::V6 => "cannot use UDP [fd00::2]:8285",
        };
        waits_for(
            |node| {
                let address = SocketAddr::new(overlay.address_of(&node.host), UDP_PORT);
                node.host.namespace().udp_socket(address).unwrap()
            },
            &[taken, "another program has the port", "Backend.Port"],
            |_, socket| drop(socket),
        );
    }
}
