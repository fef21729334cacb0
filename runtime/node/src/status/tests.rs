use heddle_core::family::PerFamily;
use heddle_core::peers::Rejection;
use heddle_core::record::{Age, Record, Unread};
use heddle_plugin::PluginSource;
use heddle_store::Handle;

use crate::readiness::Readiness;
use crate::testing::{ScriptedStore, found as found_plugin, key, lease_at, stored as written};

use super::*;

fn found(key: String, unread: Option<Unread>) -> Stored {
    let value = br#"{"PublicIP":"192.168.0.1"}"#.to_vec();
    let record = Record { key, value, unread, age: Age::default() };
    Stored { record, handle: Handle { version: 1, lease_id: None } }
}

#[test]
fn unusable_records_beyond_limit_are_counted() {
    let mut listing = Listing::new(None, HostNetwork::default());
    let garbage = (0..USELESS + 500).map(|number| found(format!("x{number}"), None));
    let long = found("10.244.2.0-24".to_owned(), Some(Unread::TooLong(70_000)));
    let good = found("10.244.1.0-24".to_owned(), None);
    let page = |records, first, last| Page { records, first, last };
    // A list that starts again is counted once.
    listing.add(&page(vec![long.clone()], true, false));
    listing.add(&page(vec![long], true, false));
    listing.add(&page(garbage.collect(), false, false));
    listing.add(&page(vec![good], false, true));
    let leases = listing.finish();
    assert_eq!((leases.records.len(), leases.unlisted), (USELESS + 1, 501));
    let problem = leases.records[0].problem.as_ref().unwrap();
    assert!(problem.contains("too long: 70000 bytes"), "{problem}");
    assert_eq!(leases.records[USELESS].problem, None);
}

/// The rejection of a lease outside the overlay network.
const OUTSIDE: Rejection = Rejection::OutsideNetwork("Network");

/// Returns the state before the node starts, and the receiver of its queries.
fn state() -> (NodeState, mpsc::Receiver<Query>, Readiness) {
    let readiness = Readiness::new();
    let (ask, queries) = mpsc::channel(1);
    let (unmet, history) = (readiness.subscribe(), History::default());
    let state = NodeState::new("/net".to_owned(), unmet, PacketCounters::default(), history, ask);
    (state, queries, readiness)
}

#[test]
fn changes_repairs_and_warnings_are_passed_on() {
    let mut status = Status::default();
    add_report(
        &mut status,
        Report {
            changes: wire::Changes {
                put: 1,
                replaced: 2,
                removed: 3,
                refused: 4,
                repairs: [("route".to_owned(), 5)].into(),
            },
            superseded: Some("changed".to_owned()),
            warnings: vec!["overlap".to_owned()],
            unlisted: 5,
            ..Report::default()
        },
    );
    assert_eq!(status.unlisted, 5);
    let changes = &status.changes;
    assert_eq!((changes.put, changes.replaced, changes.removed, changes.refused), (1, 2, 3, 4));
    assert_eq!(changes.repairs["route"], 5);
    assert_eq!(status.superseded.as_deref(), Some("changed"));
    assert_eq!(status.warnings, ["overlap"]);
}

#[test]
fn traffic_rules_that_nobody_asked_for_are_left_out() {
    let asked = |masquerade: bool, forward| Rules {
        network_name: "/net".to_owned(),
        families: PerFamily::NONE,
        masquerade: masquerade.then_some(heddle_firewall::Masquerade { random_fully: true }),
        forward,
        mode: Mode::Nftables,
    };
    assert_eq!(rules(&asked(false, false), &Unmet::new()), None);
    let unmet = [(Condition::Rules, "nft is missing".to_owned())].into();
    let found = rules(&asked(true, false), &unmet).unwrap();
    assert_eq!(
        (found.mode, found.masquerade, found.forward),
        (wire::RulesMode::Nftables, true, false)
    );
    assert_eq!(found.problem.as_deref(), Some("nft is missing"));
    assert!(rules(&asked(false, true), &Unmet::new()).unwrap().forward);
}

#[test]
fn plugin_is_described_with_its_source() {
    let mut found = found_plugin("backend-plugin", "vxlan");
    let built_in = plugin(&found, &Metrics::default());
    assert_eq!((built_in.name.as_str(), built_in.version.as_str()), ("vxlan", "0.1.0"));
    assert_eq!((built_in.source, built_in.digest.as_str()), (PluginSource::Embedded, "d1"));
    found.source = PluginSource::File("/etc/heddle/plugins/vxlan.wasm".into());
    let expected = PluginSource::File("/etc/heddle/plugins/vxlan.wasm".into());
    assert_eq!(plugin(&found, &Metrics::default()).source, expected);
}

