//! Logs, one line an event: with time and level on a terminal, with a priority for journald under systemd.

use std::fmt;
use std::io::IsTerminal;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::format::{Compact, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Changes what is logged.
pub(crate) type SetVerbosity = Box<dyn Fn(u8) + Send + Sync>;

/// Starts logging to standard error. Returns what changes the verbosity later.
///
/// `verbosity` is flannel's: 0 normal, 2 more, 5 everything. Libraries stay at warnings below 5.
pub(crate) fn start(verbosity: u8) -> SetVerbosity {
    let logs = tracing_subscriber::fmt().with_writer(std::io::stderr);
    let format = tracing_subscriber::fmt::format().with_target(false).compact();
    // systemd sets this when standard error goes to the journal, which has times of its own.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        let format = JournalFormat(format.without_time().with_level(false).with_ansi(false));
        let logs = logs.event_format(format).with_env_filter(filter(verbosity));
        let logs = logs.with_filter_reloading();
        let handle = logs.reload_handle();
        logs.init();
        // It only fails where there is no log any more.
        Box::new(move |verbosity| drop(handle.reload(filter(verbosity))))
    } else {
        let logs = logs.event_format(format).with_ansi(std::io::stderr().is_terminal());
        let logs = logs.with_env_filter(filter(verbosity)).with_filter_reloading();
        let handle = logs.reload_handle();
        logs.init();
        Box::new(move |verbosity| drop(handle.reload(filter(verbosity))))
    }
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

/// What is ours, by the targets of log lines; plugins' lines are under `plugin`.
const OURS: [&str; 9] = [
    "heddled",
    "heddle_control",
    "heddle_core",
    "heddle_firewall",
    "heddle_kernel",
    "heddle_packet",
    "heddle_plugin",
    "heddle_store",
    "plugin",
];

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
