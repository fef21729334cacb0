//! Peers without a new plan, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use heddle_core::lease::LeaseKey;
use heddle_core::retry::{Backoff, Schedule};

/// How often the plugin is asked again about a peer that it failed at.
const RETRY: Backoff =
    Backoff { initial: Duration::from_millis(500), limit: Duration::from_secs(60) };

/// Peers that the plugin has given no plan for when last asked.
pub(super) struct Unplanned {
    /// It failed, and may do better another time.
    failing: Schedule<LeaseKey>,
    /// It will say the same of the same lease: no failure, but worth telling.
    answered: BTreeMap<LeaseKey, String>,
}

impl Unplanned {
    pub(super) fn new() -> Self {
        Self { failing: Schedule::new(RETRY), answered: BTreeMap::new() }
    }

    /// The plugin failed at a peer. Returns whether that is news.
    pub(super) fn failed(&mut self, key: LeaseKey, reason: &str, now: Instant) -> bool {
        self.failing.failed(key, reason.to_owned(), now)
    }

    /// The plugin has no plan for a peer, and would not have one if it were asked again. Returns whether that is news.
    pub(super) fn answered(&mut self, key: LeaseKey, reason: &str) -> bool {
        self.failing.clear(&key);
        self.answered.insert(key, reason.to_owned()).is_none_or(|before| before != reason)
    }

    /// The peer has a plan, or is gone.
    pub(super) fn forget(&mut self, key: LeaseKey) {
        self.failing.clear(&key);
        self.answered.remove(&key);
    }

    /// Why a peer has no new plan.
    pub(super) fn reason(&self, key: LeaseKey) -> Option<&str> {
        let failed = || self.failing.failing().get(&key).map(|failing| failing.reason.as_str());
        self.answered.get(&key).map(String::as_str).or_else(failed)
    }

    /// The peers that the plugin failed at.
    pub(super) fn failing(&self) -> impl Iterator<Item = LeaseKey> {
        self.failing.failing().keys().copied()
    }

    /// The peers that it is time to ask about again.
    pub(super) fn due(&self, now: Instant) -> BTreeSet<LeaseKey> {
        self.failing.due(now).into_iter().collect()
    }

    /// When there are any.
    pub(super) fn next(&self) -> Option<Instant> {
        self.failing.next()
    }
}
