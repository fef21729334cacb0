//! More data below the prefix than a daemon should hold in memory.

use std::process::Command;
use std::time::{Duration, Instant};

use heddle_lab::{Daemon, Families, PREFIX, Signal, wait_until};
use heddle_tests::{Cluster, NETWORK_FOR_PEERS, Node, Peer, heddle, recovered, status};
use serde_json::Value;

/// Time limit for writing 560 MB, or reading them a few times, on a loaded machine.
const LIMIT: Duration = Duration::from_secs(180);

/// A little less than etcd accepts in one request, in bytes.
const HUGE: usize = 1_400_000;

/// Leases whose `NodeName` has [`HUGE`] characters, and other records as long as that.
const NAMES: usize = 300;
const OTHERS: usize = 100;

/// Maximum growth of the daemon's peak memory, in bytes.
const ALLOWED: u64 = 100 << 20;

fn fill(cluster: &Cluster) {
    for number in 0..NAMES + OTHERS {
        // Beyond the subnets that the node may lease.
        let key = format!("{PREFIX}/subnets/10.{}.{}.0-24", number / 200 + 50, number % 200);
        let (name, last) = ("n".repeat(HUGE), number % 250 + 1);
        let value = match number < NAMES {
            true => format!(
                r#"{{"PublicIP":"172.20.{}.{last}","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:01:{:02x}:{last:02x}"}},"NodeName":"{name}"}}"#,
                number / 250,
                number / 250,
            ),
            false => name,
        };
        cluster.etcd().put(key.as_bytes(), value.as_bytes()).unwrap();
    }
}

/// Returns the output of `heddle lease list --json`, which must be shorter than 1 MiB.
fn leases(node: &Node) -> Value {
    let mut command = Command::new(heddle());
    command.args(["lease", "list", "--json", "--socket"]).arg(node.host.control_socket());
    let text = node.host.namespace().run(command).unwrap();
    assert!(text.len() < 1 << 20, "{} bytes", text.len());
    serde_json::from_str(&text).unwrap()
}

/// Waits until a daemon is ready, for [`LIMIT`] at most. Returns the reasons that it reported
/// before, without immediate repeats.
fn reasons_until_ready(daemon: &Daemon) -> Vec<String> {
    let mut reasons = Vec::new();
    let begun = Instant::now();
    loop {
        // The port is not open at first.
        match daemon.health("/readyz") {
            Ok((200, _)) => return reasons,
            Ok((_, said)) if reasons.last() != Some(&said) => reasons.push(said),
            _ => {}
        }
        assert!(begun.elapsed() < LIMIT, "{reasons:#?}");
    }
}

#[test]
fn prefix_of_huge_records_costs_little_memory() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let mut node = cluster.node("a");
    let idle = node.daemon().peak_memory().unwrap();
    let check = |node: &mut Node, when: &str| {
        let peak = node.daemon().peak_memory().unwrap();
        assert!(peak < idle + ALLOWED, "{when}: {} MiB, idle {} MiB", peak >> 20, idle >> 20);
    };
    fill(&cluster);
    let mark = Peer(1);
    cluster.put_lease(&mark.lease_key(), &mark.value());
    let has_mark = |node: &Node| {
        wait_until("the peer behind them", LIMIT, || {
            node.objects("flannel.1")
                .route(&format!("{}/24", mark.subnet()))
                .map(drop)
                .ok_or("no route")
        })
        .unwrap();
    };
    has_mark(&node);
    check(&mut node, "while they are written");

    // The status lists each of them.
    let shown = status(&node.host);
    let not_used = |peer: &&Value| {
        peer["state"] == "not-used" && peer["reason"].as_str().unwrap().contains("too long")
    };
    let peers = shown["peers"].as_array().unwrap();
    assert_eq!(peers.iter().filter(not_used).count(), NAMES + OTHERS);
    let listed = leases(&node);
    let records = listed["records"].as_array().unwrap();
    let problem = |record: &&Value| record["problem"].is_string();
    assert_eq!(records.iter().filter(problem).count(), NAMES + OTHERS);
    assert_eq!(records.len(), NAMES + OTHERS + 2);
    check(&mut node, "after an answer of each kind");

    // The records are still present at the next start.
    let own = |node: &Node| status(&node.host)["lease"]["key"].clone();
    let lease = own(&node);
    node.stop(Signal::KILL);
    let since = Instant::now();
    node = cluster.starting_node_on(node.host, &[]);
    let reasons = reasons_until_ready(node.daemon());
    assert!(reasons.iter().any(|said| said.contains("reading leases: ")), "{reasons:#?}");
    recovered("3, a prefix of 560 MB, start", since.elapsed());
    has_mark(&node);
    assert_eq!(own(&node), lease);
    leases(&node);
    check(&mut node, "after a start");
}
