//! When to try again what failed: each thing on a schedule of its own, so that one that keeps failing neither holds
//! up the others nor is asked for in a hot loop.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long after each failure the next attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub initial: Duration,
    /// At most. Each failure in a row doubles the time up to this.
    pub limit: Duration,
}

impl Backoff {
    /// How long to wait after this many failures in a row.
    pub fn delay(&self, failures: u32) -> Duration {
        let factor = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.initial.saturating_mul(factor).min(self.limit)
    }
}

/// What failed, why, and when it is due again.
#[derive(Clone, Debug)]
pub struct Schedule<K> {
    backoff: Backoff,
    failing: BTreeMap<K, Failing>,
}

/// Something that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// How often in a row, at least once.
    pub failures: u32,
    /// Why, the last time.
    pub reason: String,
    /// When it is due again.
    pub due: Instant,
}

impl<K: Ord + Clone> Schedule<K> {
    /// An empty schedule.
    pub fn new(backoff: Backoff) -> Self {
        Self { backoff, failing: BTreeMap::new() }
    }

    /// Takes note of a failure. Returns whether it is news: the first in a row, or for another reason than before.
    pub fn failed(&mut self, key: K, reason: String, now: Instant) -> bool {
        let before = self.failing.get(&key);
        let news = before.is_none_or(|failing| failing.reason != reason);
        let failures = before.map_or(0, |failing| failing.failures).saturating_add(1);
        let due = now + self.backoff.delay(failures);
        self.failing.insert(key, Failing { failures, reason, due });
        news
    }

    /// Takes note of a success, or that it no longer matters. Returns whether it was failing.
    pub fn clear(&mut self, key: &K) -> bool {
        self.failing.remove(key).is_some()
    }

    /// Whether it failed and is not yet due again.
    pub fn waiting(&self, key: &K, now: Instant) -> bool {
        self.failing.get(key).is_some_and(|failing| failing.due > now)
    }

    /// What is due.
    pub fn due(&self, now: Instant) -> Vec<K> {
        let due = self.failing.iter().filter(|(_, failing)| failing.due <= now);
        due.map(|(key, _)| key.clone()).collect()
    }

    /// When the next is due.
    pub fn next(&self) -> Option<Instant> {
        self.failing.values().map(|failing| failing.due).min()
    }

    /// Forgets everything but what `keep` says.
    pub fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.failing.retain(|key, _| keep(key));
    }

    /// Makes everything due now, as after a first failure: the reason may have gone.
    pub fn hasten(&mut self, now: Instant) {
        for failing in self.failing.values_mut() {
            failing.failures = 1;
            failing.due = failing.due.min(now);
        }
    }

    /// Everything that is failing.
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
    fn the_time_between_attempts_doubles_up_to_a_limit() {
        let backoff = Backoff { initial: SECOND, limit: 60 * SECOND };
        let seconds = [1, 2, 3, 7, 1000].map(|failures| backoff.delay(failures).as_secs());
        assert_eq!(seconds, [1, 2, 4, 60, 60]);
    }

    #[test]
    fn each_thing_has_a_schedule_of_its_own() {
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
    fn when_the_reason_may_have_gone_everything_is_due() {
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
    fn the_same_failure_again_is_no_news() {
        let (mut schedule, now) = (schedule(), Instant::now());
        assert!(schedule.failed("a", "x".into(), now));
        assert!(!schedule.failed("a", "x".into(), now));
        assert!(schedule.failed("a", "y".into(), now));
        assert!(schedule.clear(&"a") && !schedule.clear(&"a"));
        assert!(schedule.failed("a", "y".into(), now));
    }
}
