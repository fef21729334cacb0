//! The peers' leases, and what a change under `<prefix>/subnets/` means for them.
//!
//! Anybody who can write to the store can write anything there. A record that cannot be used changes nothing: it is
//! rejected by itself, with a reason, and a peer that had a good lease under the same key keeps it until the key is
//! deleted. Nor does a record that came later take addresses away from one that was there: of leases that overlap, the
//! one that was made first is used.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::Family;
use crate::allocation::overlap;
use crate::config::NetworkConfig;
use crate::desired::Standing;
use crate::lease::{Age, InvalidLease, InvalidLeaseKey, Lease, LeaseKey};
use crate::object::Object;
use crate::overlaps::Overlaps;

/// Every peer's lease, this node's own excepted.
#[derive(Clone, Debug)]
pub struct Peers {
    config: NetworkConfig,
    own: LeaseKey,
    leases: BTreeMap<LeaseKey, Held>,
    overlaps: Overlaps,
    rejected: BTreeMap<String, Rejection>,
}

/// A good lease.
#[derive(Clone, Debug)]
struct Held {
    lease: Lease,
    age: Age,
    /// The lease that overlaps it and was there first: this one is not used.
    behind: Option<LeaseKey>,
}

impl Held {
    /// By which leases that overlap are ordered.
    fn seniority(&self) -> (u64, LeaseKey) {
        (self.age.made, self.lease.key)
    }
}

