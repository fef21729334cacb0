//! Concurrent allocation: nodes that want a subnet at the same time, with their steps interleaved
//! arbitrarily, over a store that offers only compare-and-swap. Each node ends up with a subnet of
//! its own.
//!
//! How a decision is carried out is the store's business (`heddle-store`, `acquire`), and modelled
//! here: create, read once more, and yield to overlapping leases. A node may end at any point and
//! start anew.

use std::collections::BTreeMap;

use heddle_core::allocation::{
    AllocationError, Choice, Claimant, Holders, Holdings, HostMarks, choose, fits, overlap,
};
use heddle_core::config::NetworkConfig;
use heddle_core::host_network::HostNetwork;
use heddle_core::lease::{Lease, LeaseFamily, LeaseKey};
use heddle_core::node::NodeId;
use heddle_core::record::{Age, Record};
use proptest::prelude::*;

/// Three subnets in each family.
const CONFIGS: [&str; 2] = [
    r#"{"Network":"10.1.0.0/28"}"#,
    r#"{"Network":"10.1.0.0/28","EnableIPv6":true,"IPv6Network":"fd00::/124"}"#,
];
const CAPACITY: usize = 3;

/// The leases, which are never overwritten, and the time at which each was created.
#[derive(Default)]
struct Store {
    leases: BTreeMap<LeaseKey, (Lease, u64)>,
    revision: u64,
}

/// The progress of a node.
#[derive(Clone, Debug, PartialEq)]
enum Stage {
    /// The node has to read the store.
    Start,
    /// The node has decided, based on what it read.
    Decided(Choice),
    /// The node has created the lease, and has to check for overlaps.
    Created(LeaseKey),
    /// The node has replaced its lease, and has to check for overlaps.
    Moved(LeaseKey),
    /// The node has a subnet.
    Holds(LeaseKey),
    /// No subnet was free.
    GaveUp,
}

impl Store {
    fn lease(&self, key: LeaseKey) -> Option<&Lease> {
        self.leases.get(&key).map(|(lease, _)| lease)
    }
}

struct Node {
    number: u8,
    id: NodeId,
    previous: Option<LeaseKey>,
    stage: Stage,
}

impl Node {
    fn lease(&self, key: LeaseKey) -> Lease {
        let family = |subnet: ipnet::IpNet| LeaseFamily {
            subnet,
            public_address: match subnet {
                ipnet::IpNet::V4(_) => [192, 168, 0, self.number].into(),
                ipnet::IpNet::V6(_) => [0x2001, 0xdb8, 0, 0, 0, 0, 0, self.number.into()].into(),
            },
            backend_data: None,
        };
        Lease {
            key,
            families: key.subnets().map(family),
            backend_type: None,
            node_id: Some(self.id.clone()),
            node_name: None,
        }
    }

