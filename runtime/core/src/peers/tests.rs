use ipnet::IpNet;

use super::*;
use crate::allocation::HostMarks;
use crate::host_network::{Claims, HostAddress, HostRoute, HostRouting, Vital};
use crate::object::{FdbEntry, Metric, Object, Route, RouteAction};

const ONE: &str = r#"{"PublicIP":"192.168.0.1","BackendType":"vxlan"}"#;
const TWO: &str = r#"{"PublicIP":"192.168.0.2","BackendType":"vxlan"}"#;
const OWN: &str = "10.244.8.0-24";

/// Returns a host on 10.244.50.0/24 whose store is at 10.244.60.9, behind a default route.
fn host() -> HostNetwork {
    let routing = HostRouting {
        routes: [
            HostRoute {
                destination: "0.0.0.0/0".parse().unwrap(),
                link: Some("eth0".parse().unwrap()),
                connected: false,
                partial: false,
            },
            HostRoute {
                destination: "10.244.50.0/24".parse().unwrap(),
                link: Some("lan0".parse().unwrap()),
                connected: true,
                partial: false,
            },
        ]
        .into(),
        addresses: [HostAddress {
            link: "lan0".parse().unwrap(),
            network: "10.244.50.1/24".parse().unwrap(),
            up: true,
            prefix_route: true,
        }]
        .into(),
    };
    let claims = Claims {
        overlay: vec!["10.244.0.0/16".parse().unwrap()],
        own: vec!["10.244.8.0/24".parse().unwrap()],
        ..Claims::default()
    };
    let vital = Vital { store: ["10.244.60.9".parse().unwrap()].into(), ..Vital::default() };
    HostNetwork::new(&claims, &routing, vital)
}

fn used(peers: &Peers) -> Vec<String> {
    peers.leases().map(|lease| lease.key.to_string()).collect()
}

#[test]
fn lease_in_host_network_is_used_only_while_host_lacks_it() {
    let (mut peers, now) = (peers(), Instant::now());
    let records = [
        record("10.244.50.0-24", ONE, 2),
        record("10.244.50.64-26", ONE, 3),
        record("10.244.60.0-24", ONE, 4),
        record("10.244.9.0-24", ONE, 5),
    ];
    peers.update(records.map(RecordChange::Put), now);
    // The senior of the overlapping leases is used.
    assert_eq!(used(&peers), ["10.244.9.0-24", "10.244.50.0-24", "10.244.60.0-24"]);
    let delta = peers.protect(host());
    assert_eq!(used(&peers), ["10.244.9.0-24"]);
    assert_eq!(delta.removed.len(), 2);
    assert!(delta.changed.is_empty());
    let reason = |key: &str| peers.rejection(key).unwrap().to_string();
    assert!(reason("10.244.50.0-24").starts_with(
        "10.244.50.0/24 overlaps 10.244.50.0/24, which is connected to lan0; not programmed."
    ));
    assert_eq!(peers.rejection("10.244.60.0-24").unwrap().conflict().unwrap().kind(), "store");
    // Later leases are judged alike, and setting the same host again changes nothing.
    assert_eq!(peers.protect(host()), Delta::default());
    let delta = peers.update([RecordChange::Put(record("10.244.50.128-26", ONE, 6))], now);
    assert!(delta.changed.is_empty() && delta.rejected.len() == 1);
    let delta = peers.protect(HostNetwork::default());
    assert_eq!(delta.changed.len(), 2);
    assert_eq!(used(&peers), ["10.244.9.0-24", "10.244.50.0-24", "10.244.60.0-24"]);
    assert!(peers.rejection("10.244.50.0-24").is_none());
}

