//! Limit on the share of time that recurring work takes.

use std::time::Duration;

/// Duty cycle of recurring work: an upper bound on its share of wall time, kept by a pause after
/// each run in proportion to the run's duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DutyCycle {
    /// Pause after a run, as a multiple of its duration.
    pause: u32,
    shortest: Duration,
    longest: Duration,
}

impl DutyCycle {
    /// Returns the duty cycle of work that may take 1/`n` of the time: after a run of one second,
    /// the next starts at least `n` - 1 seconds later. `n` is at least 1.
    pub const fn one_in(n: u32) -> Self {
        Self { pause: n - 1, shortest: Duration::ZERO, longest: Duration::MAX }
    }

    /// Sets the shortest pause, however short the run was.
    #[must_use]
    pub const fn pause_at_least(self, shortest: Duration) -> Self {
        Self { shortest, ..self }
    }

    /// Sets the longest pause, however long the run was. It has precedence over the shortest.
    #[must_use]
    pub const fn pause_at_most(self, longest: Duration) -> Self {
        Self { longest, ..self }
    }

    /// Returns the pause after a run that took this long.
    pub fn pause(&self, took: Duration) -> Duration {
        took.saturating_mul(self.pause).max(self.shortest).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pause_is_a_multiple_of_the_run() {
        assert_eq!(DutyCycle::one_in(5).pause(SECOND), 4 * SECOND);
        assert_eq!(DutyCycle::one_in(1).pause(SECOND), Duration::ZERO);
    }

    #[test]
    fn pause_stays_between_shortest_and_longest() {
        let duty = DutyCycle::one_in(10).pause_at_least(2 * SECOND).pause_at_most(30 * SECOND);
        let pauses = [0, 1, 3, 100].map(|seconds| duty.pause(seconds * SECOND).as_secs());
        assert_eq!(pauses, [2, 9, 27, 30]);
        assert_eq!(duty.pause_at_most(SECOND).pause(Duration::ZERO), SECOND);
    }
}
