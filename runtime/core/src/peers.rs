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

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::address::Family;
use crate::allocation::{Seniority, fits, overlap, seniority};
use crate::config::NetworkConfig;
use crate::desired::Priority;
use crate::host_network::{Conflict, HostNetwork};
use crate::lease::{InvalidLease, InvalidLeaseKey, Lease, LeaseKey};
use crate::object::Object;
use crate::overlap_index::OverlapIndex;
use crate::public_addresses::PublicAddresses;
use crate::record::{Age, Record, RecordChange};
use crate::rejected::{Noted, Rejected};

/// Grace period for nodes to write their leases into a store that lost them. It begins when this
/// node's own lease is back, which proves that the store can be written. Each node retries within
/// ten seconds, but thousands at once take longer.
pub const GRACE: Duration = Duration::from_secs(120);

/// The leases of all peers, without this node's own.
#[derive(Clone, Debug)]
pub struct Peers {
    config: NetworkConfig,
    own: LeaseKey,
    leases: BTreeMap<LeaseKey, Held>,
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

/// The assumption about the completeness of the store's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoreTrust {
    /// Leases that the store lacks are deleted.
    Trusted,
    /// The store has lost data: it lacks this node's own lease.
    Lost,
    /// The own lease is back, and peers may still have to write theirs, until the grace period ends
    /// at this time.
    Returning(Instant),
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

/// The part of a snapshot (a complete list of records) that was read so far. It takes effect only
/// when complete.
#[derive(Clone, Debug)]
struct Snapshot {
    records: usize,
    /// Valid leases. The lease itself is None if it is held already, unchanged.
    leases: BTreeMap<LeaseKey, (Option<Lease>, Age)>,
    rejected: Rejected,
    /// True if the list has a record under this node's own key.
    own: bool,
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
    before: BTreeMap<LeaseKey, Option<Lease>>,
    /// The missing leases before the update.
    missing: BTreeSet<LeaseKey>,
    /// Leases whose overlaps and conflicts must be resolved again, in order of seniority.
    unresolved: BTreeSet<Seniority>,
}

/// The reason why a record is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The key is not a lease key.
    #[error(transparent)]
    Key(#[from] InvalidLeaseKey),
    /// The value is not a valid lease.
    #[error(transparent)]
    Value(#[from] InvalidLease),
    /// The subnet is not part of the overlay network that this config key names.
    #[error("its subnet is outside `{0}`")]
    OutsideNetwork(&'static str),
    /// The subnet overlaps this node's own.
    #[error("its subnet overlaps this node's own, {0}")]
    OverlapsOwn(LeaseKey),
    /// The subnet overlaps that of a peer whose lease wins the tie-break.
    #[error("its subnet overlaps {key} of {owner}, which is senior")]
    OverlapsPeer {
        /// Key of the peer's lease.
        key: LeaseKey,
        /// Name of the peer.
        owner: String,
    },
    /// The host needs the subnet, or the node cannot be reached outside the overlay.
    #[error(
        "{0}; not programmed. Move the lease, or exclude the range with SubnetMin and SubnetMax"
    )]
    Conflict(Conflict),
}

impl Rejection {
    /// Returns the conflict with the host's own network or with a peer's address, if that is the
    /// reason.
    pub fn conflict(&self) -> Option<&Conflict> {
        match self {
            Self::Conflict(conflict) => Some(conflict),
            _ => None,
        }
    }