/// A record of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The text below `<prefix>/subnets/`.
    pub key: &'a str,
    /// Its value.
    pub value: &'a [u8],
    /// How old it is.
    pub age: Age,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// It is new, or was written anew.
    Put(Record<'a>),
    /// It is gone.
    Delete(&'a str),
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

/// What was found while an update is taken.
#[derive(Default)]
struct Progress {
    delta: Delta,
    /// The leases that were used before, where something happened to them.
    before: BTreeMap<LeaseKey, Option<Lease>>,
    /// Whose place among those that overlap it has to be found anew, the oldest first.
    unsettled: BTreeSet<(u64, LeaseKey)>,
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
    #[error("its subnet overlaps {key} of {owner}, which was there first")]
    OverlapsPeer {
        /// The peer's lease.
        key: LeaseKey,
        /// The peer.
        owner: String,
    },
}

impl Peers {
    /// No peers yet.
    pub fn new(config: NetworkConfig, own: LeaseKey) -> Self {
        Self {
            config,
            own,
            leases: BTreeMap::new(),
            overlaps: Overlaps::default(),
            rejected: BTreeMap::new(),
        }
    }

    /// A peer's lease.
    pub fn get(&self, key: LeaseKey) -> Option<&Lease> {
        self.used(key).map(|held| &held.lease)
    }

    /// What a peer's plan has to say for itself where another peer's wants the same.
    pub fn standing(&self, key: LeaseKey) -> Standing {
        self.used(key).map_or_else(Standing::default, |held| Standing {
            written: held.age.written,
            macs: held.lease.published_macs(),
        })
    }

    /// Every peer's lease, in the order of their keys.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values().filter(|held| held.behind.is_none()).map(|held| &held.lease)
    }

    /// The records that cannot be used, by their keys.
    pub fn rejected(&self) -> impl Iterator<Item = (&str, &Rejection)> {
        self.rejected.iter().map(|(key, rejection)| (key.as_str(), rejection))
    }

    /// How many peers there are.
    pub fn len(&self) -> usize {
        self.leases().count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.leases().next().is_none()
    }

    /// Takes a complete list of the records: whatever is not in it is gone.
    pub fn reset<'a>(&mut self, records: impl IntoIterator<Item = Record<'a>>) -> Delta {
        // Whoever reads a complete list may have missed a change of the own record.
        let mut progress =
            Progress { delta: Delta { own: true, ..Delta::default() }, ..Progress::default() };
        let mut present = BTreeSet::new();
        for record in records {
            self.put(&record, &mut progress);
            present.insert(record.key);
        }
        let leases = self.leases.keys().map(ToString::to_string);
        let gone: Vec<_> = leases
            .chain(self.rejected.keys().cloned())
            .filter(|key| !present.contains(key.as_str()))
            .collect();
        for key in gone {
            self.delete(&key, &mut progress);
        }
        self.finish(progress)
    }

    /// Takes changes, in the order in which they happened.
    pub fn update<'a>(&mut self, changes: impl IntoIterator<Item = Change<'a>>) -> Delta {
        let mut progress = Progress::default();
        for change in changes {
            match change {
                Change::Put(record) => self.put(&record, &mut progress),
                Change::Delete(key) => self.delete(key, &mut progress),
            }
        }
        self.finish(progress)
    }

    fn put(&mut self, record: &Record<'_>, progress: &mut Progress) {
        match self.read(record.key, record.value) {
            Ok(None) => progress.delta.own = true,
            Ok(Some(lease)) => {
                // Until its place is found, see below.
                self.rejected.remove(record.key);
                let (key, age) = (lease.key, record.age);
                match self.leases.get(&key) {
                    Some(held) if held.lease == lease && held.age == age => {}
                    Some(held) if held.lease == lease && held.age.made == age.made => {
                        let held = Held { age, ..held.clone() };
                        self.leases.insert(key, held);
                    }
                    _ => {
                        self.remember(key, progress);
                        self.unsettle(key, progress);
                        self.overlaps.insert(key);
                        // It was used if it was there, and is until its place is found.
                        let behind = self.leases.get(&key).and_then(|held| held.behind);
                        self.leases.insert(key, Held { lease, age, behind });
                        progress.unsettled.insert((age.made, key));
                    }
                }
                if let Some(behind) = self.leases.get(&key).and_then(|held| held.behind) {
                    self.note_overlap(key, behind, progress);
                }
            }
            Err(rejection) => self.reject(record.key, rejection, progress),
        }
    }

    fn delete(&mut self, text: &str, progress: &mut Progress) {
        self.rejected.remove(text);
        let Ok(key) = text.parse() else { return };
        if key == self.own {
            progress.delta.own = true;
        } else if self.leases.contains_key(&key) {
            self.remember(key, progress);
            self.unsettle(key, progress);
            self.overlaps.remove(key);
            self.leases.remove(&key);
        }
    }

    fn reject(&mut self, text: &str, rejection: Rejection, progress: &mut Progress) {
        if self.rejected.get(text) != Some(&rejection) {
            progress.delta.rejected.push((text.to_owned(), rejection.clone()));
            self.rejected.insert(text.to_owned(), rejection);
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

    /// A lease that is used.
    fn used(&self, key: LeaseKey) -> Option<&Held> {
        self.leases.get(&key).filter(|held| held.behind.is_none())
    }

    /// Takes note of what a lease was before anything of this update happened to it.
    fn remember(&self, key: LeaseKey, progress: &mut Progress) {
        progress.before.entry(key).or_insert_with(|| self.get(key).cloned());
    }

    /// The places of those that overlap this lease have to be found anew.
    fn unsettle(&self, key: LeaseKey, progress: &mut Progress) {
        let others = self.overlaps.with(key).filter_map(|other| self.leases.get(&other));
        progress.unsettled.extend(others.map(Held::seniority));
    }

    /// Finds who is used and who is not, and what that comes to. From old to young: whether a lease is used depends on
    /// older ones alone.
    fn finish(&mut self, mut progress: Progress) -> Delta {
        while let Some((_, key)) = progress.unsettled.pop_first() {
            let Some(held) = self.leases.get(&key) else { continue };
            let own = held.seniority();
            let rivals = self.overlaps.with(key).filter_map(|other| self.used(other));
            let behind = rivals.map(Held::seniority).filter(|other| *other < own).min();
            let behind = behind.map(|(_, other)| other);
            if held.behind.is_none() != behind.is_none() {
                self.remember(key, &mut progress);
                let others = self.overlaps.with(key).filter_map(|other| self.leases.get(&other));
                let younger = others.map(Held::seniority).filter(|other| *other > own);
                progress.unsettled.extend(younger);
            }
            if let Some(held) = self.leases.get_mut(&key) {
                held.behind = behind;
            }
            match behind {
                Some(behind) => self.note_overlap(key, behind, &mut progress),
                None => {
                    let text = key.to_string();
                    if matches!(self.rejected.get(&text), Some(Rejection::OverlapsPeer { .. })) {
                        self.rejected.remove(&text);
                    }
                }
            }
        }
        let mut delta = progress.delta;
        for (key, before) in progress.before {
            match (before, self.get(key)) {
                (Some(_), None) => _ = delta.removed.insert(key),
                (before, Some(now)) if before.as_ref() != Some(now) => {
                    delta.changed.insert(key);
                }
                _ => {}
            }
        }
        delta
    }

    fn note_overlap(&mut self, key: LeaseKey, behind: LeaseKey, progress: &mut Progress) {
        let owner = self.leases.get(&behind).map_or_else(String::new, |held| held.lease.owner());
        self.reject(&key.to_string(), Rejection::OverlapsPeer { key: behind, owner }, progress);
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

    fn record<'a>(key: &'a str, value: &'a str, made: u64) -> Record<'a> {
        Record { key, value: value.as_bytes(), age: Age { made, written: made } }
    }

    fn reset(peers: &mut Peers, records: &[(&str, &str)]) -> Delta {
        peers.reset(records.iter().map(|(key, value)| record(key, value, 1)))
    }

    fn put(peers: &mut Peers, key: &str, value: &str) -> Delta {
        peers.update([Change::Put(record(key, value, 1))])
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
        let delta = peers.update([Change::Delete("10.244.8.0-24")]);
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
        let delta = peers.update([Change::Delete(dual)]);
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
        let (one, two) = ("10.244.1.0-24", "10.244.2.0-24");
        let mut peers = peers();
        let delta = peers.update([Change::Put(record(one, ONE, 1)), Change::Delete(one)]);
        assert_eq!(delta, Delta::default());
        let delta = peers.update([Change::Delete(two), Change::Put(record(two, ONE, 1))]);
        assert_eq!((delta.changed, delta.removed.len()), (keys(&[two]), 0));
        // Nothing came of it.
        let delta = peers.update([Change::Delete(two), Change::Put(record(two, ONE, 2))]);
        assert_eq!(delta, Delta::default());
    }

    #[test]
    fn of_leases_that_overlap_the_one_that_was_made_first_is_used() {
        let (large, small) = ("10.244.0.0-21", "10.244.1.0-24");
        for (first, second) in [(large, small), (small, large)] {
            let (old, new) = (record(first, ONE, 1), record(second, TWO, 2));
            for order in [[old, new], [new, old]] {
                let mut peers = peers();
                peers.update([Change::Put(order[0])]);
                peers.update([Change::Put(order[1])]);
                assert_eq!(
                    peers.leases().map(|it| it.key).collect::<BTreeSet<_>>(),
                    keys(&[first])
                );
                let why = peers.rejected().map(|(key, why)| format!("{key}: {why}"));
                assert_eq!(
                    why.collect::<Vec<_>>(),
                    [format!(
                        "{second}: its subnet overlaps {first} of 192.168.0.1, which was there first"
                    )]
                );
                // Its turn has come.
                let delta = peers.update([Change::Delete(first)]);
                assert_eq!((delta.changed, delta.removed), (keys(&[second]), keys(&[first])));
                assert_eq!(peers.rejected().count(), 0);
            }
        }
    }

    #[test]
    fn whoever_comes_first_after_all_takes_the_place() {
        let (large, small) = ("10.244.0.0-21", "10.244.1.0-24");
        let mut peers = peers();
        peers.update([Change::Put(record(large, ONE, 5))]);
        let delta = peers.update([Change::Put(record(small, TWO, 4))]);
        assert_eq!((delta.changed, delta.removed), (keys(&[small]), keys(&[large])));
        assert_eq!(delta.rejected.len(), 1);
        // A lease that is made anew is as old as that, one that is written anew as old as before.
        let rewritten = Record { age: Age { made: 4, written: 9 }, ..record(small, ONE, 4) };
        assert_eq!(peers.update([Change::Put(rewritten)]).changed, keys(&[small]));
        let delta = peers.update([Change::Put(record(small, ONE, 10))]);
        assert_eq!((delta.changed, delta.removed), (keys(&[large]), keys(&[small])));
    }

    #[test]
    fn a_standing_is_the_record_s() {
        let value =
            r#"{"PublicIP":"192.168.0.1","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}}"#;
        let mut peers = peers();
        let age = Age { made: 1, written: 2 };
        peers.update([Change::Put(Record { age, ..record("10.244.1.0-24", value, 1) })]);
        let standing = peers.standing("10.244.1.0-24".parse().unwrap());
        let macs = [crate::address::MacAddress([2, 0, 0, 0, 0, 1])].into();
        assert_eq!(standing, Standing { written: 2, macs });
    }

    mod overlapping {
        use proptest::prelude::*;

        use super::*;

        /// Some lease in a part of the network where many overlap, made at some time.
        fn lease() -> impl Strategy<Value = (String, u64)> {
            let subnet = (0_u32..8, 22_u8..=25).prop_map(|(part, length)| {
                let subnet: ipnet::Ipv4Net =
                    format!("10.244.{}.{}/{length}", 16 + part / 2, part % 2 * 128)
                        .parse()
                        .unwrap();
                format!("{}-{length}", subnet.network())
            });
            (subnet, 0_u64..6)
        }

        proptest! {
            /// What is used follows from what is there, whatever happened before.
            #[test]
            fn the_oldest_are_used_and_nothing_that_overlaps_them(
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
                            peers.update([Change::Put(record(key, ONE, *made))])
                        }
                        false => {
                            records.remove(key);
                            peers.update([Change::Delete(key)])
                        }
                    };
                    let mut by_age: Vec<(u64, LeaseKey)> =
                        records.iter().map(|(key, made)| (*made, key.parse().unwrap())).collect();
                    by_age.sort_unstable();
                    let mut expected: BTreeSet<LeaseKey> = BTreeSet::new();
                    for (_, key) in by_age {
                        if !expected.iter().any(|other| overlap(*other, key)) {
                            expected.insert(key);
                        }
                    }
                    let used: BTreeSet<_> = peers.leases().map(|lease| lease.key).collect();
                    prop_assert_eq!(&used, &expected);
                    // The others are rejected, each with a reason.
                    prop_assert_eq!(peers.rejected().count(), records.len() - expected.len());
                    // And the delta is the difference.
                    let before: BTreeSet<_> = before.into_keys().collect();
                    prop_assert_eq!(delta.changed, &used - &before);
                    prop_assert_eq!(delta.removed, &before - &used);
                }
            }
        }
    }
}
