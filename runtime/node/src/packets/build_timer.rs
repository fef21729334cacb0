//! Schedules builds of the packet path's table and plugin instances.

use std::time::{Duration, Instant};

use heddle_core::pacing::{Backoff, DutyCycle, RetryDelay};

/// Backoff of plugin restarts.
const RESTART: Backoff =
    Backoff { initial: Duration::from_millis(100), limit: Duration::from_secs(10) };

/// Uptime after which a failing plugin is restarted without regard to its earlier failures.
const SETTLED: Duration = Duration::from_secs(10);

/// Limits builds to a fifth of the time: after one that took 10 ms, the next is at least 40 ms
/// later.
const DUTY: DutyCycle = DutyCycle::one_in(5);

/// The timer of the next build. Changes are due at once, failures after a backoff. Both obey the
/// duty cycle.
#[derive(Debug)]
pub(crate) struct BuildTimer {
    due: Option<Instant>,
    not_before: Instant,
    restart: RetryDelay,
    /// Time since which builds have worked without a failure.
    working_since: Option<Instant>,
}

impl BuildTimer {
    pub(crate) fn new(now: Instant) -> Self {
        Self { due: None, not_before: now, restart: RetryDelay::new(RESTART), working_since: None }
    }

    /// Schedules a build because of a change.
    pub(crate) fn changed(&mut self, now: Instant) {
        self.due_at(now);
    }

    /// Records that the plugin failed, and schedules its restart.
    pub(crate) fn failed(&mut self, now: Instant) {
        if self.working_since.take().is_some_and(|since| now >= since + SETTLED) {
            self.restart.reset();
        }
        let delay = self.restart.after_failure();
        self.due_at(now + delay);
    }

    /// Records a finished build. `works` is false if it failed.
    pub(crate) fn built(&mut self, began: Instant, ended: Instant, works: bool) {
        self.due = None;
        self.not_before = ended + DUTY.pause(ended - began);
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
