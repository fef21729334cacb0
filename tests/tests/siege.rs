//! Combined load: two gigabytes below the prefix, 3,000 slow clients and 60 stalled readers. In a
//! separate test program.

use std::time::{Duration, Instant};

use heddle_lab::{Etcd, Families, Lab, PREFIX, Signal, wait_until};
use heddle_tests::crowd::{besieged, crowd, repairs};
use heddle_tests::{Cluster, Flows, NETWORK_FOR_PEERS, Node, Peer, status};

/// Time limit for writing or reading two gigabytes, on a loaded machine.
const LIMIT: Duration = Duration::from_secs(600);

const STATUS_PORT: u16 = 9981;

/// Number of records, each a little smaller than etcd accepts in one request: 2.0 GB in total.
const RECORDS: usize = 1430;
const LENGTH: usize = 1_400_000;

/// Maximum growth of the daemon's peak memory, in bytes.
const MEMORY: u64 = 150_000_000;

/// Peers whose routes are deleted in each round.
const PEERS: u16 = 200;

fn fill(cluster: &Cluster, numbers: std::ops::Range<usize>) {
    let garbage = vec![b'x'; LENGTH];
    for number in numbers {
        let key = match number % 3 {
            // Keys of leases, and others.
            0 => format!("{PREFIX}/subnets/10.{}.{}.0-24", number / 200 + 50, number % 200),
            1 => format!("{PREFIX}/subnets/garbage{number}"),
            _ => format!("{PREFIX}/subnets/{}{number}", "y".repeat(1000)),
        };
        cluster.etcd().put(key.as_bytes(), &garbage).unwrap();
    }
}

/// Waits until a newly written lease is programmed, which shows that all records before it have
/// been read.
fn mark(cluster: &Cluster, node: &Node, number: u16) {
    let mark = Peer(number);
    cluster.put_lease(&mark.lease_key(), &mark.value());
    wait_until("the peer behind all of it", LIMIT, || {
        let found = node.objects("flannel.1");
        found.route(&format!("{}/24", mark.subnet())).map(drop).ok_or("no route")
    })
    .unwrap();
}

/// Asserts that the control socket answers, and that the daemon is ready.
fn answers(node: &Node) {
    let found = status(&node.host);
    assert_eq!(found["ready"], true, "{}", found["unmet"]);
}

#[test]
fn two_gigabytes_and_a_crowd_cost_little_memory_and_no_packet() {
    let lab = Lab::new(Families::V4).unwrap();
    let etcd = Etcd::start_with_room(&lab, 8 << 30).unwrap();
    let cluster = Cluster::with_etcd_and_config(lab, etcd, NETWORK_FOR_PEERS);
    let peers = Peer::range(1, PEERS);
    cluster.etcd().put_all(&Peer::leases(&peers), 100).unwrap();
    let mut node = cluster.starting_node("a", &["--status-address=9981"]);
    node.daemon().wait_ready().unwrap();
    let other = cluster.node("b");
    let containers = [&node, &other].map(|node| node.host.container().unwrap());
    let flows = Flows::between(&[(&containers[0], &containers[1])]);
    answers(&node);
    let idle = node.daemon().peak_memory().unwrap();
    let check = |node: &mut Node, when: &str| {
        let peak = node.daemon().peak_memory().unwrap();
        println!(
            "{when}: {} MB more than {} MB",
            peak.saturating_sub(idle) / 1_000_000,
            idle / 1_000_000
        );
        assert!(peak < idle + MEMORY, "{when}: {peak} bytes, idle {idle}");
    };

    let clients = || crowd(STATUS_PORT);
    let host = node.host.namespace().name().to_owned();
    let mut slowest = Duration::ZERO;
    besieged(&node.host, clients(), || {
        for (round, peer) in peers[..10].iter().enumerate() {
            fill(&cluster, RECORDS / 10 * round..RECORDS / 10 * (round + 1));
            slowest = slowest.max(repairs(&node.host, *peer));
            answers(&node);
        }
        mark(&cluster, &node, 1001);
        flows.go_on();
    });
    println!("{host}: slowest repair {slowest:?}");
    check(&mut node, "with two gigabytes and a crowd");

    // A start succeeds as well, during the attack.
    let begun = Instant::now();
    node.stop(Signal::KILL);
    let mut node = cluster.starting_node_on(node.host, &["--status-address=9981"]);
    node.daemon().wait_ready_within(LIMIT).unwrap();
    println!("ready {:?} after the start", begun.elapsed());
    besieged(&node.host, clients(), || {
        mark(&cluster, &node, 1002);
        for peer in &peers[..3] {
            repairs(&node.host, *peer);
            answers(&node);
        }
    });
    check(&mut node, "after a start");
    flows.lost_nothing();
}
