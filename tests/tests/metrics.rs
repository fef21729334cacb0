//! `/metrics` of real daemons, parsed by Prometheus' own parser, and the address it is served on.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use heddle_lab::{Daemon, Families, wait_until};
use heddle_tests::{Cluster, Node, SOON};
use serde_json::Value;

const URL: &str = "http://127.0.0.1:9981/metrics";

/// Prints the samples of an exposition as JSON. The reference parser is strict: names, types,
/// units, suffixes, the order of lines and the values of labels must follow OpenMetrics.
const PARSER: &str = "
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
samples = [[s.name, s.labels, s.value] for f in parse(sys.stdin.read()) for s in f.samples]
print(json.dumps(samples))
";

/// Series with their labels, as `name{label=value,…}`.
type Samples = BTreeMap<String, f64>;

fn parse(text: &str) -> Samples {
    // Debian's interpreter, for which the module is installed.
    let mut child = Command::new("/usr/bin/python3")
        .args(["-c", PARSER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the parser refuses\n{text}");
    let samples: Vec<(String, BTreeMap<String, String>, f64)> =
        serde_json::from_slice(&output.stdout).unwrap();
    let named = samples.into_iter().map(|(name, labels, value)| {
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (if labels.is_empty() { name } else { format!("{name}{{{}}}", labels.join(",")) }, value)
    });
    named.collect()
}

fn scrape(daemon: &Daemon) -> Samples {
    let (status, text) = daemon.health_at(URL).unwrap();
    assert_eq!(status, 200, "{text}");
    parse(&text)
}

/// Waits until a series has an accepted value.
fn wait_sample(daemon: &Daemon, series: &str, wanted: impl Fn(f64) -> bool) -> Samples {
    wait_until(series.to_owned(), 6 * SOON, || {
        let samples = scrape(daemon);
        match samples.get(series) {
            Some(value) if wanted(*value) => Ok(samples),
            other => Err(format!("{other:?}")),
        }
    })
    .unwrap()
}

fn start(cluster: &Cluster, name: &str) -> Node {
    let mut node = cluster.starting_node(name, &["--status-address=9981"]);
    node.daemon().wait_ready().unwrap();
    node
}

#[test]
fn metrics_reflect_daemon_state() {
    let mut cluster = Cluster::new(Families::V4);
    let mut a = start(&cluster, "a");
    let b = cluster.node("b");
    cluster.put_lease("no \"lease\"\\", "{}");
    wait_sample(a.daemon(), "heddle_peers{state=in-kernel}", |count| count == 1.0);
    let samples = wait_sample(a.daemon(), "heddle_peers{state=not-used}", |count| count == 1.0);
    for (series, least, most) in [
        ("heddle_ready", 1.0, 1.0),
        ("heddle_condition_met{condition=traffic_rules}", 1.0, 1.0),
        ("heddle_uptime_seconds", 0.0, 600.0),
        ("heddle_lease_remaining_seconds", 85_000.0, 86_400.0),
        ("heddle_lease_age_seconds", 0.0, 600.0),
        ("heddle_watch_stale", 0.0, 0.0),
        ("heddle_watch_lag_seconds", 0.0, 60.0),
        ("heddle_kernel_changes_total{change=put}", 5.0, 100.0),
        ("heddle_kernel_changes_total{change=refused}", 0.0, 0.0),
        ("heddle_plan_duration_seconds_count", 1.0, 10.0),
        ("heddle_apply_duration_seconds_count", 2.0, 20.0),
        ("heddle_plugin_calls_total{plugin=vxlan,role=backend}", 3.0, 20.0),
        ("heddle_plugin_calls_total{plugin=subnet-env,role=emitter-1}", 1.0, 3.0),
        ("heddle_plugin_failures_total{plugin=vxlan,role=backend}", 0.0, 0.0),
        ("heddle_records_rejected", 1.0, 1.0),
        ("heddle_peers_probed", 0.0, 0.0),
        ("heddle_peers_faulty", 1.0, 1.0),
    ] {
        let value = samples.get(series).unwrap_or_else(|| panic!("no {series} in {samples:#?}"));
        assert!((least..=most).contains(value), "{series} is {value}");
    }
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let (key, address) = (cluster.lease(&b).key, b.host.v4());
    let info = format!(
        "heddle_peer_info{{backend=vxlan,node={},peer={},public_address={address},state=in-kernel}}",
        hostname.trim(),
        key.rsplit_once('/').unwrap().1,
    );
    assert_eq!(samples.get(&info), Some(&1.0), "no {info} in {samples:#?}");
    assert!(samples.keys().any(|series| series.contains("peer=no \"lease\"\\")), "{samples:#?}");

    // A start and a joining peer are no repairs; restoring a deleted route is one.
    let repairs = |samples: &Samples| -> Vec<(String, f64)> {
        let found = samples.iter().filter(|(name, _)| name.starts_with("heddle_drift_repairs"));
        found.map(|(name, count)| (name.clone(), *count)).collect()
    };
    let before = repairs(&samples);
    assert_eq!(before.len(), 7, "{before:?}");
    assert!(before.iter().all(|(_, count)| *count == 0.0), "{before:?}");
    let route = &a.routes()[0];
    a.ip(&format!("route del {}", route.dst));
    let series = "heddle_drift_repairs_total{kind=route}";
    let after = repairs(&wait_sample(a.daemon(), series, |count| count == 1.0));
    assert_eq!(after.iter().map(|(_, count)| count).sum::<f64>(), 1.0, "{after:?}");

    // A store that does not answer.
    cluster.etcd_mut().stop();
    let samples = wait_sample(a.daemon(), "heddle_watch_stale", |stale| stale == 1.0);
    assert_eq!(samples["heddle_ready"], 0.0);
    assert_eq!(samples["heddle_condition_met{condition=watch}"], 0.0);
    assert_eq!(samples["heddle_condition_met{condition=lease}"], 1.0);
    let lag = samples["heddle_watch_lag_seconds"];
    wait_sample(a.daemon(), "heddle_watch_lag_seconds", |later| later > lag);
}

#[test]
fn packet_path_counters_are_metrics() {
    let cluster = Cluster::with_backend(Families::V4, "udp");
    let mut a = start(&cluster, "a");
    let b = cluster.node("b");
    let [in_a, in_b] = [&a, &b].map(|node| node.host.container().unwrap());
    wait_sample(a.daemon(), "heddle_peers{state=in-kernel}", |count| count == 1.0);
    in_a.ping(in_b.addresses()[0], 56).unwrap();
    let samples = wait_sample(a.daemon(), "heddle_packets_total{direction=sent}", |n| n > 0.0);
    assert!(samples["heddle_packets_bytes_total{direction=sent}"] >= 84.0, "{samples:#?}");
    let (_, packets) = a.daemon().health("/packets").unwrap();
    let packets: BTreeMap<String, Value> = serde_json::from_str(&packets).unwrap();
    // Each counter of the path is a series: two pairs of directions, and the others by name.
    let of_path = |name: &&String| name.starts_with("heddle_packet");
    assert_eq!(samples.keys().filter(of_path).count(), packets.len(), "{samples:#?}");
}

#[test]
fn metrics_are_off_by_default_and_loopback_only() {
    let cluster = Cluster::new(Families::V4);
    let mut quiet = cluster.node("a");
    assert!(quiet.daemon().health_at(URL).is_err());
    let mut node = start(&cluster, "b");
    assert_eq!(node.daemon().health_at(URL).unwrap().0, 200);
    let outside = format!("http://{}:9981/metrics", node.host.v4());
    assert!(node.daemon().health_at(&outside).is_err());
    // Probes and metrics stay on their own ports.
    assert_eq!(node.daemon().health_at("http://127.0.0.1:9981/readyz").unwrap().0, 404);
    assert_eq!(node.daemon().health("/metrics").unwrap().0, 404);

    let mut open = cluster.starting_node("c", &["--status-address=0.0.0.0:9981"]);
    open.daemon().wait_ready().unwrap();
    let outside = format!("http://{}:9981/metrics", open.host.v4());
    assert_eq!(open.daemon().health_at(&outside).unwrap().0, 200);
}

#[test]
fn status_address_in_use_exits_and_is_named() {
    let cluster = Cluster::new(Families::V4);
    let first = start(&cluster, "a");
    let other = |address: &str| {
        let mut command = cluster.heddled(&first.host);
        let socket = first.host.directory().join("other.sock");
        // The last occurrence of a flag counts.
        command.arg(format!("--control-socket={}", socket.display()));
        command.args(["--healthz-port=9990", "--etcd-prefix=/other", address]);
        first.host.start(command).unwrap()
    };
    let mut second = other("--status-address=9981");
    assert!(!second.wait_exit(SOON).unwrap().success());
    let log = second.log();
    for text in ["127.0.0.1:9981", "--status-address", "another port"] {
        assert!(log.contains(text), "{text} is not in {log}");
    }
    // With a port of its own, the second daemon has a second page.
    let second = other("--status-address=9982");
    wait_until("the second page", SOON, || second.health_at("http://127.0.0.1:9982/")).unwrap();
}
