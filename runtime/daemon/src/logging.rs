//! Logging, one line per event: with time and level on a terminal, with a priority for journald
//! under systemd.
//!
//! Every line has a bounded length and no hidden characters, wherever its text comes from, and no
//! subject floods the log.

mod fields;
mod limit;

use std::fmt;
use std::io::IsTerminal;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::format::{Compact, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use fields::VisibleFields;
pub(crate) use limit::RateLimit;

/// Function that changes the verbosity.
pub(crate) type SetVerbosity = Box<dyn Fn(u8) + Send + Sync>;

/// The started log.
pub(crate) struct Log {
    /// Changes the verbosity.
    pub(crate) set_verbosity: SetVerbosity,
    /// Limits the rate of log lines.
    pub(crate) limit: RateLimit,
}

/// Starts logging to standard error.
///
/// `verbosity` is flannel's: 0 normal, 2 more, 5 everything. Libraries stay at warnings below 5.
pub(crate) fn start(verbosity: u8) -> Log {
    let format = tracing_subscriber::fmt::format().with_target(false).compact();
    let limit = RateLimit::new();
    // systemd sets this variable if standard error goes to the journal, which has its own
    // timestamps.
    let (subscriber, set_verbosity) = if std::env::var_os("JOURNAL_STREAM").is_some() {
        let format = JournalFormat(format.without_time().with_level(false).with_ansi(false));
        subscriber(format, std::io::stderr, verbosity, limit.clone())
    } else {
        let format = format.with_ansi(std::io::stderr().is_terminal());
        subscriber(format, std::io::stderr, verbosity, limit.clone())
    };
    subscriber.init();
    Log { set_verbosity, limit }
}

/// Returns a subscriber that writes events in this format, filtered by verbosity and rate limit.
fn subscriber<E, W>(
    format: E,
    writer: W,
    verbosity: u8,
    limit: RateLimit,
) -> (Box<dyn Subscriber + Send + Sync>, SetVerbosity)
where
    E: FormatEvent<Registry, VisibleFields> + Send + Sync + 'static,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // Without an internal log: that panics if standard error is a pipe that nobody reads any more.
    let logs = tracing_subscriber::fmt().log_internal_errors(false);
    let logs = logs.fmt_fields(VisibleFields).event_format(format).with_writer(writer);
    let logs = logs.with_env_filter(filter(verbosity)).with_filter_reloading();
    let handle = logs.reload_handle();
    // Reloading fails only if the subscriber is gone.
    let set_verbosity = Box::new(move |verbosity| drop(handle.reload(filter(verbosity))));
    (Box::new(logs.finish().with(limit)), set_verbosity)
}
fn filter(verbosity: u8) -> EnvFilter {
    let level = match verbosity {
        0 | 1 => "info",
        2..=4 => "debug",
        _ => return EnvFilter::new("trace,h2=info,hyper=info,tower=info"),
    };
    let ours = OURS.map(|target| format!("{target}={level}"));
    EnvFilter::new(format!("warn,{}", ours.join(",")))
}

/// Prefixes of the log targets of Heddle's own crates, and of the lines that plugins write.
const OURS: [&str; 2] = ["heddle", "plugin"];

/// Prefixes each line with its priority, which systemd parses and removes (sd-daemon(3)).
struct JournalFormat(Format<Compact, ()>);

