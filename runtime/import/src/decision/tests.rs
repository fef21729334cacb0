use heddle_core::record::{Age, Record};
use heddle_store::Handle;

use super::*;

const VALUE: &str = r#"{"PublicIP":"192.0.2.5","BackendType":"vxlan","BackendData":{"VtepMAC":"9a:00:00:00:00:05"}}"#;
const HOUR: Duration = Duration::from_secs(3600);

fn entry(name: &str, value: &str, ttl: Option<Duration>) -> Entry {
    Entry { name: name.to_owned(), value: value.to_owned(), ttl }
}

fn lease(ttl: Option<Duration>) -> Item {
    record_item(&entry("10.1.5.0-24", VALUE, ttl), "10.1.0.0/16".parse().unwrap()).unwrap()
}

fn content(value: &str, remaining: Option<Duration>) -> Content {
    Content { value: value.as_bytes().to_vec(), version: 7, remaining }
}

/// Returns the decision about an item without other records.
fn alone(item: &Item, found: Option<&Content>, overwrite: bool) -> Decision {
    decide(item, found, &Others::default(), overwrite)
}

fn outcome(decision: &Decision) -> Outcome {
    match decision {
        Decision::Write(_, outcome) | Decision::Leave(outcome, _) => *outcome,
    }
}

/// Returns the reason for leaving an item.
fn reason(decision: Decision) -> String {
    match decision {
        Decision::Leave(_, reason) => reason,
        Decision::Write(..) => panic!("it is written: {decision:?}"),
    }
}

/// Returns a lease of the v3 API as flannel or Heddle writes it.
fn v3_lease(address: &str, rest: &str) -> String {
    format!(
        r#"{{"PublicIP":"{address}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"9a:00:00:00:00:05"}}{rest}}}"#
    )
}

const HEDDLE: &str = r#","NodeID":"node-5","NodeName":"five""#;

