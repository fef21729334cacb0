//! Signals that would end the daemon although nobody means that: `docs/operation.md` has the table.
//!
//! They are handled, and not ignored, because programs that the daemon starts would inherit that.

use std::ffi::c_int;
use std::io;
use std::thread;

use signal_hook::consts::{SIGALRM, SIGHUP, SIGIO, SIGPROF, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXFSZ};
use signal_hook::iterator::Signals;

/// Signals without a meaning for the daemon whose default action ends a process (signal(7)).
const UNUSED: [(c_int, &str); 9] = [
    (SIGUSR1, "SIGUSR1"),
    (SIGUSR2, "SIGUSR2"),
    (SIGALRM, "SIGALRM"),
    (SIGVTALRM, "SIGVTALRM"),
    (SIGPROF, "SIGPROF"),
    (SIGIO, "SIGIO"),
    (SIGXFSZ, "SIGXFSZ"),
    // Linux alone has these (asm-generic/signal.h).
    (16, "SIGSTKFLT"),
    (30, "SIGPWR"),
];

/// Real-time signals, but for those that the C library keeps for itself.
const REAL_TIME: std::ops::RangeInclusive<c_int> = 34..=64;

/// Signals that are handled from now on.
pub(crate) struct Unused(Signals);

impl Unused {
    /// Handles them all, and SIGHUP as long as nothing else does: a start reads all that a reload reads.
    ///
    /// # Errors
    ///
    /// The operating system refuses it.
    pub(crate) fn handle() -> io::Result<Self> {
        let signals = Signals::new(UNUSED.map(|(signal, _)| signal))?;
        for signal in REAL_TIME {
            // musl keeps one more than glibc, and refuses it.
            let _ = signals.handle().add_signal(signal);
        }
        signal_hook::flag::register(SIGHUP, std::sync::Arc::default())?;
        Ok(Self(signals))
    }

    /// Logs each that comes, and those that came already.
    ///
    /// # Errors
    ///
    /// There is no thread to be had.
    pub(crate) fn log(mut self) -> io::Result<()> {
        let log = move || {
            for signal in self.0.forever() {
                let known = UNUSED.iter().find(|(unused, _)| *unused == signal);
                let name = match known {
                    Some((_, name)) => (*name).to_owned(),
                    None => format!("SIGRTMIN+{}", signal - REAL_TIME.start()),
                };
                tracing::warn!(subject = name, "{name}: has no meaning for heddled; ignored");
            }
        };
        thread::Builder::new().name("signals".into()).spawn(log).map(drop)
    }
}
