//! A node that receives leases as a watch delivers them: reordered except within one key, repeated
//! after a reconnect, with losses now and then; the store may lose the node's own lease as well. A
//! complete list and the grace period for peers follow. Whatever the node received, it ends in the
//! state of a node that starts with that list.

#![allow(clippy::disallowed_methods, reason = "a test begins at the present time")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use heddle_core::address::MacAddress;
use heddle_core::allocation::{fits, overlap};
use heddle_core::config::NetworkConfig;
use heddle_core::desired::{Desired, Owner};
use heddle_core::host_network::{Claims, HostAddress, HostNetwork, HostRouting, Vital};
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::object::{FdbEntry, Metric, Object, Plan, Route, RouteAction};
use heddle_core::peers::{Delta, GRACE, Peers};
use heddle_core::record::{Age, Record, RecordChange};
use ipnet::IpNet;
use proptest::prelude::*;

const CONFIG: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}"#;
const OWN: &str = "10.244.8.0-24";

/// Keys of peers, of this node, and of no node.
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

/// Returns a record's value: a node's address and, for every other node, the MAC of its device,
/// which nodes may share; or garbage.
fn value(node: u8) -> String {
    let data = match node {
        0 => return "{}".to_owned(),
        _ if node.is_multiple_of(2) => "{}".to_owned(),
        _ => format!(r#"{{"VtepMAC":"{}"}}"#, mac(node)),
    };
    format!(
        r#"{{"PublicIP":"192.168.0.{node}","PublicIPv6":"2001:db8::{node}","BackendData":{data}}}"#
    )
}

fn mac(node: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, node % 3])
}

/// The current records by key.
type Store = BTreeMap<&'static str, (String, Age)>;

