//! Thousands of peers.

use std::time::Duration;

use heddle_lab::{Families, KernelState, PREFIX, wait_until};
use heddle_tests::{Cluster, NETWORK_FOR_PEERS, Node, Peer};

/// Time limit for thousands of changes on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Number of peers: that of the largest flannel clusters.
const COUNT: u16 = 4000;

/// Compares counts and all values. The error message is kept short, because there may be 12,000
/// objects.
fn compare(node: &Node, peers: &[Peer]) -> Result<(), String> {
    let expected = Peer::objects(peers, "72");
    let found = node.objects("flannel.1");
    let counts =
        |state: &KernelState| (state.routes.len(), state.neighbours.len(), state.fdb.len());
    if counts(&found) != counts(&expected) {
        return Err(format!("{:?} instead of {:?}", counts(&found), counts(&expected)));
    }
    if found == expected {
        return Ok(());
    }
    let mut odd: Vec<_> = found.routes.symmetric_difference(&expected.routes).collect();
    odd.truncate(5);
    Err(format!("as many as expected, but others: {odd:?}"))
}

fn check(node: &Node, peers: &[Peer]) {
    compare(node, peers).unwrap();
}

fn wait_for(node: &Node, peers: &[Peer]) {
    let what = format!("exactly {} peers", peers.len());
    wait_until(what, LIMIT, || compare(node, peers)).unwrap();
}

#[test]
fn all_peers_are_programmed_at_readiness() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let peers = Peer::range(0, COUNT);
    cluster.etcd().put_all(&Peer::leases(&peers), 100).unwrap();
    let node = cluster.node("a");
    check(&node, &peers);
}

#[test]
fn changed_leases_are_programmed_without_exception() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let mut node = cluster.node("a");
    let peers = Peer::range(0, COUNT);
    let (one_by_one, in_hundreds) = peers.split_at(usize::from(COUNT / 2));

    let noise = |number: u16| {
        vec![
            (format!("{PREFIX}/subnets-old/10.9.{number}.0-24"), "not a lease".to_owned()),
            (format!("{PREFIX}/subnets/nonsense-{number}"), "{}".to_owned()),
            (format!("{PREFIX}/subnets/10.1.{number}.0-24"), "garbage".to_owned()),
        ]
    };
    cluster.etcd().put_all(&noise(1), 1).unwrap();
    cluster.etcd().put_all(&Peer::leases(one_by_one), 1).unwrap();
    cluster.etcd().put_all(&noise(2), 3).unwrap();
    wait_for(&node, one_by_one);

    cluster.etcd().put_all(&Peer::leases(in_hundreds), 100).unwrap();
    cluster.etcd().put_all(&noise(3), 3).unwrap();
    wait_for(&node, &peers);

    let (gone, left): (Vec<Peer>, Vec<Peer>) = peers.iter().partition(|peer| peer.0 % 3 == 0);
    let keys: Vec<_> = gone.iter().map(|peer| peer.etcd_key()).collect();
    cluster.etcd().delete_all(&keys).unwrap();
    wait_for(&node, &left);
    node.daemon().check_running().unwrap();
}

#[test]
fn snapshot_after_watch_gap_keeps_all_peers() {
    let mut cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let peers = Peer::range(0, 300);
    cluster.etcd().put_all(&Peer::leases(&peers[..200]), 100).unwrap();
    let node = cluster.node("a");
    check(&node, &peers[..200]);

    // During the disconnection a hundred peers leave, a hundred join, and etcd compacts its
    // history.
    node.host.namespace().ip("link set eth0 down").unwrap();
    let gone: Vec<_> = peers[..100].iter().map(|peer| peer.etcd_key()).collect();
    cluster.etcd().delete_all(&gone).unwrap();
    cluster.etcd().put_all(&Peer::leases(&peers[200..]), 100).unwrap();
    cluster.etcd().compact().unwrap();
    cluster.etcd_mut().stop();
    cluster.etcd_mut().resume().unwrap();
    node.host.namespace().ip("link set eth0 up").unwrap();
    // The kernel removes the default route with the interface.
    node.host.namespace().ip("route add default via 192.168.255.254 dev eth0").unwrap();
    wait_for(&node, &peers[100..]);
}
