//! A node that hears of leases as a watch delivers them: in any order but within one key, again after it was connected
//! anew, with a loss now and then. After that comes a complete list, so whatever it heard, it ends where a node begins
//! that starts with the list.

use std::collections::BTreeMap;

use heddle_core::address::MacAddress;
use heddle_core::config::NetworkConfig;
use heddle_core::desired::{Desired, Owner};
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::object::{FdbEntry, Metric, Object, ObjectKey, Plan, Route, RouteAction};
use heddle_core::peers::{Delta, Peers};
use proptest::prelude::*;

const CONFIG: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}"#;
const OWN: &str = "10.244.8.0-24";

/// Keys of peers, of this node, of nobody.
const KEYS: [&str; 9] = [
    "10.244.1.0-24",
    "10.244.1.0-25",
    "10.244.2.0-24&fd00:0:0:2::-64",
    "10.244.3.0-24",
    OWN,
    "10.244.8.128-25",
    "10.9.1.0-24",
    "10.244.0.0-16",
    "nonsense",
];

/// A record's value: a node's address and the MAC of its device, which nodes may share; or nonsense.
fn value(node: u8) -> String {
    match node {
        0 => "{}".to_owned(),
        _ => format!(
            r#"{{"PublicIP":"192.168.0.{node}","PublicIPv6":"2001:db8::{node}","BackendData":{}}}"#,
            node % 3
        ),
    }
}

/// A change of one record: its new value, or none.
type Change = (&'static str, Option<String>);

#[derive(Clone, Debug)]
enum Step {
    /// Somebody writes to the store, or deletes.
    Write(usize, Option<u8>),
    /// The watch delivers so many of the changes that are left; what is about different keys in an order by this.
    Deliver(usize, u64),
    /// It is connected anew, and begins so many changes before.
    Again(usize),
    /// So many changes get lost, which the watch knows.
    Lose(usize),
    /// The node is given a complete list.
    List,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..KEYS.len(), prop::option::weighted(0.7, 0u8..6)).prop_map(|(key, node)| Step::Write(key, node)),
        4 => (1usize..6, any::<u64>()).prop_map(|(count, order)| Step::Deliver(count, order)),
        1 => (1usize..6).prop_map(Step::Again),
        1 => (1usize..4).prop_map(Step::Lose),
        1 => Just(Step::List),
    ]
}

/// What a plugin plans for a peer. Two that share a MAC want one FDB entry.
fn plan(lease: &Lease) -> Plan {
    let link = "flannel.1".parse().unwrap();
    let mut objects = Vec::new();
    for family in &lease.families {
        let gateway = Some(family.subnet.addr());
        let action = RouteAction::Forward { link, gateway, onlink: true };
        let route = Route { destination: family.subnet, metric: Metric::Default, action };
        objects.push(Object::Route(route));
        if let Some(data) = &family.backend_data {
            let mac = MacAddress([2, 0, 0, 0, 0, data.parse().unwrap()]);
            let destination = family.public_address;
            objects.push(Object::FdbEntry(FdbEntry { link, mac, destination }));
        }
    }
    Plan { objects }
}

/// A node, as far as leases concern it.
struct Node {
    own: LeaseKey,
    peers: Peers,
    desired: Desired,
}

impl Node {
    fn new() -> Self {
        let (config, own) =
            (NetworkConfig::parse(CONFIG.as_bytes()).unwrap(), OWN.parse().unwrap());
        Self { own, peers: Peers::new(config, own), desired: Desired::default() }
    }

    fn list(&mut self, store: &BTreeMap<&'static str, String>) {
        let delta = self.peers.reset(store.iter().map(|(key, value)| (*key, value.as_bytes())));
        self.follow(&delta);
    }

    fn hear<'a>(&mut self, changes: impl IntoIterator<Item = &'a Change>) {
        let mut delta = Delta::default();
        for (key, value) in changes {
            match value {
                Some(value) => self.peers.put(key, value.as_bytes(), &mut delta),
                None => self.peers.delete(key, &mut delta),
            }
        }
        self.follow(&delta);
    }

    /// Plans for what changed and nothing else, as the daemon does.
    fn follow(&mut self, delta: &Delta) {
        assert!(delta.changed.is_disjoint(&delta.removed));
        for key in &delta.removed {
            self.desired.remove(Owner::Peer(*key));
        }
        for key in &delta.changed {
            let lease = self.peers.get(*key).expect("a lease that changed is there");
            self.desired.set(Owner::Peer(*key), plan(lease));
        }
        assert!(self.peers.get(self.own).is_none(), "the own lease is no peer");
        assert!(!self.desired.contains(Owner::Peer(self.own)));
        assert!(self.peers.leases().all(|it| self.desired.contains(Owner::Peer(it.key))));
    }

    /// What it would do.
    fn state(&self) -> (Vec<&Lease>, BTreeMap<ObjectKey, &Object>) {
        (self.peers.leases().collect(), self.desired.objects())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_was_heard_of_leases_a_node_ends_where_it_would_begin(
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let mut store: BTreeMap<&str, String> = BTreeMap::new();
        let mut log: Vec<Change> = Vec::new();
        let mut node = Node::new();
        // What of the log was delivered, since when it can be delivered again, and whether something is missing.
        let (mut heard, mut since, mut lost) = (0, 0, false);
        for step in steps {
            match step {
                Step::Write(key, node) => {
                    let (key, value) = (KEYS[key], node.map(value));
                    match &value {
                        Some(value) => store.insert(key, value.clone()),
                        None => store.remove(key),
                    };
                    log.push((key, value));
                }
                Step::Deliver(count, order) => {
                    let end = log.len().min(heard + count);
                    let mut batch: Vec<_> = log[heard..end].iter().collect();
                    batch.sort_by_key(|(key, _)| {
                        let key = KEYS.iter().position(|other| other == key).unwrap() as u64;
                        (order >> (key * 7)) & 0x7f
                    });
                    node.hear(batch);
                    heard = end;
                }
                Step::Again(count) => heard = heard.saturating_sub(count).max(since),
                Step::Lose(count) => {
                    let end = log.len().min(heard + count);
                    lost |= end > heard;
                    // What comes behind a loss is not taken for the whole.
                    (heard, since) = (end, end);
                }
                Step::List => {
                    node.list(&store);
                    (heard, since, lost) = (log.len(), log.len(), false);
                }
            }
        }
        // Of a record that became nonsense the node keeps what it was, which one that starts cannot know.
        let nonsense: Vec<_> = store.iter().filter(|(_, text)| **text == value(0)).map(|(key, _)| *key).collect();
        for key in nonsense {
            store.remove(key);
            log.push((key, None));
        }
        match lost {
            true => node.list(&store),
            false => node.hear(&log[heard..]),
        }
        let mut fresh = Node::new();
        fresh.list(&store);
        prop_assert_eq!(node.state(), fresh.state());
        for lease in node.peers.leases() {
            prop_assert!(store.contains_key(lease.key.to_string().as_str()));
        }
    }
}
