//! Failures of etcd, and of the connection between etcd and a node.

use std::net::IpAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use heddle_lab::{
    Clients, Etcd, Families, KernelState, KeyValue, Lab, Monitor, Signal, wait_until,
};
use heddle_tests::victim::cpu_time;
use heddle_tests::wording::not_used;
use heddle_tests::{
    Authority, Cluster, Flow, Loss, NETWORK_FOR_PEERS, Node, Peer, SOON, cut, heal, recovered,
    wait_ready, wait_unready,
};

/// Time limit for a node to notice that etcd is gone, or to catch up, on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Length of an outage after all nodes have noticed it.
const OUTAGE: Duration = Duration::from_secs(10);

/// Nodes with continuous traffic between their containers.
struct Scene {
    flow: Flow,
    nodes: Vec<Node>,
    /// The nodes' leases at the beginning.
    leases: Vec<KeyValue>,
    cluster: Cluster,
}

impl Scene {
    /// Starts two nodes with a single-member etcd.
    fn new() -> Self {
        Self::with_peers(&[])
    }

    /// Starts two nodes, with peers that consist of a lease only.
    fn with_peers(peers: &[Peer]) -> Self {
        let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
        cluster.etcd().put_all(&Peer::leases(peers), 100).unwrap();
        let nodes = cluster.nodes(["a", "b"]);
        Self::of(cluster, nodes.into())
    }

    /// Creates a scene of nodes that are ready.
    fn of(cluster: Cluster, nodes: Vec<Node>) -> Self {
        wait_exact(&cluster, &nodes);
        let leases = nodes.iter().map(|node| cluster.lease(node)).collect();
        Self { flow: Flow::between(&nodes[0], &nodes[1]), nodes, leases, cluster }
    }

    fn etcd(&self) -> &Etcd {
        self.cluster.etcd()
    }

    fn etcd_address(&self) -> IpAddr {
        self.etcd().host().v4().into()
    }

    /// Returns the overlay's objects in each node's kernel.
    fn kernels(&self) -> Vec<KernelState> {
        self.nodes.iter().map(|node| node.objects("flannel.1")).collect()
    }

    /// Stops etcd, changes its data, and starts it again. Returns the time of its first answer.
    fn restart_etcd(&mut self, data: impl FnOnce(&Etcd)) -> Instant {
        self.cluster.etcd_mut().stop();
        data(self.etcd());
        self.cluster.etcd_mut().resume().unwrap();
        Instant::now()
    }

    /// Waits until all nodes have noticed the outage, and lets it last: traffic continues, and the
    /// nodes use little CPU time and log little.
    fn endure(&mut self, kernels: &[KernelState], reason: &str) {
        for node in &mut self.nodes {
            wait_unready(node.daemon(), &[reason], LIMIT);
        }
        let times = |nodes: &mut Vec<Node>| -> Vec<_> {
            nodes.iter_mut().map(|node| cpu_time(node.daemon().pid())).collect()
        };
        let before = times(&mut self.nodes);
        sleep(OUTAGE);
        for (before, now) in before.into_iter().zip(times(&mut self.nodes)) {
            assert!(now - before < OUTAGE / 10, "{:?} of work in {OUTAGE:?}", now - before);
        }
        for node in &mut self.nodes {
            assert_eq!(node.daemon().health("/healthz").unwrap().0, 200);
            let lines = node.daemon().log().lines().count();
            assert!(lines < 100, "{lines} lines of log");
        }
        assert_eq!(self.kernels(), kernels);
        self.flow.goes_on();
    }

