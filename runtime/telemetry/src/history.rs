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

/// So many things about one subject are kept, of one kind.
const KEPT_PER_SUBJECT: usize = 5;

/// The longest subject, in characters.
const SUBJECT_LIMIT: usize = 120;

/// What lately happened, the oldest first. Clones are of the same history.
///
/// No subject and no kind of event takes the room of others: of what happens again and again to one subject the last
/// [`KEPT_PER_SUBJECT`] are kept, and where there is no room left, the oldest of the most frequent kind goes.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<VecDeque<Entry>>>);

#[derive(Debug)]
struct Entry {
    event: Event,
    subject: String,
    /// Events of this kind about this subject that are no longer kept.
    omitted: u64,
}

impl History {
    /// Takes note of something that happens now, and only once or to nobody in particular.
    pub fn note(&self, kind: EventKind, text: impl fmt::Display) {
        let text = text.to_string();
        self.note_about(kind, &text, &text);
    }

    /// Takes note of something that happens now to this subject: a lease, an object or an address.
    pub fn note_about(&self, kind: EventKind, subject: &str, text: impl fmt::Display) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        // A clock before 1970 has no better time.
        let time = since.map_or(0, |since| since.as_secs());
        let text = one_line(&text.to_string(), TEXT_LIMIT);
        let subject = one_line(subject, SUBJECT_LIMIT);
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        make_room(&mut entries, kind, &subject);
        entries.push_back(Entry { event: Event { time, kind, text }, subject, omitted: 0 });
    }

    /// All that is kept.
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(Entry::shown).collect()
    }
}

impl Entry {
    fn is_about(&self, kind: EventKind, subject: &str) -> bool {
        self.event.kind == kind && self.subject == subject
    }

    /// The event, with the number of those before it that are no longer kept.
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
