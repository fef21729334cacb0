//! Rate limits: token buckets, fair sharing between subjects, and summaries of suppressed events.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::pacing::Debounce;

/// A burst of events, and one more in each interval after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Events admitted at once, at least 1.
    pub burst: u32,
    /// Time until one more event is admitted.
    pub interval: Duration,
}

/// A token bucket (as a virtual scheduling algorithm, ITU-T I.371). Starts full.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: Rate,
    /// Time at which the bucket is full again. None if no token was taken yet.
    full: Option<Instant>,
}

impl Bucket {
    /// Returns a full bucket.
    pub fn new(rate: Rate) -> Self {
        Self { rate, full: None }
    }

    /// Takes a token. Returns false if the bucket is empty.
    pub fn take(&mut self, now: Instant) -> bool {
        let Rate { burst, interval } = self.rate;
        let full = self.full.map_or(now, |full| full.max(now)) + interval;
        let taken = full <= now + interval * burst.max(1);
        if taken {
            self.full = Some(full);
        }
        taken
    }

    /// Returns true if the bucket is full.
    pub fn is_full(&self, now: Instant) -> bool {
        self.full.is_none_or(|full| full <= now)
    }
}

/// Budgets of a [`Limiter`].
#[derive(Clone, Copy, Debug)]
pub struct Budgets {
    /// Budget for events of one kind about one subject.
    pub subject: Rate,
    /// Budget for events of one kind about all subjects.
    pub kind: Rate,
    /// Budget for all events.
    pub total: Rate,
    /// Number of subjects with a budget of their own, for each kind. Further subjects share only
    /// the kind's budget.
    pub subjects: usize,
}

/// A rate limiter that keeps one subject from using up the budget of others, and counts the events
/// that it suppresses.
#[derive(Debug)]
pub struct Limiter<K> {
    budgets: Budgets,
    total: Bucket,
    kinds: HashMap<K, Kind>,
    suppressed: Suppressed,
}

#[derive(Debug)]
struct Kind {
    all: Bucket,
    subjects: BTreeMap<String, Bucket>,
}

/// Events that were suppressed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suppressed {
    /// Number of events.
    pub events: u64,
    /// Number of events by subject. Subjects beyond [`Budgets::subjects`] are not counted here.
    pub by_subject: BTreeMap<String, u64>,
}

impl Suppressed {
    /// Returns the `count` subjects with the most events, in descending order.
    pub fn largest(&self, count: usize) -> Vec<(&str, u64)> {
        let mut found: Vec<_> =
            self.by_subject.iter().map(|(subject, events)| (subject.as_str(), *events)).collect();
        found.sort_by(|(a, more), (b, less)| less.cmp(more).then(a.cmp(b)));
        found.truncate(count);
        found
    }
}

impl<K: Eq + Hash> Limiter<K> {
    /// Returns a limiter that has admitted nothing yet.
    pub fn new(budgets: Budgets) -> Self {
        let total = Bucket::new(budgets.total);
        Self { budgets, total, kinds: HashMap::new(), suppressed: Suppressed::default() }
    }

    /// Returns true if an event of this kind about this subject is within all budgets. Otherwise
    /// counts it as suppressed.
    ///
    /// The subject's own budget is checked first: an event that exceeds it does not use up the
    /// shared budgets.
    pub fn admit(&mut self, kind: K, subject: &str, now: Instant) -> bool {
        let budgets = self.budgets;
        let kind = self
            .kinds
            .entry(kind)
            .or_insert_with(|| Kind { all: Bucket::new(budgets.kind), subjects: BTreeMap::new() });
        let admitted =
            kind.admit(subject, budgets, now) && kind.all.take(now) && self.total.take(now);
        if !admitted {
            self.suppress(subject);
        }
        admitted
    }

    fn suppress(&mut self, subject: &str) {
        let Suppressed { events, by_subject } = &mut self.suppressed;
        *events += 1;
        if let Some(count) = by_subject.get_mut(subject) {
            *count += 1;
        } else if by_subject.len() < self.budgets.subjects {
            by_subject.insert(subject.to_owned(), 1);
        }
    }

    /// Returns the events suppressed since the last call. None if there were none.
    pub fn take_suppressed(&mut self) -> Option<Suppressed> {
        (self.suppressed.events > 0).then(|| std::mem::take(&mut self.suppressed))
    }
}

impl Kind {
    /// Takes a token from the subject's bucket.
    fn admit(&mut self, subject: &str, budgets: Budgets, now: Instant) -> bool {
        if let Some(bucket) = self.subjects.get_mut(subject) {
            return bucket.take(now);
        }
        if self.subjects.len() >= budgets.subjects {
            // A full bucket is equivalent to none.
            self.subjects.retain(|_, bucket| !bucket.is_full(now));
        }
        if self.subjects.len() < budgets.subjects {
            let mut bucket = Bucket::new(budgets.subject);
            bucket.take(now);
            self.subjects.insert(subject.to_owned(), bucket);
        }
        true
    }
}

