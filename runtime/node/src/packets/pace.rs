//! Schedules builds of the packet path's table and plugin instances.

use std::time::{Duration, Instant};

use heddle_core::retry::Backoff;

/// Backoff of plugin restarts.
const RESTART: Backoff =
    Backoff { initial: Duration::from_millis(100), limit: Duration::from_secs(10) };

/// Uptime after which a failing plugin is restarted without regard to its earlier failures.
const SETTLED: Duration = Duration::from_secs(10);

/// Pause after a build, as a multiple of its duration. 4 limits builds to a fifth of the time:
/// after one that took 10 ms, the next is at least 40 ms later.
const SHARE: u32 = 4;

/// The timer of the next build. Changes are due at once, failures after a backoff. Both obey the
/// rate limit of [`SHARE`].
#[derive(Debug)]
pub(crate) struct Pace {
    due: Option<Instant>,
    not_before: Instant,
    /// Consecutive failures.
    failures: u32,
    /// Time since which builds have worked without a failure.
    working_since: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self { due: None, not_before: now, failures: 0, working_since: None }
    }

    /// Schedules a build because of a change.
    pub(crate) fn changed(&mut self, now: Instant) {
        self.due_at(now);
    }

    /// Records that the plugin failed, and schedules its restart.
    pub(crate) fn failed(&mut self, now: Instant) {
        let settled = self.working_since.take().is_some_and(|since| now >= since + SETTLED);
        self.failures = if settled { 1 } else { self.failures.saturating_add(1) };
        self.due_at(now + RESTART.delay(self.failures));
    }

    /// Records a finished build. `works` is false if it failed.
    pub(crate) fn built(&mut self, began: Instant, ended: Instant, works: bool) {
        self.due = None;
        self.not_before = ended + (ended - began) * SHARE;
        if works {
            self.working_since.get_or_insert(ended);
        } else {
            self.failed(ended);
        }
    }

    /// Returns the time until the next build. None if none is scheduled.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(now))
    }

    fn due_at(&mut self, when: Instant) {
        let when = when.max(self.not_before);
        self.due = Some(self.due.map_or(when, |due| due.min(when)));
    }
}

#[cfg(test)]
mod tests;
