//! Leases in etcd: other nodes' and the node's own.

use std::collections::BTreeSet;
use std::time::Duration;

use heddle_lab::{Families, Signal, wait_until};
use heddle_tests::{Cluster, NETWORK_FOR_PEERS, Node, Peer, SOON};

/// Waits until exactly these peers are programmed.
fn wait_for_peers(node: &Node, peers: &[Peer]) {
    let expected = Peer::objects(peers, "72");
    wait_until(format!("{} peers", peers.len()), SOON, || {
        let found = node.objects("flannel.1");
        if found == expected { Ok(()) } else { Err(format!("{found:#?}")) }
    })
    .unwrap();
}

#[test]
fn leases_of_all_flannel_versions_are_programmed() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let peers = Peer::range(1, 2);
    // As written by flannel v0.14: no VNI, no PublicIPv6.
    let old = format!(
        r#"{{"PublicIP":"{}","BackendType":"vxlan","BackendData":{{"VtepMAC":"{}"}}}}"#,
        peers[0].public_ip(),
        peers[0].mac()
    );
    cluster.put_lease(&peers[0].lease_key(), &old);
    let node = cluster.node("a");
    wait_for_peers(&node, &peers[..1]);

    cluster.put_lease(&peers[1].lease_key(), &peers[1].value());
    wait_for_peers(&node, &peers);

    // Another machine takes over the subnet.
    let moved = peers[1].value().replace(&peers[1].mac(), "02:00:00:00:aa:aa");
    cluster.put_lease(&peers[1].lease_key(), &moved);
    wait_until("the new address", SOON, || {
        let found = node.objects("flannel.1");
        let is_new = |mac: &str| mac == "02:00:00:00:aa:aa";
        let new = found.fdb.iter().any(|entry| is_new(&entry.mac))
            && found.neighbours.iter().any(|n| n.lladdr.as_deref().is_some_and(is_new));
        if new && found.len() == 6 { Ok(()) } else { Err(format!("{found:#?}")) }
    })
    .unwrap();

    cluster.delete_lease(&peers[1].lease_key());
    wait_for_peers(&node, &peers[..1]);
}

