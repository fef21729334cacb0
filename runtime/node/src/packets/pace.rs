//! When to build anew what the packet path needs.

use std::time::{Duration, Instant};

use heddle_core::retry::Backoff;

/// How often the plugin is started anew when it fails at once.
const RESTART: Backoff =
    Backoff { initial: Duration::from_millis(100), limit: Duration::from_secs(10) };

/// A plugin that failed after it had worked for this long is started anew as if it had never failed before.
const SETTLED: Duration = Duration::from_secs(10);

/// Building may take this part of the time: after 10 ms of it, the next is at least 40 ms later.
const SHARE: u32 = 4;

/// Changes are built at once and failures after a while, neither of them more often than building is worth.
#[derive(Debug)]
pub(crate) struct Pace {
    due: Option<Instant>,
    not_before: Instant,
    /// In a row.
    failures: u32,
    /// When something was last built that worked.
    working_since: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self { due: None, not_before: now, failures: 0, working_since: None }
    }

    /// There is something new to build.
    pub(crate) fn changed(&mut self, now: Instant) {
        self.due_at(now);
    }

    /// What was built has failed.
    pub(crate) fn failed(&mut self, now: Instant) {
        let settled = self.working_since.take().is_some_and(|since| now >= since + SETTLED);
        self.failures = if settled { 1 } else { self.failures.saturating_add(1) };
        self.due_at(now + RESTART.delay(self.failures));
    }

    /// It was built, and works or not.
    pub(crate) fn built(&mut self, began: Instant, ended: Instant, works: bool) {
        self.due = None;
        self.not_before = ended + (ended - began) * SHARE;
        if works {
            self.working_since.get_or_insert(ended);
        } else {
            self.failed(ended);
        }
    }

    /// How long until there is something to build; none if nothing is known to be coming.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(now))
    }

    fn due_at(&mut self, when: Instant) {
        let when = when.max(self.not_before);
        self.due = Some(self.due.map_or(when, |due| due.min(when)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_change_is_built_at_once_and_then_not_too_often() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(pace.wait(start), None);
        pace.changed(start);
        assert_eq!(pace.wait(start), Some(ms(0)));
        pace.built(start, start + ms(10), true);
        assert_eq!(pace.wait(start + ms(10)), None);
        pace.changed(start + ms(11));
        pace.changed(start + ms(12));
        assert_eq!(pace.wait(start + ms(12)), Some(ms(38)));
    }

    #[test]
    fn what_fails_again_and_again_is_built_less_and_less_often() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let mut waits = Vec::new();
        for _ in 0..9 {
            pace.failed(now);
            let wait = pace.wait(now).unwrap();
            waits.push(wait.as_millis());
            now += wait;
            pace.built(now, now, true);
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        // Once it has worked for a while, that is forgotten.
        now += SETTLED;
        pace.failed(now);
        assert_eq!(pace.wait(now), Some(ms(100)));
    }

    #[test]
    fn what_does_not_work_when_built_is_built_again() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.changed(now);
        pace.built(now, now, false);
        assert_eq!(pace.wait(now), Some(ms(100)));
    }

    #[test]
    fn a_change_does_not_wait_for_a_plugin_that_fails() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.failed(now);
        pace.changed(now);
        assert_eq!(pace.wait(now), Some(ms(0)));
    }
}
