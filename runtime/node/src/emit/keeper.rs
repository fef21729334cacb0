//! Files as desired state: asks emitters for their files, writes them, compares them with what is
//! there from then on, and writes those again that somebody else changed or deleted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use heddle_control::EventKind;
use heddle_core::pacing::{Backoff, RetryDelay};
use heddle_core::rate::{Bucket, Rate};
use heddle_files::{Difference, Found, Print};
use heddle_plugin::{File, View};
use heddle_telemetry::History;

use super::derived::is_made_from;
use super::ledger::Ledger;
use super::{Outcome, Output, RESYNC};
use crate::ports::Files;

/// Backoff of retries after files could not be written.
const BACKOFF: Backoff =
    Backoff { initial: Duration::from_millis(200), limit: Duration::from_secs(30) };

/// Repairs of one file. A program that changes it more often has its way.
const REPAIRS: Rate = Rate { burst: 5, interval: RESYNC };

/// Number of bytes that are read of a file that should be smaller: what `mk-docker-opts.sh` makes
/// of subnet.env has less.
const LEAST_LIMIT: u64 = 64 << 10;

/// Keeps the emitters' files as they should be.
pub(super) struct Keeper<'a> {
    files: &'a dyn Files,
    outputs: &'a [Arc<Output>],
    view: &'a View,
    history: &'a History,
    /// The files of each output. None until they are written.
    kept: Vec<Option<Vec<Kept>>>,
    ledger: Ledger,
    /// True once files of earlier runs that are not wanted any more are removed.
    tidied: bool,
    retry: RetryDelay,
    /// Time of the next attempt at what failed. None if nothing did.
    retry_at: Option<Instant>,
    /// Time of the next check without a notification.
    resync_at: Instant,
}

/// A file that was written, and has to stay so.
struct Kept {
    file: File,
    print: Print,
    /// The contents as the emitter returned them.
    emitted: Vec<u8>,
    budget: Bucket,
    /// Time at which the file was last seen to be changed.
    changed: Option<Instant>,
    /// True once another program has changed the file more often than it is repaired, until the
    /// file is as it should be.
    contested: bool,
    /// Difference at the last attempt to repair it, which failed, and the problem.
    failed: Option<(Difference, String)>,
}

impl Kept {
    fn new(file: File) -> Self {
        Self {
            print: Print::of(file.mode, &file.contents),
            emitted: file.contents.clone(),
            budget: Bucket::new(REPAIRS),
            changed: None,
            contested: false,
            failed: None,
            file,
        }
    }

    async fn look(&self, files: &dyn Files) -> Result<Found, Difference> {
        let limit = LEAST_LIMIT.max(self.file.contents.len() as u64);
        let found = files.look(&self.file.path, limit).await;
        found.map_err(|error| Difference::Unreadable(error.reason.to_string()))
    }

    fn difference(&self, found: &Result<Found, Difference>) -> Option<Difference> {
        found.as_ref().map_or_else(|error| Some(error.clone()), |it| it.difference(&self.print))
    }

    /// Notes that the file is as it should be.
    fn on_right(&mut self, now: Instant) {
        self.failed = None;
        if self.contested && self.changed.is_none_or(|changed| changed + RESYNC <= now) {
            self.contested = false;
            let path = self.file.path.display();
            tracing::info!("file {path}: no longer changed by another program");
        }
    }

    /// Notes that another program changes the file more often than it may be repaired.
    fn on_contest(&mut self, now: Instant) {
        self.changed = Some(now);
        if !std::mem::replace(&mut self.contested, true) {
            tracing::warn!(
                "file {}: another program keeps changing it; leaving it as that program wants it (stop the program, or \
                 give one of the two another path)",
                self.file.path.display()
            );
        }
    }
}

impl<'a> Keeper<'a> {
    pub(super) async fn new(
        files: &'a dyn Files,
        outputs: &'a [Arc<Output>],
        view: &'a View,
        history: &'a History,
    ) -> Self {
        Self {
            files,
            outputs,
            view,
            history,
            kept: outputs.iter().map(|_| None).collect(),
            ledger: Ledger::read(files).await,
            tidied: false,
            retry: RetryDelay::new(BACKOFF),
            retry_at: None,
            resync_at: crate::clock::now(),
        }
    }

    /// Returns the time of the next check, if no change is noticed earlier.
    pub(super) fn due(&self) -> Instant {
        self.retry_at.map_or(self.resync_at, |at| at.min(self.resync_at))
    }

    /// Writes files that are not written yet, and repairs those that somebody else changed. Returns
    /// the problems.
    pub(super) async fn check(&mut self, now: Instant) -> Vec<String> {
        let is_due = self.retry_at.is_none_or(|at| at <= now);
        self.resync_at = now + RESYNC;
        if is_due {
            self.write_missing().await;
        }
        let paths: Vec<_> = self.wanted().into_keys().collect();
        self.files.watch(&paths).await;
        let mut fails = false;
        for index in 0..self.outputs.len() {
            fails |= self.check_output(index, is_due, now).await;
        }
        if !fails {
            self.retry.reset();
            self.retry_at = None;
        } else if is_due {
            self.retry_at = Some(now + self.retry.after_failure());
        }
        self.outputs.iter().filter_map(|output| output.outcome().problem).collect()
    }

    /// Returns the files that are written, with the state that they should have.
    fn wanted(&self) -> BTreeMap<PathBuf, Print> {
        let kept = self.kept.iter().flatten().flatten();
        kept.map(|kept| (kept.file.path.clone(), kept.print.clone())).collect()
    }

