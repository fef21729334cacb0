//! Peers without a new plan, with the reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use heddle_core::lease::LeaseKey;
use heddle_core::pacing::{Backoff, RetryQueue};

/// Backoff of plugin calls for a peer that failed.
const RETRY: Backoff =
    Backoff { initial: Duration::from_millis(500), limit: Duration::from_secs(60) };

/// Peers for which the plugin returned no plan at the latest call.
pub(super) struct PlanRetries {
    /// Peers whose call failed. A retry may succeed.
    failing: RetryQueue<LeaseKey>,
    /// Peers for which the plugin answered without a usable plan. It would repeat that for the same
    /// lease, so there is no retry. This is no failure, but worth reporting.
    answered: BTreeMap<LeaseKey, String>,
}

impl PlanRetries {
    pub(super) fn new() -> Self {
        Self { failing: RetryQueue::new(RETRY), answered: BTreeMap::new() }
    }

    /// Records a failed call for a peer. Returns true if the reason is new.
    pub(super) fn failed(&mut self, key: LeaseKey, reason: &str, now: Instant) -> bool {
        self.failing.failed(key, reason.to_owned(), now)
    }

    /// Records that the plugin has no plan for a peer, and would have none at a retry. Returns true
    /// if the reason is new.
    pub(super) fn answered(&mut self, key: LeaseKey, reason: &str) -> bool {
        self.failing.clear(&key);
        self.answered.insert(key, reason.to_owned()).is_none_or(|before| before != reason)
    }

    /// Removes a peer that has a plan or is gone.
    pub(super) fn forget(&mut self, key: LeaseKey) {
        self.failing.clear(&key);
        self.answered.remove(&key);
    }

    /// Returns the reason why a peer has no new plan.
    pub(super) fn reason(&self, key: LeaseKey) -> Option<&str> {
        let failed = || self.failing.failing().get(&key).map(|failing| failing.reason.as_str());
        self.answered.get(&key).map(String::as_str).or_else(failed)
    }

    /// Returns true if the latest call for a peer failed.
    pub(super) fn is_failing(&self, key: LeaseKey) -> bool {
        self.failing.failing().contains_key(&key)
    }

    /// Returns the peers whose call failed.
    pub(super) fn failing(&self) -> impl Iterator<Item = LeaseKey> {
        self.failing.failing().keys().copied()
    }

    /// Returns the peers that are due for a retry.
    pub(super) fn due(&self, now: Instant) -> BTreeSet<LeaseKey> {
        self.failing.due(now).into_iter().collect()
    }

    /// Returns the time of the next retry. None if there is none.
    pub(super) fn next(&self) -> Option<Instant> {
        self.failing.next()
    }
}
