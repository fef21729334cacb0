//! Runs a daemon whose files are separate from this machine's, whereas hosts of a lab otherwise
//! share one file system.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::requirements::missing;
use crate::{Daemon, Error};

/// The required programs, with their Debian packages.
pub(super) const PROGRAMS: [(&str, &str); 2] = [("unshare", "util-linux"), ("mount", "mount")];

/// Runs a command in its own mount namespace, with an empty tmpfs mounted over each directory.
const START: &str = r#"set -e
while [ "$1" != -- ]; do
    mount -t tmpfs tmpfs "$1"
    shift
done
shift
exec "$@"
"#;

/// The directories over which something empty is mounted.
#[derive(Debug)]
pub(super) struct Apart(BTreeSet<PathBuf>);

/// A file that the daemon wrote in one of these directories.
pub(super) struct Written {
    /// The path, as the daemon sees it.
    pub(super) path: PathBuf,
    /// The permission bits.
    pub(super) mode: u32,
    /// The contents.
    pub(super) contents: Vec<u8>,
}

impl Apart {
    /// Prepares for files in these directories, which need not exist. `kept` are paths of this
    /// machine that the daemon needs to see.
    pub(super) fn new(directories: &[PathBuf], kept: &[&Path]) -> Result<Self, Error> {
        let mut over = BTreeSet::new();
        for directory in directories {
            // Only an existing directory can be a mount point.
            let there = directory.ancestors().find_map(|there| there.canonicalize().ok());
            let there = there.unwrap_or_else(|| "/".into());
            if let Some(hidden) = kept.iter().find(|kept| kept.starts_with(&there)) {
                return Err(missing(format!(
                    "the plugin may write in {}, and that cannot be kept apart from this machine's own files, because {} \
                     is in {}: expected files below /run, or where the setting `path` says",
                    directory.display(),
                    hidden.display(),
                    there.display()
                )));
            }
            over.insert(there);
        }
        let all = over.clone();
        over.retain(|path| !path.ancestors().skip(1).any(|above| all.contains(above)));
        Ok(Self(over))
    }

    /// Wraps a command to run in the mount namespace. The process becomes the command, and keeps
    /// its process id.
    pub(super) fn wrap(&self, command: &Command) -> Command {
        let mut wrapped = Command::new("unshare");
        wrapped.args(["--mount", "--", "sh", "-c", START, "sh"]).args(&self.0).arg("--");
        wrapped.arg(command.get_program()).args(command.get_args());
        wrapped
    }

    /// Returns all files that a daemon has written in these directories.
    pub(super) fn written(&self, daemon: &Daemon) -> Result<Vec<Written>, Error> {
        let root = Path::new("/proc").join(daemon.pid().to_string()).join("root");
        let mut found = Vec::new();
        for directory in &self.0 {
            collect(&root, directory, &mut found)
                .map_err(Error::io(format!("reading {}", directory.display())))?;
        }
        found.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(found)
    }
}

impl Written {
    /// Reads a file of this machine's own file system.
    pub(super) fn read(path: &Path) -> std::io::Result<Self> {
        let contents = fs::read(path)?;
        let mode = fs::metadata(path)?.permissions().mode() & 0o7777;
        Ok(Self { path: path.to_owned(), mode, contents })
    }
}

fn collect(root: &Path, directory: &Path, found: &mut Vec<Written>) -> std::io::Result<()> {
    let from_outside = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    for entry in fs::read_dir(from_outside(directory))? {
        let entry = entry?;
        let path = directory.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(root, &path, found)?;
        } else if kind.is_file() {
            found.push(Written { path, ..Written::read(&entry.path())? });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn existing_ancestors_of_directories_are_covered() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("run/flannel")).unwrap();
        let apart = |directories: &[&str], kept: &str| {
            let directories: Vec<_> = directories.iter().map(|path| root.join(path)).collect();
            Apart::new(&directories, &[&root.join(kept)])
        };
        let covered = apart(&["run/flannel", "run/heddle/x", "run"], "bin/heddled").unwrap();
        assert_eq!(covered.0, BTreeSet::from([root.join("run")]));
        let covered = apart(&["run/flannel"], "bin/heddled").unwrap();
        assert_eq!(covered.0, BTreeSet::from([root.join("run/flannel")]));
        let error = apart(&["etc/x"], "bin/heddled").unwrap_err().to_string();
        assert!(error.contains("etc/x, and that cannot be kept apart"), "{error}");
        assert!(error.contains("bin/heddled is in"), "{error}");
    }
}
