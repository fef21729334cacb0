//! `heddled`, the node daemon: starts a process around [`heddle_node::Node`], which decides
//! everything else.
//!
//! | module | job |
//! | --- | --- |
//! | `process` | the phases of a start, and what the node acts on |
//! | `privileges` | drops the privileges that the daemon does not need |
//! | `signals`, `reload` | signals without a meaning, and SIGHUP |
//! | `logging` | one line per event, for terminals and journald, and a rate limit |
//! | `notify` | notifies systemd: readiness, status, watchdog |
//! | `web` | the HTTP servers: health port and status page |
//! | `control` | the control socket |

#![forbid(unsafe_code)]

mod control;
mod logging;
mod notify;
mod privileges;
mod process;
mod reload;
mod signals;
mod sole;
mod web;

use std::process::ExitCode;

use heddle_flags::Flags;

use crate::process::Confined;

fn main() -> ExitCode {
    // First of all, because signals may come at any time.
    let signals = signals::Unused::handle();
    let flags = match Flags::of_process(std::env::args_os()) {
        Ok(flags) => flags,
        Err(error) => error.exit(),
    };
    let log = logging::start(flags.health.verbosity);
    end_on_panic();
    let ended = Confined::new(flags, signals).and_then(|process| process.run(&log));
    log.limit.report();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Makes a panic in any thread end the whole process. Otherwise the other threads would continue
/// and report readiness, without the packets or peers that the panicked thread handled. systemd
/// restarts the process.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}
