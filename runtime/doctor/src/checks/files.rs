//! Checks that the files read by container runtimes can be written, and are as the daemon wrote
//! them.

use std::path::{Path, PathBuf};

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

/// Returns a finding for each file that another daemon of this host writes as well. `others` are their
/// networks and files.
pub(crate) fn check_shared(own: &[PathBuf], others: &[(String, Vec<PathBuf>)]) -> Vec<Finding> {
    let shared = |(network, files): &(String, Vec<PathBuf>)| {
        let both = files.iter().filter(|file| own.contains(file));
        let both: Vec<_> = both.map(|file| finding_shared(file, network)).collect();
        both
    };
    others.iter().flat_map(shared).collect()
}

fn finding_shared(file: &Path, network: &str) -> Finding {
    Finding {
        check: "files",
        severity: Severity::Error,
        problem: format!("{} is also written by the heddled of the network {network}", file.display()),
        symptom: "The file has the subnet of one of the two, and Docker's containers are in the wrong network, or in one \
                  that changes"
            .to_owned(),
        remedy: "Give each daemon files of its own: --subnet-file, and `path` in --emit.".to_owned(),
        command: None,
    }
}

#[cfg(test)]
mod tests {
    use heddle_files::Difference;

    use super::*;

    #[test]
    fn file_of_two_daemons_is_reported() {
        let [a, b] = ["/run/flannel/subnet.env", "/run/flannel/b.env"].map(PathBuf::from);
        let other = |file: &PathBuf| [("/b".to_owned(), vec![file.clone()])];
        assert_eq!(check_shared(std::slice::from_ref(&a), &other(&b)), []);
        let found = check_shared(&[a.clone(), b], &other(&a));
        assert_eq!(
            found[0].problem,
            "/run/flannel/subnet.env is also written by the heddled of the network /b"
        );
    }

    #[test]
    fn finding_names_the_file_and_its_difference() {
        let found =
            Differing { file: "/run/flannel/subnet.env".into(), difference: Difference::Missing };
        let findings = check_written(&[found]);
        assert_eq!(findings[0].problem, "/run/flannel/subnet.env is missing");
        assert!(check_written(&[]).is_empty());
    }
}