    /// Returns true if the rejection depends on other leases or on the host, not on the record
    /// alone.
    fn is_relative(&self) -> bool {
        matches!(self, Self::OverlapsPeer { .. } | Self::Conflict(_))
    }
}

impl Peers {
    /// Creates an empty set of peers.
    pub fn new(config: NetworkConfig, own: LeaseKey) -> Self {
        Self {
            config,
            own,
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

    /// Returns true if a lease is kept although the store lacks it.
    pub fn is_missing(&self, key: LeaseKey) -> bool {
        self.missing.contains(&key)
    }

    /// Returns the number of peers.
    pub fn len(&self) -> usize {
        self.leases().count()
    }

    /// Returns true if there are no peers.
    pub fn is_empty(&self) -> bool {
        self.leases().next().is_none()
    }

    /// Begins a snapshot, a complete list of the records that is read in parts. Nothing changes
    /// before its end. An earlier unfinished snapshot is dropped.
    pub fn begin_snapshot(&mut self) {
        let rejected = self.rejected.new_like();
        let (records, leases, own) = (0, BTreeMap::new(), false);
        self.reading = Some(Snapshot { records, leases, rejected, own });
    }

    /// Adds one record to the snapshot. Returns why it cannot be used, regardless of other records.
    pub fn add_to_snapshot(&mut self, record: &Record) -> Option<Rejection> {
        let read = self.read(record);
        let snapshot = self.reading.as_mut()?;
        snapshot.records += 1;
        match read {
            Ok(None) => snapshot.own = true,
            Ok(Some(lease)) => {
                let key = lease.key;
                // A missing lease may be dropped before the snapshot ends, so its record is kept in
                // full.
                let held = self.leases.get(&key).filter(|_| !self.missing.contains(&key));
                let known = held.is_some_and(|held| held.lease == lease);
                snapshot.leases.insert(key, ((!known).then_some(lease), record.age));
            }
            Err(rejection) => {
                let held = record.key.parse().is_ok_and(|key| self.leases.contains_key(&key));
                snapshot.rejected.insert(&record.key, rejection.clone(), held);
                return Some(rejection);
            }
        }
        None
    }

    /// Drops an unfinished snapshot.
    pub fn abandon_snapshot(&mut self) {
        self.reading = None;
    }

    /// Returns the number of records in the unfinished snapshot, if there is one.
    pub fn snapshot_len(&self) -> Option<usize> {
        self.reading.as_ref().map(|snapshot| snapshot.records)
    }

    /// Applies the snapshot as the complete list of records: records not in it are deleted, unless
    /// the store has lost data.
    pub fn end_snapshot(&mut self, now: Instant) -> Delta {
        let mut progress = self.begin();
        let Some(mut snapshot) = self.reading.take() else { return self.finish(progress, now) };
        // A reader of snapshots may have missed changes of this node's own record.
        progress.delta.own = true;
        let is_there = |key: &str| {
            let lease = key.parse().is_ok_and(|key| snapshot.leases.contains_key(&key));
            lease || snapshot.rejected.get(key).is_some()
        };
        let known = self.leases.keys().map(ToString::to_string);
        let known = known.chain(self.rejected.iter().map(|(key, _)| key.to_owned()));
        let gone: Vec<_> = known.filter(|key| !is_there(key)).collect();
        for key in gone {
            self.delete(&key, &mut progress);
        }
        self.own_is_there = snapshot.own;
        progress.delta.rejected_unnamed = self.rejected.replace_unnamed(&mut snapshot.rejected);
        for (key, (lease, age)) in snapshot.leases {
            if let Some(lease) = lease.or_else(|| Some(self.leases.get(&key)?.lease.clone())) {
                self.put_lease(&key.to_string(), lease, age, &mut progress);
            }
        }
        for (key, rejection) in snapshot.rejected.into_named() {
            self.put_rejected(&key, rejection, &mut progress);
        }
        self.finish(progress, now)
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

    /// Records that the store went back to an earlier state: leases that it lacks are kept for
    /// [`GRACE`].
    pub fn distrust(&mut self, now: Instant) {
        self.trust = StoreTrust::Returning(now + GRACE);
    }

    /// Replaces the host's own network. Leases that conflict with it are no longer used; leases
    /// that no longer do are used again.
    pub fn protect(&mut self, host: HostNetwork) -> Delta {
        let mut progress = self.begin();
        if self.host != host {
            self.host = host;
            let leases = self.leases.values().map(|held| &held.lease);
            self.addresses.rebuild(&self.host, leases);
            progress.unresolved = self.leases.values().map(Held::seniority).collect();
        }
        self.conclude(progress)
    }

    /// Returns the host's own network as last set.
    pub fn host(&self) -> &HostNetwork {
        &self.host
    }

    /// Returns the conflict of a destination with the public address of a peer in use: a route to
    /// it would divert this node's own packets to that peer.
    pub fn covered(&self, destination: IpNet) -> Option<Conflict> {
        self.addresses.taken_by(destination).find_map(|(address, key)| {
            let held = self.used(key)?;
            Some(Conflict::PeerAddress { destination, address, owner: held.lease.owner() })
        })
    }

    /// Returns the time at which [`update`](Self::update) must be called even without changes.
    pub fn due(&self) -> Option<Instant> {
        match self.trust {
            StoreTrust::Returning(until) => Some(until),
            StoreTrust::Trusted | StoreTrust::Lost => None,
        }
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
        self.leases.insert(key, held);
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

    /// Removes leases that are only kept for the grace period and contradict a new lease: their
    /// node's address now belongs to the new lease, or their subnet overlaps it. Node ids are no
    /// evidence: machines cloned from one image share them.
    fn supersede(&mut self, lease: &Lease, progress: &mut Progress) {
        let contradicts = |key: &LeaseKey| {
            let moved = self.leases.get(key).is_some_and(|held| held.lease.shares_address(lease));
            moved || overlap(*key, lease.key)
        };
        let gone: Vec<_> = self.missing.iter().copied().filter(contradicts).collect();
        for key in gone {
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

    /// Returns true if the record under this key is rejected because of a peer or of the host.
    fn is_relative(&self, text: &str) -> bool {
        self.rejected.get(text).is_some_and(Rejection::is_relative)
    }

    /// Returns a lease that is in use.
    fn used(&self, key: LeaseKey) -> Option<&Held> {
        self.leases.get(&key).filter(|held| held.is_used())
    }

    /// Returns the leases whose use may depend on this one, or the other way round: they overlap,
    /// or the public address of one is inside the subnet of the other. Some occur more than once.
    fn related(&self, held: &Held) -> Vec<LeaseKey> {
        let key = held.lease.key;
        let mut related: Vec<_> = self.overlaps.with(key).collect();
        related.extend(
            key.subnets().flat_map(|subnet| self.addresses.inside(subnet)).map(|(_, key)| key),
        );
        let addresses = held.lease.public_addresses();
        related.extend(addresses.flat_map(|address| self.overlaps.with_address(address)));
        related
    }

    /// Records the lease as it was before this update.
    fn remember(&self, key: LeaseKey, progress: &mut Progress) {
        progress.before.entry(key).or_insert_with(|| self.get(key).cloned());
    }

    /// Marks the leases related to this one, so that their overlaps and conflicts are resolved
    /// again.
    fn mark_unresolved(&self, key: LeaseKey, progress: &mut Progress) {
        let Some(held) = self.leases.get(&key) else { return };
        let others = self.related(held).into_iter().filter_map(|other| self.leases.get(&other));
        progress.unresolved.extend(others.map(Held::seniority));
    }

    /// Expires the missing leases once the store is trusted again, and concludes the update.
    fn finish(&mut self, mut progress: Progress, now: Instant) -> Delta {
        self.trust = match self.trust {
            _ if !self.own_is_there => StoreTrust::Lost,
            StoreTrust::Lost => StoreTrust::Returning(now + GRACE),
            StoreTrust::Returning(until) if until <= now => StoreTrust::Trusted,
            trust => trust,
        };
        if self.trust == StoreTrust::Trusted {
            for key in std::mem::take(&mut self.missing) {
                self.remove(key, &mut progress);
            }
        }
        self.conclude(progress)
    }

    /// Resolves overlaps and conflicts, and returns the resulting delta.
    fn conclude(&mut self, mut progress: Progress) -> Delta {
        self.resolve_overlaps(&mut progress);
        let Progress { mut delta, before, missing, .. } = progress;
        for (key, before) in before {
            match (before, self.get(key)) {
                (Some(_), None) => _ = delta.removed.insert(key),
                (before, Some(now)) if before.as_ref() != Some(now) => {
                    delta.changed.insert(key);
                }
                _ => {}
            }
        }
        delta.missing = &self.missing - &missing;
        // Keep only the rejections that still hold after the whole batch.
        delta.rejected.retain(|(key, why)| self.rejected.get(key) == Some(why));
        delta
    }

    /// Resolves overlaps and conflicts in order of seniority: the outcome of a lease depends only
    /// on its seniors.
    fn resolve_overlaps(&mut self, progress: &mut Progress) {
        while let Some((.., key)) = progress.unresolved.pop_first() {
            let Some(held) = self.leases.get(&key) else { continue };
            let own = held.seniority();
            // A lease that conflicts with this host still wins overlaps, because other hosts use
            // it: its rivals are not used here, either.
            let rivals = self.overlaps.with(key).filter_map(|other| self.leases.get(&other));
            let rivals = rivals.filter(|held| held.superseded_by.is_none());
            let superseded_by = rivals.map(Held::seniority).filter(|other| *other < own).min();
            let superseded_by = superseded_by.map(|(.., other)| other);
            let conflict = self.conflict(held);
            let stands = |superseded_by: Option<LeaseKey>, conflict: &Option<Conflict>| {
                (superseded_by.is_none(), conflict.is_none())
            };
            if stands(held.superseded_by, &held.conflict) != stands(superseded_by, &conflict) {
                self.remember(key, progress);
                let others = self.related(held).into_iter();
                let others = others.filter_map(|other| self.leases.get(&other));
                let after = others.map(Held::seniority).filter(|other| *other > own);
                progress.unresolved.extend(after);
            }
            let rejection = conflict.clone().map(Rejection::Conflict);
            if let Some(held) = self.leases.get_mut(&key) {
                (held.superseded_by, held.conflict) = (superseded_by, conflict);
            }
            match (superseded_by, rejection) {
                // A lease held only for the grace period is dropped, not kept as rejected, when it
                // loses.
                (Some(_), _) | (_, Some(_)) if self.missing.contains(&key) => {
                    self.remove(key, progress);
                }
                // A conflict is reported before an overlap: it remains when the other lease goes.
                (_, Some(rejection)) => self.reject(&key.to_string(), rejection, progress),
                (Some(superseded_by), None) => self.note_overlap(key, superseded_by, progress),
                (None, None) => {
                    let text = key.to_string();
                    if self.is_relative(&text) {
                        self.rejected.remove(&text);
                    }
                }
            }
        }
    }

    /// Returns the conflict of a lease with the host, with a senior peer, or with the lease's own
    /// node.
    fn conflict(&self, held: &Held) -> Option<Conflict> {
        let enabled = |subnet: &IpNet| self.config.network(Family::of_network(*subnet)).is_some();
        let subnets = || held.lease.key.subnets().filter(enabled);
        subnets()
            .find_map(|subnet| self.host.conflict(subnet))
            .or_else(|| subnets().find_map(|subnet| self.covers_peer(held, subnet)))
            .or_else(|| held.lease.public_addresses().find_map(|it| self.inside_peer(held, it)))
            .or_else(|| held.lease.public_addresses().find_map(|it| self.inside_own(it)))
    }

    /// Returns the conflict of a lease's public address with this node's own subnet.
    fn inside_own(&self, address: IpAddr) -> Option<Conflict> {
        let subnet = self.own.subnets().find(|subnet| self.host.loses(address, *subnet))?;
        Some(Conflict::InsidePeer { address, subnet, owner: "this node".to_owned() })
    }

    /// Returns the conflict of a lease's subnet with its own public address, or with that of a
    /// senior peer.
    fn covers_peer(&self, held: &Held, subnet: IpNet) -> Option<Conflict> {
        self.addresses.taken_by(subnet).find_map(|(address, key)| {
            let owner = match key == held.lease.key {
                // A lease conflicts with its own address whether or not it is used at present.
                true => Some(held),
                // The host has a route to exactly this subnet, and reaches the peer through it.
                false if self.host.longest(address) == Some(subnet.prefix_len()) => {
                    self.leases.get(&key)
                }
                false => self.used(key).filter(|other| other.seniority() < held.seniority()),
            };
            let owner = owner?.lease.owner();
            Some(Conflict::PeerAddress { destination: subnet, address, owner })
        })
    }

    /// Returns the conflict of a lease's public address with the subnet of a senior peer.
    fn inside_peer(&self, held: &Held, address: IpAddr) -> Option<Conflict> {
        self.overlaps.with_address(address).find_map(|key| {
            let peer = self.used(key).filter(|other| other.seniority() < held.seniority())?;
            let subnet = key.subnet(Family::of(address))?;
            if self.host.longest(address) == Some(subnet.prefix_len()) {
                return None;
            }
            let conflict = Conflict::InsidePeer { address, subnet, owner: peer.lease.owner() };
            self.host.loses(address, subnet).then_some(conflict)
        })
    }

    fn note_overlap(&mut self, key: LeaseKey, superseded_by: LeaseKey, progress: &mut Progress) {
        let owner =
            self.leases.get(&superseded_by).map_or_else(String::new, |held| held.lease.owner());
        self.reject(
            &key.to_string(),
            Rejection::OverlapsPeer { key: superseded_by, owner },
            progress,
        );
    }
}

/// The kernel objects that may exist for a set of leases: those with destinations in their subnets,
/// and FDB entries to their public addresses.
#[derive(Clone, Debug, Default)]
pub struct Footprint {
    /// Subnets by their first address. The leases do not overlap.
    subnets: BTreeMap<IpAddr, IpNet>,
    addresses: BTreeSet<IpAddr>,
}

impl Footprint {
    /// Returns the footprint of these leases.
    pub fn of<'a>(leases: impl IntoIterator<Item = &'a Lease>) -> Self {
        let mut footprint = Self::default();
        for lease in leases {
            footprint.subnets.extend(lease.key.subnets().map(|subnet| (subnet.network(), subnet)));
            footprint.addresses.extend(lease.public_addresses());
        }
        footprint
    }

    /// Returns true if the object may exist for one of the leases.
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
    use crate::host_network::{Claims, HostAddress, HostRoute, HostRouting, Vital};
    use crate::object::{FdbEntry, Metric, Route, RouteAction};

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
        peers.update(
            [older, record("10.244.20.0-24", ONE, 3)].map(RecordChange::Put),
            Instant::now(),
        );
        assert_eq!(used(&peers), ["10.244.30.0-24"]);
        assert_eq!(
            peers.rejection("10.244.20.0-24").unwrap().conflict().unwrap().to_string(),
            "10.244.20.0/24 contains 10.244.20.7, the public address of 10.244.20.7"
        );
        // A peer on a connected network of the host is reached regardless of the leases around it.
        let near = record("10.244.31.0-24", r#"{"PublicIP":"10.244.50.7"}"#, 4);
        peers.update(
            [near, record("10.244.48.0-22", TWO, 5)].map(RecordChange::Put),
            Instant::now(),
        );
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
                assert_eq!(
                    peers.leases().map(|it| it.key).collect::<BTreeSet<_>>(),
                    keys(&[first])
                );
                let why = peers.rejected().map(|(key, why)| format!("{key}: {why}"));
                assert_eq!(
                    why.collect::<Vec<_>>(),
                    [format!(
                        "{second}: its subnet overlaps {first} of 192.168.0.1, which is senior"
                    )]
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
        update(
            &mut peers,
            &[RecordChange::Put(Record { age, ..record("10.244.1.0-24", value, 1) })],
        );
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
        let gone =
            ["10.244.1.0-24", OWN, "10.244.9.0-24"].map(|key| RecordChange::Delete(key.into()));
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
                    format!("10.244.{}.{}/{length}", 16 + part / 2, part % 2 * 128)
                        .parse()
                        .unwrap();
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
}