/// A change of a record: its new value, or None if it was deleted.
type Event = (&'static str, Option<(String, Age)>);

#[derive(Clone, Debug)]
enum Step {
    /// A record is written or deleted.
    Write(usize, Option<u8>),
    /// The watch delivers this many of the pending changes; the order between different keys
    /// depends on the second number.
    Deliver(usize, u64),
    /// The watch reconnects, and resumes this many changes earlier.
    Again(usize),
    /// This many changes are lost, and the watch knows it.
    Lose(usize),
    /// The node receives a complete list.
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

/// Returns a plugin's plan for a peer. Two peers with the same MAC want the same FDB entry,
/// published or not.
fn plan(lease: &Lease) -> Plan {
    let link = "flannel.1".parse().unwrap();
    let mut objects = Vec::new();
    for family in &lease.families {
        let gateway = Some(family.subnet.addr());
        let action = RouteAction::Forward { link, gateway, onlink: true };
        let route = Route { destination: family.subnet, metric: Metric::Default, action };
        objects.push(Object::Route(route));
        if let IpAddr::V4(address) = family.public_address {
            let (mac, destination) = (mac(address.octets()[3]), address.into());
            objects.push(Object::FdbEntry(FdbEntry { link, mac, destination }));
        }
    }
    Plan { objects }
}

fn record(key: &str, value: &str, age: Age) -> Record {
    Record { key: key.into(), value: value.into(), unread: None, age }
}

/// The parts of a node that depend on leases.
struct Node {
    own: LeaseKey,
    peers: Peers,
    desired: Desired,
    now: Instant,
}

impl Node {
    fn new() -> Self {
        let (config, own) =
            (NetworkConfig::parse(CONFIG.as_bytes()).unwrap(), OWN.parse().unwrap());
        let peers = Peers::new(config, own);
        Self { own, peers, desired: Desired::default(), now: Instant::now() }
    }

    fn list(&mut self, store: &Store) {
        self.peers.begin_snapshot();
        for (key, (value, age)) in store {
            self.peers.add_to_snapshot(&record(key, value, *age));
        }
        let delta = self.peers.end_snapshot(self.now);
        self.follow(&delta);
    }

    /// Lets the grace period pass.
    fn wait(&mut self) {
        self.now += GRACE;
        let delta = self.peers.update([], self.now);
        self.follow(&delta);
        assert_eq!(self.peers.due(), None);
    }

    fn hear<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>) {
        let changes = events.into_iter().map(|(key, value)| match value {
            Some((value, age)) => RecordChange::Put(record(key, value, *age)),
            None => RecordChange::Delete(key.to_string()),
        });
        let delta = self.peers.update(changes, self.now);
        self.follow(&delta);
    }

    /// Plans only for what changed, as the daemon does.
    fn follow(&mut self, delta: &Delta) {
        assert!(delta.changed.is_disjoint(&delta.removed));
        for key in &delta.removed {
            self.desired.remove(Owner::Peer(*key));
        }
        for key in &delta.changed {
            let lease = self.peers.get(*key).expect("a lease that changed is there");
            let priority = self.peers.priority(*key);
            self.desired.set(Owner::Peer(*key), &priority, plan(lease));
        }
        assert!(self.peers.get(self.own).is_none(), "the own lease is no peer");
        assert!(!self.desired.contains(Owner::Peer(self.own)));
        assert!(self.peers.leases().all(|it| self.desired.contains(Owner::Peer(it.key))));
    }

    /// Returns the leases in use.
    fn used(&self) -> Vec<&Lease> {
        self.peers.leases().collect()
    }
}

/// Returns the leases that should be used: those that fit the config first, then the oldest, each
/// unless it overlaps one of the former.
fn to_use(store: &Store) -> BTreeSet<LeaseKey> {
    let own: LeaseKey = OWN.parse().unwrap();
    let config = NetworkConfig::parse(CONFIG.as_bytes()).unwrap();
    let network = "10.244.0.0/16".parse::<IpNet>().unwrap();
    let mut records: Vec<_> = store
        .iter()
        .filter_map(|(text, (value, age))| {
            let key: LeaseKey = text.parse().ok()?;
            let lease = Lease::from_value(key, value.as_bytes()).ok()?;
            let inside = |it: IpNet| it != network && network.contains(&it);
            let usable =
                lease.families.iter().all(|it| it.subnet.addr().is_ipv6() || inside(it.subnet));
            (usable && !overlap(key, own)).then_some((!fits(&config, key), age.made, key))
        })
        .collect();
    records.sort_unstable();
    let mut used: Vec<LeaseKey> = Vec::new();
    for (.., key) in records {
        if !used.iter().any(|other| overlap(*other, key)) {
            used.push(key);
        }
    }
    used.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn node_state_after_watch_equals_state_after_fresh_start(
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let mut store = Store::new();
        let mut log: Vec<Event> = Vec::new();
        let mut node = Node::new();
        // How much of the log was delivered, from where it can be delivered again, and whether
        // something is missing.
        let (mut heard, mut since, mut lost) = (0, 0, false);
        for step in steps {
            match step {
                Step::Write(key, node) => {
                    let (key, now) = (KEYS[key], log.len() as u64 + 1);
                    let made = store.get(key).map_or(now, |(_, age)| age.made);
                    let value = node.map(|node| (value(node), Age { made, written: now }));
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
                    // Changes after a loss are not taken for the complete state.
                    (heard, since) = (end, end);
                }
                Step::List => {
                    node.list(&store);
                    (heard, since, lost) = (log.len(), log.len(), false);
                }
            }
        }
        // For a record that became garbage the node keeps the previous lease, which a fresh node
        // cannot know.
        let nonsense: Vec<_> = store.iter().filter(|(_, (text, _))| *text == value(0)).map(|(key, _)| *key).collect();
        for key in nonsense {
            store.remove(key);
            log.push((key, None));
        }
        // This node writes its own lease again.
        let own = (value(1), Age { made: log.len() as u64 + 1, written: log.len() as u64 + 1 });
        store.insert(OWN, own.clone());
        log.push((OWN, Some(own)));
        match lost {
            true => node.list(&store),
            false => node.hear(&log[heard..]),
        }
        node.wait();
        let mut fresh = Node::new();
        fresh.list(&store);
        prop_assert_eq!(node.used(), fresh.used());
        prop_assert_eq!(node.peers.leases().map(|it| it.key).collect::<BTreeSet<_>>(), to_use(&store));
        // The winner of a tie-break depends on the age of the claims, and so on the history. Keys
        // that were written once have no history.
        let once = |owner: &LeaseKey| log.iter().filter(|(key, _)| owner.to_string() == *key).count() == 1;
        let (known, found) = (node.desired.objects(), fresh.desired.objects());
        prop_assert!(known.keys().eq(found.keys()));
        for (key, object) in known {
            let wanting: Vec<_> = node.used().into_iter().filter(|it| plan(it).objects.iter().any(|it| it.key() == key)).collect();
            let same = wanting.len() == 1 || wanting.iter().all(|lease| once(&lease.key));
            prop_assert!(!same || object == found[&key], "{key}: {wanting:?}");
            prop_assert!(wanting.iter().any(|lease| plan(lease).objects.contains(object)));
        }
    }

    /// The same for the host's own network and for addresses inside subnets: the end state does not
    /// depend on the order of events.
    #[test]
    fn order_of_host_and_leases_does_not_matter(
        steps in prop::collection::vec((0..KEYS.len(), prop::option::weighted(0.8, 1u8..6), any::<bool>()), 0..40),
    ) {
        let mut store = Store::new();
        store.insert(OWN, (value(1), Age { made: 1, written: 1 }));
        let (mut node, mut busy) = (Node::new(), false);
        node.list(&store);
        for (now, (key, at, turns)) in (2..).zip(steps) {
            if turns {
                busy = !busy;
                let delta = node.peers.protect(host(busy));
                node.follow(&delta);
            }
            let key = KEYS[key];
            if key == OWN {
                continue;
            }
            let made = store.get(key).map_or(now, |(_, age)| age.made);
            let value = at.map(|at| (inside(at), Age { made, written: now }));
            match &value {
                Some(value) => store.insert(key, value.clone()),
                None => store.remove(key),
            };
            node.hear([&(key, value)]);
        }
        let mut fresh = Node::new();
        fresh.peers.protect(host(busy));
        fresh.list(&store);
        prop_assert_eq!(node.used(), fresh.used());
        let reasons = |node: &Node| -> BTreeMap<String, String> {
            node.peers.rejected().map(|(key, why)| (key.to_owned(), why.to_string())).collect()
        };
        prop_assert_eq!(reasons(&node), reasons(&fresh));
        // No subnet in use takes packets from the host or from a peer in use.
        for lease in node.used() {
            for subnet in lease.key.subnets() {
                prop_assert_eq!(node.peers.host().conflict(subnet), None);
                prop_assert_eq!(node.peers.covered(subnet), None);
            }
        }
    }
}

/// Returns the value of a node whose public address is inside the subnet of one of the keys.
fn inside(node: u8) -> String {
    format!(r#"{{"PublicIP":"10.244.{node}.9","PublicIPv6":"fd00:0:0:{node}::9"}}"#)
}

/// Returns a host with or without a network inside the overlay.
fn host(busy: bool) -> HostNetwork {
    let address = HostAddress {
        link: "lan0".parse().unwrap(),
        network: "10.244.2.1/25".parse().unwrap(),
        up: true,
        prefix_route: true,
    };
    let routing = HostRouting {
        addresses: busy.then_some(address).into_iter().collect(),
        ..HostRouting::default()
    };
    let overlay = ["10.244.0.0/16", "fd00::/48"].map(|network| network.parse().unwrap());
    let claims = Claims { overlay: overlay.into(), ..Claims::default() };
    HostNetwork::new(&claims, &routing, Vital::default())
}
