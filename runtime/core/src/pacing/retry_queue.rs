//! Retries of many items. Each failing item has a backoff of its own, so that one that keeps failing
//! neither delays the others nor is retried in a hot loop.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Backoff;

/// The failing items, each with the reason and the time of the next attempt.
#[derive(Clone, Debug)]
pub struct RetryQueue<K> {
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

impl<K: Ord + Clone> RetryQueue<K> {
    /// Creates an empty queue.
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
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn queue() -> RetryQueue<&'static str> {
        RetryQueue::new(Backoff { initial: SECOND, limit: 60 * SECOND })
    }

    #[test]
    fn queue_backs_off_each_item_separately() {
        let (mut queue, now) = (queue(), Instant::now());
        queue.failed("a", "x".into(), now);
        queue.failed("a", "x".into(), now);
        queue.failed("b", "x".into(), now);
        assert_eq!(queue.next(), Some(now + SECOND));
        assert!(queue.waiting(&"b", now) && !queue.waiting(&"c", now));
        assert_eq!(queue.due(now + SECOND), ["b"]);
        assert_eq!(queue.due(now + 2 * SECOND), ["a", "b"]);
    }

    #[test]
    fn queue_hastened_makes_all_items_due() {
        let (mut queue, now) = (queue(), Instant::now());
        for _ in 0..7 {
            queue.failed("a", "x".into(), now);
        }
        queue.hasten(now);
        assert_eq!(queue.due(now), ["a"]);
        queue.failed("a", "x".into(), now);
        assert_eq!(queue.next(), Some(now + 2 * SECOND));
        queue.retain(|key| *key != "a");
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn failure_repeated_for_same_reason_is_no_news() {
        let (mut queue, now) = (queue(), Instant::now());
        assert!(queue.failed("a", "x".into(), now));
        assert!(!queue.failed("a", "x".into(), now));
        assert!(queue.failed("a", "y".into(), now));
        assert!(queue.clear(&"a") && !queue.clear(&"a"));
        assert!(queue.failed("a", "y".into(), now));
    }
}
