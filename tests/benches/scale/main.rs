//! Benchmark of a daemon in a large cluster: its growth with the number of peers, how it keeps up
//! with continuous lease changes, and with a thousand nodes that re-register at once. Peers are
//! leases in a real etcd, without nodes behind them.
//!
//! Prints a table, and writes `target/bench/scale.json` and `target/bench/scale.svg`. `MINUTES`
//! sets the length of the churn, 10 by default. No number makes it fail, but a missed change does.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use heddle_lab::{Families, KernelState, Monitor, Signal, wait_until};
use heddle_tests::measurement::{self, Measurement, median, quantile};
use heddle_tests::{Cluster, NETWORK_FOR_PEERS, Node, Peer, by_hand, victim};
use serde_json::json;

mod plot;

/// Number of peers during the churn.
const PEERS: u16 = 10_000;

/// Number of additional peers that come and go during the churn.
const GUESTS: u16 = 2_000;

/// Interval between two changes.
const CHANGE: Duration = Duration::from_millis(10);

/// Number of nodes that re-register at once.
const STORM: u16 = 1_000;

/// Numbers of peers to compare.
const SIZES: [u16; 6] = [100, 1_000, 4_000, 10_000, 15_000, 20_000];

/// Number of measurements of each size.
const ROUNDS: usize = 3;

fn main() {
    let minutes = measurement::setting("MINUTES").unwrap_or(10);
    let mut results = Vec::new();
    let growth: Vec<_> = SIZES.map(|count| grow(count, &mut results)).into();
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    cluster.etcd().put_all(&Peer::leases(&Peer::range(0, PEERS)), 100).unwrap();
    let mut node = cluster.node("a");
    churn(&cluster, &mut node, Duration::from_secs(60 * minutes), &mut results);
    storm(&cluster, &mut node, &mut results);
    measurement::print(&results);
    let rows: Vec<_> = results.iter().map(Measurement::json).collect();
    println!();
    measurement::save("scale.json", &format!("{:#}\n", json!(rows)));
    measurement::save("scale.svg", &plot::draw(&growth));
}

/// Cost of a number of peers.
pub(crate) struct Size {
    pub(crate) peers: u16,
    /// Milliseconds from exec to READY, and milliseconds iproute2 takes to program the same
    /// objects.
    pub(crate) start: f64,
    pub(crate) by_hand: f64,
    /// Resident memory in MiB.
    pub(crate) memory: f64,
}

fn grow(count: u16, results: &mut Vec<Measurement>) -> Size {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let peers = Peer::range(0, count);
    cluster.etcd().put_all(&Peer::leases(&peers), 100).unwrap();
    let (mut start, mut theirs, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let host = cluster.host(&format!("a{round}"));
        let mut daemon = host.start(cluster.heddled(&host)).unwrap();
        start.push(milliseconds(daemon.wait_ready_within(Duration::from_secs(60)).unwrap()));
        memory.push(daemon.resident_memory().unwrap() as f64 / f64::from(1 << 20));
        daemon.stop(Signal::TERM).unwrap();
        cluster.delete_lease_of(&host);
        let host = cluster.host(&format!("b{round}"));
        theirs.push(milliseconds(by_hand(&host, &peers)));
    }
    let size = Size {
        peers: count,
        start: median(start),
        by_hand: median(theirs),
        memory: median(memory),
    };
    let what = |what: &str| format!("{what}, {count} peers");
    results.push(Measurement::new(what("start"), size.start, "ms"));
    results.push(Measurement::new(what("ip -batch and bridge -batch"), size.by_hand, "ms"));
    results.push(Measurement::new(what("memory"), size.memory, "MiB"));
    size
}

