//! The question which lease is a node's own: after changes of its address and of the families, and
//! beside other daemons with its id or its address.

use std::process::Command;
use std::time::Duration;

use heddle_lab::{Container, Families, Signal, Transfer, transfer};
use heddle_tests::{Cluster, Node, heddle};

/// Rate of a transfer that runs meanwhile, in bytes per second.
const RATE: u64 = 200_000;

/// Longest time that a node waits for the holder of a lease, plus an allowance for a slow machine.
const ASKED: Duration = Duration::from_secs(40);

/// Sends data from one container to another for some seconds, and acts after the first of them.
fn while_connected(from: &Container, to: &Container, seconds: u64, act: impl FnOnce()) -> Transfer {
    std::thread::scope(|scope| {
        let (source, target) = (from.namespace(), to.namespace());
        let address = to.addresses()[0];
        let sending =
            scope.spawn(move || transfer(source, target, address, seconds * RATE, Some(RATE)));
        std::thread::sleep(Duration::from_secs(1));
        act();
        assert!(!sending.is_finished(), "the transfer is too short to show anything");
        sending.join().unwrap().unwrap()
    })
}

/// Stops a daemon and starts it with other flags, without the subnet.env of the earlier run.
fn restart_without_memory(cluster: &Cluster, node: &mut Node, flags: &[&str]) {
    node.stop(Signal::TERM);
    std::fs::remove_file(node.host.subnet_file()).unwrap();
    let flags: Vec<_> = flags.iter().map(ToString::to_string).collect();
    cluster.restart_with(node, &flags);
}

/// Returns the destinations of a node's FDB entries.
fn destinations(node: &Node) -> Vec<String> {
    let state = node.host.kernel_state().unwrap();
    state.fdb.into_iter().filter_map(|entry| entry.dst).collect()
}

