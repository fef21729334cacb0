//! What is said in the log: each thing once a second at most.

use std::time::{Duration, Instant};

/// How long a thing that was said is not said again.
const SILENCE: Duration = Duration::from_secs(1);

/// When each thing was said last. Few things, so a list is quickest.
#[derive(Debug)]
pub(crate) struct Notices<K> {
    said: Vec<Said<K>>,
}

#[derive(Debug)]
struct Said<K> {
    what: K,
    at: Instant,
    unsaid: u64,
}

impl<K> Default for Notices<K> {
    fn default() -> Self {
        Self { said: Vec::new() }
    }
}

impl<K: PartialEq> Notices<K> {
    /// Whether a thing is to be said now, and if so how often it happened unsaid since the last time.
    pub(crate) fn due(&mut self, what: K, now: Instant) -> Option<u64> {
        match self.said.iter_mut().find(|said| said.what == what) {
            Some(said) if now.saturating_duration_since(said.at) < SILENCE => {
                said.unsaid += 1;
                None
            }
            Some(said) => {
                said.at = now;
                Some(std::mem::take(&mut said.unsaid))
            }
            None => {
                self.said.push(Said { what, at: now, unsaid: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_is_said_once_a_second() {
        let (mut notices, now) = (Notices::default(), Instant::now());
        assert_eq!(notices.due("a", now), Some(0));
        assert_eq!(notices.due("a", now), None);
        assert_eq!(notices.due("b", now), Some(0));
        assert_eq!(notices.due("a", now + SILENCE / 2), None);
        assert_eq!(notices.due("a", now + SILENCE), Some(2));
        assert_eq!(notices.due("a", now + 2 * SILENCE), Some(0));
    }
}
