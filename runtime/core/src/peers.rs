//! The peers' leases, and what a change under `<prefix>/subnets/` means for them.
//!
//! Anybody who can write to the store can write anything there. A record that cannot be used changes nothing: it is
//! rejected by itself, with a reason, and a peer that had a good lease under the same key keeps it until the key is
//! deleted. Nor can a peer's packets be drawn elsewhere by a lease across its subnet: of two, the one is used that is as
//! the config has it, else the one that was used before.
//!
//! A store can lose its data, or be restored from an old copy of it. One that lacks this node's own lease, which is held
//! and was not given up, has lost it, and is not believed about what else it lacks: that is kept until the own lease is
//! there again and the others had [`GRACE`] to write theirs. What the store has is taken at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::address::Family;
use crate::allocation::{fits, overlap};
use crate::config::NetworkConfig;
use crate::lease::{InvalidLease, InvalidLeaseKey, Lease, LeaseKey};
use crate::object::Object;

/// How long nodes have to write their leases into a store that lost them, from when this node's own is there again: that
/// shows that the store can be written. Each tries again after ten seconds at most, but thousands at once take longer.
pub const GRACE: Duration = Duration::from_secs(120);

/// Every peer's lease, this node's own excepted.
#[derive(Clone, Debug)]
pub struct Peers {
    config: NetworkConfig,
    own: LeaseKey,
    leases: BTreeMap<LeaseKey, Lease>,
    rejected: BTreeMap<String, Rejection>,
    /// The subnets of all these leases, by their first address. They do not overlap.
    subnets: BTreeMap<IpAddr, (IpNet, LeaseKey)>,
    /// Leases that are not used because they lie across others.
    across: BTreeMap<LeaseKey, Lease>,
    /// Of the leases, those that the store lacks.
    missing: BTreeSet<LeaseKey>,
    /// Whether the store has a record under the own key.
    own_is_there: bool,
    memory: Memory,
}

/// What is thought of a store's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    /// What it lacks is gone.
    Sound,
    /// It lacks the own lease.
    Lost,
    /// Others may still have to write their leases again, until then.
    Returning(Instant),
}

/// What a change of records came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Leases that are new or differ from before in any field.
    pub changed: BTreeSet<LeaseKey>,
    /// Leases that are gone.
    pub removed: BTreeSet<LeaseKey>,
    /// Leases that the store lacks now, and that are kept for a time.
    pub missing: BTreeSet<LeaseKey>,
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
    /// The subnet overlaps a peer's.
    #[error("its subnet overlaps that of another peer, {0}")]
    OverlapsPeer(LeaseKey),
}

impl Peers {
    /// No peers yet.
    pub fn new(config: NetworkConfig, own: LeaseKey) -> Self {
        Self {
            config,
            own,
            leases: BTreeMap::new(),
            rejected: BTreeMap::new(),
            subnets: BTreeMap::new(),
            across: BTreeMap::new(),
            missing: BTreeSet::new(),
            own_is_there: false,
            memory: Memory::Sound,
        }
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

    /// Why a record cannot be used; none if it can.
    pub fn rejection(&self, key: &str) -> Option<&Rejection> {
        self.rejected.get(key)
    }

    /// How many peers there are.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// Takes a complete list of the records: whatever is not in it is gone, unless the store has lost data.
    pub fn reset<'a>(
        &mut self,
        records: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        now: Instant,
    ) -> Delta {
        let mut delta = Delta::default();
        let records: BTreeMap<_, _> = records.into_iter().collect();
        let leases = self.leases.keys().map(ToString::to_string);
        let gone: Vec<_> = leases
            .chain(self.rejected.keys().cloned())
            .filter(|key| !records.contains_key(key.as_str()))
            .collect();
        for key in gone {
            self.delete(&key, &mut delta);
        }
        self.own_is_there = false;
        for (key, value) in records {
            self.put(key, value, &mut delta);
        }
        self.settle(now, &mut delta);
        // Whoever reads a complete list may have missed a change of the own record.
        delta.own = true;
        delta
    }

    /// Takes a new or changed record.
    pub fn put(&mut self, text: &str, value: &[u8], delta: &mut Delta) {
        match self.read(text, value) {
            Ok(None) => {
                self.own_is_there = true;
                delta.own = true;
            }
            Ok(Some(lease)) => {
                self.found(lease.key, delta);
                self.supersede(&lease, delta);
                self.consider(lease, delta);
            }
            Err(rejection) => {
                if let Ok(key) = text.parse() {
                    self.found(key, delta);
                }
                self.reject(text.to_owned(), rejection, delta);
            }
        }
    }

