//! Logs, one line an event: with time and level on a terminal, with a priority for journald under systemd.

use std::fmt;
use std::io::IsTerminal;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::format::{Compact, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Starts logging to standard error.
///
/// `verbosity` is flannel's: 0 normal, 2 more, 5 everything. Libraries stay at warnings below 5.
pub(crate) fn start(verbosity: u8) {
    let filter = match verbosity {
        0 | 1 => "warn,heddled=info,heddle=info,plugin=info",
        2..=4 => {
            "warn,heddled=debug,heddle_core=debug,heddle_kernel=debug,heddle_plugin=debug,heddle_store=debug,plugin=debug"
        }
        _ => "trace,h2=info,hyper=info,tower=info",
    };
    let filter = match verbosity {
        0 | 1 => EnvFilter::new(format!(
            "{filter},heddle_core=info,heddle_kernel=info,heddle_plugin=info,heddle_store=info"
        )),
        _ => EnvFilter::new(filter),
    };
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let format = tracing_subscriber::fmt::format().with_target(false).compact();
    // systemd sets this when standard error goes to the journal, which has times of its own.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        let format = JournalFormat(format.without_time().with_level(false).with_ansi(false));
        logs.event_format(format).init();
    } else {
        logs.event_format(format).with_ansi(std::io::stderr().is_terminal()).init();
    }
}

/// Puts the priority before each line, in the form that systemd takes off again (sd-daemon(3)).
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
