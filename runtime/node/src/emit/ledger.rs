//! The files that this daemon and its earlier runs wrote, as the record has them.
//!
//! A file is entered before it is written, so that a crash between the two leaves no file that
//! nobody knows. Files of an earlier run that no emitter writes any more are removed, unless
//! somebody else wrote or changed them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use heddle_files::{Print, Written};

use crate::ports::{Files, Removal};

/// The files that were written.
pub(super) struct Ledger {
    written: Vec<Written>,
    /// True if the record could be written the last time.
    recorded: bool,
}

impl Ledger {
    /// Reads the record of earlier runs.
    pub(super) async fn read(files: &dyn Files) -> Self {
        Self { written: files.recorded().await, recorded: true }
    }

    /// Enters a file that is about to be written. `is_right` is true if it is as it should be
    /// already: then it is this daemon's only if the record says so.
    pub(super) fn enter(&mut self, path: &Path, print: &Print, is_right: bool) {
        let known = self.written.iter_mut().find(|its| its.path == path && its.print == *print);
        match known {
            Some(known) => known.made |= !is_right,
            None => {
                let (path, print) = (path.to_owned(), print.clone());
                self.written.push(Written { path, print, made: !is_right });
            }
        }
    }

    /// Writes the record. Without it, files go unnoticed if a later run no longer writes them; so
    /// an error is no reason not to write files.
    pub(super) async fn store(&mut self, files: &dyn Files) {
        let stored = files.record(&self.written).await;
        if let Err(error) = &stored
            && self.recorded
        {
            tracing::warn!(
                %error,
                "emitters: cannot record the files; a later start does not remove those that it no longer writes"
            );
        }
        self.recorded = stored.is_ok();
    }

    /// Removes the files of earlier runs that are not wanted any more, and strikes them off. To be
    /// called when all wanted files are written.
    pub(super) async fn remove_others(
        &mut self,
        files: &dyn Files,
        wanted: &BTreeMap<PathBuf, Print>,
    ) {
        let kept: Vec<_> = wanted.keys().cloned().collect();
        let obsolete: BTreeSet<_> = self
            .written
            .iter()
            .map(|its| &its.path)
            .filter(|path| !wanted.contains_key(*path))
            .cloned()
            .collect();
        let mut failed = BTreeSet::new();
        for path in obsolete {
            let own = self.written.iter().filter(|its| its.path == path && its.made);
            let prints: Vec<_> = own.map(|its| its.print.clone()).collect();
            let shown = path.display();
            match files.remove(&path, &prints, &kept).await {
                Ok(Removal::Removed) => {
                    tracing::info!("file {shown}: removed; no emitter writes it any more");
                }
                Ok(Removal::Foreign) => tracing::info!(
                    "file {shown}: left in place, although no emitter writes it any more; somebody else wrote or changed it"
                ),
                Ok(Removal::Missing | Removal::InUse) => {}
                Err(error) => {
                    tracing::warn!(
                        %error,
                        "file {shown}: no emitter writes it any more, but it cannot be removed; trying again at the next start"
                    );
                    failed.insert(path);
                }
            }
        }
        self.written.retain(|its| {
            failed.contains(&its.path)
                || wanted.get(&its.path).is_some_and(|print| *print == its.print)
        });
        self.store(files).await;
    }

    /// Notes that a file has other contents from now on, which count as this daemon's.
    pub(super) async fn change(&mut self, files: &dyn Files, path: &Path, print: &Print) {
        self.written.retain(|its| its.path != path);
        self.enter(path, print, false);
        self.store(files).await;
    }
}