    /// Waits until each node is ready, has its original lease, and has exactly the objects for the
    /// leases in etcd.
    fn recover(&mut self, row: &str, since: Instant) {
        for node in &mut self.nodes {
            wait_ready(node.daemon(), LIMIT);
        }
        wait_until("the same leases as before", LIMIT, || {
            let now: Vec<_> = self.nodes.iter().map(|n| self.cluster.lease_of(&n.host)).collect();
            let same = now.iter().zip(&self.leases).all(|(now, before)| {
                now.as_ref()
                    .is_some_and(|now| (&now.key, &now.value) == (&before.key, &before.value))
            });
            if same { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .unwrap();
        wait_exact(&self.cluster, &self.nodes);
        recovered(row, since.elapsed());
        for node in &mut self.nodes {
            node.daemon().check_running().unwrap();
        }
    }

    /// Asserts that no packet was lost since the beginning.
    fn end(self) {
        self.flow.end_without_loss();
    }
}

/// Waits until the nodes have exactly the objects for the leases in etcd.
fn wait_exact(cluster: &Cluster, nodes: &[Node]) {
    for node in nodes {
        wait_until(format!("the plan, on {}", node.host.name()), LIMIT, || {
            let (found, planned) = (node.objects("flannel.1"), cluster.planned(&node.host));
            if found == planned { Ok(()) } else { Err(difference(&found, &planned)) }
        })
        .unwrap();
    }
}

/// Describes the routes and FDB entries that differ, which may be few of many.
fn difference(found: &KernelState, planned: &KernelState) -> String {
    let routes: Vec<_> = found.routes.symmetric_difference(&planned.routes).take(3).collect();
    let fdb: Vec<_> = found.fdb.symmetric_difference(&planned.fdb).take(3).collect();
    format!("{} objects instead of {}: {routes:?} {fdb:?}", found.len(), planned.len())
}

#[test]
fn row_03_a_bad_record_or_a_failed_call_costs_no_peer() {
    let peers = Peer::range(0, 3);
    let mut scene = Scene::with_peers(&peers);
    let kernels = scene.kernels();
    let prefix = heddle_lab::PREFIX;
    for (key, value) in [
        (peers[0].etcd_key(), "not json"),
        (peers[1].etcd_key(), r#"{"PublicIP":7}"#),
        (format!("{prefix}/subnets/10.200.0.0-24"), ""),
        (format!("{prefix}/subnets/nonsense"), "{}"),
        // Looks like a lease, but is not below the prefix of the leases.
        (format!("{prefix}/subnets-old/10.201.0.0-24"), &*peers[0].value()),
    ] {
        scene.etcd().put(&key, value).unwrap();
    }
    let last = Peer(9);
    scene.etcd().put(&last.etcd_key(), &last.value()).unwrap();
    for node in &mut scene.nodes {
        for key in [&peers[0].lease_key(), &peers[1].lease_key(), "10.200.0.0-24", "nonsense"] {
            node.daemon().wait_log(&["WARN", &not_used(key)], SOON).unwrap();
        }
        wait_until("the last peer", SOON, || {
            let found = node.objects("flannel.1");
            found.route(&format!("{}/24", last.subnet())).map(drop).ok_or(found.len())
        })
        .unwrap();
        assert!(!node.daemon().log().contains("10.201.0.0"), "{}", node.daemon().log());
    }
    scene.etcd().delete(&last.etcd_key()).unwrap();
    wait_until("as before", SOON, || {
        let now = scene.kernels();
        if now == kernels { Ok(()) } else { Err(format!("{now:#?}")) }
    })
    .unwrap();

    // All calls of one node fail.
    let address = scene.etcd_address();
    cut(&scene.nodes[0].host, address, Loss::Refused);
    wait_unready(scene.nodes[0].daemon(), &["etcd"], LIMIT);
    assert_eq!(scene.kernels(), kernels);
    heal(&scene.nodes[0].host);
    let healed = Instant::now();
    scene.etcd().put_all(&Peer::leases(&peers), 3).unwrap();
    scene.recover("3", healed);
    scene.end();
}

#[test]
fn row_04_changes_behind_partition_and_compaction_are_caught_up() {
    let peers = Peer::range(0, 300);
    let mut scene = Scene::with_peers(&peers[..200]);
    let kernels = scene.kernels();
    let address = scene.etcd_address();
    cut(&scene.nodes[0].host, address, Loss::Silent);
    wait_unready(scene.nodes[0].daemon(), &["etcd"], LIMIT);

    // In responses of a hundred events each: some leases are deleted, some get another MAC or
    // address under the same key, some are added. In addition, this node's own record is damaged.
    let other =
        |from: &Peer, old: &str, new: &str| (from.etcd_key(), from.value().replace(old, new));
    let gone: Vec<_> = peers[..50].iter().map(|peer| peer.etcd_key()).collect();
    scene.etcd().delete_all(&gone).unwrap();
    let moved: Vec<_> = (peers[50..100].iter().map(|p| other(p, ":00:00:00:", ":00:01:00:")))
        .chain(peers[100..150].iter().map(|p| other(p, "\"172.16.", "\"172.17.")))
        .collect();
    scene.etcd().put_all(&moved, 100).unwrap();
    scene.etcd().put_all(&Peer::leases(&peers[200..]), 100).unwrap();
    wait_exact(&scene.cluster, &scene.nodes[1..]);
    let own = &scene.leases[0];
    scene.etcd().put_with_lease(&own.key, "{", own.lease).unwrap();
    scene.etcd().compact().unwrap();
    assert_eq!(scene.kernels()[0], kernels[0]);

    heal(&scene.nodes[0].host);
    scene.recover("4, partition and compaction", Instant::now());
    assert_eq!(scene.kernels()[0].routes.len(), 251);
    scene.end();
}

/// Returns the kernel's deletions according to `ip monitor`.
fn losses(node: &Node, monitor: &Monitor) -> Vec<String> {
    let mut lines = monitor.drain(node.host.namespace()).unwrap();
    // The kernel expires entries of multicast groups by itself.
    let relevant = |line: &str| line.contains("flannel.1") && !line.contains("NOARP");
    lines.retain(|line| line.starts_with("Deleted") && relevant(line));
    lines
}

#[test]
fn row_04_an_etcd_that_lost_its_data_costs_no_flow() {
    let mut scene = Scene::new();
    let monitors: Vec<_> =
        scene.nodes.iter().map(|n| Monitor::start(n.host.namespace()).unwrap()).collect();
    let since = scene.restart_etcd(|etcd| etcd.replace_data(None).unwrap());
    scene.recover("4, data lost", since);
    for (node, monitor) in scene.nodes.iter().zip(&monitors) {
        assert_eq!(losses(node, monitor), Vec::<String>::new());
    }
    for node in &mut scene.nodes {
        node.daemon().wait_log(&["WARN", "etcd went back from revision"], SOON).unwrap();
        node.daemon()
            .wait_log(&["deleted or expired; created again with the same subnet"], SOON)
            .unwrap();
    }
    scene.end();
}

#[test]
fn row_04_an_etcd_restored_from_an_old_copy_costs_no_flow() {
    let mut cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let a = cluster.node("a");
    cluster.etcd_mut().stop();
    let copy = cluster.etcd().copy_data().unwrap();
    cluster.etcd_mut().resume().unwrap();
    let b = cluster.node("b");
    let mut scene = Scene::of(cluster, vec![a, b]);
    // Create many revisions that the copy does not have, and a lease for b. The copy has a's lease.
    let passing = Peer(9);
    for _ in 0..20 {
        scene.etcd().put(&passing.etcd_key(), &passing.value()).unwrap();
        scene.etcd().delete(&passing.etcd_key()).unwrap();
    }
    wait_exact(&scene.cluster, &scene.nodes);
    let monitor = Monitor::start(scene.nodes[0].host.namespace()).unwrap();
    let since = scene.restart_etcd(|etcd| etcd.replace_data(Some(&copy)).unwrap());
    scene.recover("4, old copy", since);
    assert_eq!(losses(&scene.nodes[0], &monitor), Vec::<String>::new());
    scene.nodes[0].daemon().wait_log(&["WARN", "etcd went back from revision"], SOON).unwrap();
    scene.end();
}

#[test]
fn row_04_peer_that_does_not_return_is_removed_in_the_end() {
    /// Shorter than the two minutes that a node has to write its lease again.
    const NOT_YET: Duration = Duration::from_secs(90);
    let peers = Peer::range(0, 2);
    let mut scene = Scene::with_peers(&peers);
    let routes = |scene: &Scene, peer: &Peer| -> Vec<bool> {
        let destination = format!("{}/24", peer.subnet());
        scene.kernels().iter().map(|kernel| kernel.route(&destination).is_some()).collect()
    };
    let kernels = scene.kernels();
    let since = scene.restart_etcd(|etcd| etcd.replace_data(None).unwrap());
    wait_until("both leases", LIMIT, || {
        let leases = scene.etcd().leases().unwrap();
        if leases.len() == 2 { Ok(()) } else { Err(format!("{leases:?}")) }
    })
    .unwrap();
    // One of the two subnets is assigned to another node meanwhile. The other peer's objects stay.
    let heir =
        peers[0].value().replace("\"172.16.", "\"172.17.").replace(":00:00:00:", ":00:01:00:");
    scene.etcd().put(&peers[0].etcd_key(), &heir).unwrap();
    while since.elapsed() < NOT_YET {
        assert_eq!(routes(&scene, &peers[1]), [true, true]);
        assert_eq!(scene.kernels()[0].len(), kernels[0].len());
        sleep(Duration::from_secs(1));
    }
    let found = scene.kernels();
    assert!(
        found[0].fdb.iter().any(|entry| entry.dst.as_deref() == Some("172.17.0.0")),
        "{found:#?}"
    );
    scene.recover("4, data lost, a peer gone", since);
    assert_eq!(routes(&scene, &peers[1]), [false, false]);
    scene.end();
}

/// Causes an outage for all nodes, ends it, and waits for the recovery.
fn outage(row: &str, begin: impl FnOnce(&mut Cluster), end: impl FnOnce(&mut Cluster)) {
    let mut scene = Scene::with_peers(&Peer::range(0, 3));
    let kernels = scene.kernels();
    begin(&mut scene.cluster);
    scene.endure(&kernels, "etcd");
    end(&mut scene.cluster);
    let ended = Instant::now();
    let late = Peer(7);
    scene.etcd().put(&late.etcd_key(), &late.value()).unwrap();
    scene.recover(row, ended);
    scene.end();
}

#[test]
fn row_05_etcd_that_is_killed_is_missed_and_found_again() {
    let resume = |cluster: &mut Cluster| cluster.etcd_mut().resume().unwrap();
    outage("5, etcd killed", |cluster| cluster.etcd_mut().stop(), resume);
}

#[test]
fn row_05_etcd_that_hangs_is_missed_and_found_again() {
    let signal = |signal| move |cluster: &mut Cluster| cluster.etcd().signal(signal).unwrap();
    outage("5, etcd paused", signal(Signal::STOP), signal(Signal::CONT));
}

#[test]
fn row_05_etcd_without_a_link_is_missed_and_found_again() {
    let set = |state: &'static str| {
        move |cluster: &mut Cluster| {
            let command = format!("link set eth0 {state}");
            cluster.etcd().host().namespace().ip(&command).unwrap();
        }
    };
    outage("5, etcd's link down", set("down"), set("up"));
}

#[test]
fn row_05_a_node_without_a_link_comes_back_by_itself() {
    let mut cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let [mut a, b, c] = cluster.nodes(["a", "b", "c"]);
    let flow = Flow::between(&b, &c);
    let before = cluster.lease(&a);
    a.ip("link set eth0 down");
    wait_unready(a.daemon(), &["etcd"], LIMIT);
    let peers = Peer::range(0, 5);
    cluster.etcd().put_all(&Peer::leases(&peers), 5).unwrap();
    a.ip("link set eth0 up");
    let up = Instant::now();
    // The kernel removes the default route with the interface. It belongs to whoever configures the
    // network, so the test restores it.
    a.ip("route add default via 192.168.255.254 dev eth0");
    wait_ready(a.daemon(), LIMIT);
    let nodes = [a, b, c];
    wait_exact(&cluster, &nodes);
    recovered("5, a node's link down", up.elapsed());
    assert_eq!(cluster.lease(&nodes[0]), before);
    flow.end_without_loss();
    cluster.etcd_mut().stop();
}

#[test]
fn row_05_a_first_read_without_an_answer_is_made_again() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    cluster.etcd().put_all(&Peer::leases(&Peer::range(0, 3)), 3).unwrap();
    cluster.etcd().signal(Signal::STOP).unwrap();
    let mut node = cluster.starting_node("a", &[]);
    wait_unready(node.daemon(), &["no answer within"], LIMIT);
    assert!(node.objects("flannel.1").is_empty());
    cluster.etcd().signal(Signal::CONT).unwrap();
    let since = Instant::now();
    wait_ready(node.daemon(), LIMIT);
    wait_exact(&cluster, &[node]);
    recovered("5, first read hangs", since.elapsed());
}

#[test]
fn row_05_full_etcd_is_reported_while_own_lease_is_missing() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let mut nodes = cluster.nodes(["a", "b", "c"]);
    wait_exact(&cluster, &nodes);
    let flow = Flow::between(&nodes[1], &nodes[2]);
    let before = cluster.lease(&nodes[0]);
    // etcd still answers reads and watches. But nodes that start now do not learn of this node.
    cluster.etcd().set_full(true).unwrap();
    cluster.etcd().delete(&before.key).unwrap();
    wait_unready(nodes[0].daemon(), &["lease: keeping", "database space exceeded"], LIMIT);
    cluster.etcd().set_full(false).unwrap();
    let since = Instant::now();
    wait_ready(nodes[0].daemon(), LIMIT);
    let after = cluster.lease(&nodes[0]);
    wait_exact(&cluster, &nodes);
    recovered("5, etcd full", since.elapsed());
    assert_eq!((after.key, after.value), (before.key, before.value));
    flow.end_without_loss();
}

#[test]
fn row_05_loss_of_leader_and_then_quorum_is_survived() {
    let lab = Lab::new(Families::V4).unwrap();
    let mut members = Etcd::start_members(&lab, 3).unwrap();
    let leader = wait_until("one that leads", LIMIT, || {
        members.iter().position(|member| member.is_leader().unwrap()).ok_or("none does")
    })
    .unwrap();
    let mut leader = members.remove(leader);
    let mut other = members.remove(0);
    // The last member keeps running, and serves the tests' requests.
    let cluster = Cluster::with_etcd_and_config(lab, members.remove(0), NETWORK_FOR_PEERS);
    let nodes = cluster.nodes(["a", "b"]);
    let mut scene = Scene::of(cluster, nodes.into());

    leader.stop();
    let since = Instant::now();
    let peer = Peer(1);
    wait_until("a new leader", LIMIT, || scene.etcd().put(&peer.etcd_key(), &peer.value()))
        .unwrap();
    scene.recover("5, leader lost", since);

    let kernels = scene.kernels();
    other.stop();
    scene.endure(&kernels, "etcd");
    leader.launch().unwrap();
    other.launch().unwrap();
    leader.wait_answering().unwrap();
    other.wait_answering().unwrap();
    let since = Instant::now();
    let peer = Peer(2);
    wait_until("a leader again", LIMIT, || scene.etcd().put(&peer.etcd_key(), &peer.value()))
        .unwrap();
    scene.recover("5, quorum lost", since);
    scene.end();
}

#[test]
fn row_06_a_renewal_never_overwrites_another_owner() {
    const THIEF: &str = r#"{"PublicIP":"172.16.0.9","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:09"},"NodeID":"thief"}"#;
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let mut nodes = cluster.nodes(["a", "b", "c"]);
    wait_exact(&cluster, &nodes);
    let flow = Flow::between(&nodes[1], &nodes[2]);
    let lease = cluster.lease(&nodes[0]);

    // While a is disconnected, its lease expires and another node gets its subnet.
    cut(&nodes[0].host, cluster.etcd().host().v4().into(), Loss::Silent);
    cluster.etcd().revoke(lease.lease).unwrap();
    cluster.etcd().put(&lease.key, THIEF).unwrap();
    wait_unready(nodes[0].daemon(), &["etcd"], LIMIT);
    heal(&nodes[0].host);
    let since = Instant::now();

    // a logs an error and exits with a failure, so that systemd restarts it.
    nodes[0].daemon().wait_log(&["ERROR", "thief", "172.16.0.9"], LIMIT).unwrap();
    assert_eq!(nodes[0].ended(SOON).0, Some(1));
    assert_eq!(cluster.etcd().get(&lease.key).unwrap().unwrap().value, THIEF);
    cluster.restart(&mut nodes[0]);
    wait_exact(&cluster, &nodes);
    recovered("6", since.elapsed());
    assert_ne!(cluster.lease(&nodes[0]).key, lease.key);
    assert_eq!(cluster.etcd().get(&lease.key).unwrap().unwrap().value, THIEF);
    flow.end_without_loss();
}

#[test]
fn row_08_a_reservation_stays_one() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let host = cluster.host("a");
    let reservation = format!(r#"{{"PublicIP":"{}"}}"#, host.v4());
    let key = format!("{}/subnets/10.0.99.0-24", heddle_lab::PREFIX);
    cluster.etcd().put(&key, &reservation).unwrap();
    let nodes = vec![cluster.node_on(host), cluster.node("b")];
    let published = cluster.etcd().get(&key).unwrap().unwrap();
    assert_eq!(published.lease, 0, "it would end in a day");

    // The operator writes it once more. Until it is replaced, no peer knows how to reach the node.
    cluster.etcd().put(&key, &reservation).unwrap();
    let since = Instant::now();
    wait_until("what the node publishes", SOON, || {
        let now = cluster.etcd().get(&key).unwrap().unwrap();
        if now.value == published.value { Ok(()) } else { Err(now.value) }
    })
    .unwrap();
    wait_exact(&cluster, &nodes);
    recovered("8, reserved again", since.elapsed());

    // etcd and the daemon are killed.
    let mut scene = Scene::of(cluster, nodes);
    let since = scene.restart_etcd(|_| ());
    scene.recover("8, etcd killed", since);
    scene.nodes[0].stop(Signal::KILL);
    let since = Instant::now();
    scene.cluster.restart(&mut scene.nodes[0]);
    scene.recover("8, daemon killed", since);
    assert_eq!(scene.etcd().get(&key).unwrap().unwrap().lease, 0, "it would end in a day");
    assert_ne!(scene.leases[1].lease, 0);
    assert_eq!(scene.etcd().leases().unwrap().len(), 2);
    scene.end();
}

/// Returns the flags for TLS.
fn tls_flags(authority: &Path, client: Option<(&Path, &Path)>) -> Vec<String> {
    let mut flags = vec![format!("--etcd-cafile={}", authority.display())];
    if let Some((certificate, key)) = client {
        flags.push(format!("--etcd-certfile={}", certificate.display()));
        flags.push(format!("--etcd-keyfile={}", key.display()));
    }
    flags
}

#[test]
fn row_15_an_authority_without_a_client_certificate_is_enough() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path());
    let lab = Lab::new(Families::V4).unwrap();
    let server = |address| authority.issue("server", Some(address));
    let etcd = Etcd::start_with_tls(&lab, Clients::Anyone, server).unwrap();
    let cluster = Cluster::with_etcd_and_config(lab, etcd, NETWORK_FOR_PEERS);
    let flags = tls_flags(&directory.path().join("ca.pem"), None);
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let mut nodes: Vec<_> = ["a", "b"].map(|name| cluster.starting_node(name, &flags)).into();
    for node in &mut nodes {
        node.daemon().wait_ready().unwrap();
    }
    let mut scene = Scene::of(cluster, nodes);
    let since = scene.restart_etcd(|_| ());
    scene.recover("15, authority alone, etcd killed", since);
    scene.end();
}

