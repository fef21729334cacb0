//! Schedule of full resyncs: promptly after an event, every 30 s regardless, and rate-limited to a
//! fifth of wall time.

use std::time::{Duration, Instant};

use crate::pacing::DutyCycle;

/// Interval of full resyncs without any event. They detect changes for which the kernel sends no
/// notification, such as those of sysctls.
const PERIOD: Duration = Duration::from_secs(30);

/// Delay of the retry after the kernel could not be read.
const AGAIN: Duration = Duration::from_secs(1);

/// Minimum pause between two resyncs, regardless of events.
const PAUSE: Duration = Duration::from_millis(100);

/// Limits resyncs to a fifth of wall time: after one that took 100 ms, the next starts at least
/// 400 ms later.
const DUTY: DutyCycle = DutyCycle::one_in(5).pause_at_least(PAUSE);

/// The timer of the next full resync.
#[derive(Clone, Copy, Debug)]
pub struct ResyncTimer {
    wanted: Instant,
    not_before: Instant,
}

impl ResyncTimer {
    /// Creates a timer whose first resync is due at once.
    pub fn new(now: Instant) -> Self {
        Self { wanted: now, not_before: now }
    }

    /// Returns the time at which the next resync is due.
    pub fn due(&self) -> Instant {
        self.wanted.max(self.not_before)
    }

    /// Returns the earliest time at which the rate limit permits another resync.
    pub fn earliest(&self, now: Instant) -> Instant {
        self.not_before.max(now)
    }

    /// Requests a resync as soon as the rate limit permits, after an event.
    pub fn hasten(&mut self, now: Instant) {
        self.wanted = self.wanted.min(now);
    }

    /// Records a finished resync and schedules the next one. `readable` is false if the kernel
    /// could not be read.
    pub fn ended(&mut self, begun: Instant, ended: Instant, readable: bool) {
        self.not_before = ended + DUTY.pause(ended.saturating_duration_since(begun));
        self.wanted = ended + if readable { PERIOD } else { AGAIN };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn first_resync_is_due_at_once_and_next_after_period() {
        let start = Instant::now();
        let mut timer = ResyncTimer::new(start);
        assert_eq!(timer.due(), start);
        timer.ended(start, start + millis(5), true);
        assert_eq!(timer.due(), start + millis(5) + PERIOD);
    }

    #[test]
    fn event_hastens_resync_up_to_the_minimum_pause() {
        let start = Instant::now();
        let mut timer = ResyncTimer::new(start);
        timer.ended(start, start, true);
        for happened in [millis(1), millis(2), millis(99)] {
            timer.hasten(start + happened);
            assert_eq!(timer.due(), start + PAUSE);
        }
        timer.ended(start + PAUSE, start + PAUSE, true);
        timer.hasten(start + millis(700));
        assert_eq!(timer.due(), start + millis(700));
        assert_eq!(timer.earliest(start + millis(150)), start + millis(200));
        assert_eq!(timer.earliest(start + millis(700)), start + millis(700));
    }

    #[test]
    fn long_resync_is_followed_by_a_long_pause() {
        let start = Instant::now();
        let mut timer = ResyncTimer::new(start);
        timer.ended(start, start + millis(300), true);
        timer.hasten(start + millis(301));
        assert_eq!(timer.due(), start + millis(1500));
    }

    #[test]
    fn resync_of_unreadable_kernel_is_retried_soon() {
        let start = Instant::now();
        let mut timer = ResyncTimer::new(start);
        timer.ended(start, start, false);
        assert_eq!(timer.due(), start + AGAIN);
    }
}