#[tokio::test(start_paused = true)]
async fn term_counts_from_the_renewal_and_to_the_end() {
    let renewed = tokio::time::Instant::now();
    let ends = Some(renewed + Duration::from_secs(100));
    tokio::time::sleep(Duration::from_secs(30)).await;
    let own = term(Some(Term { renewed, ends }));
    assert_eq!((own.remaining, own.age), (Some(70), 30));
    let permanent = term(Some(Term { renewed, ends: None }));
    assert_eq!((permanent.remaining, permanent.age), (None, 30));
    assert_eq!(term(None).remaining, None);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(term(Some(Term { renewed, ends })).remaining, Some(0));
}

#[test]
fn record_is_described_with_its_owner() {
    let value =
        r#"{"PublicIP":"192.0.2.7","BackendType":"vxlan","NodeID":"n7","NodeName":"seven"}"#;
    let described = lease_record(&written("10.244.7.0-24", value), Some(key(7)), None);
    assert!(described.own && described.reservation);
    assert_eq!(described.node_id.as_deref(), Some("n7"));
    assert_eq!(described.node_name.as_deref(), Some("seven"));
    assert_eq!((described.backend.as_deref(), described.problem), (Some("vxlan"), None));
    assert!(!lease_record(&written("10.244.7.0-24", value), Some(key(8)), None).own);
    assert!(!lease_record(&written("10.244.7.0-24", value), None, None).own);
}

#[test]
fn record_that_cannot_be_parsed_has_a_problem() {
    let problem =
        |key: &str, value: &str| lease_record(&written(key, value), None, None).problem.unwrap();
    assert!(problem("garbage", "{}").contains("is not a lease key"));
    assert!(problem("10.244.7.0-24", "nonsense").starts_with("not a JSON object"));
    let rejection = Some(OUTSIDE);
    let good = written("10.244.7.0-24", r#"{"PublicIP":"192.0.2.7"}"#);
    assert_eq!(lease_record(&good, None, rejection).problem.unwrap(), OUTSIDE.to_string());
}

#[test]
fn key_of_a_record_is_shown_in_one_line() {
    let described = lease_record(&written("a\nb\u{1b}[2J", "{}"), None, None);
    assert!(!described.key.contains(['\n', '\u{1b}']), "{}", described.key);
}

#[tokio::test]
async fn state_before_the_start_knows_no_leases() {
    let (state, _queries, _readiness) = state();
    let error = state.leases().await.unwrap_err();
    assert_eq!(error.to_string(), "it starts");
    assert!(state.store().is_none());
    let status = state.status().await.unwrap();
    assert_eq!((status.network.as_str(), status.ready), ("/net", false));
    assert_eq!(status.node, wire::NodeIdentity::default());
}

#[tokio::test(start_paused = true)]
async fn query_that_nobody_answers_is_no_sign_of_life() {
    let (state, mut queries, _readiness) = state();
    let begun = tokio::time::Instant::now();
    assert!(!state.alive(Duration::from_secs(3)).await);
    assert_eq!(begun.elapsed(), Duration::from_secs(3));
    // The query of a caller that has given up may still be in the queue.
    let answer = async {
        while let Some(query) = queries.recv().await {
            if let Query::Alive(answer) = query {
                let _ = answer.send(());
            }
        }
    };
    let alive = tokio::select! {
        alive = state.alive(Duration::from_secs(3)) => alive,
        () = answer => false,
    };
    assert!(alive);
}

#[tokio::test]
async fn loop_that_has_ended_is_no_sign_of_life() {
    let (state, queries, _readiness) = state();
    drop(queries);
    assert!(!state.alive(Duration::from_secs(60)).await);
}

#[tokio::test]
async fn leases_are_listed_as_soon_as_the_store_is_known() {
    let (state, _queries, _readiness) = state();
    let records = vec![written("10.244.7.0-24", r#"{"PublicIP":"192.0.2.7"}"#), written("x", "")];
    let store = ScriptedStore { records, ..ScriptedStore::default() };
    let identity = Identity { id: "node-1".parse().unwrap(), name: None };
    state.learn(identity, Arc::new(store));
    let leases = state.leases().await.unwrap();
    assert_eq!((leases.network.as_str(), leases.records.len()), ("/net", 2));
    assert_eq!(leases.records[0].problem, None);
    assert!(leases.records[1].problem.is_some());
    assert_eq!(state.status().await.unwrap().node.id, "node-1");
}

#[test]
fn later_lease_of_the_same_address_is_no_problem_of_the_list() {
    let mut listing = Listing::new(None, HostNetwork::default());
    let value = lease_at(8, "192.0.2.7").to_value();
    let records = vec![
        written("10.244.7.0-24", r#"{"PublicIP":"192.0.2.7"}"#),
        written("10.244.8.0-24", &value),
    ];
    listing.add(&Page { records, first: true, last: true });
    let leases = listing.finish();
    assert!(leases.records.iter().all(|record| record.problem.is_none()), "{leases:?}");
}