/// Adds, moves and removes leases, one every [`CHANGE`].
#[expect(clippy::too_many_lines, reason = "one measurement, told in order")]
fn churn(cluster: &Cluster, node: &mut Node, length: Duration, results: &mut Vec<Measurement>) {
    let monitor = Monitor::start(node.host.namespace()).unwrap();
    let pid = node.daemon().pid();
    let memory = |node: &mut Node| node.daemon().resident_memory().unwrap() as f64;
    // For each lease, the number of the peer whose address and MAC it has.
    let mut leases: BTreeMap<u16, u16> = (0..PEERS).map(|number| (number, number)).collect();
    let (mut to_route, mut changes, mut late) = (Vec::new(), 0_u32, 0_u32);
    let mut after_two = None;
    let (began, busy) = (Instant::now(), victim::cpu_time(pid));
    let settling = Duration::from_secs(120).min(length / 5);
    while began.elapsed() < length {
        let due = began + CHANGE * changes;
        match due.checked_duration_since(Instant::now()) {
            Some(left) => thread::sleep(left),
            None => late += 1,
        }
        let turn = u16::try_from(changes / 3 % u32::from(GUESTS)).unwrap();
        let guest = Peer(PEERS + turn);
        match changes % 3 {
            0 => {
                let route = format!("{}/24 via", guest.subnet());
                let start = Instant::now();
                cluster.etcd().put(&guest.etcd_key(), &guest.value()).unwrap();
                let limit = start + Duration::from_secs(10);
                let seen = monitor.wait_line(limit, |line| line.starts_with(&route));
                to_route.push(milliseconds(seen.expect("a route").0 - start));
                leases.insert(guest.0, guest.0);
            }
            1 => {
                // An existing peer gets another address and MAC: those of an unused number.
                let moved = Peer(turn * 4);
                let now = 30_000 + (changes / 3 % 1_999) as u16;
                cluster.etcd().put(&moved.etcd_key(), &Peer(now).value()).unwrap();
                if let Some((&before, _)) =
                    leases.iter().find(|(key, value)| **value == now && **key != moved.0)
                {
                    cluster.etcd().put(&Peer(before).etcd_key(), &Peer(before).value()).unwrap();
                    leases.insert(before, before);
                }
                leases.insert(moved.0, now);
            }
            _ => {
                cluster.etcd().delete(&guest.etcd_key()).unwrap();
                leases.remove(&guest.0);
            }
        }
        changes += 1;
        if after_two.is_none() && began.elapsed() >= settling {
            after_two = Some(memory(node));
        }
    }
    let took = began.elapsed();
    let busy = victim::cpu_time(pid) - busy;
    let (before, after) = (after_two.expect("it took longer than that"), memory(node));
    let expected = objects(&leases);
    let same = || {
        let found = node.host.kernel_state().unwrap().on("flannel.1");
        if found == expected {
            Ok(())
        } else {
            Err(format!("{} objects of {}", found.len(), expected.len()))
        }
    };
    wait_until("exactly the leases in the kernel", Duration::from_secs(30), same).unwrap();

    let rate = f64::from(changes) / took.as_secs_f64();
    let what = |what: &str| format!("churn, {PEERS} peers: {what}");
    results.push(Measurement::new(what("changes"), f64::from(changes), ""));
    results.push(Measurement::new(what("changes a second"), rate, "").at_least(95.0));
    results.push(Measurement::new(what("changes later than due"), f64::from(late), ""));
    for (name, part) in [("p50", 0.5), ("p95", 0.95)] {
        let name = what(&format!("lease to route, {name}"));
        results.push(Measurement::new(name, quantile(to_route.clone(), part), "ms"));
    }
    let p99 = quantile(to_route, 0.99);
    results.push(Measurement::new(what("lease to route, p99"), p99, "ms").at_most(50.0));
    let share = 100.0 * busy.as_secs_f64() / took.as_secs_f64();
    results.push(Measurement::new(what("CPU of one core"), share, "%"));
    let growth = 100.0 * (after - before) / before;
    results.push(Measurement::new(what("memory, from a fifth of it on"), growth, "%").at_most(5.0));
}

/// Returns the kernel objects of these leases.
fn objects(leases: &BTreeMap<u16, u16>) -> KernelState {
    let mut state = KernelState::default();
    for (&key, &value) in leases {
        let (mut of_key, of_value) =
            (Peer::objects(&[Peer(key)], "72"), Peer::objects(&[Peer(value)], "72"));
        of_key.neighbours = of_key
            .neighbours
            .into_iter()
            .map(|mut neighbour| {
                neighbour.lladdr = Some(Peer(value).mac());
                neighbour
            })
            .collect();
        state.routes.extend(of_key.routes);
        state.neighbours.extend(of_key.neighbours);
        state.fdb.extend(of_value.fdb);
    }
    state
}

/// Replaces the leases of a thousand nodes with new ones, at once.
fn storm(cluster: &Cluster, node: &mut Node, results: &mut Vec<Measurement>) {
    let guests: Vec<_> = Peer::range(PEERS, GUESTS).iter().map(|peer| peer.etcd_key()).collect();
    cluster.etcd().delete_all(&guests).unwrap();
    let everybody = Peer::range(0, PEERS);
    cluster.etcd().put_all(&Peer::leases(&everybody), 100).unwrap();
    let old: Vec<_> = everybody[..usize::from(STORM)].to_vec();
    let new = Peer::range(20_000, STORM);
    let expected = |peers: &[&[Peer]]| Peer::objects(&peers.concat(), "72");
    let wait = |node: &Node, expected: &KernelState| {
        let same = || {
            let found = node.host.kernel_state().unwrap().on("flannel.1");
            if found == *expected { Ok(()) } else { Err(format!("{} objects", found.len())) }
        };
        wait_until("the leases in the kernel", Duration::from_secs(60), same).unwrap();
    };
    wait(node, &expected(&[&everybody]));
    let pid = node.daemon().pid();
    let (start, busy) = (Instant::now(), victim::cpu_time(pid));
    let keys: Vec<_> = old.iter().map(|peer| peer.etcd_key()).collect();
    cluster.etcd().delete_all(&keys).unwrap();
    cluster.etcd().put_all(&Peer::leases(&new), 1).unwrap();
    let written = start.elapsed();
    wait(node, &expected(&[&everybody[usize::from(STORM)..], &new]));
    let what = |what: &str| format!("{STORM} of {PEERS} nodes anew: {what}");
    results.push(Measurement::new(what("writing the leases"), milliseconds(written), "ms"));
    results.push(Measurement::new(
        what("until the kernel has them"),
        milliseconds(start.elapsed()),
        "ms",
    ));
    let busy = victim::cpu_time(pid) - busy;
    results.push(Measurement::new(what("CPU time of the daemon"), milliseconds(busy), "ms"));
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