#[test]
fn row_15_expiring_certificates_are_replaced_without_restart() {
    /// Long enough for two nodes to join.
    const LIFE: Duration = Duration::from_secs(40);
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path());
    let lab = Lab::new(Families::V4).unwrap();
    let end = SystemTime::now() + LIFE;
    let server = |address| authority.issue_until("server", Some(address), end);
    let etcd = Etcd::start_with_tls(&lab, Clients::Known, server).unwrap();
    let address = etcd.host().v4().into();
    let client = authority.issue_until("client", None, end);
    let cluster = Cluster::with_etcd_and_config(lab, etcd, NETWORK_FOR_PEERS);
    let flags = tls_flags(&client.authority, Some((&client.certificate, &client.key)));
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let mut nodes: Vec<_> = ["a", "b"].map(|name| cluster.starting_node(name, &flags)).into();
    for node in &mut nodes {
        node.daemon().wait_ready().unwrap();
    }
    let mut scene = Scene::of(cluster, nodes);
    let kernels = scene.kernels();

    // Existing connections stay up. New connections are refused.
    sleep(end.duration_since(SystemTime::now()).unwrap_or_default() + Duration::from_secs(2));
    for node in &mut scene.nodes {
        assert_eq!(node.daemon().health("/readyz").unwrap().0, 200);
    }
    scene.restart_etcd(|_| ());
    scene.endure(&kernels, "the server's certificate is refused");
    authority.issue("server", Some(address));
    for node in &mut scene.nodes {
        wait_unready(node.daemon(), &["--etcd-certfile"], LIMIT);
    }
    authority.issue("client", None);
    scene.recover("15, certificates expired", Instant::now());
    scene.end();
}
