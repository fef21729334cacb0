//! The peers' leases, and the effect of changes under `<prefix>/subnets/`.
//!
//! Anybody who can write to the store can write anything there. An unusable record changes nothing:
//! it is rejected with a reason, and a peer with a valid lease under the same key keeps that lease
//! until the key is deleted. Nor can a lease that overlaps a peer's subnet divert the peer's
//! packets. A tie-break picks one of two overlapping leases: the one that fits the config, and of
//! two that fit, the one that was created first.
//!
//! A lease is not used either if the host needs its subnet, or if its node is reached at an address
//! inside another peer's subnet (see [`crate::host_network`]).
//!
//! A store can lose its data, or be restored from a backup. If the store lacks this node's own
//! lease although the node holds it and did not release it, the store has lost data, and the other
//! leases it lacks are kept: until this node's lease is back and the peers had the grace period
//! [`GRACE`] to write theirs again. Leases that the store does have take effect at once.

mod conflicts;
mod footprint;
mod grace;
mod overlap_index;
mod public_addresses;
mod rejected;
mod rejection;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::address::Family;
use crate::allocation::{Recognition, Relation, Seniority, fits, overlap, seniority};
use crate::config::NetworkConfig;
use crate::desired::Priority;
use crate::host_network::{Conflict, HostNetwork};
use crate::lease::{Lease, LeaseKey};
use crate::record::{Age, Record, RecordChange};

pub use footprint::Footprint;
pub use grace::GRACE;
pub use rejection::Rejection;

use grace::StoreTrust;
use overlap_index::OverlapIndex;
use public_addresses::PublicAddresses;
use rejected::{Noted, Rejected};
use snapshot::Snapshot;

/// The leases of all peers, without this node's own.
#[derive(Clone, Debug)]
pub struct Peers {
    config: NetworkConfig,
    own: LeaseKey,
    /// The node and its host, by which other leases of this node are recognized.
    recognition: Option<Recognition>,
    /// Boxed, because half of a B-tree's nodes may be empty.
    leases: BTreeMap<LeaseKey, Box<Held>>,
    overlaps: OverlapIndex,
    /// The public addresses of all leases, with the keys of these.
    addresses: PublicAddresses,
    /// The host's own networks and addresses, which the overlay must not take over.
    host: HostNetwork,
    rejected: Rejected,
    /// A snapshot that is being read.
    reading: Option<Snapshot>,
    /// The keys of leases that the store lacks and that are kept for the grace period.
    missing: BTreeSet<LeaseKey>,
    /// True if the store has a record under this node's own key.
    own_is_there: bool,
    trust: StoreTrust,
}

/// A valid lease, used or not.
#[derive(Clone, Debug)]
struct Held {
    lease: Lease,
    age: Age,
    /// True if the lease fits the config.
    fits: bool,
    /// The overlapping lease that wins the tie-break. This lease is not used then.
    superseded_by: Option<LeaseKey>,
    /// The conflict with the host or with another peer. A lease with a conflict is not used.
    conflict: Option<Conflict>,
}

impl Held {
    fn is_used(&self) -> bool {
        self.superseded_by.is_none() && self.conflict.is_none()
    }

    fn seniority(&self) -> Seniority {
        seniority(self.fits, self.age.made, self.lease.key)
    }
}

/// The effect of a batch of changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Leases that are new, or differ in any field.
    pub changed: BTreeSet<LeaseKey>,
    /// Leases that are no longer used.
    pub removed: BTreeSet<LeaseKey>,
    /// Leases newly missing from the store, and kept for the grace period.
    pub missing: BTreeSet<LeaseKey>,
    /// Records newly found unusable, or unusable for a different reason than before.
    pub rejected: Vec<(String, Rejection)>,
    /// Number of further records newly found unusable, which are not kept by name.
    pub rejected_unnamed: usize,
    /// True if the record under this node's own key may have changed.
    pub own: bool,
}

