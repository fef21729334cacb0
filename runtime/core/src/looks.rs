//! When everything is looked at: soon after something has happened, now and then even if nothing has, and never so often
//! that looking is all that is done.

use std::time::{Duration, Instant};

/// How often everything is compared even if nothing seems to have happened: for what the kernel tells nobody, such as
/// a changed setting.
const PERIOD: Duration = Duration::from_secs(30);

/// How soon it is tried again when the kernel could not be read.
const AGAIN: Duration = Duration::from_secs(1);

/// The least time between two looks, however much happens.
const PAUSE: Duration = Duration::from_millis(100);

/// A look may take a fifth of the time: after one that took 100 ms, the next is at least 400 ms later.
const SHARE: u32 = 4;

/// The next look.
#[derive(Clone, Copy, Debug)]
pub struct Looks {
    wanted: Instant,
    not_before: Instant,
}

impl Looks {
    /// The first is due at once.
    pub fn new(now: Instant) -> Self {
        Self { wanted: now, not_before: now }
    }

    /// When the next is due.
    pub fn due(&self) -> Instant {
        self.wanted.max(self.not_before)
    }

    /// The earliest time at which there can be another, whatever happens.
    pub fn earliest(&self, now: Instant) -> Instant {
        self.not_before.max(now)
    }

    /// Something has happened.
    pub fn hasten(&mut self, now: Instant) {
        self.wanted = self.wanted.min(now);
    }

    /// One has ended; `readable` says whether there was anything to see.
    pub fn ended(&mut self, begun: Instant, ended: Instant, readable: bool) {
        let took = ended.saturating_duration_since(begun);
        self.not_before = ended + PAUSE.max(took * SHARE);
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
    fn the_first_is_due_at_once_and_the_next_half_a_minute_later() {
        let start = Instant::now();
        let mut looks = Looks::new(start);
        assert_eq!(looks.due(), start);
        looks.ended(start, start + millis(5), true);
        assert_eq!(looks.due(), start + millis(5) + PERIOD);
    }

    #[test]
    fn what_happens_hastens_it_but_for_a_pause() {
        let start = Instant::now();
        let mut looks = Looks::new(start);
        looks.ended(start, start, true);
        for happened in [millis(1), millis(2), millis(99)] {
            looks.hasten(start + happened);
            assert_eq!(looks.due(), start + PAUSE);
        }
        looks.ended(start + PAUSE, start + PAUSE, true);
        looks.hasten(start + millis(700));
        assert_eq!(looks.due(), start + millis(700));
        assert_eq!(looks.earliest(start + millis(150)), start + millis(200));
        assert_eq!(looks.earliest(start + millis(700)), start + millis(700));
    }

    #[test]
    fn one_that_takes_long_is_followed_by_a_long_pause() {
        let start = Instant::now();
        let mut looks = Looks::new(start);
        looks.ended(start, start + millis(300), true);
        looks.hasten(start + millis(301));
        assert_eq!(looks.due(), start + millis(1500));
    }

    #[test]
    fn a_kernel_that_cannot_be_read_is_asked_again_soon() {
        let start = Instant::now();
        let mut looks = Looks::new(start);
        looks.ended(start, start, false);
        assert_eq!(looks.due(), start + AGAIN);
    }
}
