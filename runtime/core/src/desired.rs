//! The desired state: the union of the node's own plan and the plan of each peer.
//!
//! Each plan belongs to an [`Owner`] and is replaced or withdrawn as a whole, which touches only
//! the objects in it. Two owners may claim different objects under one key (two leases with one
//! MAC, for example). A tie-break then picks the winner, and the next claim takes effect once the
//! winner withdraws:
//!
//! 1. the node itself, before all peers;
//! 2. a peer whose record publishes the Ethernet address in question, before a peer for which only
//!    a plugin claims it;
//! 3. the peer whose claim is the oldest, by the time its record was written. A peer does not lose
//!    an unchanged claim when other parts of its record change.
//!
//! So a newcomer, whether through its own record or through a plugin, takes nothing away from
//! existing owners.

use std::collections::{BTreeMap, BTreeSet};

use crate::address::MacAddress;
use crate::lease::LeaseKey;
use crate::object::{Object, ObjectKey, Plan};

/// The owner of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// This node. Precedes all peers.
    Node,
    /// A peer, by the key of its lease.
    Peer(LeaseKey),
}

/// The facts about an owner that decide tie-breaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Priority {
    /// The store's count of when the record behind the plan was written
    /// ([`Age`](crate::record::Age)).
    pub written: u64,
    /// The Ethernet addresses that the record publishes.
    pub macs: BTreeSet<MacAddress>,
}

/// Tie-break key of a claim; the smallest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    is_peer: bool,
    is_unpublished: bool,
    since: u64,
    owner: Owner,
}

/// An owner's claim to an object.
#[derive(Clone, Debug)]
struct Claim {
    rank: Rank,
    object: Object,
}

/// The objects that should be in the kernel.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    plans: BTreeMap<Owner, Vec<ObjectKey>>,
    /// Claims per key, ordered by rank; never empty.
    claims: BTreeMap<ObjectKey, Vec<Claim>>,
}

impl Desired {
    /// Replaces an owner's plan. Returns the keys whose object may have changed.
    pub fn set(&mut self, owner: Owner, priority: &Priority, plan: Plan) -> BTreeSet<ObjectKey> {
        let keys: Vec<_> = plan.objects.iter().map(Object::key).collect();
        let before = |(key, object): (&ObjectKey, &Object)| {
            let claim = self.claim(key, owner).filter(|claim| claim.object == *object)?;
            Some(claim.rank.since)
        };
        let since: Vec<_> = keys.iter().zip(&plan.objects).map(before).collect();
        let mut touched = self.remove(owner);
        for ((key, object), since) in keys.iter().zip(plan.objects).zip(since) {
            let rank = Rank {
                is_peer: owner != Owner::Node,
                is_unpublished: match &object {
                    Object::FdbEntry(entry) => !priority.macs.contains(&entry.mac),
                    _ => false,
                },
                since: since.map_or(priority.written, |since| since.min(priority.written)),
                owner,
            };
            // There is nearly always one claim, and a vector that grows by itself would reserve
            // room for four.
            let claims = self.claims.entry(key.clone()).or_insert_with(|| Vec::with_capacity(1));
            let place = claims.partition_point(|claim| claim.rank < rank);
            claims.insert(place, Claim { rank, object });
        }
        touched.extend(keys.iter().cloned());
        self.plans.insert(owner, keys);
        touched
    }

    /// Withdraws an owner's plan. Returns the keys whose object may have changed.
    pub fn remove(&mut self, owner: Owner) -> BTreeSet<ObjectKey> {
        let keys = self.plans.remove(&owner).unwrap_or_default();
        for key in &keys {
            if let Some(claims) = self.claims.get_mut(key) {
                claims.retain(|claim| claim.rank.owner != owner);
                if claims.is_empty() {
                    self.claims.remove(key);
                }
            }
        }
        keys.into_iter().collect()
    }

    /// Returns true if an owner has a plan.
    pub fn contains(&self, owner: Owner) -> bool {
        self.plans.contains_key(&owner)
    }

    /// Returns the keys in an owner's plan, including those another owner wins. Empty without a
    /// plan.
    pub fn keys(&self, owner: Owner) -> &[ObjectKey] {
        self.plans.get(&owner).map_or(&[], Vec::as_slice)
    }

    /// Returns an owner's plan, including objects that lose their tie-break. Empty without a plan.
    pub fn plan(&self, owner: Owner) -> Plan {
        let object = |key: &ObjectKey| Some(self.claim(key, owner)?.object.clone());
        Plan { objects: self.keys(owner).iter().filter_map(object).collect() }
    }

    /// Returns the object that should be under a key: the one of the winning claim.
    pub fn get(&self, key: &ObjectKey) -> Option<&Object> {
        self.claims.get(key)?.first().map(|claim| &claim.object)
    }

    /// Returns the owner of the winning claim to a key.
    pub fn owner(&self, key: &ObjectKey) -> Option<Owner> {
        self.claims.get(key)?.first().map(|claim| claim.rank.owner)
    }

    /// Returns all objects that should be in the kernel.
    pub fn objects(&self) -> BTreeMap<ObjectKey, &Object> {
        let objects = self.claims.iter().filter_map(|(key, claims)| Some((key, claims.first()?)));
        objects.map(|(key, claim)| (key.clone(), &claim.object)).collect()
    }

    /// Returns the keys that this owner wants with a different object than some other owner, each
    /// with the highest-ranked of those owners.
    pub fn conflicts(&self, owner: Owner) -> impl Iterator<Item = (&ObjectKey, Owner)> {
        self.keys(owner).iter().filter_map(move |key| {
            let own = self.claim(key, owner)?;
            let mut others = self.claims.get(key)?.iter().filter(|it| it.object != own.object);
            others.next().map(|other| (key, other.rank.owner))
        })
    }

    fn claim(&self, key: &ObjectKey, owner: Owner) -> Option<&Claim> {
        self.claims.get(key)?.iter().find(|claim| claim.rank.owner == owner)
    }

    /// Returns the number of objects that should be in the kernel.
    pub fn len(&self) -> usize {
        self.claims.len()
    }

    /// Returns true if no object should be in the kernel.
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }
}

#[cfg(test)]
mod tests;