/// Intermediate results of an update.
#[derive(Default)]
struct Progress {
    delta: Delta,
    /// The leases as they were used before the update, for those that it affects.
    before: BTreeMap<LeaseKey, Option<Box<Lease>>>,
    /// The missing leases before the update.
    missing: BTreeSet<LeaseKey>,
    /// Leases whose overlaps and conflicts must be resolved again, in order of seniority.
    unresolved: BTreeSet<Seniority>,
}

impl Peers {
    /// Creates an empty set of peers.
    pub fn new(config: NetworkConfig, own: LeaseKey) -> Self {
        Self {
            config,
            own,
            recognition: None,
            leases: BTreeMap::new(),
            overlaps: OverlapIndex::default(),
            addresses: PublicAddresses::default(),
            host: HostNetwork::default(),
            rejected: Rejected::default(),
            reading: None,
            missing: BTreeSet::new(),
            own_is_there: false,
            trust: StoreTrust::Trusted,
        }
    }

    /// Rejects further leases of the node itself from now on: from before a change of its address,
    /// or reserved for it.
    #[must_use]
    pub fn recognizing(self, recognition: Recognition) -> Self {
        Self { recognition: Some(recognition), ..self }
    }

    /// Returns the lease of a peer, if it is used.
    pub fn get(&self, key: LeaseKey) -> Option<&Lease> {
        self.used(key).map(|held| &held.lease)
    }

    /// Returns the facts about a peer that decide tie-breaks between plans.
    pub fn priority(&self, key: LeaseKey) -> Priority {
        self.used(key).map_or_else(Priority::default, |held| Priority {
            written: held.age.written,
            macs: held.lease.published_macs(),
        })
    }

