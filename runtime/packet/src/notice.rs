//! Rate limit for log lines: each kind of event at most once per second.

use std::time::{Duration, Instant};

/// Minimum interval between two log lines about the same event.
const SILENCE: Duration = Duration::from_secs(1);

/// The time of each event's last log line. There are few kinds of events, so a list is fastest.
#[derive(Debug)]
pub(crate) struct Notices<K> {
    reported: Vec<Reported<K>>,
}

#[derive(Debug)]
struct Reported<K> {
    what: K,
    at: Instant,
    suppressed: u64,
}

impl<K> Default for Notices<K> {
    fn default() -> Self {
        Self { reported: Vec::new() }
    }
}

impl<K: PartialEq> Notices<K> {
    /// Returns the number of log lines suppressed since the last one, if one is due now.
    pub(crate) fn due(&mut self, what: K, now: Instant) -> Option<u64> {
        match self.reported.iter_mut().find(|reported| reported.what == what) {
            Some(reported) if now.saturating_duration_since(reported.at) < SILENCE => {
                reported.suppressed += 1;
                None
            }
            Some(reported) => {
                reported.at = now;
                Some(std::mem::take(&mut reported.suppressed))
            }
            None => {
                self.reported.push(Reported { what, at: now, suppressed: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notice_is_due_once_per_second() {
        let (mut notices, now) = (Notices::default(), Instant::now());
        assert_eq!(notices.due("a", now), Some(0));
        assert_eq!(notices.due("a", now), None);
        assert_eq!(notices.due("b", now), Some(0));
        assert_eq!(notices.due("a", now + SILENCE / 2), None);
        assert_eq!(notices.due("a", now + SILENCE), Some(2));
        assert_eq!(notices.due("a", now + 2 * SILENCE), Some(0));
    }
}