    /// Reads the store and decides.
    fn decide(&self, config: &NetworkConfig, store: &Store, pick: usize) -> Stage {
        let texts = store.leases.iter().map(|(key, (lease, made))| {
            (key.to_string(), lease.to_value(), Age { made: *made, written: *made })
        });
        let mut holdings = Holdings::default();
        for (key, value, age) in texts {
            holdings.add(&Record { key, value: value.into(), unread: None, age });
        }
        let address = [std::net::IpAddr::from([192, 168, 0, self.number])];
        let claimant = Claimant {
            id: &self.id,
            public_addresses: address.into(),
            previous: self.previous,
            host: &HostNetwork::default(),
            underlay: "eth0".parse().unwrap(),
            marks: &HostMarks::default(),
            holders: &Holders::new(),
        };
        match choose(config, &holdings, &claimant, &mut |count| pick % count) {
            Ok(choice) => Stage::Decided(choice),
            Err(AllocationError::Exhausted { network, .. }) => {
                let family = heddle_core::address::Family::of_network(network);
                let in_family =
                    store.leases.keys().filter_map(|key| key.subnets().get(family).copied());
                assert_eq!(in_family.collect::<std::collections::BTreeSet<_>>().len(), CAPACITY);
                Stage::GaveUp
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// Performs one call to the store and its consequences. `pick` is the node's random number.
    fn step(&mut self, config: &NetworkConfig, store: &mut Store, pick: usize) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Start) {
            Stage::Start => self.decide(config, store, pick),
            Stage::Decided(Choice::Create(key)) if store.leases.contains_key(&key) => Stage::Start,
            Stage::Decided(Choice::Create(key)) => {
                store.revision += 1;
                store.leases.insert(key, (self.lease(key), store.revision));
                Stage::Created(key)
            }
            // Compare-and-swap: nobody else has changed what was read.
            Stage::Decided(Choice::TakeOver(key)) => {
                assert_eq!(store.lease(key), Some(&self.lease(key)));
                Stage::Holds(key)
            }
            Stage::Decided(Choice::Discard(key)) => {
                assert_eq!(store.lease(key), Some(&self.lease(key)));
                store.leases.remove(&key);
                Stage::Start
            }
            // In one transaction.
            Stage::Decided(Choice::Move { to, .. }) if store.leases.contains_key(&to) => {
                Stage::Start
            }
            Stage::Decided(Choice::Move { from, to }) => {
                assert_eq!(store.lease(from), Some(&self.lease(from)));
                store.leases.remove(&from);
                store.revision += 1;
                store.leases.insert(to, (self.lease(to), store.revision));
                Stage::Moved(to)
            }
            Stage::Decided(Choice::Ask(key)) => panic!("{key} has an address of its own"),
            Stage::Moved(key)
                if store.leases.keys().any(|other| *other != key && overlap(*other, key)) =>
            {
                Stage::Start
            }
            Stage::Moved(key) => Stage::Holds(key),
            Stage::Created(key)
                if store.leases.keys().any(|other| *other != key && overlap(*other, key)) =>
            {
                store.leases.remove(&key);
                Stage::Start
            }
            Stage::Created(key) => Stage::Holds(key),
            // As after a restart.
            Stage::Holds(_) | Stage::GaveUp => Stage::Start,
        };
    }
}

/// Asserts that the nodes' subnets are inside the network and distinct.
fn distinct(config: &NetworkConfig, nodes: &[Node], store: &Store) {
    let held = nodes.iter().filter_map(|node| match node.stage {
        Stage::Holds(key) => Some((node, key)),
        _ => None,
    });
    let held: Vec<_> = held.collect();
    for (position, (node, key)) in held.iter().enumerate() {
        assert!(fits(config, *key), "{key}");
        assert_eq!(store.lease(*key), Some(&node.lease(*key)));
        assert!(
            held[position + 1..].iter().all(|(_, other)| !overlap(*key, *other)),
            "{held:?}",
            held = store.leases.keys()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn contenders_get_distinct_subnets_until_exhausted(
        dual in any::<bool>(),
        previous in prop::collection::vec(prop::option::of(0u8..3), 1..6),
        steps in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<usize>(), prop::bool::weighted(0.1)),
            0..100,
        ),
    ) {
        let config = NetworkConfig::parse(CONFIGS[usize::from(dual)].as_bytes()).unwrap();
        let node = |(number, previous): (usize, Option<u8>)| Node {
            number: u8::try_from(number).unwrap() + 1,
            id: format!("node-{number}").parse().unwrap(),
            // Another node's subnet: in both families, or in one of them.
            previous: previous.map(|index| {
                let v4 = format!("10.1.0.{}-30", 4 * (index + 1));
                if dual { format!("{v4}&fd00::{:x}-126", 4 * (number % 3 + 1)) } else { v4 }
            }).map(|key| key.parse().unwrap()),
            stage: Stage::Start,
        };
        let mut nodes: Vec<_> = previous.into_iter().enumerate().map(node).collect();
        let mut store = Store::default();
        for (who, pick, ends) in steps {
            let who = who.index(nodes.len());
            if ends {
                nodes[who].stage = Stage::Start;
                continue;
            }
            nodes[who].step(&config, &mut store, pick);
            distinct(&config, &nodes, &store);
        }
        // Left alone, each node finishes: with a subnet, or because none is free. Another node's
        // short-lived lease may have been the reason for that, so nodes without a subnet try again
        // once all others have finished.
        for _ in 0..2 {
            for who in 0..nodes.len() {
                if nodes[who].stage == Stage::GaveUp {
                    nodes[who].stage = Stage::Start;
                }
                for pick in 0..20 {
                    if !matches!(nodes[who].stage, Stage::Holds(_) | Stage::GaveUp) {
                        nodes[who].step(&config, &mut store, pick);
                    }
                }
                distinct(&config, &nodes, &store);
            }
        }
        let held = nodes.iter().filter(|node| matches!(node.stage, Stage::Holds(_))).count();
        prop_assert_eq!(held, nodes.len().min(CAPACITY));
        prop_assert_eq!(store.leases.len(), held);
    }
}
