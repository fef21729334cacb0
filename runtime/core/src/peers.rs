//! The peers' leases, and what a change under `<prefix>/subnets/` means for them.
//!
//! Anybody who can write to the store can write anything there. A record that cannot be used changes nothing: it is
//! rejected by itself, with a reason, and a peer that had a good lease under the same key keeps it until the key is
//! deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::Family;
use crate::allocation::overlap;
use crate::config::NetworkConfig;
use crate::lease::{InvalidLease, InvalidLeaseKey, Lease, LeaseKey};
use crate::object::Object;

/// Every peer's lease, this node's own excepted.
#[derive(Clone, Debug)]
pub struct Peers {
    config: NetworkConfig,
    own: LeaseKey,
    leases: BTreeMap<LeaseKey, Lease>,
    rejected: BTreeMap<String, Rejection>,
}

/// What a change of records came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Leases that are new or differ from before in any field.
    pub changed: BTreeSet<LeaseKey>,
    /// Leases that are gone.
    pub removed: BTreeSet<LeaseKey>,
    /// Records that were found unusable, and were usable or had another fault before.
    pub rejected: Vec<(String, Rejection)>,
    /// Whether the record under this node's own key was among them.
    pub own: bool,
}

/// Why a record is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The key is no lease key.
    #[error(transparent)]
    Key(#[from] InvalidLeaseKey),
    /// The value is no lease.
    #[error(transparent)]
    Value(#[from] InvalidLease),
    /// The subnet is not part of the overlay.
    #[error("its subnet is not a part of `{0}`")]
    OutsideNetwork(&'static str),
    /// The subnet overlaps this node's.
    #[error("its subnet overlaps this node's own, {0}")]
    OverlapsOwn(LeaseKey),
}

impl Peers {
    /// No peers yet.
    pub fn new(config: NetworkConfig, own: LeaseKey) -> Self {
        Self { config, own, leases: BTreeMap::new(), rejected: BTreeMap::new() }
    }

    /// A peer's lease.
    pub fn get(&self, key: LeaseKey) -> Option<&Lease> {
        self.leases.get(&key)
    }

    /// Every peer's lease, in the order of their keys.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// The records that cannot be used, by their keys.
    pub fn rejected(&self) -> impl Iterator<Item = (&str, &Rejection)> {
        self.rejected.iter().map(|(key, rejection)| (key.as_str(), rejection))
    }

    /// How many peers there are.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// Takes a complete list of the records: whatever is not in it is gone.
    pub fn reset<'a>(&mut self, records: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Delta {
        let mut delta = Delta::default();
        let mut present = BTreeSet::new();
        for (key, value) in records {
            self.put(key, value, &mut delta);
            present.insert(key);
        }
        let leases = self.leases.keys().map(ToString::to_string);
        let gone: Vec<_> = leases
            .chain(self.rejected.keys().cloned())
            .filter(|key| !present.contains(key.as_str()))
            .collect();
        for key in gone {
            self.delete(&key, &mut delta);
        }
        // Whoever reads a complete list may have missed a change of the own record.
        delta.own = true;
        delta
    }

    /// Takes a new or changed record.
    pub fn put(&mut self, text: &str, value: &[u8], delta: &mut Delta) {
        match self.read(text, value) {
            Ok(None) => delta.own = true,
            Ok(Some(lease)) => {
                let key = lease.key;
                self.rejected.remove(text);
                if self.leases.get(&key) != Some(&lease) {
                    delta.removed.remove(&key);
                    delta.changed.insert(key);
                    self.leases.insert(key, lease);
                }
            }
            Err(rejection) => {
                if self.rejected.get(text) != Some(&rejection) {
                    delta.rejected.push((text.to_owned(), rejection.clone()));
                    self.rejected.insert(text.to_owned(), rejection);
                }
            }
        }
    }

    /// Takes note that a record is gone.
    pub fn delete(&mut self, text: &str, delta: &mut Delta) {
        self.rejected.remove(text);
        let Ok(key) = text.parse() else { return };
        if key == self.own {
            delta.own = true;
        } else if self.leases.remove(&key).is_some() {
            delta.changed.remove(&key);
            delta.removed.insert(key);
        }
    }

    /// The lease in a record; none if it is the own one.
    fn read(&self, text: &str, value: &[u8]) -> Result<Option<Lease>, Rejection> {
        let key: LeaseKey = text.parse()?;
        if key == self.own {
            return Ok(None);
        }
        let lease = Lease::from_value(key, value)?;
        for subnet in key.subnets() {
            let family = Family::of_network(subnet);
            let name = match family {
                Family::V4 => "Network",
                Family::V6 => "IPv6Network",
            };
            // A family that is switched off here may be in use elsewhere.
            let Some(overlay) = self.config.network(family) else {
                continue;
            };
            if !overlay.network.contains(&subnet) || subnet == overlay.network {
                return Err(Rejection::OutsideNetwork(name));
            }
        }
        if overlap(key, self.own) {
            return Err(Rejection::OverlapsOwn(self.own));
        }
        Ok(Some(lease))
    }
}

/// What could be in the kernel for some leases: what leads to their subnets, and what is sent to their addresses.
#[derive(Clone, Debug, Default)]
pub struct Footprint {
    /// By their first address. Leases do not overlap.
    subnets: BTreeMap<IpAddr, IpNet>,
    addresses: BTreeSet<IpAddr>,
}

impl Footprint {
    /// Of these leases.
    pub fn of<'a>(leases: impl IntoIterator<Item = &'a Lease>) -> Self {
        let mut footprint = Self::default();
        for lease in leases {
            footprint.subnets.extend(lease.key.subnets().map(|subnet| (subnet.network(), subnet)));
            footprint.addresses.extend(lease.public_addresses());
        }
        footprint
    }

    /// Whether an object could be there for one of the leases.
    pub fn covers(&self, object: &Object) -> bool {
        match object {
            Object::Route(route) => self.has(route.destination),
            Object::Neighbour(neighbour) => self.has(neighbour.address.into()),
            Object::FdbEntry(entry) => self.addresses.contains(&entry.destination),
            Object::Link(_) | Object::Sysctl(_) | Object::Address(_) => false,
        }
    }

    fn has(&self, network: IpNet) -> bool {
        let before = self.subnets.range(..=network.network()).next_back();
        before.is_some_and(|(_, subnet)| subnet.contains(&network))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{FdbEntry, Metric, Route, RouteAction};

    const ONE: &str = r#"{"PublicIP":"192.168.0.1","BackendType":"vxlan"}"#;
    const TWO: &str = r#"{"PublicIP":"192.168.0.2","BackendType":"vxlan"}"#;

    fn peers() -> Peers {
        let config = NetworkConfig::parse(br#"{"Network":"10.244.0.0/16"}"#).unwrap();
        Peers::new(config, "10.244.8.0-24".parse().unwrap())
    }

    fn reset(peers: &mut Peers, records: &[(&str, &str)]) -> Delta {
        peers.reset(records.iter().map(|(key, value)| (*key, value.as_bytes())))
    }

    fn put(peers: &mut Peers, key: &str, value: &str) -> Delta {
        let mut delta = Delta::default();
        peers.put(key, value.as_bytes(), &mut delta);
        delta
    }

    fn keys(keys: &[&str]) -> BTreeSet<LeaseKey> {
        keys.iter().map(|key| key.parse().unwrap()).collect()
    }

    #[test]
    fn a_list_is_compared_record_by_record() {
        let mut peers = peers();
        let delta = reset(&mut peers, &[("10.244.1.0-24", ONE), ("10.244.2.0-24", TWO)]);
        assert_eq!(delta.changed, keys(&["10.244.1.0-24", "10.244.2.0-24"]));
        let delta = reset(&mut peers, &[("10.244.1.0-24", TWO), ("10.244.3.0-24", ONE)]);
        assert_eq!(delta.changed, keys(&["10.244.1.0-24", "10.244.3.0-24"]));
        assert_eq!(delta.removed, keys(&["10.244.2.0-24"]));
    }

    #[test]
    fn an_unchanged_record_is_no_change() {
        let mut peers = peers();
        reset(&mut peers, &[("10.244.1.0-24", ONE)]);
        assert_eq!(put(&mut peers, "10.244.1.0-24", ONE), Delta::default());
    }

    #[test]
    fn the_own_lease_is_never_a_peer() {
        let mut peers = peers();
        assert!(put(&mut peers, "10.244.8.0-24", ONE).own);
        assert!(put(&mut peers, "10.244.8.0-24", "garbage").own);
        let mut delta = Delta::default();
        peers.delete("10.244.8.0-24", &mut delta);
        assert!(delta.own && peers.is_empty() && delta.removed.is_empty());
    }

    #[test]
    fn garbage_changes_nothing_and_is_reported_once() {
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
    fn a_key_that_was_garbage_can_become_good_and_go() {
        let mut peers = peers();
        put(&mut peers, "10.244.1.0-24", "garbage");
        assert_eq!(put(&mut peers, "10.244.1.0-24", ONE).changed, keys(&["10.244.1.0-24"]));
        assert!(peers.rejected.is_empty());
        put(&mut peers, "10.244.1.0-24", "garbage");
        let delta = reset(&mut peers, &[]);
        assert_eq!(delta.removed, keys(&["10.244.1.0-24"]));
        assert!(peers.rejected.is_empty());
    }

    #[test]
    fn a_peer_that_lacks_a_family_s_address_goes_by_its_record_s_key() {
        let mut peers = peers();
        let dual = "10.244.1.0-24&fd00:0:0:1::-64";
        assert_eq!(reset(&mut peers, &[(dual, ONE)]).changed, keys(&[dual]));
        assert_eq!(reset(&mut peers, &[(dual, ONE)]).changed, keys(&[]));
        let mut delta = Delta::default();
        peers.delete(dual, &mut delta);
        assert_eq!(delta.removed, keys(&[dual]));
    }

    #[test]
    fn a_lease_s_footprint_is_its_subnets_and_addresses() {
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
        assert!(
            footprint.covers(&route("10.244.1.0/24")) && footprint.covers(&route("10.244.1.8/29"))
        );
        assert!(
            !footprint.covers(&route("10.244.0.0/16"))
                && !footprint.covers(&route("10.244.2.0/24"))
        );
        let entry = |destination: &str| {
            Object::FdbEntry(FdbEntry {
                link: "flannel.1".parse().unwrap(),
                mac: crate::address::MacAddress([2, 0, 0, 0, 0, 1]),
                destination: destination.parse().unwrap(),
            })
        };
        assert!(
            footprint.covers(&entry("192.168.0.1")) && !footprint.covers(&entry("192.168.0.2"))
        );
    }

    #[test]
    fn within_one_batch_the_last_word_counts() {
        let mut peers = peers();
        let mut delta = Delta::default();
        peers.put("10.244.1.0-24", ONE.as_bytes(), &mut delta);
        peers.delete("10.244.1.0-24", &mut delta);
        assert_eq!((delta.changed.len(), delta.removed), (0, keys(&["10.244.1.0-24"])));
        let mut delta = Delta::default();
        peers.delete("10.244.1.0-24", &mut delta);
        peers.put("10.244.1.0-24", ONE.as_bytes(), &mut delta);
        assert_eq!((delta.changed, delta.removed.len()), (keys(&["10.244.1.0-24"]), 0));
    }
}
