//! Nodes that start: all at once, and as copies of each other.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use heddle_lab::{Daemon, Families, Host, wait_until};
use heddle_tests::{Cluster, Flow, NETWORK_FOR_PEERS, Node, SOON, recovered};
use serde_json::Value;

/// How many nodes boot at once.
const NODES: usize = 200;

/// For two hundred daemons on a few processors that others use, too.
const LIMIT: Duration = Duration::from_secs(600);

#[test]
fn row_07_two_hundred_nodes_that_boot_at_once_get_a_subnet_each() {
    // 254 subnets: nearly everybody wants what somebody else wants.
    let config = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;
    let cluster = Cluster::with_config(Families::V4, Some(config));
    let hosts: Vec<Host> = (0..NODES).map(|n| cluster.host(&format!("n{n}"))).collect();
    let started = Instant::now();
    let mut daemons: Vec<Daemon> =
        hosts.iter().map(|host| host.start(cluster.heddled(host)).unwrap()).collect();
    let all_started = started.elapsed();
    let mut times: Vec<Duration> =
        daemons.iter_mut().map(|daemon| daemon.wait_ready_within(LIMIT).unwrap()).collect();
    let all_ready = started.elapsed();
    times.sort();

    let leases = cluster.etcd().leases().unwrap();
    let owners: BTreeSet<String> = leases
        .values()
        .map(|lease| {
            let lease: Value = serde_json::from_str(lease).unwrap();
            lease["NodeID"].as_str().unwrap().to_owned()
        })
        .collect();
    // Keys are subnets of one length, so as many keys are as many subnets.
    assert!(leases.keys().all(|key| key.ends_with(".0-24")), "{leases:#?}");
    assert_eq!((leases.len(), owners.len()), (NODES, NODES));
    for host in &hosts {
        wait_until(format!("the plan, on {}", host.name()), LIMIT, || {
            let found = host.kernel_state().unwrap().on("flannel.1");
            let planned = cluster.planned(host);
            assert_eq!(planned.routes.len(), NODES - 1);
            if found == planned { Ok(()) } else { Err(format!("{} objects", found.len())) }
        })
        .unwrap();
    }
    for daemon in &mut daemons {
        daemon.check_running().unwrap();
    }
    let memory: u64 = daemons.iter().map(|daemon| daemon.resident_memory().unwrap()).sum();
    println!(
        "{NODES} nodes: started within {:.1} s, ready within {:.1} s of the first one's start; each by itself between \
         {:.1} and {:.1} s, {:.1} s in the median; {} MiB in all",
        all_started.as_secs_f64(),
        all_ready.as_secs_f64(),
        times[0].as_secs_f64(),
        times[NODES - 1].as_secs_f64(),
        times[NODES / 2].as_secs_f64(),
        memory >> 20,
    );
    recovered("7, 200 nodes", all_ready);
}

/// Starts a daemon that says who it is by the machine's id alone, which is the same for all hosts of a lab, as it is for
/// machines that are copies of one image.
fn clone(cluster: &Cluster, host: &Host) -> Daemon {
    let command = cluster.heddled(host);
    let mut anonymous = Command::new(command.get_program());
    let says_who = |argument: &&OsStr| argument.to_string_lossy().starts_with("--node-id");
    anonymous.args(command.get_args().filter(|argument| !says_who(argument)));
    host.start(anonymous).unwrap()
}

/// The lease that publishes an address: key and value.
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
    // One after the other: the second finds a lease of its own name.
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
fn row_17_an_address_that_another_node_publishes_is_refused_and_its_holder_named() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    // As machines of one image do behind NAT: each believes to be at the same address.
    let shared = "--public-ip=10.0.2.15";
    let mut first = cluster.starting_node("first", &[shared]);
    first.daemon().wait_ready().unwrap();
    let lease = cluster.lease(&first);
    let mut nodes: [Node; 2] = cluster.nodes(["a", "b"]);
    let flow = Flow::between(&nodes[0], &nodes[1]);

    let mut second = cluster.starting_node("second", &[shared]);
    let since = Instant::now();
    assert_eq!(second.ended(SOON).0, Some(1));
    let log = fs::read_to_string(second.host.directory().join("heddled-0.log")).unwrap();
    let said = |line: &&str| line.contains("ERROR") && line.contains("10.0.2.15");
    let error = log.lines().find(said).unwrap_or_else(|| panic!("{log}"));
    for text in ["first", "--public-ip", "--iface"] {
        assert!(error.contains(text), "{error}");
    }
    assert_eq!(cluster.lease(&first), lease);
    assert_eq!(cluster.etcd().leases().unwrap().len(), 3);
    for node in nodes.iter_mut().chain([&mut first]) {
        node.daemon().check_running().unwrap();
    }

    // With its own address it is a node like any other.
    let mut command = cluster.heddled(&second.host);
    command.arg(format!("--public-ip={}", second.host.v4()));
    let mut daemon = second.host.start(command).unwrap();
    daemon.wait_ready().unwrap();
    recovered("17, one address", since.elapsed());
    flow.end_without_loss();
}
