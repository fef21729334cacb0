//! The most recent events.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use heddle_control::{Event, EventKind};
use heddle_core::text::one_line;

/// Number of events kept.
pub const KEPT: usize = 200;

/// Length limit of an event's text, in characters.
const TEXT_LIMIT: usize = 300;

/// Number of events of one kind about one subject that are kept.
const KEPT_PER_SUBJECT: usize = 5;

/// Length limit of a subject, in characters.
const SUBJECT_LIMIT: usize = 120;

/// The most recent events, oldest first. Clones share the same history.
///
/// No subject and no kind of event crowds out others: of repeated events of one kind about one
/// subject only the last `KEPT_PER_SUBJECT` are kept, and when the history is full, the oldest
/// event of the most frequent kind is dropped.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<VecDeque<Entry>>>);

#[derive(Debug)]
struct Entry {
    event: Event,
    subject: String,
    /// Number of earlier events of this kind about this subject that were dropped.
    omitted: u64,
}

impl History {
    /// Records an event that happens now, and that has no subject or happens only once.
    pub fn note(&self, kind: EventKind, text: impl fmt::Display) {
        let text = text.to_string();
        self.note_about(kind, &text, &text);
    }

    /// Records an event that happens now to this subject: a lease, an object or an address.
    pub fn note_about(&self, kind: EventKind, subject: &str, text: impl fmt::Display) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        // A clock before 1970 counts as 1970.
        let time = since.map_or(0, |since| since.as_secs());
        let text = one_line(&text.to_string(), TEXT_LIMIT);
        let subject = one_line(subject, SUBJECT_LIMIT);
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        make_room(&mut entries, kind, &subject);
        entries.push_back(Entry { event: Event { time, kind, text }, subject, omitted: 0 });
    }

    /// Returns all events kept.
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(Entry::shown).collect()
    }
}

impl Entry {
    fn is_about(&self, kind: EventKind, subject: &str) -> bool {
        self.event.kind == kind && self.subject == subject
    }

    /// Returns the event, with the number of earlier ones that were dropped.
    fn shown(&self) -> Event {
        let mut event = self.event.clone();
        if self.omitted > 0 {
            event.text += &format!(" (and {} earlier events like this)", self.omitted);
        }
        event
    }
}

/// Makes room for one more event of this kind about this subject.
fn make_room(entries: &mut VecDeque<Entry>, kind: EventKind, subject: &str) {
    let known = |entry: &&Entry| entry.is_about(kind, subject);
    if entries.iter().filter(known).count() == KEPT_PER_SUBJECT {
        let oldest = entries.iter().position(|entry| entry.is_about(kind, subject));
        let omitted = oldest.and_then(|at| entries.remove(at)).map_or(0, |entry| entry.omitted + 1);
        if let Some(next) = entries.iter_mut().find(|entry| entry.is_about(kind, subject)) {
            next.omitted += omitted;
        }
    } else if entries.len() == KEPT {
        let mut counts = [0; EventKind::Other as usize + 1];
        for entry in &*entries {
            counts[entry.event.kind as usize] += 1;
        }
        let most = counts.iter().max();
        let oldest = entries.iter().position(|entry| counts.get(entry.event.kind as usize) == most);
        oldest.map(|at| entries.remove(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_keeps_a_limited_number_of_events() {
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
    fn event_text_is_one_line_of_bounded_length() {
        let history = History::default();
        history.note(EventKind::Record, format!("a\nb{}", "x".repeat(1000)));
        let text = &history.events()[0].text;
        assert!(text.starts_with("a bxx"), "{text}");
        assert_eq!(text.chars().count(), TEXT_LIMIT + 1);
    }

    #[test]
    fn flapping_subject_leaves_room_for_others() {
        let history = History::default();
        history.note(EventKind::Drift, "once");
        for number in 0..5000 {
            let kind = [EventKind::PeerChanged, EventKind::PeerLeft][number % 2];
            history.note_about(kind, "10.244.7.0-24", format!("event {number}"));
        }
        history.note_about(EventKind::PeerChanged, "10.244.8.0-24", "other");
        let texts: Vec<_> = history.events().into_iter().map(|event| event.text).collect();
        assert_eq!(texts.len(), 2 + 2 * KEPT_PER_SUBJECT, "{texts:?}");
        assert_eq!((texts[0].as_str(), texts[11].as_str()), ("once", "other"));
        assert_eq!(texts[1], "event 4990 (and 2495 earlier events like this)");
        assert_eq!((texts[9].as_str(), texts[10].as_str()), ("event 4998", "event 4999"));
    }

    #[test]
    fn flood_of_one_kind_leaves_room_for_others() {
        let history = History::default();
        for number in 0..10 {
            history.note(EventKind::Drift, number);
        }
        for number in 0..5000 {
            history.note(EventKind::Record, format!("record {number}"));
        }
        let events = history.events();
        assert_eq!(events.len(), KEPT);
        assert_eq!(events.iter().filter(|event| event.kind == EventKind::Drift).count(), 10);
        assert_eq!(events[KEPT - 1].text, "record 4999");
    }
}