/// Rate limit for reports that may come in floods: a few are admitted individually, the others are
/// summed up later.
#[derive(Debug)]
pub struct Digest {
    single: Limiter<()>,
    summary: Debounce,
}

impl Digest {
    /// Returns a digest that admits individual reports within these budgets, and sums up the others
    /// after `delay`.
    pub fn new(budgets: Budgets, delay: Duration) -> Self {
        Self { single: Limiter::new(budgets), summary: Debounce::new(delay) }
    }

    /// Returns true if this report is admitted individually. Otherwise it becomes part of the next
    /// summary.
    pub fn admit(&mut self, subject: &str, now: Instant) -> bool {
        let admitted = self.single.admit((), subject, now);
        if !admitted {
            self.summary.on_event(now);
        }
        admitted
    }

    /// Returns the time at which a summary is due. None if there is nothing to sum up.
    pub fn due(&self) -> Option<Instant> {
        self.summary.due()
    }

    /// Returns true if a summary is due now, and starts the next one.
    pub fn take(&mut self, now: Instant) -> bool {
        let due = self.summary.take(now);
        if due {
            self.single.take_suppressed();
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    const BUDGETS: Budgets = Budgets {
        subject: Rate { burst: 3, interval: Duration::from_secs(10) },
        kind: Rate { burst: 20, interval: SECOND },
        total: Rate { burst: 50, interval: SECOND },
        subjects: 100,
    };

    /// Offers an event to the limiter this many times, and returns the number admitted.
    fn admitted(
        limiter: &mut Limiter<u8>,
        kind: u8,
        subject: &str,
        times: usize,
        now: Instant,
    ) -> usize {
        (0..times).filter(|_| limiter.admit(kind, subject, now)).count()
    }

    #[test]
    fn bucket_admits_a_burst_and_then_the_rate() {
        let interval = Duration::from_millis(100);
        let (mut bucket, start) = (Bucket::new(Rate { burst: 3, interval }), Instant::now());
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
    fn flapping_subject_is_limited_and_hides_no_other() {
        let (mut limiter, start) = (Limiter::new(BUDGETS), Instant::now());
        assert_eq!(admitted(&mut limiter, 1, "flapper", 5000, start), 3);
        assert_eq!(admitted(&mut limiter, 1, "other", 1, start), 1);
        assert_eq!(admitted(&mut limiter, 2, "flapper", 1, start), 1);
        let suppressed = limiter.take_suppressed().unwrap();
        assert_eq!((suppressed.events, suppressed.largest(9)), (4997, vec![("flapper", 4997)]));
        assert_eq!(limiter.take_suppressed(), None);
        assert_eq!(admitted(&mut limiter, 1, "flapper", 500, start + 10 * SECOND), 1);
        assert_eq!(admitted(&mut limiter, 1, "flapper", 500, start + 60 * SECOND), 3);
    }

    #[test]
    fn many_subjects_share_the_budget_of_their_kind() {
        let (mut limiter, start) = (Limiter::new(BUDGETS), Instant::now());
        let flood = |limiter: &mut Limiter<u8>, kind, now| {
            let subjects = 0..2001;
            subjects.map(|n| admitted(limiter, kind, &n.to_string(), 1, now)).sum::<usize>()
        };
        assert_eq!(flood(&mut limiter, 1, start), 20);
        assert_eq!(flood(&mut limiter, 2, start), 20);
        // The remainder of the total budget.
        assert_eq!(flood(&mut limiter, 3, start), 10);
        let suppressed = limiter.take_suppressed().unwrap();
        assert_eq!(suppressed.events, 3 * 2001 - 50);
        assert_eq!(suppressed.by_subject.len(), BUDGETS.subjects);
        assert_eq!(flood(&mut limiter, 1, start + 5 * SECOND), 5);
    }

    #[test]
    fn subjects_that_were_quiet_make_room() {
        let (mut limiter, start) = (Limiter::new(BUDGETS), Instant::now());
        for number in 0..1000u32 {
            let now = start + number * SECOND;
            assert_eq!(admitted(&mut limiter, 1, &number.to_string(), 1, now), 1);
        }
        let known = &limiter.kinds[&1].subjects;
        assert!(known.len() <= BUDGETS.subjects, "{}", known.len());
        let end = start + 1000 * SECOND;
        assert_eq!(admitted(&mut limiter, 1, "flapper", 100, end), 3);
    }

    #[test]
    fn digest_admits_a_few_and_sums_up_the_others() {
        let (mut digest, start) = (Digest::new(BUDGETS, SECOND), Instant::now());
        assert!(!digest.take(start) && digest.due().is_none());
        assert_eq!((0..2001).filter(|n| digest.admit(&n.to_string(), start)).count(), 20);
        assert_eq!(digest.due(), Some(start + SECOND));
        assert!(!digest.take(start) && digest.take(start + SECOND));
        assert!(digest.due().is_none() && !digest.take(start + 9 * SECOND));
        let later = start + 100 * SECOND;
        assert_eq!((0..2001).filter(|_| digest.admit("flapper", later)).count(), 3);
        assert!(digest.admit("other", later));
    }
}
