use heddle_control::{
    Changes, Emitter, Event, OwnLeaseStatus, PeerHealth, UnmetCondition, WatchStatus,
};

use super::*;

/// Returns the status of a node that has a value for every metric.
fn status() -> Status {
    let peer = |key: &str, state, health| Peer {
        key: key.to_owned(),
        node_name: Some("rack \"7\"\nb\\c".to_owned()),
        public_addresses: vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
        state,
        health,
        ..Peer::default()
    };
    let health = PeerHealth {
        reachable: true,
        rtt_micros: Some(1500),
        loss_percent: 12.5,
        ..PeerHealth::default()
    };
    let plugin = |name: &str, calls| Plugin {
        name: name.to_owned(),
        calls,
        seconds: 0.25,
        ..Plugin::default()
    };
    let emitter = |name| Emitter { plugin: plugin(name, 1), ..Emitter::default() };
    Status {
        version: "1.2.3".to_owned(),
        network: "/coreos.com/network".to_owned(),
        conditions: vec!["network config".to_owned(), "watch".to_owned()],
        unmet: vec![UnmetCondition { condition: "watch".to_owned(), reason: "gone".to_owned() }],
        uptime: 61,
        lease: Some(OwnLeaseStatus {
            remaining: Some(86_000),
            age: 400,
            ..OwnLeaseStatus::default()
        }),
        watch: Some(WatchStatus { lag: 3, stale: Some("gone".to_owned()) }),
        backend: Some(plugin("udp", 5)),
        emitters: vec![emitter("docker-opts"), emitter("docker-opts")],
        packets: Some(
            ["sent_packets", "received_bytes", "no_route", "fallback"]
                .map(|name| (name.to_owned(), 9))
                .into(),
        ),
        changes: Changes {
            put: 4,
            repairs: BTreeMap::from([("route".to_owned(), 2)]),
            ..Changes::default()
        },
        peers: vec![
            peer("10.244.1.0-24", PeerState::InKernel, Some(health)),
            peer("10.244.2.0-24", PeerState::NoPlan, None),
            peer("nonsense", PeerState::NotUsed, None),
            Peer {
                conflict: Some("connected".into()),
                ..peer("10.244.7.0-24", PeerState::NotUsed, None)
            },
        ],
        unlisted: 40,
        events: vec![Event::default()],
        ..Status::default()
    }
}

/// Returns the names and types as the text declares them, counters without `_total`.
fn declared(text: &str) -> BTreeMap<String, String> {
    let declarations = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    declarations
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect()
}