    /// Takes note that a record is not there any more. What that means is decided by [`settle`](Self::settle).
    pub fn delete(&mut self, text: &str, delta: &mut Delta) {
        self.rejected.remove(text);
        let Ok(key) = text.parse() else { return };
        self.across.remove(&key);
        if key == self.own {
            self.own_is_there = false;
            delta.own = true;
        } else if self.leases.contains_key(&key) && self.missing.insert(key) {
            delta.missing.insert(key);
        }
    }

    /// Takes note that the store went back to an earlier state: for [`GRACE`], what it lacks is kept.
    pub fn distrust(&mut self, now: Instant) {
        self.memory = Memory::Returning(now + GRACE);
    }

    /// Ends a batch of changes, and the time for which leases are kept: what the store lacks is gone, unless it has lost
    /// data and others may still write theirs again.
    pub fn settle(&mut self, now: Instant, delta: &mut Delta) {
        self.memory = match self.memory {
            _ if !self.own_is_there => Memory::Lost,
            Memory::Lost => Memory::Returning(now + GRACE),
            Memory::Returning(until) if until <= now => Memory::Sound,
            memory => memory,
        };
        if self.memory == Memory::Sound {
            for key in std::mem::take(&mut self.missing) {
                self.remove(key, delta);
            }
        }
        // What they lay across may be gone.
        for lease in std::mem::take(&mut self.across).into_values() {
            self.consider(lease, delta);
        }
    }

    /// When there is something to [`settle`](Self::settle) even if nothing changes.
    pub fn due(&self) -> Option<Instant> {
        match self.memory {
            Memory::Returning(until) => Some(until),
            Memory::Sound | Memory::Lost => None,
        }
    }

    /// Whether a lease is kept although the store lacks it.
    pub fn is_missing(&self, key: LeaseKey) -> bool {
        self.missing.contains(&key)
    }

    /// The store has a record under this key.
    fn found(&mut self, key: LeaseKey, delta: &mut Delta) {
        self.across.remove(&key);
        self.missing.remove(&key);
        delta.missing.remove(&key);
    }

    /// Uses a lease, unless it lies across one that comes before it.
    fn consider(&mut self, lease: Lease, delta: &mut Delta) {
        let key = lease.key;
        let others = self.overlapping(key);
        let comes_first = |other: &LeaseKey| fits(&self.config, *other) || !fits(&self.config, key);
        if let Some(first) = others.iter().copied().find(comes_first) {
            self.across.insert(key, lease);
            return self.reject(key.to_string(), Rejection::OverlapsPeer(first), delta);
        }
        for other in others {
            self.across.extend(self.leases.get(&other).cloned().map(|lease| (other, lease)));
            self.remove(other, delta);
            self.reject(other.to_string(), Rejection::OverlapsPeer(key), delta);
        }
        self.rejected.remove(&key.to_string());
        if self.leases.get(&key) != Some(&lease) {
            delta.removed.remove(&key);
            delta.changed.insert(key);
            self.subnets.extend(key.subnets().map(|subnet| (subnet.network(), (subnet, key))));
            self.leases.insert(key, lease);
        }
    }

    fn reject(&mut self, text: String, rejection: Rejection, delta: &mut Delta) {
        if self.rejected.get(&text) != Some(&rejection) {
            delta.rejected.push((text.clone(), rejection.clone()));
            self.rejected.insert(text, rejection);
        }
    }

    /// The leases in use that have an address of this key's.
    fn overlapping(&self, key: LeaseKey) -> BTreeSet<LeaseKey> {
        let around = |subnet: IpNet| {
            let before = self.subnets.range(..subnet.network()).next_back();
            let before = before.filter(|(_, (other, _))| other.contains(&subnet.network()));
            before.into_iter().chain(self.subnets.range(subnet.network()..=subnet.broadcast()))
        };
        let keys = key.subnets().flat_map(around).map(|(_, (_, other))| *other);
        keys.filter(|other| *other != key).collect()
    }

