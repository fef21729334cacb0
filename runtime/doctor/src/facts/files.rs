//! Tests whether files can be written, without writing any, and whether files that the daemon wrote
//! are as it left them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use heddle_files::{Difference, Print, RecordError, look, read_record};
use rustix::fs::{Access, access};
use rustix::io::Errno;

/// A file that cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unwritable {
    /// The file.
    pub(crate) file: PathBuf,
    /// The obstacle: the nearest existing ancestor directory, or the file itself.
    pub(crate) at: PathBuf,
    /// Reason from the system.
    pub(crate) reason: String,
}

/// Checks whether a file could be created or replaced, with directories created as needed.
pub(crate) fn unwritable(file: &Path) -> Option<Unwritable> {
    let refused =
        |at: &Path, reason: String| Unwritable { file: file.to_owned(), at: at.to_owned(), reason };
    if file.is_dir() {
        return Some(refused(file, "is a directory".to_owned()));
    }
    let directory = file.ancestors().skip(1).find(|directory| directory.symlink_metadata().is_ok());
    let directory = directory.filter(|path| !path.as_os_str().is_empty())?;
    if !directory.is_dir() {
        return Some(refused(directory, "is not a directory".to_owned()));
    }
    let allowed = access(directory, Access::WRITE_OK | Access::EXEC_OK);
    allowed.err().map(|errno: Errno| refused(directory, errno.to_string()))
}

/// Returns the files that the daemon's record names and that exist. Empty without a usable record.
pub(crate) fn written(directory: &Path) -> Vec<PathBuf> {
    let recorded = read_record(directory).unwrap_or_default();
    let paths: BTreeSet<_> = recorded.into_iter().map(|written| written.path).collect();
    paths.into_iter().filter(|path| path.exists()).collect()
}

/// A file that is not as the daemon wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Differing {
    /// The file.
    pub(crate) file: PathBuf,
    /// The difference from what the daemon wrote.
    pub(crate) difference: Difference,
}

/// Size limit of the files, in bytes. Emitters write some hundred.
const LIMIT: u64 = 16 << 20;

/// Compares the files in the record in the daemon's own directory with what is there. Empty without
/// a record.
pub(crate) fn differing(directory: &Path) -> Result<Vec<Differing>, RecordError> {
    // While the daemon writes a file, the record has the former and the new state of it.
    let mut prints: BTreeMap<PathBuf, Vec<Print>> = BTreeMap::new();
    for written in read_record(directory)? {
        prints.entry(written.path).or_default().push(written.print);
    }
    let difference = |(file, prints): (PathBuf, Vec<Print>)| {
        let found = match look(&file, LIMIT) {
            Ok(found) => {
                prints.iter().map(|print| found.difference(print)).min_by_key(Option::is_some)?
            }
            Err(error) => Some(Difference::Unreadable(error.reason.to_string())),
        };
        found.map(|difference| Differing { file, difference })
    };
    Ok(prints.into_iter().filter_map(difference).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_not_as_recorded_is_found() {
        use std::os::unix::fs::PermissionsExt;

        use heddle_files::{Written, record_path, record_text};

        let directory = tempfile::tempdir().unwrap();
        assert_eq!(differing(directory.path()).unwrap(), []);
        let path = directory.path().join("subnet.env");
        let written = |contents: &[u8]| Written {
            path: path.clone(),
            print: Print::of(0o644, contents),
            made: true,
        };
        let record = record_path(directory.path());
        std::fs::write(&record, record_text(&[written(b"old"), written(b"new")])).unwrap();
        std::fs::set_permissions(&record, PermissionsExt::from_mode(0o600)).unwrap();
        let difference = || {
            let mut found = differing(directory.path()).unwrap();
            found.pop().map(|found| found.difference.to_string())
        };
        assert_eq!(difference().unwrap(), "is missing");
        for (contents, expected) in
            [("edited", Some("has other contents than written")), ("old", None), ("new", None)]
        {
            std::fs::write(&path, contents).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
            assert_eq!(difference().as_deref(), expected, "{contents}");
        }
    }

    #[test]
    fn unwritable_file_names_the_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        assert_eq!(unwritable(&path("a/b/subnet.env")), None);
        std::fs::create_dir(path("directory")).unwrap();
        let found = unwritable(&path("directory")).unwrap();
        assert_eq!((found.at, found.reason.as_str()), (path("directory"), "is a directory"));
        std::fs::write(path("file"), "").unwrap();
        assert_eq!(unwritable(&path("file")), None);
        let found = unwritable(&path("file/b/subnet.env")).unwrap();
        assert_eq!((found.at, found.reason.as_str()), (path("file"), "is not a directory"));
        let found = unwritable(Path::new("/proc/sys/subnet.env")).unwrap();
        assert_eq!(found.at, Path::new("/proc/sys"));
    }
}
