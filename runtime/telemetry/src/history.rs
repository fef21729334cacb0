//! The last things that happened.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use heddle_control::{Event, EventKind};
use heddle_core::text::one_line;

/// So many things are kept.
pub const KEPT: usize = 200;

/// The longest text of one, in characters.
const TEXT_LIMIT: usize = 300;

/// What lately happened, the oldest first. Clones are of the same history.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<VecDeque<Event>>>);

impl History {
    /// Takes note of something that happens now.
    pub fn note(&self, kind: EventKind, text: impl fmt::Display) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        // A clock before 1970 has no better time.
        let time = since.map_or(0, |since| since.as_secs());
        let text = one_line(&text.to_string(), TEXT_LIMIT);
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() == KEPT {
            events.pop_front();
        }
        events.push_back(Event { time, kind, text });
    }

    /// All that is kept.
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_things_are_kept_and_no_more() {
        let history = History::default();
        for number in 0..KEPT + 3 {
            history.clone().note(EventKind::PeerJoined, number);
        }
        let events = history.events();
        assert_eq!(events.len(), KEPT);
        assert_eq!((events[0].text.as_str(), events[KEPT - 1].text.as_str()), ("3", "202"));
        assert!(events[0].time > 1_600_000_000, "{}", events[0].time);
    }

    #[test]
    fn a_text_is_one_line_of_a_certain_length() {
        let history = History::default();
        history.note(EventKind::Record, format!("a\nb{}", "x".repeat(1000)));
        let text = &history.events()[0].text;
        assert!(text.starts_with("a bxx"), "{text}");
        assert_eq!(text.chars().count(), TEXT_LIMIT + 1);
    }
}