    /// Asks every emitter that has not succeeded yet, and writes its files. A failing emitter does
    /// not keep the others from being written.
    async fn write_missing(&mut self) {
        for index in 0..self.outputs.len() {
            if self.kept[index].is_some() {
                continue;
            }
            let outcome = match self.write(index).await {
                Ok(kept) => {
                    let files = kept.iter().map(|kept| kept.file.path.clone()).collect();
                    self.kept[index] = Some(kept);
                    Outcome { files, problem: None }
                }
                Err(problem) => Outcome { files: Vec::new(), problem: Some(problem) },
            };
            self.outputs[index].set(outcome);
        }
        if !self.tidied && self.kept.iter().all(Option::is_some) {
            self.tidied = true;
            let wanted = self.wanted();
            self.ledger.remove_others(self.files, &wanted).await;
        }
    }

    /// Writes the files of an emitter. A file that is written already has an owner, whatever the
    /// order of the emitters.
    async fn write(&mut self, index: usize) -> Result<Vec<Kept>, String> {
        let output = &self.outputs[index];
        let name = output.emitter.name();
        let asked = output.emitter.emit(self.view, &output.settings).await;
        let files = asked.map_err(|error| error.to_string())?;
        for (other, kept) in self.outputs.iter().zip(&self.kept) {
            let its = |file: &&File| kept.iter().flatten().any(|kept| kept.file.path == file.path);
            if let Some(file) = files.iter().find(its) {
                return Err(conflict(file, other.emitter.name(), name));
            }
        }
        let kept: Vec<_> = files.iter().cloned().map(Kept::new).collect();
        for kept in &kept {
            let is_right = kept.difference(&kept.look(self.files).await).is_none();
            self.ledger.enter(&kept.file.path, &kept.print, is_right);
        }
        self.ledger.store(self.files).await;
        let written = self.files.replace(files, &output.settings).await;
        for path in written.map_err(|error| format!("--emit {name}: {error}"))? {
            tracing::info!("emitters: wrote {}", path.display());
        }
        Ok(kept)
    }

    /// Compares the files of an output with what is there. Returns true if one has to be tried
    /// again.
    async fn check_output(&mut self, index: usize, is_due: bool, now: Instant) -> bool {
        let Some(mut kept) = self.kept[index].take() else { return true };
        let mut problems = Vec::new();
        for kept in &mut kept {
            problems.extend(self.check_file(index, kept, is_due, now).await);
        }
        let fails = kept.iter().any(|kept| kept.failed.is_some());
        let name = self.outputs[index].emitter.name();
        let problem =
            (!problems.is_empty()).then(|| format!("--emit {name}: {}", problems.join("; ")));
        let files = kept.iter().map(|kept| kept.file.path.clone()).collect();
        self.outputs[index].set(Outcome { files, problem });
        self.kept[index] = Some(kept);
        fails
    }

    /// Compares a file with what is there, and repairs it. Returns the problem that remains.
    async fn check_file(
        &mut self,
        index: usize,
        kept: &mut Kept,
        is_due: bool,
        now: Instant,
    ) -> Option<String> {
        let found = kept.look(self.files).await;
        let Some(difference) = kept.difference(&found) else {
            kept.on_right(now);
            return None;
        };
        if let Ok(Found::Regular { mode, contents: Some(contents) }) = found
            && is_made_from(&contents, &kept.emitted)
        {
            self.accept(kept, mode, contents).await;
            kept.on_right(now);
            return None;
        }
        if let Some((before, problem)) = &kept.failed
            && *before == difference
            && !is_due
        {
            return Some(problem.clone());
        }
        // Two programs that want different contents, such as two daemons with one subnet.env, or
        // one that adds itself to CNI's plugins, would make the file alternate for ever. A missing
        // file is in nobody's way.
        let is_missing = difference == Difference::Missing;
        let budget = kept.budget.clone();
        if (kept.contested && !is_missing) || !kept.budget.take(now) {
            kept.on_contest(now);
            return None;
        }
        let output = &self.outputs[index];
        let path = kept.file.path.display();
        match self.files.replace(vec![kept.file.clone()], &output.settings).await {
            Ok(_) => {
                (kept.changed, kept.failed) = (Some(now), None);
                output.repairs.fetch_add(1, Ordering::Relaxed);
                let subject = path.to_string();
                let text = format!("file {path}: {difference}; written again");
                self.history.note_about(EventKind::Drift, &subject, &text);
                if !kept.contested {
                    tracing::warn!(subject, "{text}");
                }
                None
            }
            Err(error) => {
                kept.budget = budget;
                let problem = format!("{path} {difference}: {error}");
                kept.failed = Some((difference, problem.clone()));
                Some(problem)
            }
        }
    }

    /// Takes Docker's options that a script made of subnet.env for what the file should hold until
    /// the next start.
    async fn accept(&mut self, kept: &mut Kept, mode: u32, contents: Vec<u8>) {
        let path = kept.file.path.clone();
        tracing::info!(
            "file {}: has Docker's options now, as mk-docker-opts.sh makes them; kept so until the next start",
            path.display()
        );
        kept.file = File { path, mode, contents };
        kept.print = Print::of(kept.file.mode, &kept.file.contents);
        self.ledger.change(self.files, &kept.file.path, &kept.print).await;
    }
}

fn conflict(file: &File, first: &str, second: &str) -> String {
    let path = file.path.display();
    format!(
        "--emit: {first} and {second} both write {path}: expected a separate file for each, such as \
         --emit={second}:path=/run/flannel/{second}.env"
    )
}
