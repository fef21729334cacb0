//! Retries with exponential backoff. Each failing item has a schedule of its own, so that one that
//! keeps failing neither delays the others nor is retried in a hot loop.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Exponential backoff: the delay between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Delay after the first failure.
    pub initial: Duration,
    /// Upper limit. Each consecutive failure doubles the delay up to this.
    pub limit: Duration,
}

impl Backoff {
    /// Returns the delay after this many consecutive failures.
    pub fn delay(&self, failures: u32) -> Duration {
        let factor = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.initial.saturating_mul(factor).min(self.limit)
    }
}

/// The failing items, each with the reason and the time of the next attempt.
#[derive(Clone, Debug)]
pub struct Schedule<K> {
    backoff: Backoff,
    failing: BTreeMap<K, Failing>,
}

/// A failing item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// Number of consecutive failures, at least 1.
    pub failures: u32,
    /// Reason of the last failure.
    pub reason: String,
    /// Time of the next attempt.
    pub due: Instant,
}

impl<K: Ord + Clone> Schedule<K> {
    /// Creates an empty schedule.
    pub fn new(backoff: Backoff) -> Self {
        Self { backoff, failing: BTreeMap::new() }
    }

    /// Records a failure. Returns true if it is news: the first in a row, or for a different reason
    /// than the last one.
    pub fn failed(&mut self, key: K, reason: String, now: Instant) -> bool {
        let before = self.failing.get(&key);
        let news = before.is_none_or(|failing| failing.reason != reason);
        let failures = before.map_or(0, |failing| failing.failures).saturating_add(1);
        let due = now + self.backoff.delay(failures);
        self.failing.insert(key, Failing { failures, reason, due });
        news
    }

    /// Records a success, or that the item no longer matters. Returns true if it was failing.
    pub fn clear(&mut self, key: &K) -> bool {
        self.failing.remove(key).is_some()
    }

    /// Returns true if the item failed and is not due for a retry yet.
    pub fn waiting(&self, key: &K, now: Instant) -> bool {
        self.failing.get(key).is_some_and(|failing| failing.due > now)
    }

    /// Returns the items that are due for a retry.
    pub fn due(&self, now: Instant) -> Vec<K> {
        let due = self.failing.iter().filter(|(_, failing)| failing.due <= now);
        due.map(|(key, _)| key.clone()).collect()
    }

    /// Returns the time of the earliest retry.
    pub fn next(&self) -> Option<Instant> {
        self.failing.values().map(|failing| failing.due).min()
    }

    /// Drops all items except those that `keep` returns true for.
    pub fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.failing.retain(|key, _| keep(key));
    }

    /// Makes all items due now and resets their backoff, since the cause may be gone.
    pub fn hasten(&mut self, now: Instant) {
        for failing in self.failing.values_mut() {
            failing.failures = 1;
            failing.due = failing.due.min(now);
        }
    }

    /// Returns all failing items.
    pub fn failing(&self) -> &BTreeMap<K, Failing> {
        &self.failing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn schedule() -> Schedule<&'static str> {
        Schedule::new(Backoff { initial: SECOND, limit: 60 * SECOND })
    }

    #[test]
    fn backoff_doubles_up_to_its_limit() {
        let backoff = Backoff { initial: SECOND, limit: 60 * SECOND };
        let seconds = [1, 2, 3, 7, 1000].map(|failures| backoff.delay(failures).as_secs());
        assert_eq!(seconds, [1, 2, 4, 60, 60]);
    }

    #[test]
    fn schedule_backs_off_each_item_separately() {
        let (mut schedule, now) = (schedule(), Instant::now());
        schedule.failed("a", "x".into(), now);
        schedule.failed("a", "x".into(), now);
        schedule.failed("b", "x".into(), now);
        assert_eq!(schedule.next(), Some(now + SECOND));
        assert!(schedule.waiting(&"b", now) && !schedule.waiting(&"c", now));
        assert_eq!(schedule.due(now + SECOND), ["b"]);
        assert_eq!(schedule.due(now + 2 * SECOND), ["a", "b"]);
    }

    #[test]
    fn schedule_hastened_makes_all_items_due() {
        let (mut schedule, now) = (schedule(), Instant::now());
        for _ in 0..7 {
            schedule.failed("a", "x".into(), now);
        }
        schedule.hasten(now);
        assert_eq!(schedule.due(now), ["a"]);
        schedule.failed("a", "x".into(), now);
        assert_eq!(schedule.next(), Some(now + 2 * SECOND));
        schedule.retain(|key| *key != "a");
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn failure_repeated_for_same_reason_is_no_news() {
        let (mut schedule, now) = (schedule(), Instant::now());
        assert!(schedule.failed("a", "x".into(), now));
        assert!(!schedule.failed("a", "x".into(), now));
        assert!(schedule.failed("a", "y".into(), now));
        assert!(schedule.clear(&"a") && !schedule.clear(&"a"));
        assert!(schedule.failed("a", "y".into(), now));
    }
}
