//! The files that tell other programs about this node. They are written once the plan and the rules
//! are in place, with retries until that succeeds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use heddle_core::pacing::{Backoff, RetryDelay};
use heddle_flags::{Emit, Flags};
use heddle_plugin::{File, Setting, View};

use crate::Fatal;
use crate::ports::{Emitter, Files};
use crate::readiness::{Condition, Readiness};

/// Backoff of retries after files could not be written.
const BACKOFF: Backoff =
    Backoff { initial: Duration::from_millis(200), limit: Duration::from_secs(30) };

/// An emitter and the outcome of its files.
pub(crate) struct Output {
    pub(crate) emitter: Arc<dyn Emitter>,
    settings: Vec<Setting>,
    outcome: Mutex<Outcome>,
}

/// Outcome of an emitter's files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Files that were written.
    pub(crate) files: Vec<PathBuf>,
    /// Reason why not all files were written.
    pub(crate) problem: Option<String>,
}

impl Outcome {
    fn written(&self) -> bool {
        self.problem.is_none() && !self.files.is_empty()
    }
}

impl Output {
    pub(crate) fn new(emitter: Arc<dyn Emitter>, asked: &Emit, flags: &Flags) -> Self {
        let settings = flags.files.settings(asked).into_iter();
        let settings = settings.map(|(name, value)| Setting { name, value }).collect();
        Self { emitter, settings, outcome: Mutex::default() }
    }

    /// Returns the latest outcome.
    pub(crate) fn outcome(&self) -> Outcome {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, outcome: Outcome) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
    }
}

/// Writes the emitters' files once everything that they promise is in place, and retries until all
/// are written.
///
/// # Errors
///
/// Only if the readiness channel is closed, which is a bug in the daemon.
pub(crate) async fn emit(
    writer: &dyn Files,
    outputs: &[Arc<Output>],
    view: &View,
    readiness: &Readiness,
) -> Result<(), Fatal> {
    let promised = [Condition::Kernel, Condition::Rules];
    let mut conditions = readiness.subscribe();
    conditions.wait_for(|unmet| promised.iter().all(|c| !unmet.contains_key(c))).await?;
    let mut retry = RetryDelay::new(BACKOFF);
    loop {
        let problems = emit_once(writer, outputs, view).await;
        if problems.is_empty() {
            readiness.met(Condition::Emitters);
            return Ok(());
        }
        let reason = problems.join("; ");
        if readiness.unmet(Condition::Emitters, &reason) {
            tracing::error!("emitters: {reason}");
        }
        tokio::time::sleep(retry.after_failure()).await;
    }
}

/// Asks every emitter that has not succeeded yet, and writes its files. A failing emitter does not
/// keep the others from being written. Returns the problems.
async fn emit_once(writer: &dyn Files, outputs: &[Arc<Output>], view: &View) -> Vec<String> {
    let mut problems = Vec::new();
    // The emitter that owns each file.
    let mut owners: BTreeMap<PathBuf, &str> = BTreeMap::new();
    // First those of all emitters that have succeeded, whatever their order: a file that is written
    // already has an owner.
    for output in outputs {
        let written = output.outcome().files;
        owners.extend(written.into_iter().map(|path| (path, output.emitter.name())));
    }
    for output in outputs {
        if output.outcome().written() {
            // Not written again: another program may have replaced it since, as mk-docker-opts.sh
            // does.
            continue;
        }
        let asked = output.emitter.emit(view, &output.settings).await;
        let files = asked.map_err(|error| error.to_string()).and_then(|files| {
            let name = output.emitter.name();
            for file in &files {
                if let Some(other) = owners.get(&file.path) {
                    return Err(conflict(file, other, name));
                }
                owners.insert(file.path.clone(), name);
            }
            writer
                .replace(files, &output.settings)
                .map_err(|error| format!("--emit {name}: {error}"))
        });
        match files {
            Ok(files) => output.set(Outcome { files, problem: None }),
            Err(problem) => {
                output.set(Outcome { files: Vec::new(), problem: Some(problem.clone()) });
                problems.push(problem);
            }
        }
    }
    problems
}

fn conflict(file: &File, first: &str, second: &str) -> String {
    let path = file.path.display();
    format!(
        "--emit: {first} and {second} both write {path}: expected a separate file for each, such as \
         --emit={second}:path=/run/flannel/{second}.env"
    )
}

#[cfg(test)]
mod tests;
