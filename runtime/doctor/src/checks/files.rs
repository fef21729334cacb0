//! Checks that the files read by container runtimes can be written, and are as the daemon wrote
//! them.

use crate::facts::files::{Differing, Unwritable};
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

/// Remedy for a file that is not as the daemon wrote it.
const REWRITTEN: &str = "heddled writes the file again within a second, or within 30 s where the kernel reports no \
                         changes. If it does not, it cannot write the file, or another program keeps changing it: the log \
                         of heddled says which. Stop that program, or give one of the two another path.";

/// Returns one finding for each file that somebody else has changed or deleted.
pub(crate) fn check_written(differing: &[Differing]) -> Vec<Finding> {
    let finding = |found: &Differing| Finding {
        check: "files",
        severity: Severity::Error,
        problem: format!("{} {}", found.file.display(), found.difference),
        symptom: "Programs that read the file, such as Docker, do not start, or use wrong values"
            .to_owned(),
        remedy: REWRITTEN.to_owned(),
        command: None,
    };
    differing.iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use heddle_files::Difference;

    use super::*;

    #[test]
    fn finding_names_the_file_and_its_difference() {
        let found =
            Differing { file: "/run/flannel/subnet.env".into(), difference: Difference::Missing };
        let findings = check_written(&[found]);
        assert_eq!(findings[0].problem, "/run/flannel/subnet.env is missing");
        assert!(check_written(&[]).is_empty());
    }
}