#[test]
fn other_address_of_the_host_keeps_container_connections() {
    let cluster = Cluster::new(Families::V4);
    let [mut a, b] = cluster.nodes(["a", "b"]);
    let [in_a, in_b]: [Container; 2] = [&a, &b].map(|node| node.host.container().unwrap());
    let before = cluster.lease(&a);
    a.ip("addr add 192.168.77.1/16 dev eth0");
    let moved = while_connected(&in_b, &in_a, 15, || {
        restart_without_memory(&cluster, &mut a, &["--public-ip=192.168.77.1"]);
    });
    assert!(moved.is_whole(), "{moved:?}");
    let after = cluster.lease(&a);
    assert_eq!(after.key, before.key);
    assert!(after.value.contains(r#""PublicIP":"192.168.77.1""#), "{}", after.value);
    assert_eq!(cluster.etcd().leases().unwrap().len(), 2);
    assert_eq!(destinations(&b), ["192.168.77.1"]);
    assert_eq!(a.objects("flannel.1").routes.len(), 1);
    // Without the flag, the address that peers know is still there, though not the first one.
    restart_without_memory(&cluster, &mut a, &[]);
    assert_eq!(cluster.lease(&a).value, after.value);
}

/// Returns the part of a node's lease key for one family.
fn subnet(cluster: &Cluster, node: &Node, is_v4: bool) -> Option<String> {
    let subnets = cluster.subnets(node);
    subnets.iter().find(|subnet| subnet.addr().is_ipv4() == is_v4).map(ToString::to_string)
}

#[test]
fn family_added_and_removed_node_by_node_keeps_connections() {
    let [v4, dual] = [Families::V4, Families::Dual].map(Families::config);
    let cluster = Cluster::with_config(Families::Dual, Some(&v4));
    let [mut a, mut b] = cluster.nodes(["a", "b"]);
    let [in_a, in_b]: [Container; 2] = [&a, &b].map(|node| node.host.container().unwrap());
    let before = [&a, &b].map(|node| subnet(&cluster, node, true).unwrap());
    for (config, families) in [(&dual, 2), (&v4, 1)] {
        let kept = while_connected(&in_a, &in_b, 20, || {
            cluster.store().put_config(config).unwrap();
            restart_without_memory(&cluster, &mut a, &[]);
            // One node of each kind.
            assert_eq!(cluster.etcd().leases().unwrap().len(), 2);
            in_b.ping(in_a.addresses()[0], 56).unwrap();
            restart_without_memory(&cluster, &mut b, &[]);
        });
        assert!(kept.is_whole(), "{kept:?}");
        assert_eq!([&a, &b].map(|node| subnet(&cluster, node, true).unwrap()), before);
        assert_eq!(cluster.subnets(&a).len(), families);
        assert_eq!(cluster.etcd().leases().unwrap().len(), 2);
    }
    assert_eq!(subnet(&cluster, &a, false), None);
}

/// Returns a command that releases a lease, as on this node.
fn release(cluster: &Cluster, node: &Node, subnet: &str) -> Command {
    let mut command = Command::new(heddle());
    command.args(["lease", "release", subnet]);
    command.args(cluster.heddled(&node.host).get_args());
    // Do not read the environment file of a Heddle that may be installed on this machine.
    command.arg("--environment-file=-/no/such/file");
    command
}

#[test]
fn new_machine_with_address_of_a_dead_node_takes_its_subnet() {
    let cluster = Cluster::new(Families::V4);
    let [mut a, mut b] = cluster.nodes(["a", "b"]);
    let [in_a, in_b]: [Container; 2] = [&a, &b].map(|node| node.host.container().unwrap());
    let before = cluster.lease(&a).key;
    let (state, kept) = (
        a.host.directory().join("other"),
        while_connected(&in_b, &in_a, 30, || {
            a.stop(Signal::KILL);
            std::fs::remove_file(a.host.subnet_file()).unwrap();
            let state = a.host.directory().join("other");
            let flags = ["--node-id=new".to_owned(), format!("--state-dir={}", state.display())];
            cluster.restart_with(&mut a, &flags);
        }),
    );
    assert!(kept.is_whole() && state.exists(), "{kept:?}");
    assert_eq!(cluster.find_lease("new").unwrap().key, before);
    assert_eq!(cluster.etcd().leases().unwrap().len(), 2);

    let of_b = subnet(&cluster, &b, true).unwrap();
    let refused = b.host.namespace().run(release(&cluster, &b, &of_b)).unwrap_err().to_string();
    assert!(refused.contains("is there and keeps it"), "{refused}");
    b.daemon().check_running().unwrap();
    b.stop(Signal::TERM);
    b.host.namespace().run(release(&cluster, &b, &of_b)).unwrap();
    assert_eq!(cluster.etcd().leases().unwrap().len(), 1);
}

#[test]
fn second_daemon_on_the_host_of_a_live_one_is_refused() {
    let cluster = Cluster::new(Families::V4);
    let mut node = cluster.node("a");
    let before = cluster.lease(&node);
    let directory = node.host.directory().to_owned();
    let own = |flag: &str, name: &str| format!("{flag}={}", directory.join(name).display());
    let beside = [
        own("--subnet-file", "2.env"),
        own("--control-socket", "2.sock"),
        "--healthz-port=0".to_owned(),
    ];
    let identity = ["--node-id=2".to_owned(), own("--state-dir", "2")];
    for (flags, expected) in [
        (&[][..], "another heddled of /coreos.com/network runs on this host"),
        (&identity[..], "and that node keeps its lease"),
    ] {
        let mut command = cluster.heddled(&node.host);
        command.args(&beside).args(flags);
        let mut second = node.host.start(command).unwrap();
        let status = second.wait_exit(ASKED).unwrap();
        assert!(!status.success() && second.log().contains(expected), "{}", second.log());
    }
    node.daemon().check_running().unwrap();
    let after = cluster.lease(&node);
    assert_eq!((after.key, after.value), (before.key, before.value));
    assert_eq!(cluster.etcd().leases().unwrap().len(), 1);
}
