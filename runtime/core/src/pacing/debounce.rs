//! Debouncing of events that come in bursts.

use std::time::{Duration, Instant};

/// Debounce: the first event starts a delay, and the events until its end are handled together with
/// the first.
#[derive(Clone, Copy, Debug)]
pub struct Debounce {
    delay: Duration,
    due: Option<Instant>,
}

impl Debounce {
    /// Creates the state before the first event.
    pub const fn new(delay: Duration) -> Self {
        Self { delay, due: None }
    }

    /// Records an event. Later events do not postpone the time at which the first one is handled.
    pub fn on_event(&mut self, now: Instant) {
        self.due.get_or_insert(now + self.delay);
    }

    /// Returns the time at which events are to be handled. None if there were none.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Returns true if events are to be handled now, and starts over.
    pub fn take(&mut self, now: Instant) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_of_events_is_handled_once_after_the_delay() {
        let (delay, start) = (Duration::from_millis(500), Instant::now());
        let mut debounce = Debounce::new(delay);
        assert!(debounce.due().is_none() && !debounce.take(start));
        for milliseconds in [0, 100, 499] {
            debounce.on_event(start + Duration::from_millis(milliseconds));
        }
        assert_eq!(debounce.due(), Some(start + delay));
        assert!(!debounce.take(start + Duration::from_millis(499)));
        assert!(debounce.take(start + delay) && !debounce.take(start + 2 * delay));
        debounce.on_event(start + 2 * delay);
        assert_eq!(debounce.due(), Some(start + 3 * delay));
    }
}
