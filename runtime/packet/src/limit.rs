//! How often something may happen.

use std::time::{Duration, Instant};

/// A bucket of tokens, into which they fall at a steady rate. Whoever takes one may act.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// How long one token takes.
    interval: Duration,
    /// How long as many take as fit in.
    capacity: Duration,
    /// When it will be full, unless more are taken. None if none was taken yet.
    full: Option<Instant>,
}

impl Bucket {
    /// A full bucket for `burst` tokens, into which `rate` fall every second. Each is at least one.
    pub fn new(rate: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / rate.max(1);
        Self { interval, capacity: interval * burst.max(1), full: None }
    }

    /// Takes a token. False if there is none.
    pub fn take(&mut self, now: Instant) -> bool {
        let full = self.full.map_or(now, |full| full.max(now)) + self.interval;
        let taken = full <= now + self.capacity;
        if taken {
            self.full = Some(full);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let (mut bucket, start) = (Bucket::new(10, 3), Instant::now());
        let mut taken = |milliseconds, times| {
            let now = start + Duration::from_millis(milliseconds);
            (0..times).filter(|_| bucket.take(now)).count()
        };
        assert_eq!(taken(0, 9), 3);
        assert_eq!(taken(99, 9), 0);
        assert_eq!(taken(100, 9), 1);
        assert_eq!(taken(300, 9), 2);
        assert_eq!(taken(5000, 9), 3);
    }

    #[test]
    fn nothing_is_at_least_one() {
        let (mut bucket, now) = (Bucket::new(0, 0), Instant::now());
        assert!(bucket.take(now) && !bucket.take(now));
        assert!(bucket.take(now + Duration::from_secs(1)));
    }
}
