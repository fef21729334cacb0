//! Benchmark of the daemon's speed and memory against the project's goals. Prints a table and
//! writes `target/bench/results.json`.
//!
//! No result makes it fail, because absolute numbers depend on the machine. Where a reference
//! exists, it is measured on the same machine, alternating with the daemon.

use std::process::Command;
use std::time::{Duration, Instant};

use heddle_lab::{Etcd, Families, Host, Monitor, Signal};
use heddle_tests::measurement::{self, Measurement, median, quantile};
use heddle_tests::{Cluster, NETWORK_FOR_PEERS, Peer, by_hand, heddle};
use serde_json::{Value, json};

/// Number of starts measured.
const ROUNDS: usize = 7;

/// Number of leases put one by one.
const SAMPLES: u16 = 300;

fn main() {
    // Cargo passes `--bench`; there are no filters to apply.
    let mut results = Vec::new();
    plugins(&mut results);
    start_without_peers(&mut results);
    for count in [4_000, 10_000] {
        start_with_peers(count, &mut results);
    }
    for count in [1_000, 10_000] {
        lease_to_route(count, &mut results);
    }
    measurement::print(&results);
    let rows: Vec<_> = results.iter().map(Measurement::json).collect();
    println!();
    measurement::save("results.json", &format!("{:#}\n", json!(rows)));
}

/// Measures the time to load and call a plugin: a built-in one, and the same one from a file.
fn plugins(results: &mut Vec<Measurement>) {
    let directory = std::env::temp_dir().join(format!("heddle-bench-{}", std::process::id()));
    let tool = |arguments: &[&str]| {
        heddle_lab::run(Command::new(heddle()).arg("plugin").args(arguments)).unwrap()
    };
    tool(&["export", directory.to_str().unwrap()]);
    let file = directory.join("vxlan.wasm");
    for (plugin, load) in
        [("vxlan", "load, embedded"), (file.to_str().unwrap(), "load, from the cache")]
    {
        let rows: Vec<Value> = serde_json::from_str(&tool(&["bench", plugin, "--json"])).unwrap();
        let median = |call: &str| {
            let row = rows.iter().find(|row| row["call"] == call).unwrap();
            row["median"].as_f64().unwrap() / 1e6
        };
        let row =
            |call: &str| Measurement::new(format!("plugin vxlan: {call}"), median(call), "ms");
        if load == "load, embedded" {
            results.push(row("compile"));
            results.push(row("plan-node"));
            results.push(row("plan-peer, one of 1000"));
        }
        results.push(row(load).at_most(5.0));
    }
    std::fs::remove_dir_all(directory).unwrap();
}

/// Measures the time from exec to READY, and the memory used, without peers.
fn start_without_peers(results: &mut Vec<Measurement>) {
    let cluster = Cluster::new(Families::V4);
    let mut times = Vec::new();
    let mut memory = Vec::new();
    let host = cluster.host("a");
    for _ in 0..3 * ROUNDS {
        let mut daemon = host.start(cluster.heddled(&host)).unwrap();
        times.push(milliseconds(daemon.wait_ready().unwrap()));
        memory.push(mebibytes(daemon.resident_memory().unwrap()));
        daemon.stop(Signal::TERM).unwrap();
        forget(cluster.etcd(), &host);
    }
    results.push(Measurement::new("start without peers", median(times), "ms").at_most(100.0));
    results.push(Measurement::new("memory without peers", median(memory), "MiB").at_most(25.0));
}

/// Measures the time from exec to READY with leases in etcd, and the time iproute2 takes to program
/// the same objects.
fn start_with_peers(count: u16, results: &mut Vec<Measurement>) {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let peers = Peer::range(0, count);
    cluster.etcd().put_all(&Peer::leases(&peers), 100).unwrap();
    let (mut ours, mut theirs, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let host = cluster.host(&format!("a{round}"));
        let mut daemon = host.start(cluster.heddled(&host)).unwrap();
        ours.push(milliseconds(daemon.wait_ready().unwrap()));
        memory.push(mebibytes(daemon.resident_memory().unwrap()));
        let objects = host.kernel_state().unwrap().on("flannel.1").len();
        assert_eq!(objects, 3 * peers.len(), "ready, and something is missing");
        daemon.stop(Signal::TERM).unwrap();
        forget(cluster.etcd(), &host);

        let host = cluster.host(&format!("b{round}"));
        theirs.push(milliseconds(by_hand(&host, &peers)));
        let objects = host.kernel_state().unwrap().on("flannel.1").len();
        assert_eq!(objects, 3 * peers.len());
    }
    let (ours, theirs) = (median(ours), median(theirs));
    let what = |what: &str| format!("{what}, {count} peers");
    results.push(Measurement::new(what("start"), ours, "ms"));
    results.push(Measurement::new(what("ip -batch and bridge -batch"), theirs, "ms"));
    results.push(Measurement::new(what("start ÷ batch"), ours / theirs, "").at_most(1.5));
    let memory = Measurement::new(what("memory"), median(memory), "MiB");
    results.push(if count == 10_000 { memory.at_most(60.0) } else { memory });
}

/// Measures the time from the request that puts a lease to the kernel's report of its route, with
/// `count` other peers present.
fn lease_to_route(count: u16, results: &mut Vec<Measurement>) {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    cluster.etcd().put_all(&Peer::leases(&Peer::range(0, count)), 100).unwrap();
    let node = cluster.node("a");
    let monitor = Monitor::start(node.host.namespace()).unwrap();
    let (mut to_route, mut to_answer) = (Vec::new(), Vec::new());
    for peer in Peer::range(count, SAMPLES) {
        let (key, value) = (peer.etcd_key(), peer.value());
        let route = format!("{}/24 via", peer.subnet());
        let start = Instant::now();
        cluster.etcd().put(&key, &value).unwrap();
        to_answer.push(milliseconds(start.elapsed()));
        let limit = start + Duration::from_secs(10);
        let (seen, _) = monitor.wait_line(limit, |line| line.starts_with(&route)).expect("a route");
        to_route.push(milliseconds(seen - start));
        std::thread::sleep(Duration::from_millis(5));
    }
    let what = |what: &str| format!("{what}, {count} peers");
    for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
        let what = what(&format!("etcd answering a put, {name}"));
        results.push(Measurement::new(what, quantile(to_answer.clone(), part), "ms"));
    }
    let p50 = quantile(to_route.clone(), 0.5);
    results.push(Measurement::new(what("lease to route, p50"), p50, "ms"));
    let p99 = quantile(to_route, 0.99);
    results.push(Measurement::new(what("lease to route, p99"), p99, "ms").at_most(20.0));
}

/// Makes the host new to the cluster: removes its lease, its device and its subnet file.
fn forget(etcd: &Etcd, host: &Host) {
    for lease in etcd.list(heddle_lab::PREFIX).unwrap() {
        if lease.value.contains(&format!(r#""NodeID":"{}""#, host.name())) {
            etcd.delete(&lease.key).unwrap();
        }
    }
    host.namespace().ip("link del flannel.1").unwrap();
    std::fs::remove_file(host.subnet_file()).unwrap();
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