#[test]
fn every_packet_counter_is_exported_by_its_kind() {
    let packets = PacketCounter::ALL.iter().map(|counter| (counter.name().to_owned(), 9));
    let status = Status { packets: Some(packets.collect()), ..status() };
    let text = metrics(&status, &Timings::default());
    for counter in PacketCounter::ALL {
        let name = counter.name();
        let line = match counter.kind() {
            CounterKind::Drop => {
                format!(r#"heddle_packets_dropped_total{{reason="{name}"}} 9"#)
            }
            CounterKind::Event => format!(r#"heddle_packet_events_total{{event="{name}"}} 9"#),
            CounterKind::Traffic => match name.split_once('_').unwrap() {
                (direction, "packets") => {
                    format!(r#"heddle_packets_total{{direction="{direction}"}} 9"#)
                }
                (direction, _) => {
                    format!(r#"heddle_packets_bytes_total{{direction="{direction}"}} 9"#)
                }
            },
        };
        assert!(text.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn status_is_exported_as_series() {
    let text = metrics(&status(), &Timings::default());
    for line in [
        r#"heddle_build_info{version="1.2.3",network="/coreos.com/network"} 1"#,
        "heddle_uptime_seconds 61.0",
        "heddle_ready 0.0",
        r#"heddle_condition_met{condition="network_config"} 1.0"#,
        r#"heddle_condition_met{condition="watch"} 0.0"#,
        "heddle_lease_remaining_seconds 86000.0",
        "heddle_lease_age_seconds 400.0",
        "heddle_watch_lag_seconds 3.0",
        "heddle_watch_stale 1.0",
        "heddle_config_superseded 0.0",
        r#"heddle_kernel_changes_total{change="put"} 4"#,
        r#"heddle_kernel_changes_total{change="refused"} 0"#,
        r#"heddle_drift_repairs_total{kind="route"} 2"#,
        r#"heddle_plugin_calls_total{plugin="udp",role="backend"} 5"#,
        r#"heddle_plugin_call_seconds_total{plugin="docker-opts",role="emitter-2"} 0.25"#,
        r#"heddle_packets_total{direction="sent"} 9"#,
        r#"heddle_packets_bytes_total{direction="received"} 9"#,
        r#"heddle_packets_dropped_total{reason="no_route"} 9"#,
        r#"heddle_packet_events_total{event="fallback"} 9"#,
        r#"heddle_peers{state="in-kernel"} 1.0"#,
        r#"heddle_peers{state="incomplete"} 0.0"#,
        r#"heddle_peers{state="not-used"} 42.0"#,
        "heddle_records_rejected 42.0",
        r#"heddle_lease_conflicts{reason="connected"} 1.0"#,
        r#"heddle_lease_conflicts{reason="store"} 0.0"#,
        r#"heddle_lease_conflict_info{peer="10.244.7.0-24",reason="connected"} 1.0"#,
        r#"heddle_peer_info{peer="nonsense",node="rack \"7\" b\\c",public_address="192.0.2.7",backend="",state="not-used"} 1.0"#,
        r#"heddle_peer_reachable{peer="10.244.1.0-24"} 1.0"#,
        r#"heddle_peer_rtt_seconds{peer="10.244.1.0-24"} 0.0015"#,
        r#"heddle_peer_loss_ratio{peer="10.244.1.0-24"} 0.125"#,
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn durations_are_counted_in_buckets() {
    let timings = Timings::default();
    timings.clone().planned(Duration::from_millis(1));
    timings.applied(Duration::from_secs(100));
    let text = metrics(&Status::default(), &timings);
    for line in [
        r#"heddle_plan_duration_seconds_bucket{le="0.0005"} 0"#,
        r#"heddle_plan_duration_seconds_bucket{le="0.002"} 1"#,
        r#"heddle_apply_duration_seconds_bucket{le="32.768"} 0"#,
        r#"heddle_apply_duration_seconds_bucket{le="+Inf"} 1"#,
        "heddle_apply_duration_seconds_sum 100.0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn many_peers_are_counted_without_series_of_their_own() {
    let peers = |count| Status {
        peers: (0..count).map(|index| Peer { key: index.to_string(), ..Peer::default() }).collect(),
        ..Status::default()
    };
    let named = |count| {
        let text = metrics(&peers(count), &Timings::default());
        text.lines().filter(|line| line.starts_with("heddle_peer_info{")).count()
    };
    assert_eq!(named(PEERS_BY_NAME), PEERS_BY_NAME);
    assert_eq!(named(PEERS_BY_NAME + 1), 0);
}

#[test]
fn foreign_label_values_are_truncated() {
    let mut long = status();
    long.peers[0].key = "x".repeat(5000);
    assert!(metrics(&long, &Timings::default()).lines().all(|line| line.len() < 400));
}

#[test]
fn documented_metrics_match_the_exported_ones() {
    let rows = include_str!("../../../../docs/metrics.md").lines();
    let rows = rows.filter_map(|line| line.strip_prefix("| `heddle_"));
    let documented: BTreeMap<_, _> = rows
        .map(|row| {
            let mut cells = row.split(" | ");
            let name = format!("heddle_{}", cells.next().unwrap().trim_end_matches('`'));
            (name, cells.next().unwrap().to_owned())
        })
        .collect();
    let real: BTreeMap<_, _> = declared(&metrics(&status(), &Timings::default()))
        .into_iter()
        .map(|(name, kind)| {
            let suffix = match kind.as_str() {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            (name + suffix, kind)
        })
        .collect();
    assert_eq!(documented, real);
}