    /// Removes what is only kept, and contradicts a lease: its addresses are another's now, or its node has another subnet.
    fn supersede(&mut self, lease: &Lease, delta: &mut Delta) {
        let contradicts = |key: &LeaseKey| {
            let addresses = self.leases.get(key).into_iter().flat_map(Lease::public_addresses);
            let same_address = |address| lease.public_addresses().any(|other| other == address);
            overlap(*key, lease.key) || addresses.into_iter().any(same_address)
        };
        let (gone, kept): (BTreeSet<_>, _) = self.missing.iter().copied().partition(contradicts);
        self.missing = kept;
        for key in gone {
            self.remove(key, delta);
        }
    }

    fn remove(&mut self, key: LeaseKey, delta: &mut Delta) {
        delta.missing.remove(&key);
        self.missing.remove(&key);
        if self.leases.remove(&key).is_some() {
            for subnet in key.subnets() {
                self.subnets.remove(&subnet.network());
            }
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

    /// This node's key.
    const OWN: &str = "10.244.8.0-24";

    fn peers() -> Peers {
        let config = NetworkConfig::parse(br#"{"Network":"10.244.0.0/16"}"#).unwrap();
        Peers::new(config, OWN.parse().unwrap())
    }

    /// A list of these records and the own one.
    fn reset(peers: &mut Peers, records: &[(&str, &str)]) -> Delta {
        let own = [(OWN, ONE)];
        let delta = reset_without_own(peers, &[records, &own].concat(), Instant::now());
        assert!(delta.missing.is_empty());
        delta
    }

    fn reset_without_own(peers: &mut Peers, records: &[(&str, &str)], now: Instant) -> Delta {
        peers.reset(records.iter().map(|(key, value)| (*key, value.as_bytes())), now)
    }

    fn settle(peers: &mut Peers, now: Instant) -> Delta {
        let mut delta = Delta::default();
        peers.settle(now, &mut delta);
        delta
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
        peers.delete(OWN, &mut delta);
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
        peers.settle(Instant::now(), &mut delta);
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
        reset(&mut peers, &[]);
        let mut delta = Delta::default();
        peers.put("10.244.1.0-24", ONE.as_bytes(), &mut delta);
        peers.delete("10.244.1.0-24", &mut delta);
        peers.settle(Instant::now(), &mut delta);
        assert_eq!((delta.changed.len(), delta.removed), (0, keys(&["10.244.1.0-24"])));
        put(&mut peers, "10.244.1.0-24", ONE);
        for (value, changed) in [(ONE, keys(&[])), (TWO, keys(&["10.244.1.0-24"]))] {
            let mut delta = Delta::default();
            peers.delete("10.244.1.0-24", &mut delta);
            peers.put("10.244.1.0-24", value.as_bytes(), &mut delta);
            peers.settle(Instant::now(), &mut delta);
            assert_eq!(delta, Delta { changed, ..Delta::default() });
        }
    }

    #[test]
    fn a_store_without_our_own_lease_is_not_believed_about_what_else_it_lacks() {
        let (mut peers, now) = (peers(), Instant::now());
        reset(&mut peers, &[("10.244.1.0-24", ONE), ("10.244.2.0-24", TWO)]);
        let other = r#"{"PublicIP":"192.168.0.3","BackendType":"vxlan"}"#;
        let delta = reset_without_own(&mut peers, &[("10.244.2.0-24", other)], now);
        assert_eq!((delta.changed, delta.removed), (keys(&["10.244.2.0-24"]), keys(&[])));
        assert_eq!(delta.missing, keys(&["10.244.1.0-24"]));
        assert!(peers.is_missing("10.244.1.0-24".parse().unwrap()));
        // However long that lasts: nobody may be able to write.
        assert_eq!(peers.due(), None);
        assert_eq!(settle(&mut peers, now + 9 * GRACE), Delta::default());

        // Our own is there again, so the others' should follow.
        let back = now + 10 * GRACE;
        put(&mut peers, OWN, ONE);
        settle(&mut peers, back);
        assert_eq!(peers.due(), Some(back + GRACE));
        assert_eq!(settle(&mut peers, back + GRACE / 2), Delta::default());
        assert_eq!(settle(&mut peers, back + GRACE).removed, keys(&["10.244.1.0-24"]));
        assert_eq!((peers.due(), peers.len()), (None, 1));
        assert_eq!(reset(&mut peers, &[]).removed, keys(&["10.244.2.0-24"]));
    }

    #[test]
    fn who_writes_a_lease_again_in_time_has_never_been_gone() {
        let (mut peers, now) = (peers(), Instant::now());
        reset(&mut peers, &[("10.244.1.0-24", ONE)]);
        reset_without_own(&mut peers, &[], now);
        assert_eq!(put(&mut peers, "10.244.1.0-24", ONE), Delta::default());
        let delta = reset_without_own(&mut peers, &[(OWN, ONE), ("10.244.1.0-24", ONE)], now);
        assert_eq!(delta, Delta { own: true, ..Delta::default() });
        assert_eq!(settle(&mut peers, now + GRACE), Delta::default());
        assert_eq!(peers.len(), 1);
    }

    #[test]
    fn leases_that_go_together_with_our_own_are_kept_as_well() {
        let (mut peers, now) = (peers(), Instant::now());
        reset(&mut peers, &[("10.244.1.0-24", ONE), ("10.244.9.0-24", TWO)]);
        // In the order in which one deletion of many keys is told.
        let mut delta = Delta::default();
        for key in ["10.244.1.0-24", OWN, "10.244.9.0-24"] {
            peers.delete(key, &mut delta);
        }
        peers.settle(now, &mut delta);
        assert_eq!(delta.missing, keys(&["10.244.1.0-24", "10.244.9.0-24"]));
        assert!(delta.own && delta.removed.is_empty());
    }

    #[test]
    fn a_lease_across_a_peer_s_is_not_used() {
        let other = |last: u8| format!(r#"{{"PublicIP":"192.168.0.{last}"}}"#);
        let rejected = |by: &str| Rejection::OverlapsPeer(by.parse().unwrap());
        let used = "10.244.1.0-24";
        for key in ["10.244.1.0-25", "10.244.1.7-32", "10.244.0.0-21"] {
            // Whichever is there first, and both at once.
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
                // With that peer gone, there is nothing against it.
                let mut delta = Delta::default();
                peers.delete(used, &mut delta);
                peers.settle(Instant::now(), &mut delta);
                assert_eq!((delta.changed, delta.removed), (keys(&[key]), keys(&[used])));
                assert_eq!((peers.len(), peers.rejected().count()), (1, 0));
            }
        }
    }

    #[test]
    fn of_two_leases_across_each_other_that_are_alike_the_first_one_is_used() {
        let mut peers = peers();
        reset(&mut peers, &[("10.244.4.0-25", ONE)]);
        for key in ["10.244.4.0-26", "10.244.4.0-23"] {
            assert_eq!(put(&mut peers, key, TWO).rejected.len(), 1, "{key}");
        }
        let mut delta = Delta::default();
        peers.delete("10.244.4.0-26", &mut delta);
        peers.delete("10.244.4.0-23", &mut delta);
        peers.settle(Instant::now(), &mut delta);
        assert_eq!(delta, Delta::default());
        assert_eq!((peers.len(), peers.rejected().count()), (1, 0));
    }

    #[test]
    fn what_is_only_kept_gives_way_to_what_the_store_has() {
        let now = Instant::now();
        for (key, value, gone) in [
            // Another's subnet lies across it.
            ("10.244.1.0-25", r#"{"PublicIP":"192.168.0.3"}"#, keys(&["10.244.1.0-24"])),
            // Its node has another subnet.
            ("10.244.3.0-24", TWO, keys(&["10.244.2.0-24"])),
            ("10.244.3.0-24", r#"{"PublicIP":"192.168.0.3"}"#, keys(&[])),
        ] {
            // Whether it is there at once or comes later.
            for at_once in [true, false] {
                let mut peers = peers();
                reset(&mut peers, &[("10.244.1.0-24", ONE), ("10.244.2.0-24", TWO)]);
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
    fn a_store_that_went_back_is_not_believed_for_a_time_although_it_has_our_lease() {
        let (mut peers, now) = (peers(), Instant::now());
        reset(&mut peers, &[("10.244.1.0-24", ONE)]);
        peers.distrust(now);
        let delta = reset_without_own(&mut peers, &[(OWN, ONE)], now);
        assert_eq!((delta.removed, delta.missing), (keys(&[]), keys(&["10.244.1.0-24"])));
        assert_eq!(settle(&mut peers, now + GRACE).removed, keys(&["10.244.1.0-24"]));
    }
}