#[test]
fn record_that_is_no_lease_is_left_out_with_a_reason() {
    let network = "10.1.0.0/16".parse().unwrap();
    for (name, value, expected) in [
        ("10.1.5.0", VALUE, "not a subnet"),
        ("notes", VALUE, "not a subnet"),
        ("10.1.5.7-24", VALUE, "not a subnet"),
        ("fd00::-64", VALUE, "not a subnet"),
        ("10.1.5.0-24&fd00::-64", VALUE, "IPv6"),
        ("10.1.5.0-24", "", "not a JSON object"),
        ("10.1.5.0-24", "{", "not a JSON object"),
        ("10.1.5.0-24", "[]", "not a JSON object"),
        ("10.1.5.0-24", "{}", "no public address"),
        ("10.1.5.0-24", r#"{"PublicIP":"127.0.0.1"}"#, "loopback"),
        ("10.1.5.0-24", r#"{"PublicIP":"x"}"#, "`PublicIP`"),
        ("10.2.5.0-24", VALUE, "outside `Network`, 10.1.0.0/16"),
        ("10.0.0.0-8", VALUE, "outside `Network`, 10.1.0.0/16"),
    ] {
        let found = record_item(&entry(name, value, Some(HOUR)), network).unwrap_err();
        assert!(found.contains(expected), "{name} {value}: {found}");
    }
}

#[test]
fn lease_and_reservation_are_copied_verbatim() {
    let item = lease(Some(HOUR));
    assert_eq!((item.value.as_str(), item.ttl), (VALUE, Some(HOUR)));
    assert_eq!(item.detail, "lease of 192.0.2.5");
    assert_eq!(alone(&item, None, false), Decision::Write(None, Outcome::Copied));
    let item = lease(None);
    assert_eq!((item.ttl, item.detail.as_str()), (None, "reservation of 192.0.2.5"));
    // As an operator writes a reservation by hand.
    let value = r#"{"PublicIP":"192.0.2.6"}"#;
    let network = "10.1.0.0/16".parse().unwrap();
    assert_eq!(record_item(&entry("10.1.6.0-24", value, None), network).unwrap().value, value);
}

#[test]
fn what_v3_has_already_is_not_written() {
    let left = Some(HOUR);
    for (ttl, found) in [
        (left, content(VALUE, left)),
        // The order of members and white space are of no importance.
        (left, content(&VALUE.replace("\":", "\": "), left)),
        // A later flannel took it over.
        (left, content(&v3_lease("192.0.2.5", ""), left)),
        // heddled took it over, perhaps with a new device.
        (left, content(&v3_lease("192.0.2.5", HEDDLE).replace("9a:", "9b:"), left)),
        (left, content(VALUE, None)),
        (None, content(VALUE, None)),
        (None, content(&v3_lease("192.0.2.5", HEDDLE), None)),
    ] {
        let decision = alone(&lease(ttl), Some(&found), true);
        assert_eq!(outcome(&decision), Outcome::Present, "{found:?}: {decision:?}");
    }
}

#[test]
fn lease_renewed_in_v2_is_extended_in_v3() {
    let (item, day) = (lease(Some(24 * HOUR)), Some(24 * HOUR));
    let found = content(VALUE, Some(HOUR));
    assert_eq!(alone(&item, Some(&found), false), Decision::Write(Some(7), Outcome::Extended));
    // A minute of difference comes from the time between two runs.
    let found = content(VALUE, day.map(|day| day - SLACK));
    assert_eq!(outcome(&alone(&item, Some(&found), false)), Outcome::Present);
    let adopted = content(&v3_lease("192.0.2.5", HEDDLE), Some(HOUR));
    assert_eq!(outcome(&alone(&item, Some(&adopted), true)), Outcome::Present);
}

#[test]
fn different_record_is_a_conflict_and_stays() {
    let left = Some(HOUR);
    for (ttl, found, expected) in [
        (left, content(&v3_lease("192.0.2.9", ""), left), "v3 has it for 192.0.2.9"),
        (left, content(&VALUE.replace("9a:", "9b:"), left), "other backend data for 192.0.2.5"),
        (left, content(&VALUE.replace("vxlan", "udp"), left), "other backend data"),
        (left, content("{", left), "v3 has no lease there"),
        (None, content(VALUE, left), "a reservation in v2"),
    ] {
        let item = lease(ttl);
        let decision = alone(&item, Some(&found), false);
        assert_eq!(outcome(&decision), Outcome::Conflict, "{found:?}");
        assert!(reason(decision.clone()).contains(expected), "{expected}: {decision:?}");
        let decision = alone(&item, Some(&found), true);
        assert_eq!(decision, Decision::Write(Some(7), Outcome::Overwritten), "{found:?}");
    }
}

#[test]
fn record_of_a_node_with_heddle_is_never_overwritten() {
    let found = content(&v3_lease("192.0.2.9", HEDDLE), Some(HOUR));
    let decision = alone(&lease(Some(HOUR)), Some(&found), true);
    assert_eq!(
        reason(decision),
        "v3 has it for five (node id node-5) at 192.0.2.9, v2 for 192.0.2.5"
    );
    let found = content(&v3_lease("192.0.2.5", HEDDLE), Some(HOUR));
    assert_eq!(outcome(&alone(&lease(None), Some(&found), true)), Outcome::Conflict);
}

#[test]
fn lease_beside_one_of_its_node_or_an_overlap_is_a_conflict() {
    let stored = |key: &str, address: &str| Stored {
        record: Record {
            key: key.to_owned(),
            value: v3_lease(address, "").into_bytes(),
            unread: None,
            age: Age::default(),
        },
        handle: Handle { version: 1, lease_id: Some(1) },
    };
    let item = lease(Some(HOUR));
    for (key, address, expected) in [
        ("10.1.9.0-24", "192.0.2.5", Some("192.0.2.5 has 10.1.9.0-24 in v3")),
        ("10.1.4.0-23", "192.0.2.9", Some("overlaps 10.1.4.0-23 in v3")),
        ("10.1.9.0-24", "192.0.2.9", None),
    ] {
        let records = [stored(key, address)];
        let decision = decide(&item, None, &Others::of(&records, |_| false), true);
        match expected {
            Some(expected) => assert_eq!(decision, conflict(expected.to_owned())),
            None => assert_eq!(outcome(&decision), Outcome::Copied),
        }
        // The v2 API has that one as well: flannel keeps both.
        let decision = decide(&item, None, &Others::of(&records, |_| true), true);
        assert_eq!(outcome(&decision), Outcome::Copied, "{key}");
    }
}

#[test]
fn config_without_backend_gets_the_one_that_flannel_means() {
    for (config, expected) in [
        (r#"{"Network":"10.1.0.0/16"}"#, r#"{"Network":"10.1.0.0/16","Backend":{"Type":"udp"}}"#),
        (
            "{\n \"Network\": \"10.1.0.0/16\"\n}\n",
            "{\n \"Network\": \"10.1.0.0/16\",\"Backend\":{\"Type\":\"udp\"}}",
        ),
    ] {
        let (item, parsed) = config_item(&entry("config", config, None)).unwrap();
        assert_eq!(item.value, expected);
        assert_eq!(NetworkConfig::parse(item.value.as_bytes()).unwrap().backend.kind, "udp");
        assert_eq!(parsed.networks.v4.unwrap().network, "10.1.0.0/16".parse().unwrap());
        assert!(item.detail.contains("added"), "{}", item.detail);
    }
    let config = r#"{"network":"10.1.0.0/16","backend":{"type":"vxlan"}}"#;
    assert_eq!(config_item(&entry("config", config, None)).unwrap().0.value, config);
}

#[test]
fn config_is_compared_as_json_and_kept_unless_told_otherwise() {
    let config = r#"{"Network":"10.1.0.0/16","Backend":{"Type":"vxlan"}}"#;
    let (item, _) = config_item(&entry("config", config, None)).unwrap();
    let same = content("{\"Backend\": {\"Type\": \"vxlan\"}, \"Network\": \"10.1.0.0/16\"}", None);
    assert_eq!(outcome(&alone(&item, Some(&same), true)), Outcome::Present);
    let other = content(r#"{"Network":"10.2.0.0/16"}"#, None);
    let decision = alone(&item, Some(&other), false);
    assert_eq!(reason(decision), r#"v3 has another config: {"Network":"10.2.0.0/16"}"#);
    let decision = alone(&item, Some(&other), true);
    assert_eq!(decision, Decision::Write(Some(7), Outcome::Overwritten));
    for (config, expected) in [("x", "JSON"), ("{}", "`Network` is missing")] {
        let reason = config_item(&entry("config", config, None)).unwrap_err();
        assert!(reason.contains(expected), "{reason}");
    }
}
