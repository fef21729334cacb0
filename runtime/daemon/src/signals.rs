//! Handles signals whose default action would end the daemon although nobody intends that.
//! `docs/operation.md` has the table.
//!
//! The signals are handled instead of ignored, because programs that the daemon starts would
//! inherit ignored signals.

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

/// Real-time signals, without those that the C library reserves.
const REAL_TIME: std::ops::RangeInclusive<c_int> = 34..=64;

/// Signals without a meaning, with handlers installed.
pub(crate) struct Unused(Signals);

impl Unused {
    /// Installs handlers for all of them, and for SIGHUP until a reload handler takes over: a start
    /// reads everything that a reload reads.
    ///
    /// # Errors
    ///
    /// If the operating system refuses a handler.
    pub(crate) fn handle() -> io::Result<Self> {
        let signals = Signals::new(UNUSED.map(|(signal, _)| signal))?;
        for signal in REAL_TIME {
            // musl reserves one more signal than glibc and refuses it.
            let _ = signals.handle().add_signal(signal);
        }
        signal_hook::flag::register(SIGHUP, std::sync::Arc::default())?;
        Ok(Self(signals))
    }

    /// Logs each of these signals on a thread of its own, including those that came before.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started.
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
