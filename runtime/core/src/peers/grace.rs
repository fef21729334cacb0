//! Leases that the store lacks after it lost data, kept for a grace period.

use std::time::{Duration, Instant};

use super::{Delta, Peers, Progress};
use crate::allocation::overlap;
use crate::lease::{Lease, LeaseKey};

/// Grace period for nodes to write their leases into a store that lost them. It begins when this
/// node's own lease is back, which proves that the store can be written. Each node retries within
/// ten seconds, but thousands at once take longer.
pub const GRACE: Duration = Duration::from_secs(120);

/// The assumption about the completeness of the store's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreTrust {
    /// Leases that the store lacks are deleted.
    Trusted,
    /// The store has lost data: it lacks this node's own lease.
    Lost,
    /// The own lease is back, and peers may still have to write theirs, until the grace period ends
    /// at this time.
    Returning(Instant),
}

impl Peers {
    /// Returns true if a lease is kept although the store lacks it.
    pub fn is_missing(&self, key: LeaseKey) -> bool {
        self.missing.contains(&key)
    }

    /// Records that the store went back to an earlier state: leases that it lacks are kept for
    /// [`GRACE`].
    pub fn distrust(&mut self, now: Instant) {
        self.trust = StoreTrust::Returning(now + GRACE);
    }

    /// Returns the time at which [`update`](Self::update) must be called even without changes.
    pub fn due(&self) -> Option<Instant> {
        match self.trust {
            StoreTrust::Returning(until) => Some(until),
            StoreTrust::Trusted | StoreTrust::Lost => None,
        }
    }

    /// Removes leases that are only kept for the grace period and contradict a new lease: their
    /// node's address now belongs to the new lease, or their subnet overlaps it. Node ids are no
    /// evidence: machines cloned from one image share them.
    pub(super) fn supersede(&mut self, lease: &Lease, progress: &mut Progress) {
        let contradicts = |key: &LeaseKey| {
            let moved = self.leases.get(key).is_some_and(|held| held.lease.shares_address(lease));
            moved || overlap(*key, lease.key)
        };
        let gone: Vec<_> = self.missing.iter().copied().filter(contradicts).collect();
        for key in gone {
            self.remove(key, progress);
        }
    }

    /// Expires the missing leases once the store is trusted again, and concludes the update.
    pub(super) fn finish(&mut self, mut progress: Progress, now: Instant) -> Delta {
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
}
