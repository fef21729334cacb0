//! The files that tell other programs about this node. They are written once the plan and the rules
//! are in place, with retries until that succeeds, and kept as written from then on.
//!
//! | module | job |
//! | --- | --- |
//! | `keeper` | compares the files with what they should be, and repairs them |
//! | `ledger` | which files this daemon and its earlier runs wrote |
//! | `derived` | Docker's options that a script makes of subnet.env |

mod derived;
mod keeper;
mod ledger;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use heddle_core::pacing::DutyCycle;
use heddle_flags::{Emit, Flags};
use heddle_plugin::{Setting, View};
use heddle_telemetry::History;

use crate::Fatal;
use crate::clock;
use crate::ports::{Emitter, Files};
use crate::readiness::{Condition, Readiness};

use keeper::Keeper;

/// Interval between checks without a notification.
const RESYNC: Duration = Duration::from_secs(30);

/// Delay from a notification to the check. A program that writes a file in several steps, or deletes
/// a directory with all that is in it, is done by then.
const SETTLE: Duration = Duration::from_millis(100);

/// Limits checks to a tenth of the time, with a pause of 200 ms at least.
const DUTY: DutyCycle =
    DutyCycle::one_in(10).pause_at_least(Duration::from_millis(200)).pause_at_most(RESYNC);

/// An emitter and the outcome of its files.
pub(crate) struct Output {
    pub(crate) emitter: Arc<dyn Emitter>,
    settings: Vec<Setting>,
    outcome: Mutex<Outcome>,
    repairs: AtomicU64,
}

/// Outcome of an emitter's files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Files that were written.
    pub(crate) files: Vec<PathBuf>,
    /// Reason why not all files are as they should be.
    pub(crate) problem: Option<String>,
}

impl Output {
    pub(crate) fn new(emitter: Arc<dyn Emitter>, asked: &Emit, flags: &Flags) -> Self {
        let settings = flags.files.settings(asked).into_iter();
        let settings = settings.map(|(name, value)| Setting { name, value }).collect();
        Self { emitter, settings, outcome: Mutex::default(), repairs: AtomicU64::new(0) }
    }

    /// Returns the number of times that a file was written again because somebody else had changed
    /// or deleted it.
    pub(crate) fn repairs(&self) -> u64 {
        self.repairs.load(Ordering::Relaxed)
    }

    /// Returns the latest outcome.
    pub(crate) fn outcome(&self) -> Outcome {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, outcome: Outcome) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
    }
}

/// Writes the emitters' files once everything that they promise is in place, and keeps them as
/// written. Checks them at once, after each change that is noticed, and every [`RESYNC`].
///
/// # Errors
///
/// Only if the readiness channel is closed, which is a bug in the daemon.
pub(crate) async fn emit(
    files: &dyn Files,
    outputs: &[Arc<Output>],
    view: &View,
    readiness: &Readiness,
    history: &History,
) -> Result<Infallible, Fatal> {
    let promised = [Condition::Kernel, Condition::Rules];
    let mut conditions = readiness.subscribe();
    conditions.wait_for(|unmet| promised.iter().all(|c| !unmet.contains_key(c))).await?;
    let mut keeper = Keeper::new(files, outputs, view, history).await;
    loop {
        let begun = clock::now();
        let problems = keeper.check(begun).await;
        if problems.is_empty() {
            readiness.met(Condition::Emitters);
        } else {
            let reason = problems.join("; ");
            if readiness.unmet(Condition::Emitters, &reason) {
                tracing::error!("emitters: {reason}");
            }
        }
        tokio::time::sleep(DUTY.pause(clock::now() - begun)).await;
        // Writing also counts as a change. The check that it causes finds nothing to do.
        let left = keeper.due().saturating_duration_since(clock::now());
        if tokio::time::timeout(left, files.changed()).await.is_ok() {
            tokio::time::sleep(SETTLE).await;
        }
    }
}

#[cfg(test)]
mod tests;