#[test]
fn unusable_records_harm_no_peer() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let good = Peer::range(1, 3);
    cluster.etcd().put_all(&Peer::leases(&good), 3).unwrap();
    let garbage = [
        ("10.200.0.0-24", "not json"),
        ("10.200.1.0-24", ""),
        ("10.200.2.0-24", r#"{"PublicIP":"192.168.0.720","BackendType":"vxlan"}"#),
        ("10.200.3.0-24", r#"{"PublicIP":"172.17.0.1","BackendType":"vxlan","BackendData":"x"}"#),
        (
            "10.200.4.0-24",
            r#"{"PublicIP":"172.17.0.2","BackendType":"vxlan","BackendData":{"VtepMAC":"nope"}}"#,
        ),
        ("10.200.5.0-24", r#"{"PublicIP":"172.17.0.3","BackendType":"host-gw"}"#),
        ("nonsense", r#"{"PublicIP":"172.17.0.4","BackendType":"vxlan"}"#),
        ("10.200.6.0-24/x", r#"{"PublicIP":"172.17.0.5","BackendType":"vxlan"}"#),
        // Outside of the network.
        (
            "203.0.113.0-24",
            r#"{"PublicIP":"172.17.0.6","BackendType":"vxlan","BackendData":{"VtepMAC":"02:00:00:00:bb:bb"}}"#,
        ),
    ];
    for (key, value) in &garbage[..4] {
        cluster.put_lease(key, value);
    }
    let mut node = cluster.node("a");
    wait_for_peers(&node, &good);

    for (key, value) in &garbage[4..] {
        cluster.put_lease(key, value);
    }
    // A valid record that turns invalid: its objects stay.
    cluster.put_lease(&good[2].lease_key(), "{");
    let late = Peer(9);
    cluster.put_lease(&late.lease_key(), &late.value());
    wait_for_peers(&node, &[good[0], good[1], good[2], late]);
    for text in
        ["10.200.0.0-24", "10.200.2.0-24", "10.200.4.0-24", "nonsense", &good[2].lease_key()]
    {
        node.daemon().wait_log(&[text], SOON).unwrap();
    }
    node.daemon().check_running().unwrap();
}

#[test]
fn reservation_is_used_by_its_node_and_kept() {
    let cluster = Cluster::new(Families::V4);
    let mut node = cluster.starting_node("a", &[]);
    // The daemon may have leased a subnet already; the reservation is for the next start.
    node.daemon().wait_ready().unwrap();
    node.stop(Signal::TERM);
    let lease = cluster.lease(&node);
    cluster.etcd().delete(&lease.key).unwrap();
    std::fs::remove_file(node.host.subnet_file()).unwrap();
    let reservation = format!(r#"{{"PublicIP":"{}"}}"#, node.host.v4());
    cluster.put_lease("10.244.99.0-24", &reservation);

    for _ in 0..2 {
        cluster.restart(&mut node);
        let lease = cluster.lease(&node);
        assert!(lease.key.ends_with("/10.244.99.0-24"), "{}", lease.key);
        assert_eq!(lease.lease, 0, "the reservation has become a lease with a TTL");
        assert_eq!(cluster.etcd().leases().unwrap().len(), 1);
        let env = std::fs::read_to_string(node.host.subnet_file()).unwrap();
        assert!(env.contains("FLANNEL_SUBNET=10.244.99.1/24\n"), "{env}");
        node.stop(Signal::TERM);
    }
}

#[test]
fn node_with_address_of_another_refuses_and_names_it() {
    let cluster = Cluster::new(Families::V4);
    let mut first = cluster.node("first");
    let before = cluster.lease(&first);
    let address = format!("--public-ip={}", first.host.v4());
    let mut second = cluster.starting_node("second", &[&address]);

    let status = second.daemon().wait_exit(SOON).unwrap();
    assert!(!status.success());
    let log = second.daemon().log();
    assert!(log.contains("first") && log.contains(&first.host.v4().to_string()), "{log}");
    assert_eq!(cluster.etcd().leases().unwrap().len(), 1);
    assert_eq!(cluster.lease(&first), before);
    first.daemon().check_running().unwrap();
}

#[test]
fn deleted_own_lease_is_recreated() {
    let cluster = Cluster::new(Families::V4);
    let mut node = cluster.node("a");
    let before = cluster.lease(&node);
    cluster.etcd().delete(&before.key).unwrap();
    let after =
        wait_until("a new lease", SOON, || cluster.find_lease("a").ok_or("there is none")).unwrap();
    assert_eq!((&after.key, &after.value), (&before.key, &before.value));
    assert_ne!(after.lease, 0);
    node.daemon().check_running().unwrap();
}

#[test]
fn own_lease_taken_by_another_node_exits_daemon() {
    let cluster = Cluster::new(Families::V4);
    let mut node = cluster.node("a");
    let lease = cluster.lease(&node);
    let thief = r#"{"PublicIP":"172.16.0.9","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:09"},"NodeID":"thief"}"#;
    cluster.etcd().put(&lease.key, thief).unwrap();
    let status = node.daemon().wait_exit(SOON).unwrap();
    assert!(!status.success(), "systemd would not restart it");
    assert!(node.daemon().log().contains("thief"), "{}", node.daemon().log());
    assert_eq!(cluster.etcd().get(&lease.key).unwrap().unwrap().value, thief);
}

#[test]
fn previous_subnet_is_leased_again_after_expiry() {
    let cluster = Cluster::new(Families::V4);
    let mut node = cluster.node("a");
    let before = cluster.lease(&node).key;
    node.stop(Signal::TERM);
    cluster.etcd().delete(&before).unwrap();
    cluster.restart(&mut node);
    assert_eq!(cluster.lease(&node).key, before);
}

#[test]
fn twenty_nodes_starting_at_once_get_a_subnet_each() {
    const NODES: usize = 20;
    // 31 subnets for 20 nodes, so that their choices collide.
    let config = r#"{"Network":"10.244.0.0/19","SubnetLen":24,"Backend":{"Type":"vxlan"}}"#;
    let cluster = Cluster::with_config(Families::V4, Some(config));
    let mut nodes: Vec<_> =
        (0..NODES).map(|n| cluster.starting_node(&format!("n{n}"), &[])).collect();
    for node in &mut nodes {
        node.daemon().wait_ready().unwrap();
    }
    let keys: BTreeSet<_> = nodes.iter().map(|node| cluster.lease(node).key).collect();
    assert_eq!(keys.len(), NODES);
    assert_eq!(cluster.etcd().leases().unwrap().len(), NODES);
    for node in &nodes {
        wait_until("a route to each of the others", Duration::from_secs(20), || {
            match node.objects("flannel.1").routes.len() {
                count if count == NODES - 1 => Ok(()),
                count => Err(format!("{count} routes on {}", node.host.name())),
            }
        })
        .unwrap();
    }
}
