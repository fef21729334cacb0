//! `/healthz` and `/readyz`, with etcd and without.

use std::time::Duration;

use heddle_lab::{Daemon, Families, Signal, wait_until};
use heddle_tests::{Cluster, NETWORK_FOR_PEERS, Peer, SOON, wait_ready, wait_unready};

/// Time limit for the daemon to notice that etcd is gone, or back.
const NOTICED: Duration = Duration::from_secs(60);

#[test]
fn daemon_without_config_is_healthy_and_unready() {
    let cluster = Cluster::with_config(Families::V4, None);
    let mut node = cluster.starting_node("a", &[]);
    let health = wait_until("/healthz", SOON, || node.daemon().health("/healthz")).unwrap();
    assert_eq!(health.0, 200);
    let (status, body) = node.daemon().health("/readyz").unwrap();
    assert_eq!(status, 503);
    assert!(body.contains("config"), "{body}");

    cluster.store().put_config(&Families::V4.config()).unwrap();
    node.daemon().wait_ready().unwrap();
    assert_eq!(node.daemon().health("/readyz").unwrap().0, 200);
    assert_eq!(node.daemon().health("/healthz").unwrap().0, 200);
    assert_eq!(node.daemon().health("/nonsense").unwrap().0, 404);
}

#[test]
fn health_port_in_use_exits_and_is_named() {
    let cluster = Cluster::new(Families::V4);
    let first = cluster.node("a");
    let mut second = first.host.start(cluster.heddled(&first.host)).unwrap();
    assert!(!second.wait_exit(SOON).unwrap().success());
    assert!(second.log().contains(&Daemon::HEALTH_PORT.to_string()), "{}", second.log());
}

/// An outage of etcd: packets keep flowing, `/readyz` reports it, and the daemon catches up
/// afterwards.
fn outage(end: impl FnOnce(&mut Cluster), resume: impl FnOnce(&mut Cluster)) {
    let mut cluster = Cluster::new(Families::V4);
    let (mut a, b) = (cluster.node("a"), cluster.node("b"));
    let [in_a, in_b] = [&a, &b].map(|node| node.host.container().unwrap());
    in_a.ping(in_b.addresses()[0], 56).unwrap();
    let before = a.objects("flannel.1");
    let pings = in_a.ping_stream(in_b.addresses()[0]).unwrap();
    pings.wait_answers(10).unwrap();

    end(&mut cluster);
    wait_unready(a.daemon(), &["etcd"], NOTICED);
    assert_eq!(a.daemon().health("/healthz").unwrap().0, 200);
    assert_eq!(a.objects("flannel.1"), before);
    resume(&mut cluster);
    wait_ready(a.daemon(), NOTICED);
    let late = r#"{"PublicIP":"172.16.0.9","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:09"}}"#;
    cluster.put_lease("10.244.250.0-24", late);
    wait_until("the new peer", SOON, || {
        let found = a.objects("flannel.1");
        if found.route("10.244.250.0/24").is_some() { Ok(()) } else { Err(format!("{found:#?}")) }
    })
    .unwrap();
    let pings = pings.finish().unwrap();
    assert!(pings.lost.is_empty(), "{pings:?}");
    let log = a.daemon().log();
    assert!(log.lines().count() < 200, "{} lines of log", log.lines().count());
}

#[test]
fn packets_flow_while_etcd_is_down() {
    outage(|cluster| cluster.etcd_mut().stop(), |cluster| cluster.etcd_mut().resume().unwrap());
}

#[test]
fn packets_flow_while_etcd_hangs() {
    outage(
        |cluster| cluster.etcd().signal(Signal::STOP).unwrap(),
        |cluster| cluster.etcd().signal(Signal::CONT).unwrap(),
    );
}

#[test]
fn node_started_without_etcd_waits_for_it() {
    let mut cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let peers = Peer::range(0, 3);
    cluster.etcd().put_all(&Peer::leases(&peers), 3).unwrap();
    cluster.etcd_mut().stop();
    let mut node = cluster.starting_node("a", &[]);
    wait_unready(node.daemon(), &["etcd"], NOTICED);
    cluster.etcd_mut().resume().unwrap();
    wait_ready(node.daemon(), NOTICED);
    assert_eq!(node.objects("flannel.1"), Peer::objects(&peers, "72"));
}

#[test]
fn unresponsive_service_manager_does_not_block_daemon() {
    // A socket's queue holds ten messages (net.unix.max_dgram_qlen), and after READY=1 nobody reads
    // them here.
    const CHANGES: usize = 12;
    let cluster = Cluster::new(Families::V4);
    let mut node = cluster.node("a");
    for _ in 0..CHANGES {
        node.ip("link set eth0 down");
        wait_unready(node.daemon(), &["underlay"], SOON);
        node.ip("link set eth0 up");
        wait_ready(node.daemon(), NOTICED);
    }
    assert_eq!(node.daemon().health("/healthz").unwrap().0, 200);
    assert_eq!(node.stop(Signal::TERM), Some(0));
}
