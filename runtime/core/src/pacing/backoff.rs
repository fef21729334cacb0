//! Exponential backoff.

use std::time::Duration;

/// Exponential backoff: the delay between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Delay after the first failure.
    pub initial: Duration,
    /// Upper limit, without jitter. Each consecutive failure doubles the delay up to this.
    pub limit: Duration,
}

impl Backoff {
    /// Returns the delay after this many consecutive failures.
    pub fn delay(&self, failures: u32) -> Duration {
        let factor = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.initial.saturating_mul(factor).min(self.limit)
    }
}

/// Delay of the next attempt at one thing: a [`Backoff`] and the failures so far.
#[derive(Clone, Copy, Debug)]
pub struct RetryDelay {
    backoff: Backoff,
    failures: u32,
}

impl RetryDelay {
    /// Creates the state before the first failure.
    pub const fn new(backoff: Backoff) -> Self {
        Self { backoff, failures: 0 }
    }

    /// Records a failure and returns the delay before the next attempt.
    pub fn after_failure(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.backoff.delay(self.failures)
    }

    /// Records a failure and returns the delay before the next attempt, extended by jitter.
    /// `jitter` is a random share of the delay from 0 to 1, so that nodes which failed together do
    /// not retry together.
    pub fn after_failure_with_jitter(&mut self, jitter: f64) -> Duration {
        let delay = self.after_failure();
        delay + delay.mul_f64(jitter)
    }

    /// Resets the next delay to the shortest, after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const BACKOFF: Backoff = Backoff { initial: SECOND, limit: Duration::from_secs(60) };

    #[test]
    fn backoff_doubles_up_to_its_limit() {
        let seconds = [1, 2, 3, 7, 1000].map(|failures| BACKOFF.delay(failures).as_secs());
        assert_eq!(seconds, [1, 2, 4, 60, 60]);
    }

    #[test]
    fn backoff_with_limit_below_initial_delay_obeys_the_limit() {
        let backoff = Backoff { initial: 5 * SECOND, limit: SECOND };
        assert_eq!(backoff.delay(1), SECOND);
    }

    #[test]
    fn retry_delay_starts_over_after_a_reset() {
        let mut delay = RetryDelay::new(BACKOFF);
        let seconds = [(); 4].map(|()| delay.after_failure().as_secs());
        assert_eq!(seconds, [1, 2, 4, 8]);
        delay.reset();
        assert_eq!(delay.after_failure(), SECOND);
    }

    #[test]
    fn jitter_extends_a_delay_by_up_to_its_length() {
        let mut delay = RetryDelay::new(BACKOFF);
        let jittered = [0.0, 0.5, 1.0].map(|jitter| delay.after_failure_with_jitter(jitter));
        assert_eq!(jittered, [SECOND, 3 * SECOND, 8 * SECOND]);
    }
}
