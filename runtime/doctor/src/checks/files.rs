//! Checks that the files read by container runtimes can be written.

use crate::facts::files::Unwritable;
use crate::report::{Finding, Severity};

/// Returns one finding for each file.
pub(crate) fn check(unwritable: &[Unwritable]) -> Vec<Finding> {
    let finding = |found: &Unwritable| {
        Finding {
        check: "files",
        severity: Severity::Error,
        problem: format!(
            "{} cannot be written: {}: {}",
            found.file.display(),
            found.at.display(),
            found.reason
        ),
        symptom: "heddled does not become ready (`emitters` in `/readyz`), and Docker gets no subnet".to_owned(),
        remedy: "Make the directory writable for heddled, or name another file with --subnet-file or --emit. In a unit with \
                 ProtectSystem=, add the directory to ReadWritePaths= or RuntimeDirectory=."
            .to_owned(),
        command: None,
    }
    };
    unwritable.iter().map(finding).collect()
}
