//! Rate limit that keeps one subject, or many at once, from flooding the log.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use heddle_core::rate::{Budgets, Limiter, Rate, Suppressed};
use heddle_core::text::one_line;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::fields::SUBJECT;

/// Budgets of each level, separately, so that no flood of one level hides another. A kind is a
/// place in the source that logs.
const BUDGETS: Budgets = Budgets {
    subject: Rate { burst: 10, interval: Duration::from_secs(10) },
    kind: Rate { burst: 50, interval: Duration::from_secs(1) },
    total: Rate { burst: 200, interval: Duration::from_millis(200) },
    subjects: 1000,
};

/// Interval of reports about suppressed lines.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Maximum number of subjects that a report names.
const NAMED: usize = 3;

/// Maximum length of a subject, in characters.
const LONGEST: usize = 120;

/// The target of the reports themselves, which are not limited.
const REPORTS: &str = "heddled::suppressed";

/// The target of lines that plugins write. These have a rate limit of their own, which the operator
/// sets (`log-rate`).
const PLUGINS: &str = "plugin";

/// Drops log lines beyond [`BUDGETS`] and reports how many. Debugging output is not limited,
/// because it was asked for in full.
///
/// A line's subject is its field `subject` or, without one, its text without numeric fields. Clones
/// share one limit.
#[derive(Clone)]
pub(crate) struct RateLimit(Arc<Mutex<State>>);

struct State {
    /// One limiter each for errors, warnings and information.
    levels: [Limiter<Identifier>; 3],
    reported: Instant,
}

impl RateLimit {
    pub(super) fn new() -> Self {
        let levels = [(); 3].map(|()| Limiter::new(BUDGETS));
        Self(Arc::new(Mutex::new(State { levels, reported: Instant::now() })))
    }

    /// Reports suppressed lines at intervals, for ever.
    pub(crate) async fn report_regularly(self) {
        loop {
            tokio::time::sleep(REPORT_INTERVAL).await;
            self.report();
        }
    }

    /// Logs how many lines were suppressed since the last report, if any were.
    pub(crate) fn report(&self) {
        let mut state = self.lock();
        let span = std::mem::replace(&mut state.reported, Instant::now()).elapsed();
        let suppressed: Vec<_> =
            state.levels.iter_mut().filter_map(Limiter::take_suppressed).collect();
        // Logging below takes the same lock.
        drop(state);
        if !suppressed.is_empty() {
            let text = summary(&suppressed);
            tracing::warn!(
                target: REPORTS,
                "log: {text} suppressed by the rate limit in the last {} s; \"heddle status\" shows the current state",
                span.as_secs_f64().ceil(),
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the number of suppressed lines, with the subjects that have most of them.
fn summary(suppressed: &[Suppressed]) -> String {
    let lines: u64 = suppressed.iter().map(|level| level.events).sum();
    let mut largest: Vec<_> = suppressed.iter().flat_map(|level| level.largest(NAMED)).collect();
    largest.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    largest.truncate(NAMED);
    let named: Vec<_> =
        largest.iter().map(|(subject, count)| format!("{count} about {subject}")).collect();
    let lines_word = if lines == 1 { "line" } else { "lines" };
    format!("{lines} {lines_word} ({})", named.join(", "))
}

impl<S: Subscriber> Layer<S> for RateLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let level = match *event.metadata().level() {
            Level::ERROR => 0,
            Level::WARN => 1,
            Level::INFO => 2,
            _ => return true,
        };
        if [REPORTS, PLUGINS].contains(&event.metadata().target()) {
            return true;
        }
        let mut about = About::default();
        event.record(&mut about);
        let subject = one_line(about.subject.as_ref().unwrap_or(&about.text), LONGEST);
        let kind = event.metadata().callsite();
        self.lock().levels[level].admit(kind, &subject, Instant::now())
    }
}

/// Subject and text of an event, without its numeric fields.
#[derive(Default)]
struct About {
    subject: Option<String>,
    text: String,
}

impl About {
    fn note(&mut self, field: &Field, value: &str) {
        match field.name() {
            SUBJECT => self.subject = Some(value.to_owned()),
            _ => self.text += &format!(" {value}"),
        }
    }
}

impl Visit for About {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.note(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.note(field, value);
    }

    // Ignored: numbers differ between lines about the same subject.
    fn record_f64(&mut self, _: &Field, _: f64) {}
    fn record_i64(&mut self, _: &Field, _: i64) {}
    fn record_u64(&mut self, _: &Field, _: u64) {}
}
