//! Log floods and hidden characters: neither keeps readers of the log or the status from the other
//! entries.

use std::time::{Duration, Instant};

use heddle_lab::{Families, Host};
use heddle_tests::wording::not_used;
use heddle_tests::{Cluster, NETWORK_FOR_PEERS, Peer, SOON, heddle, status};
use serde_json::{Value, json};

/// Time limit for a report of what was suppressed, which comes every ten seconds, on a loaded machine.
const REPORTED: Duration = Duration::from_secs(60);

#[test]
fn flapping_lease_is_limited_in_log_and_events() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let mut node = cluster.node("a");
    let [flapper, other] = [Peer(1), Peer(2)];
    let begun = Instant::now();
    let changes = 1000;
    for number in 0..changes {
        cluster.put_lease(&flapper.lease_key(), &flapper.value());
        cluster.delete_lease(&flapper.lease_key());
        if number == changes / 2 {
            cluster.put_lease(&other.lease_key(), &other.value());
        }
    }
    println!("{changes} changes in {:?}", begun.elapsed());
    // A single event is logged, however many others are suppressed.
    let said = format!("peer {}: joined: {}", other.lease_key(), other.public_ip());
    node.daemon().wait_log(&[&said], SOON).unwrap();
    let report = ["suppressed by the rate limit", &flapper.lease_key()];
    let report = node.daemon().wait_log(&report, REPORTED).unwrap();
    let log = node.daemon().log();
    let lines = log.lines().filter(|line| line.contains(&flapper.lease_key())).count();
    println!("{lines} lines, one of them: {report}");
    // Ten lines of each kind in a burst, then one of each in ten seconds, and the reports.
    let expected = 20 + 3 * (usize::try_from(begun.elapsed().as_secs()).unwrap() / 10 + 1);
    assert!(lines <= expected, "{lines} lines, expected {expected} at most");

    let status = status(&node.host);
    let events = status["events"].as_array().unwrap();
    let about = |key: &str| {
        events.iter().filter(|event| event["text"].as_str().unwrap().contains(key)).count()
    };
    assert!((1..=15).contains(&about(&flapper.lease_key())), "{events:#?}");
    assert_eq!(about(&other.lease_key()), 1, "{events:#?}");
    assert!(events.iter().any(|event| event["kind"] == "ready"), "{events:#?}");
}

#[test]
fn silent_peers_are_summarized_in_log() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let mut node = cluster.starting_node("a", &["--probe-interval=1"]);
    let peers = Peer::range(0, 500);
    cluster.etcd().put_all(&Peer::leases(&peers), 100).unwrap();
    let summary = "peers: 500 of 500 unreachable over the overlay; see \"heddle status\"";
    node.daemon().wait_log(&[summary], REPORTED).unwrap();
    let log = node.daemon().log();
    let named = log.lines().filter(|line| line.contains("does not answer at")).count();
    assert!((1..=20).contains(&named), "{named} lines");
    let status = status(&node.host);
    let events = status["events"].as_array().unwrap();
    let silent = events.iter().filter(|event| event["kind"] == "peer-silent").count();
    assert!((2..=30).contains(&silent), "{events:#?}");
}

/// Bidirectional controls, zero-width characters, a tag, a terminal's command in C1, a filler, a
/// private-use character.
const HIDDEN: [char; 9] = [
    '\u{202e}',
    '\u{2066}',
    '\u{200b}',
    '\u{feff}',
    '\u{e0041}',
    '\u{9b}',
    '\u{ad}',
    '\u{3164}',
    '\u{e000}',
];

/// Runs `heddle` with these arguments against the host's daemon, and returns its output.
fn ask(host: &Host, words: &[&str]) -> String {
    let mut command = std::process::Command::new(heddle());
    command.args(words).arg("--socket").arg(host.control_socket());
    host.namespace().run(command).unwrap()
}

fn get(host: &Host, path: &str) -> String {
    let mut command = std::process::Command::new("curl");
    command.args(["-sS", &format!("http://127.0.0.1:9981{path}")]);
    host.namespace().run(command).unwrap()
}

#[test]
fn hidden_characters_of_others_are_shown_as_escapes() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let mut node = cluster.starting_node("a", &["--status-address=9981"]);
    node.daemon().wait_ready().unwrap();
    let hidden = String::from_iter(HIDDEN);
    let name = format!("rack{hidden}7{}", "\u{301}".repeat(60));
    let lease = |peer: Peer, kind: &str| {
        let mut value: Value = serde_json::from_str(&peer.value()).unwrap();
        (value["NodeName"], value["BackendType"]) = (json!(name), json!(kind));
        cluster.put_lease(&peer.lease_key(), &value.to_string());
    };
    lease(Peer(1), "vxlan");
    lease(Peer(2), &format!("worm{hidden}hole"));
    cluster.put_lease(&format!("x{hidden}y"), "{}");
    cluster.put_lease("10.128.3.0-24", &json!({ "PublicIP": format!("1{hidden}") }).to_string());
    for texts in [["peer 10.128.1.0-24", "rack"], ["10.128.2.0-24", "worm"], ["lease x", "y"]] {
        node.daemon().wait_log(&texts, SOON).unwrap();
    }
    node.daemon().wait_log(&[&not_used("10.128.3.0-24")], SOON).unwrap();
    let log = node.daemon().log();
    let (of_status, of_leases) =
        (ask(&node.host, &["status", "--json"]), ask(&node.host, &["lease", "list", "--json"]));
    for (what, text) in [
        ("the log", &log),
        ("heddle status", &ask(&node.host, &["status"])),
        ("heddle lease list", &ask(&node.host, &["lease", "list"])),
        ("heddle status --json", &of_status),
        ("heddle lease list --json", &of_leases),
        ("/status.json", &get(&node.host, "/status.json")),
        ("/metrics", &get(&node.host, "/metrics")),
    ] {
        assert!(text.contains("rack"), "{what}: {text}");
        let found = text.chars().find(|c| HIDDEN.contains(c));
        assert_eq!(found, None, "{what}: {text}");
        assert!(!text.contains(&"\u{301}".repeat(5)), "{what}: {text}");
    }
    assert!(log.contains("\\u{202e}") && of_status.contains("\\u202e"), "{log}{of_status}");
    // JSON output has the original value.
    let of_leases: Value = serde_json::from_str(&of_leases).unwrap();
    let records = of_leases["records"].as_array().unwrap();
    assert!(records.iter().any(|record| record["node_name"] == json!(name)), "{records:#?}");
}