#[test]
fn further_leases_of_this_node_are_no_peers() {
    let recognition = Recognition {
        id: "me".parse().unwrap(),
        public_addresses: ["192.168.0.72".parse().unwrap()].into(),
        marks: HostMarks {
            addresses: ["192.168.0.73".parse().unwrap()].into(),
            macs: ["02:00:00:00:00:01".parse().unwrap()].into(),
        },
    };
    let mut peers = peers().recognizing(recognition);
    let mac =
        r#"{"PublicIP":"192.0.2.1","BackendData":{"VtepMAC":"02:00:00:00:00:01"},"NodeID":"me"}"#;
    let records = [
        record("10.244.20.0-24", r#"{"PublicIP":"192.168.0.73","NodeID":"me"}"#, 2),
        record("10.244.21.0-24", mac, 3),
        record("10.244.22.0-24", r#"{"PublicIP":"192.168.0.72"}"#, 4),
        // A machine cloned with its id, and other nodes.
        record("10.244.23.0-24", r#"{"PublicIP":"192.0.2.2","NodeID":"me"}"#, 5),
        record("10.244.24.0-24", &mac.replace(r#""me""#, r#""them""#), 6),
        record("10.244.25.0-24", r#"{"PublicIP":"192.168.0.73"}"#, 7),
    ];
    let delta = peers.update(records.map(RecordChange::Put), Instant::now());
    assert_eq!(used(&peers), ["10.244.23.0-24", "10.244.24.0-24", "10.244.25.0-24"]);
    assert_eq!(delta.rejected.len(), 3);
    let reason = peers.rejection("10.244.20.0-24").unwrap().to_string();
    assert!(reason.contains("this node's own") && reason.contains(OWN), "{reason}");
}

#[test]
fn host_set_before_leases_does_not_distrust_store() {
    let config = NetworkConfig::parse(br#"{"Network":"10.244.0.0/16"}"#).unwrap();
    let mut peers = Peers::new(config, OWN.parse().unwrap());
    peers.protect(host());
    peers.begin_snapshot();
    for record in [record(OWN, ONE, 1), record("10.244.9.0-24", TWO, 2)] {
        peers.add_to_snapshot(&record);
    }
    peers.end_snapshot(Instant::now());
    let delta = peers.update([RecordChange::Delete("10.244.9.0-24".into())], Instant::now());
    assert_eq!((delta.removed.len(), delta.missing.len()), (1, 0));
}

#[test]
fn public_address_in_subnet_of_older_peer_is_refused() {
    let inside = r#"{"PublicIP":"10.244.20.7"}"#;
    let subnet = || record("10.244.20.0-24", ONE, 2);
    let outsider = || record("10.244.30.0-24", inside, 3);
    for records in [[subnet(), outsider()], [outsider(), subnet()]] {
        let mut peers = peers();
        peers.protect(host());
        peers.update(records.map(RecordChange::Put), Instant::now());
        assert_eq!(used(&peers), ["10.244.20.0-24"]);
        let reason = peers.rejection("10.244.30.0-24").unwrap().to_string();
        assert!(
            reason.starts_with(
                "its public address 10.244.20.7 is inside 10.244.20.0/24, the subnet of 192.168.0.1"
            ),
            "{reason}"
        );
        // Without that peer, the lease is used.
        peers.update([RecordChange::Delete("10.244.20.0-24".into())], Instant::now());
        assert_eq!(used(&peers), ["10.244.30.0-24"]);
    }
}

#[test]
fn subnet_around_address_of_older_peer_is_refused() {
    let mut peers = peers();
    peers.protect(host());
    let older = record("10.244.30.0-24", r#"{"PublicIP":"10.244.20.7"}"#, 2);
    peers.update([older, record("10.244.20.0-24", ONE, 3)].map(RecordChange::Put), Instant::now());
    assert_eq!(used(&peers), ["10.244.30.0-24"]);
    assert_eq!(
        peers.rejection("10.244.20.0-24").unwrap().conflict().unwrap().to_string(),
        "10.244.20.0/24 contains 10.244.20.7, the public address of 10.244.20.7"
    );
    // A peer on a connected network of the host is reached regardless of the leases around it.
    let near = record("10.244.31.0-24", r#"{"PublicIP":"10.244.50.7"}"#, 4);
    peers.update([near, record("10.244.48.0-22", TWO, 5)].map(RecordChange::Put), Instant::now());
    assert_eq!(used(&peers), ["10.244.30.0-24", "10.244.31.0-24", "10.244.48.0-22"]);
    // A node whose address is inside its own subnet cannot be reached.
    let own = record("10.244.40.0-24", r#"{"PublicIP":"10.244.40.9"}"#, 6);
    peers.update([RecordChange::Put(own)], Instant::now());
    assert_eq!(
        peers.rejection("10.244.40.0-24").unwrap().conflict().unwrap().kind(),
        "peer-address"
    );
}

#[test]
fn public_address_in_own_subnet_is_refused() {
    let mut peers = peers();
    peers.protect(host());
    let inside = record("10.244.30.0-24", r#"{"PublicIP":"10.244.8.7"}"#, 2);
    peers.update([RecordChange::Put(inside)], Instant::now());
    assert_eq!(
        peers.rejection("10.244.30.0-24").unwrap().conflict().unwrap().to_string(),
        "its public address 10.244.8.7 is inside 10.244.8.0/24, the subnet of this node"
    );
}

#[test]
fn addresses_of_used_peers_cover_destinations() {
    let mut peers = peers();
    peers.protect(host());
    let whole: IpNet = "10.244.0.0/16".parse().unwrap();
    let near = record("10.244.31.0-24", r#"{"PublicIP":"10.244.50.7"}"#, 2);
    peers.update([RecordChange::Put(near)], Instant::now());
    assert_eq!(peers.covered(whole), None);
    let far = record("10.244.32.0-24", r#"{"PublicIP":"10.244.99.7"}"#, 3);
    peers.update([RecordChange::Put(far)], Instant::now());
    assert_eq!(peers.covered(whole).unwrap().kind(), "peer-address");
    peers.update([RecordChange::Delete("10.244.32.0-24".into())], Instant::now());
    assert_eq!(peers.covered(whole), None);
}

/// Returns peers of a store that has this node's own lease.
fn peers() -> Peers {
    let config = NetworkConfig::parse(br#"{"Network":"10.244.0.0/16"}"#).unwrap();
    let mut peers = Peers::new(config, OWN.parse().unwrap());
    peers.update([RecordChange::Put(record(OWN, ONE, 1))], Instant::now());
    peers
}

fn record(key: &str, value: &str, made: u64) -> Record {
    let age = Age { made, written: made };
    Record { key: key.into(), value: value.into(), unread: None, age }
}

/// Applies a list of these records and this node's own.
fn reset(peers: &mut Peers, records: &[(&str, &str)]) -> Delta {
    let own = [(OWN, ONE)];
    let delta = reset_without_own(peers, &[records, &own].concat(), Instant::now());
    assert!(delta.missing.is_empty());
    delta
}

fn reset_without_own(peers: &mut Peers, records: &[(&str, &str)], now: Instant) -> Delta {
    peers.begin_snapshot();
    for (key, value) in records {
        peers.add_to_snapshot(&record(key, value, 1));
    }
    peers.end_snapshot(now)
}

fn update(peers: &mut Peers, changes: &[RecordChange]) -> Delta {
    peers.update(changes.iter().cloned(), Instant::now())
}

fn put(peers: &mut Peers, key: &str, value: &str) -> Delta {
    update(peers, &[RecordChange::Put(record(key, value, 1))])
}

fn update_at(peers: &mut Peers, now: Instant) -> Delta {
    peers.update([], now)
}

fn keys(keys: &[&str]) -> BTreeSet<LeaseKey> {
    keys.iter().map(|key| key.parse().unwrap()).collect()
}

#[test]
fn reset_reports_only_the_records_that_differ() {
    let mut peers = peers();
    let delta = reset(&mut peers, &[("10.244.1.0-24", ONE), ("10.244.2.0-24", TWO)]);
    assert_eq!(delta.changed, keys(&["10.244.1.0-24", "10.244.2.0-24"]));
    let delta = reset(&mut peers, &[("10.244.1.0-24", TWO), ("10.244.3.0-24", ONE)]);
    assert_eq!(delta.changed, keys(&["10.244.1.0-24", "10.244.3.0-24"]));
    assert_eq!(delta.removed, keys(&["10.244.2.0-24"]));
}

#[test]
fn snapshot_takes_effect_only_when_complete() {
    let mut peers = peers();
    reset(&mut peers, &[("10.244.1.0-24", ONE), ("10.244.2.0-24", TWO), ("x", "1")]);
    peers.begin_snapshot();
    peers.add_to_snapshot(&record("10.244.3.0-24", ONE, 1));
    peers.add_to_snapshot(&record("y", "1", 1));
    assert_eq!(peers.snapshot_len(), Some(2));
    let leases = |peers: &Peers| peers.leases().map(|lease| lease.key).collect::<BTreeSet<_>>();
    let before = keys(&["10.244.1.0-24", "10.244.2.0-24"]);
    assert_eq!((leases(&peers), peers.rejected().count()), (before.clone(), 1));
    // The connection broke, and the next list is read from its beginning.
    peers.begin_snapshot();
    peers.add_to_snapshot(&record("10.244.2.0-24", TWO, 1));
    peers.add_to_snapshot(&record(OWN, ONE, 1));
    let delta = peers.end_snapshot(Instant::now());
    assert_eq!((delta.removed, delta.changed), (keys(&["10.244.1.0-24"]), keys(&[])));
    assert_eq!((leases(&peers), peers.rejected().count()), (keys(&["10.244.2.0-24"]), 0));
    assert_eq!(peers.snapshot_len(), None);
}

#[test]
fn lease_expired_between_pages_is_taken_from_snapshot() {
    let mut peers = peers();
    let lease = ("10.244.1.0-24", TWO);
    reset(&mut peers, &[lease]);
    let now = Instant::now();
    reset_without_own(&mut peers, &[], now);
    peers.update([RecordChange::Put(record(OWN, ONE, 1))], now);
    peers.begin_snapshot();
    peers.add_to_snapshot(&record(lease.0, lease.1, 1));
    assert_eq!(update_at(&mut peers, now + GRACE).removed, keys(&[lease.0]));
    peers.add_to_snapshot(&record(OWN, ONE, 1));
    assert_eq!(peers.end_snapshot(now + GRACE).changed, keys(&[lease.0]));
}

#[test]
fn rejected_records_are_named_up_to_a_limit_and_counted() {
    let mut peers = peers();
    let names: Vec<_> = (0..1500).map(|number| format!("x{number:04}")).collect();
    let mut records: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let delta = reset(&mut peers, &records);
    assert_eq!((delta.rejected.len(), delta.rejected_unnamed), (1000, 500));
    assert_eq!((peers.rejected().count(), peers.rejected_unnamed()), (1000, 500));
    // A record of a known peer is always kept by name.
    records.push(("10.244.1.0-24", ONE));
    reset(&mut peers, &records);
    let delta = put(&mut peers, "10.244.1.0-24", "garbage");
    assert_eq!((delta.rejected.len(), delta.rejected_unnamed), (1, 0));
    records.pop();
    records.push(("10.244.1.0-24", "garbage"));
    let delta = reset(&mut peers, &records);
    assert_eq!((delta.rejected, delta.rejected_unnamed, peers.len()), (vec![], 0, 1));
    update(
        &mut peers,
        &[RecordChange::Delete("x1499".into()), RecordChange::Delete("x0000".into())],
    );
    assert_eq!((peers.rejected().count(), peers.rejected_unnamed()), (1000, 499));
    reset(&mut peers, &[]);
    assert_eq!((peers.rejected().count(), peers.rejected_unnamed()), (0, 0));
}

#[test]
fn unread_value_is_rejected_with_its_length() {
    let mut peers = peers();
    let unread = Some(crate::record::Unread::TooLong(1_400_000));
    let long = Record { unread, ..record("10.244.1.0-24", "", 1) };
    let delta = update(&mut peers, &[RecordChange::Put(long)]);
    let [(key, rejection)] = &delta.rejected[..] else { panic!("{delta:?}") };
    assert_eq!(
        format!("{key}: {rejection}"),
        "10.244.1.0-24: its value is too long: 1400000 bytes or more, and the limit is 65536"
    );
}

#[test]
fn record_written_unchanged_changes_nothing() {
    let mut peers = peers();
    reset(&mut peers, &[("10.244.1.0-24", ONE)]);
    assert_eq!(put(&mut peers, "10.244.1.0-24", ONE), Delta::default());
}

#[test]
fn own_lease_is_never_a_peer() {
    let mut peers = peers();
    assert!(put(&mut peers, "10.244.8.0-24", ONE).own);
    assert!(put(&mut peers, "10.244.8.0-24", "garbage").own);
    let delta = update(&mut peers, &[RecordChange::Delete("10.244.8.0-24".into())]);
    assert!(delta.own && peers.is_empty() && delta.removed.is_empty());
}

#[test]
fn invalid_record_changes_nothing_and_is_reported_once() {
    let mut peers = peers();
    reset(&mut peers, &[("10.244.1.0-24", ONE)]);
    for (key, value) in [
        ("10.244.1.0-24", "\u{1}garbage"),
        ("10.244.2.0-24", "{}"),
        ("nonsense", ONE),
        ("10.9.1.0-24", ONE),
        ("10.244.0.0-16", ONE),
        ("0.0.0.0-0&fd00::-64", ONE),
        ("10.244.8.128-25", ONE),
    ] {
        let delta = put(&mut peers, key, value);
        assert_eq!((delta.changed.len(), delta.removed.len()), (0, 0), "{key}");
        assert_eq!(delta.rejected.len(), 1, "{key}");
        assert_eq!(delta.rejected[0].0, key);
        assert_eq!(put(&mut peers, key, value), Delta::default(), "{key}");
    }
    assert_eq!(peers.len(), 1);
    assert_eq!(peers.get("10.244.1.0-24".parse().unwrap()).unwrap().owner(), "192.168.0.1");
}

#[test]
fn invalid_record_can_become_valid_and_be_deleted() {
    let mut peers = peers();
    put(&mut peers, "10.244.1.0-24", "garbage");
    assert_eq!(put(&mut peers, "10.244.1.0-24", ONE).changed, keys(&["10.244.1.0-24"]));
    assert!(peers.rejected().next().is_none());
    put(&mut peers, "10.244.1.0-24", "garbage");
    let delta = reset(&mut peers, &[]);
    assert_eq!(delta.removed, keys(&["10.244.1.0-24"]));
    assert!(peers.rejected().next().is_none());
}

#[test]
fn peer_lacking_a_family_address_keeps_its_whole_key() {
    let mut peers = peers();
    let dual = "10.244.1.0-24&fd00:0:0:1::-64";
    assert_eq!(reset(&mut peers, &[(dual, ONE)]).changed, keys(&[dual]));
    assert_eq!(reset(&mut peers, &[(dual, ONE)]).changed, keys(&[]));
    let delta = update(&mut peers, &[RecordChange::Delete(dual.into())]);
    assert_eq!(delta.removed, keys(&[dual]));
}

#[test]
fn lease_footprint_is_its_subnets_and_addresses() {
    let value = r#"{"PublicIP":"192.168.0.1"}"#;
    let lease = Lease::from_value("10.244.1.0-24".parse().unwrap(), value.as_bytes()).unwrap();
    let footprint = Footprint::of([&lease]);
    let route = |destination: &str| {
        let destination = destination.parse().unwrap();
        Object::Route(Route {
            metric: Metric::Default,
            destination,
            action: RouteAction::Blackhole,
        })
    };
    assert!(footprint.covers(&route("10.244.1.0/24")) && footprint.covers(&route("10.244.1.8/29")));
    assert!(
        !footprint.covers(&route("10.244.0.0/16")) && !footprint.covers(&route("10.244.2.0/24"))
    );
    let entry = |destination: &str| {
        Object::FdbEntry(FdbEntry {
            link: "flannel.1".parse().unwrap(),
            mac: crate::address::MacAddress([2, 0, 0, 0, 0, 1]),
            destination: destination.parse().unwrap(),
        })
    };
    assert!(footprint.covers(&entry("192.168.0.1")) && !footprint.covers(&entry("192.168.0.2")));
}

#[test]
fn last_change_of_a_batch_wins() {
    let (one, two) = ("10.244.1.0-24", "10.244.2.0-24");
    let mut peers = peers();
    let delta = update(
        &mut peers,
        &[RecordChange::Put(record(one, ONE, 1)), RecordChange::Delete(one.into())],
    );
    assert_eq!(delta, Delta::default());
    let delta = update(
        &mut peers,
        &[RecordChange::Delete(two.into()), RecordChange::Put(record(two, ONE, 1))],
    );
    assert_eq!((delta.changed, delta.removed.len()), (keys(&[two]), 0));
    // The delta is empty because the end equals the beginning.
    let delta = update(
        &mut peers,
        &[RecordChange::Delete(two.into()), RecordChange::Put(record(two, ONE, 2))],
    );
    assert_eq!(delta, Delta::default());
}

#[test]
fn overlapping_lease_created_first_is_used() {
    // Neither lease fits the config.
    let (large, small) = ("10.244.4.0-23", "10.244.4.0-25");
    for (first, second) in [(large, small), (small, large)] {
        let (old, new) = (record(first, ONE, 1), record(second, TWO, 2));
        for order in [[&old, &new], [&new, &old]] {
            let mut peers = peers();
            update(&mut peers, &[RecordChange::Put(order[0].clone())]);
            update(&mut peers, &[RecordChange::Put(order[1].clone())]);
            assert_eq!(peers.leases().map(|it| it.key).collect::<BTreeSet<_>>(), keys(&[first]));
            let why = peers.rejected().map(|(key, why)| format!("{key}: {why}"));
            assert_eq!(
                why.collect::<Vec<_>>(),
                [format!("{second}: its subnet overlaps {first} of 192.168.0.1, which is senior")]
            );
            // The second lease takes effect once the first is gone.
            let delta = update(&mut peers, &[RecordChange::Delete(first.into())]);
            assert_eq!((delta.changed, delta.removed), (keys(&[second]), keys(&[first])));
            assert_eq!(peers.rejected().count(), 0);
        }
    }
}

#[test]
fn senior_lease_arriving_late_replaces_the_junior() {
    // Neither lease fits the config.
    let (large, small) = ("10.244.4.0-23", "10.244.4.0-25");
    let mut peers = peers();
    update(&mut peers, &[RecordChange::Put(record(large, ONE, 5))]);
    let delta = update(&mut peers, &[RecordChange::Put(record(small, TWO, 4))]);
    assert_eq!((delta.changed, delta.removed), (keys(&[small]), keys(&[large])));
    assert_eq!(delta.rejected.len(), 1);
    // Creating a lease anew resets its age; writing it again does not.
    let rewritten = Record { age: Age { made: 4, written: 9 }, ..record(small, ONE, 4) };
    assert_eq!(update(&mut peers, &[RecordChange::Put(rewritten)]).changed, keys(&[small]));
    let delta = update(&mut peers, &[RecordChange::Put(record(small, ONE, 10))]);
    assert_eq!((delta.changed, delta.removed), (keys(&[large]), keys(&[small])));
}

#[test]
fn priority_comes_from_the_record() {
    let value =
        r#"{"PublicIP":"192.168.0.1","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}}"#;
    let mut peers = peers();
    let age = Age { made: 1, written: 2 };
    update(&mut peers, &[RecordChange::Put(Record { age, ..record("10.244.1.0-24", value, 1) })]);
    let priority = peers.priority("10.244.1.0-24".parse().unwrap());
    let macs = [crate::address::MacAddress([2, 0, 0, 0, 0, 1])].into();
    assert_eq!(priority, Priority { written: 2, macs });
}

#[test]
fn store_without_own_lease_keeps_missing_peers() {
    let (mut peers, now) = (peers(), Instant::now());
    reset(&mut peers, &[("10.244.1.0-24", ONE), ("10.244.2.0-24", TWO)]);
    let other = r#"{"PublicIP":"192.168.0.3","BackendType":"vxlan"}"#;
    let delta = reset_without_own(&mut peers, &[("10.244.2.0-24", other)], now);
    assert_eq!((delta.changed, delta.removed), (keys(&["10.244.2.0-24"]), keys(&[])));
    assert_eq!(delta.missing, keys(&["10.244.1.0-24"]));
    assert!(peers.is_missing("10.244.1.0-24".parse().unwrap()));
    // However long that lasts: perhaps nobody can write to the store.
    assert_eq!(peers.due(), None);
    assert_eq!(update_at(&mut peers, now + 9 * GRACE), Delta::default());

    // The own lease is back, so the peers should follow.
    let back = now + 10 * GRACE;
    peers.update([RecordChange::Put(record(OWN, ONE, 1))], back);
    assert_eq!(peers.due(), Some(back + GRACE));
    assert_eq!(update_at(&mut peers, back + GRACE / 2), Delta::default());
    assert_eq!(update_at(&mut peers, back + GRACE).removed, keys(&["10.244.1.0-24"]));
    assert_eq!((peers.due(), peers.len()), (None, 1));
    assert_eq!(reset(&mut peers, &[]).removed, keys(&["10.244.2.0-24"]));
}

#[test]
fn missing_lease_rewritten_in_time_is_no_change() {
    let (mut peers, now) = (peers(), Instant::now());
    reset(&mut peers, &[("10.244.1.0-24", ONE)]);
    reset_without_own(&mut peers, &[], now);
    assert_eq!(put(&mut peers, "10.244.1.0-24", ONE), Delta::default());
    let delta = reset_without_own(&mut peers, &[(OWN, ONE), ("10.244.1.0-24", ONE)], now);
    assert_eq!(delta, Delta { own: true, ..Delta::default() });
    assert_eq!(update_at(&mut peers, now + GRACE), Delta::default());
    assert_eq!(peers.len(), 1);
}

#[test]
fn leases_deleted_together_with_own_are_kept() {
    let (mut peers, now) = (peers(), Instant::now());
    reset(&mut peers, &[("10.244.1.0-24", ONE), ("10.244.9.0-24", TWO)]);
    // In the order in which a watch reports one deletion of many keys.
    let gone = ["10.244.1.0-24", OWN, "10.244.9.0-24"].map(|key| RecordChange::Delete(key.into()));
    let delta = peers.update(gone, now);
    assert_eq!(delta.missing, keys(&["10.244.1.0-24", "10.244.9.0-24"]));
    assert!(delta.own && delta.removed.is_empty());
}

#[test]
fn lease_overlapping_a_peer_is_not_used() {
    let other = |last: u8| format!(r#"{{"PublicIP":"192.168.0.{last}"}}"#);
    let rejected = |by: &str| Rejection::OverlapsPeer {
        key: by.parse().unwrap(),
        owner: "192.168.0.1".to_owned(),
    };
    let used = "10.244.1.0-24";
    for key in ["10.244.1.0-25", "10.244.1.7-32", "10.244.0.0-21"] {
        // In either order of arrival, and both at once.
        let mut first = peers();
        reset(&mut first, &[(used, ONE)]);
        let delta = put(&mut first, key, &other(3));
        assert_eq!(delta.rejected, [(key.to_owned(), rejected(used))]);
        assert_eq!(put(&mut first, key, &other(3)), Delta::default());
        let mut last = peers();
        reset(&mut last, &[(key, &other(3))]);
        let delta = put(&mut last, used, ONE);
        assert_eq!((delta.changed, delta.removed), (keys(&[used]), keys(&[key])));
        assert_eq!(delta.rejected, [(key.to_owned(), rejected(used))]);
        let mut both = peers();
        let delta = reset(&mut both, &[(key, &other(3)), (used, ONE)]);
        assert_eq!(delta.changed, keys(&[used]));
        for peers in [&mut first, &mut last, &mut both] {
            assert_eq!((peers.len(), peers.rejected().count()), (1, 1));
            // With that peer gone, the lease is used.
            let delta = update(peers, &[RecordChange::Delete(used.into())]);
            assert_eq!((delta.changed, delta.removed), (keys(&[key]), keys(&[used])));
            assert_eq!((peers.len(), peers.rejected().count()), (1, 0));
        }
    }
}

fn with_id(address: &str, id: &str) -> String {
    format!(r#"{{"PublicIP":"{address}","NodeID":"{id}"}}"#)
}

#[test]
fn missing_lease_yields_to_a_contradicting_record() {
    let now = Instant::now();
    for (key, value, gone) in [
        // Another node's subnet overlaps it.
        ("10.244.1.0-25", r#"{"PublicIP":"192.168.0.3"}"#, keys(&["10.244.1.0-24"])),
        // Its node has another subnet, under the same id, another id, or none.
        ("10.244.3.0-24", TWO, keys(&["10.244.2.0-24"])),
        ("10.244.3.0-24", &with_id("192.168.0.4", "image"), keys(&["10.244.4.0-24"])),
        ("10.244.3.0-24", &with_id("192.168.0.4", "new"), keys(&["10.244.4.0-24"])),
        ("10.244.3.0-24", &with_id("192.168.0.2", "new"), keys(&["10.244.2.0-24"])),
        ("10.244.3.0-24", r#"{"PublicIP":"192.168.0.3"}"#, keys(&[])),
        // A clone of the missing node.
        ("10.244.3.0-24", &with_id("192.168.0.3", "image"), keys(&[])),
    ] {
        // The contradicting record is there at once, or arrives later.
        for at_once in [true, false] {
            let mut peers = peers();
            let clone = with_id("192.168.0.4", "image");
            let before =
                [("10.244.1.0-24", ONE), ("10.244.2.0-24", TWO), ("10.244.4.0-24", &clone)];
            reset(&mut peers, &before);
            let delta = if at_once {
                reset_without_own(&mut peers, &[(key, value)], now)
            } else {
                reset_without_own(&mut peers, &[], now);
                put(&mut peers, key, value)
            };
            let found = (delta.changed, delta.removed);
            assert_eq!(found, (keys(&[key]), gone.clone()), "{key} {value}");
        }
    }
}

#[test]
fn restored_store_with_own_lease_keeps_missing_peers() {
    let (mut peers, now) = (peers(), Instant::now());
    reset(&mut peers, &[("10.244.1.0-24", ONE)]);
    peers.distrust(now);
    let delta = reset_without_own(&mut peers, &[(OWN, ONE)], now);
    assert_eq!((delta.removed, delta.missing), (keys(&[]), keys(&["10.244.1.0-24"])));
    assert_eq!(update_at(&mut peers, now + GRACE).removed, keys(&["10.244.1.0-24"]));
}

mod overlapping {
    use proptest::prelude::*;

    use super::*;

    /// Generates a lease in a part of the network where many overlap, with its time of
    /// creation.
    fn lease() -> impl Strategy<Value = (String, u64)> {
        let subnet = (0_u32..8, 22_u8..=25).prop_map(|(part, length)| {
            let subnet: ipnet::Ipv4Net =
                format!("10.244.{}.{}/{length}", 16 + part / 2, part % 2 * 128).parse().unwrap();
            format!("{}-{length}", subnet.network())
        });
        (subnet, 0_u64..6)
    }

    proptest! {
        /// The leases in use follow from the records alone, not from their history.
        #[test]
        fn senior_leases_are_used_and_overlapping_ones_rejected(
            steps in proptest::collection::vec((lease(), any::<bool>()), 1..40),
        ) {
            let mut peers = peers();
            let mut records = BTreeMap::new();
            for ((key, made), put) in &steps {
                let before: BTreeMap<_, _> =
                    peers.leases().map(|lease| (lease.key, lease.clone())).collect();
                let delta = match put {
                    true => {
                        records.insert(key.clone(), *made);
                        update(&mut peers, &[RecordChange::Put(record(key, ONE, *made))])
                    }
                    false => {
                        records.remove(key);
                        update(&mut peers, &[RecordChange::Delete(key.into())])
                    }
                };
                let seniority = |(key, made): (&String, &u64)| {
                    (!key.ends_with("-24"), *made, key.parse::<LeaseKey>().unwrap())
                };
                let mut by_age: Vec<_> = records.iter().map(seniority).collect();
                by_age.sort_unstable();
                let mut expected: BTreeSet<LeaseKey> = BTreeSet::new();
                for (.., key) in by_age {
                    if !expected.iter().any(|other| overlap(*other, key)) {
                        expected.insert(key);
                    }
                }
                let used: BTreeSet<_> = peers.leases().map(|lease| lease.key).collect();
                prop_assert_eq!(&used, &expected);
                // All other leases are rejected, each with a reason.
                prop_assert_eq!(peers.rejected().count(), records.len() - expected.len());
                // The delta is the difference between the leases in use before and now.
                let before: BTreeSet<_> = before.into_keys().collect();
                prop_assert_eq!(delta.changed, &used - &before);
                prop_assert_eq!(delta.removed, &before - &used);
            }
        }
    }
}
