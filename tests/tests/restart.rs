//! Restarts of the daemon: no packet is lost, and objects that became stale meanwhile are removed.

use heddle_lab::{Container, Families, Signal};
use heddle_tests::{Cluster, NETWORK_FOR_PEERS, Node, Peer};
use serde_json::Value;

/// Returns the properties that peers and containers depend on.
fn identity(cluster: &Cluster, node: &Node) -> (String, String, Value, Value) {
    let lease = cluster.lease(node);
    let link = node.link("flannel.1");
    (lease.key, lease.value, link["address"].clone(), link["ifindex"].clone())
}

/// Stops and restarts a daemon while packets flow to and from its host, one per 10 ms in each
/// direction.
fn restart_under_traffic(signal: Signal, exit_code: Option<i32>) {
    let cluster = Cluster::new(Families::V4);
    let (mut a, b) = (cluster.node("a"), cluster.node("b"));
    let [in_a, in_b]: [Container; 2] = [&a, &b].map(|node| node.host.container().unwrap());
    let before = identity(&cluster, &a);
    in_a.ping(in_b.addresses()[0], 56).unwrap();
    let there = in_a.ping_stream(in_b.addresses()[0]).unwrap();
    let back = in_b.ping_stream(in_a.addresses()[0]).unwrap();
    there.wait_answers(20).unwrap();

    let kernel = a.objects("flannel.1");
    assert_eq!(a.stop(signal), exit_code);
    assert_eq!(a.objects("flannel.1"), kernel);
    there.wait_answers(20).unwrap();
    cluster.restart(&mut a);
    there.wait_answers(20).unwrap();

    for stream in [there, back] {
        let pings = stream.finish().unwrap();
        assert!(pings.answered >= 60 && pings.lost.is_empty(), "{pings:?}");
    }
    assert_eq!(identity(&cluster, &a), before);
    assert_eq!(a.objects("flannel.1"), kernel);
}

#[test]
fn killed_and_restarted_daemon_loses_no_packet() {
    restart_under_traffic(Signal::KILL, None);
}

#[test]
fn stopped_and_restarted_daemon_loses_no_packet() {
    restart_under_traffic(Signal::TERM, Some(0));
}

#[test]
fn sigint_stops_daemon() {
    let cluster = Cluster::new(Families::V4);
    let mut node = cluster.node("a");
    assert_eq!(node.stop(Signal::INT), Some(0));
    assert!(!node.link("flannel.1").is_null());
}

#[test]
fn objects_stale_at_start_are_gone_at_readiness() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let peers = Peer::range(0, 20);
    cluster.etcd().put_all(&Peer::leases(&peers), 100).unwrap();
    let mut node = cluster.node("a");
    node.stop(Signal::KILL);

    // Some peers leave, one moves, and another program adds entries to our device.
    for peer in &peers[..5] {
        cluster.delete_lease(&peer.lease_key());
    }
    let moved = peers[5].value().replace(&peers[5].public_ip().to_string(), "172.30.0.9");
    cluster.put_lease(&peers[5].lease_key(), &moved);
    node.bridge("fdb append 02:00:00:00:99:99 dev flannel.1 dst 172.30.0.8 self permanent");
    node.ip("neigh add 10.200.0.0 lladdr 02:00:00:00:99:99 dev flannel.1 nud permanent");

    // Foreign objects: inside the overlay, outside of it, and on another device.
    let foreign = [
        "route add 10.201.0.0/24 via 192.168.255.254 dev eth0 proto static",
        "route add 203.0.113.0/24 via 192.168.255.254 dev eth0",
        "route add blackhole 10.202.0.0/24",
        "neigh add 192.168.7.7 lladdr 02:00:00:00:77:77 dev eth0 nud permanent",
    ];
    for line in foreign {
        node.ip(line);
    }
    let others = || {
        let mut state = node.host.kernel_state().unwrap();
        state.routes.retain(|route| route.dev.as_deref() != Some("flannel.1"));
        state.neighbours.retain(|neighbour| neighbour.dev != "flannel.1");
        (state.routes, state.neighbours)
    };
    let before = others();
    assert_eq!((before.0.len(), before.1.len()), (4, 1), "with the default route");

    let mut command = cluster.heddled(&node.host);
    command.arg("-v=2");
    let mut daemon = node.host.start(command).unwrap();
    daemon.wait_ready().unwrap();

    let mut expected = Peer::objects(&peers[5..], "72");
    expected.fdb = expected
        .fdb
        .into_iter()
        .map(|mut entry| {
            if entry.mac == peers[5].mac() {
                entry.dst = Some("172.30.0.9".into());
            }
            entry
        })
        .collect();
    assert_eq!(node.objects("flannel.1"), expected);
    assert_eq!(others(), before);
}

#[test]
fn incompatible_device_is_replaced_compatible_one_kept() {
    let cluster = Cluster::new(Families::V4);
    let host = cluster.host("a");
    // As flannel leaves it behind: without our mark, and with a MAC of its own.
    let add = |port: u16| {
        format!(
            "link add name flannel.1 address 02:00:00:00:0f:0f type vxlan id 1 local {} dev eth0 dstport {port} nolearning",
            host.v4()
        )
    };
    let device = || -> (Value, Value, Value) {
        let links: Vec<Value> = host.namespace().json("ip", "-d -j link show flannel.1").unwrap();
        let link = &links[0];
        let port = link["linkinfo"]["info_data"]["port"].clone();
        (link["ifindex"].clone(), link["address"].clone(), port)
    };
    host.namespace().ip(&add(8472)).unwrap();
    let before = device();
    let mut daemon = host.start(cluster.heddled(&host)).unwrap();
    daemon.wait_ready().unwrap();
    assert_eq!(device(), before);
    let lease = cluster.find_lease("a").unwrap();
    assert!(lease.value.contains(r#""VtepMAC":"02:00:00:00:0f:0f""#), "{}", lease.value);
    drop(daemon);

    host.namespace().ip("link del flannel.1").unwrap();
    host.namespace().ip(&add(4789)).unwrap();
    let mut daemon = host.start(cluster.heddled(&host)).unwrap();
    daemon.wait_ready().unwrap();
    assert_eq!(device().2, 8472);
}
