//! The functions that run for each change of a lease, in a cluster of 10,000 nodes.

#![allow(clippy::disallowed_methods, reason = "a benchmark begins at the present time")]

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::time::Instant;

use heddle_bench::Comparisons;
use heddle_core::address::MacAddress;
use heddle_core::config::NetworkConfig;
use heddle_core::diff::{Observation, Observed, diff, diff_keys};
use heddle_core::lease::Lease;
use heddle_core::object::{FdbEntry, Metric, Object, ObjectKey, Route, RouteAction};
use heddle_core::peers::Peers;
use heddle_core::record::{Age, Record, RecordChange};

const NODES: u16 = 10_000;

/// A record of a node, as flannel's vxlan writes it.
struct Written {
    key: String,
    value: String,
    written: u64,
}

impl Written {
    fn new(node: u16, mac: u8) -> Self {
        let [high, low] = node.to_be_bytes();
        let value = format!(
            r#"{{"PublicIP":"192.168.{high}.{low}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{}"}}}}"#,
            MacAddress([2, 0, 0, mac, high, low])
        );
        Self { key: format!("10.{high}.{low}.0-24"), value, written: u64::from(node) }
    }

    fn record(&self) -> Record {
        let age = Age { made: self.written, written: self.written };
        Record { key: self.key.clone(), value: self.value.clone().into_bytes(), unread: None, age }
    }
}

fn peers(all: &[Written]) -> Peers {
    let config = br#"{"Network":"10.0.0.0/8","SubnetLen":24,"Backend":{"Type":"vxlan"}}"#;
    let config = NetworkConfig::parse(config).unwrap();
    let mut peers = Peers::new(config, "10.255.0.0-24".parse().unwrap());
    list(&mut peers, all);
    assert_eq!(peers.len(), all.len());
    peers
}

/// Reads the complete list again.
fn list(peers: &mut Peers, all: &[Written]) {
    peers.begin_snapshot();
    for one in all {
        peers.add_to_snapshot(&one.record());
    }
    black_box(peers.end_snapshot(Instant::now()));
}

/// Returns the objects of a peer of the vxlan backend that the kernel tells apart.
fn objects(node: u16) -> [Object; 2] {
    let [high, low] = node.to_be_bytes();
    let link = "flannel.1".parse().unwrap();
    let gateway = Some([10, high, low, 0].into());
    let route = Route {
        destination: format!("10.{high}.{low}.0/24").parse().unwrap(),
        metric: Metric::Default,
        action: RouteAction::Forward { link, gateway, onlink: true },
    };
    let mac = MacAddress([2, 0, 0, 0, high, low]);
    let entry = FdbEntry { link, mac, destination: [192, 168, high, low].into() };
    [Object::Route(route), Object::FdbEntry(entry)]
}

fn updates(comparisons: &mut Comparisons) {
    let all: Vec<_> = (1..=NODES).map(|node| Written::new(node, 0)).collect();
    let few = &all[..100];
    // Each call changes the lease, because the two take turns.
    let [mut turns, mut turns_of_few] =
        [5000, 50].map(|node| [1, 2].map(|mac| Written::new(node, mac)));
    let mut many_peers = peers(&all);
    let mut few_peers = peers(few);
    let mut listed = peers(&all);
    let update = |peers: &mut Peers, turns: &mut [Written; 2]| {
        turns.reverse();
        let delta = peers.update([RecordChange::Put(turns[0].record())], Instant::now());
        assert_eq!(delta.changed.len(), 1);
    };
    comparisons.compare(
        ("peers/update of one lease", || update(&mut many_peers, &mut turns)),
        ("reading the list of all again", || list(&mut listed, &all)),
    );
    comparisons.compare(
        ("peers/update of one lease among 10,000", || update(&mut many_peers, &mut turns)),
        ("the same among 100", || update(&mut few_peers, &mut turns_of_few)),
    );
}

fn differences(comparisons: &mut Comparisons) {
    let all = (1..=NODES).flat_map(objects).map(|object| (object.key(), object));
    let desired: BTreeMap<ObjectKey, Object> = all.collect();
    let by_reference: BTreeMap<_, _> =
        desired.iter().map(|(key, object)| (key.clone(), object)).collect();
    let seen = |object: &Object| Observation { object: object.clone(), ours: true };
    let objects_seen = desired.iter().map(|(key, object)| (key.clone(), seen(object)));
    let mut observed = Observed { objects: objects_seen.collect(), ..Observed::default() };
    let touched = objects(5000).map(|object| object.key());
    for key in &touched {
        observed.objects.remove(key);
    }
    let whole = || {
        let changes = diff(&by_reference, &observed);
        assert_eq!(changes.len(), 2);
    };
    let keys = || {
        let keys: BTreeSet<_> = touched.iter().collect();
        let changes = diff_keys(keys, |key| desired.get(key), &observed);
        assert_eq!(changes.len(), 2);
    };
    comparisons.compare(("diff/keys of one peer", keys), ("diff of all", whole));
    comparisons.compare(
        ("diff/of all", whole),
        ("one set of all keys", || {
            desired.keys().chain(observed.objects.keys()).collect::<BTreeSet<_>>().len()
        }),
    );
}

fn parsing(comparisons: &mut Comparisons) {
    let one = Written::new(5000, 1);
    let key = one.key.parse().unwrap();
    comparisons.compare(
        ("lease/parse", || Lease::from_value(key, one.value.as_bytes()).unwrap()),
        ("the same text as any JSON", || {
            serde_json::from_slice::<serde_json::Value>(one.value.as_bytes()).unwrap()
        }),
    );
}

fn main() {
    let mut comparisons = Comparisons::from_arguments();
    updates(&mut comparisons);
    differences(&mut comparisons);
    parsing(&mut comparisons);
    comparisons.print();
}