    /// Returns the leases in use, ordered by key.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values().filter(|held| held.is_used()).map(|held| &held.lease)
    }

    /// Returns the rejected records by key: the first thousand, and all that concern a peer's
    /// lease.
    pub fn rejected(&self) -> impl Iterator<Item = (&str, &Rejection)> {
        self.rejected.iter()
    }

    /// Returns the number of rejected records that are not among [`rejected`](Self::rejected).
    pub fn rejected_unnamed(&self) -> usize {
        self.rejected.unnamed()
    }

    /// Returns why a record cannot be used; None if it can.
    pub fn rejection(&self, key: &str) -> Option<&Rejection> {
        self.rejected.get(key)
    }

    /// Returns the number of peers.
    pub fn len(&self) -> usize {
        self.leases().count()
    }

    /// Returns true if there are no peers.
    pub fn is_empty(&self) -> bool {
        self.leases().next().is_none()
    }

    /// Applies changes in the order in which they happened.
    pub fn update(
        &mut self,
        changes: impl IntoIterator<Item = RecordChange>,
        now: Instant,
    ) -> Delta {
        let mut progress = self.begin();
        for change in changes {
            match change {
                RecordChange::Put(record) => self.put(&record, &mut progress),
                RecordChange::Delete(key) => self.delete(&key, &mut progress),
            }
        }
        self.finish(progress, now)
    }

    /// Returns the host's own network as last set.
    pub fn host(&self) -> &HostNetwork {
        &self.host
    }

    fn begin(&self) -> Progress {
        Progress { missing: self.missing.clone(), ..Progress::default() }
    }

    fn put(&mut self, record: &Record, progress: &mut Progress) {
        match self.read(record) {
            Ok(None) => {
                self.own_is_there = true;
                progress.delta.own = true;
            }
            Ok(Some(lease)) => self.put_lease(&record.key, lease, record.age, progress),
            Err(rejection) => self.put_rejected(&record.key, rejection, progress),
        }
    }

    fn put_lease(&mut self, text: &str, lease: Lease, age: Age, progress: &mut Progress) {
        self.missing.remove(&lease.key);
        self.supersede(&lease, progress);
        // Overlaps and conflicts are resolved at the end of the update.
        if !self.is_relative(text) {
            self.rejected.remove(text);
        }
        self.hold(lease, age, progress);
    }

    fn put_rejected(&mut self, text: &str, rejection: Rejection, progress: &mut Progress) {
        if let Ok(key) = text.parse() {
            self.missing.remove(&key);
        }
        self.reject(text, rejection, progress);
    }

    fn hold(&mut self, lease: Lease, age: Age, progress: &mut Progress) {
        let key = lease.key;
        let before = self.leases.get(&key);
        let superseded_by = before.and_then(|held| held.superseded_by);
        let conflict = before.and_then(|held| held.conflict.clone());
        let is_news = before.is_none_or(|held| held.lease != lease || held.age.made != age.made);
        if is_news {
            self.remember(key, progress);
            self.mark_unresolved(key, progress);
            self.forget_addresses(key);
            self.overlaps.insert(key);
            self.addresses.insert(&self.host, &lease);
        }
        let fits = fits(&self.config, key);
        let held = Held { lease, age, fits, superseded_by, conflict };
        progress.unresolved.insert(held.seniority());
        self.leases.insert(key, Box::new(held));
        if is_news {
            self.mark_unresolved(key, progress);
        }
    }

    fn forget_addresses(&mut self, key: LeaseKey) {
        if let Some(held) = self.leases.get(&key) {
            self.addresses.remove(&self.host, &held.lease);
        }
    }

    /// Handles a deleted record. Whether the lease is removed or kept for the grace period is
    /// decided at the end of the update.
    fn delete(&mut self, text: &str, progress: &mut Progress) {
        self.rejected.remove(text);
        let Ok(key) = text.parse() else { return };
        if key == self.own {
            self.own_is_there = false;
            progress.delta.own = true;
        } else if self.used(key).is_some() {
            self.missing.insert(key);
        } else {
            self.remove(key, progress);
        }
    }

    fn remove(&mut self, key: LeaseKey, progress: &mut Progress) {
        self.missing.remove(&key);
        if self.leases.contains_key(&key) {
            self.remember(key, progress);
            self.mark_unresolved(key, progress);
            self.overlaps.remove(key);
            self.forget_addresses(key);
            self.leases.remove(&key);
        }
    }

    fn reject(&mut self, text: &str, rejection: Rejection, progress: &mut Progress) {
        let held = text.parse().is_ok_and(|key| self.leases.contains_key(&key));
        match self.rejected.insert(text, rejection.clone(), held) {
            Noted::Named => progress.delta.rejected.push((text.to_owned(), rejection)),
            Noted::Counted => progress.delta.rejected_unnamed += 1,
            Noted::Known => {}
        }
    }

    /// Parses the lease in a record; None for this node's own record.
    fn read(&self, record: &Record) -> Result<Option<Lease>, Rejection> {
        let key: LeaseKey = record.key.parse()?;
        if key == self.own {
            return Ok(None);
        }
        let lease = record.lease(key)?;
        for subnet in key.subnets() {
            let family = Family::of_network(subnet);
            let name = match family {
                Family::V4 => "Network",
                Family::V6 => "IPv6Network",
            };
            // A family that is disabled here may be in use elsewhere.
            let Some(overlay) = self.config.networks.get(family) else {
                continue;
            };
            if !overlay.network.contains(&subnet) || subnet == overlay.network {
                return Err(Rejection::OutsideNetwork(name));
            }
        }
        if overlap(key, self.own) {
            return Err(Rejection::OverlapsOwn(self.own));
        }
        let relation = self.recognition.as_ref().map(|node| node.relation(&lease));
        if let Some(Relation::Own | Relation::Anonymous) = relation {
            return Err(Rejection::Own(self.own));
        }
        Ok(Some(lease))
    }

    /// Returns true if the record under this key is rejected because of a peer or of the host.
    fn is_relative(&self, text: &str) -> bool {
        self.rejected.get(text).is_some_and(Rejection::is_relative)
    }

    /// Returns a lease that is in use.
    fn used(&self, key: LeaseKey) -> Option<&Held> {
        self.leases.get(&key).map(Box::as_ref).filter(|held| held.is_used())
    }

    /// Records the lease as it was before this update.
    fn remember(&self, key: LeaseKey, progress: &mut Progress) {
        progress.before.entry(key).or_insert_with(|| self.get(key).cloned().map(Box::new));
    }
}