impl<S, N> FormatEvent<S, N> for JournalFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Writer that keeps the log in memory.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Runs `work` and returns its log, in the format for the journal or for a terminal.
    fn logged(journal: bool, work: impl FnOnce(&RateLimit)) -> String {
        let (kept, limit) = (Kept::default(), RateLimit::new());
        let make = kept.clone();
        let make = move || make.clone();
        let format = tracing_subscriber::fmt::format().with_target(false).compact();
        let format = format.without_time();
        let (subscriber, _) = if journal {
            let format = JournalFormat(format.with_level(false).with_ansi(false));
            super::subscriber(format, make, 0, limit.clone())
        } else {
            super::subscriber(format.with_ansi(true), make, 0, limit.clone())
        };
        tracing::subscriber::with_default(subscriber, || work(&limit));
        String::from_utf8(std::mem::take(&mut kept.0.lock().unwrap())).unwrap()
    }

    /// Standard error whose reader has gone.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test may run itself")]
    fn events_without_a_reader_are_dropped_silently() {
        let Some(_) = std::env::var_os("HEDDLE_TEST_CLOSED") else {
            // A process of its own, whose standard error is closed likewise.
            let (reader, writer) = io::pipe().unwrap();
            drop(reader);
            let this = std::env::current_exe().unwrap();
            let test = "logging::tests::events_without_a_reader_are_dropped_silently";
            let mut again = std::process::Command::new(this);
            again.args(["--exact", test, "--nocapture"]).env("HEDDLE_TEST_CLOSED", "1");
            assert!(again.stderr(writer).status().unwrap().success());
            return;
        };
        let format = tracing_subscriber::fmt::format().compact();
        let (subscriber, _) = super::subscriber(format, || Closed, 0, RateLimit::new());
        tracing::subscriber::with_default(subscriber, || tracing::warn!("store: failing"));
    }

    #[test]
    fn flapping_subject_is_limited_and_counted() {
        let log = logged(true, |limit| {
            for number in 0..5000u64 {
                tracing::warn!(peer = "192.0.2.1:8285", unsaid = number, "cannot send");
                tracing::info!(subject = "10.244.7.0-24", "peer 10.244.7.0-24: state {number}");
                if number == 4000 {
                    tracing::info!(subject = "10.244.8.0-24", "peer 10.244.8.0-24: rack-8");
                    tracing::warn!(peer = "192.0.2.2:8285", unsaid = number, "cannot send");
                    tracing::error!("the kernel refuses it");
                }
            }
            limit.report();
            limit.report();
        });
        assert!(log.contains("<6>peer 10.244.8.0-24: rack-8\n"), "{log}");
        assert!(log.contains("<3>the kernel refuses it\n"), "{log}");
        let lines = log.lines().filter(|line| line.contains("10.244.7.0-24: state")).count();
        let reports: Vec<_> = log.lines().filter(|line| line.contains("suppressed")).collect();
        assert_eq!(reports.len(), 1, "{log}");
        let count = format!("{} about 10.244.7.0-24", 5000 - lines);
        assert!(reports[0].contains(&count) && reports[0].contains("about cannot send"), "{log}");
        assert!(log.contains("192.0.2.2:8285"), "{log}");
        assert!((10..30).contains(&lines), "{lines} lines");
    }

    #[test]
    fn many_subjects_are_limited_per_level() {
        let log = logged(true, |limit| {
            for peer in 0..2001 {
                tracing::warn!(subject = %peer, "peer {peer} does not answer");
            }
            tracing::error!("lease 10.244.7.0-24: the store refuses it");
            limit.report();
        });
        let lines = log.lines().filter(|line| line.contains("does not answer")).count();
        assert!((50..150).contains(&lines), "{lines} lines");
        assert!(log.contains("the store refuses it") && log.contains("suppressed"), "{log}");
    }

    #[test]
    fn line_of_foreign_text_is_one_line_without_hidden_characters() {
        let hostile = "a\nERROR forged\r\u{1b}[2J\u{9b}2J\u{202e}gpj\u{200b}\u{e0041}\u{2028}x";
        for journal in [true, false] {
            let log = logged(journal, |_| {
                tracing::warn!(reason = %hostile, name = hostile, subject = "shown nowhere", "{hostile}");
                tracing::warn!(error = hostile, "flood: {}", "x".repeat(100_000));
            });
            assert_eq!(log.lines().count(), 2, "{log:?}");
            let plain =
                heddle_core::text::visible(&log, |c| c == '\n' || (!journal && c == '\u{1b}'));
            assert_eq!(plain, log);
            assert!(!log.contains("[2J") || !log.contains("\u{1b}[2J"), "{log:?}");
            assert!(log.contains("\\u{202e}gpj\\u{200b}\\u{e0041}"), "{log}");
            assert!(!log.contains("shown nowhere") && log.len() < 10_000, "{log}");
        }
    }
}
