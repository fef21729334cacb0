//! Nodes cloned from one image.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;
use std::time::Instant;

use heddle_lab::{Daemon, Families, Host, wait_until};
use heddle_tests::{Cluster, Flow, NETWORK_FOR_PEERS, Node, SOON, recovered};
use serde_json::Value;

/// Starts a daemon that derives its node id from the machine id only. That is the same for all
/// hosts of a lab, like for machines cloned from one image.
fn clone(cluster: &Cluster, host: &Host) -> Daemon {
    let command = cluster.heddled(host);
    let mut anonymous = Command::new(command.get_program());
    let says_who = |argument: &&OsStr| argument.to_string_lossy().starts_with("--node-id");
    anonymous.args(command.get_args().filter(|argument| !says_who(argument)));
    host.start(anonymous).unwrap()
}

/// Returns key and value of the lease that publishes the host's address.
fn lease_at(cluster: &Cluster, host: &Host) -> (String, Value) {
    let address = host.v4().to_string();
    let leases = cluster.etcd().leases().unwrap().into_iter();
    let mut leases =
        leases.map(|(key, value)| (key, serde_json::from_str::<Value>(&value).unwrap()));
    leases.find(|(_, value)| value["PublicIP"] == *address).expect("it has a lease")
}

#[test]
fn row_17_machines_that_are_copies_of_each_other_are_told_apart() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let hosts = ["a", "b"].map(|name| cluster.host(name));
    // Sequentially, so that the second finds a lease with its own node id.
    let mut daemons = hosts.each_ref().map(|host| {
        let mut daemon = clone(&cluster, host);
        daemon.wait_ready().unwrap();
        daemon
    });
    let leases = hosts.each_ref().map(|host| lease_at(&cluster, host));
    let [(key, one), (other_key, other)] = &leases;
    assert_eq!(one["NodeID"], other["NodeID"], "they are copies");
    assert_ne!(key, other_key);
    assert_ne!(one["BackendData"]["VtepMAC"], other["BackendData"]["VtepMAC"]);
    let since = Instant::now();
    for (host, daemon) in hosts.iter().zip(&mut daemons) {
        daemon.check_running().unwrap();
        wait_until(format!("the plan, on {}", host.name()), SOON, || {
            let found = host.kernel_state().unwrap().on("flannel.1");
            let planned = cluster.planned(host);
            if found == planned { Ok(()) } else { Err(format!("{found:#?}")) }
        })
        .unwrap();
    }
    recovered("17, one machine id", since.elapsed());
}

#[test]
fn row_17_address_of_another_node_is_refused_and_holder_named() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    // Like machines of one image behind NAT, each of which detects the same address.
    let shared = "--public-ip=198.51.100.15";
    let mut first = cluster.starting_node("first", &[shared]);
    first.daemon().wait_ready().unwrap();
    let lease = cluster.lease(&first);
    let mut nodes: [Node; 2] = cluster.nodes(["a", "b"]);
    let flow = Flow::between(&nodes[0], &nodes[1]);

    let mut second = cluster.starting_node("second", &[shared]);
    let since = Instant::now();
    assert_eq!(second.ended(SOON).0, Some(1));
    let log = fs::read_to_string(second.host.directory().join("heddled-0.log")).unwrap();
    let said = |line: &&str| line.contains("ERROR") && line.contains("198.51.100.15");
    let error = log.lines().find(said).unwrap_or_else(|| panic!("{log}"));
    for text in ["first", "--public-ip", "--iface"] {
        assert!(error.contains(text), "{error}");
    }
    assert_eq!(cluster.lease(&first), lease);
    assert_eq!(cluster.etcd().leases().unwrap().len(), 3);
    for node in nodes.iter_mut().chain([&mut first]) {
        node.daemon().check_running().unwrap();
    }

    // With its own address, the node joins like any other.
    let mut command = cluster.heddled(&second.host);
    command.arg(format!("--public-ip={}", second.host.v4()));
    let mut daemon = second.host.start(command).unwrap();
    daemon.wait_ready().unwrap();
    recovered("17, one address", since.elapsed());
    flow.end_without_loss();
}
