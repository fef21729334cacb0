//! The record of the files that a program wrote, for the next run of that program: it tells its
//! own files from those that somebody else wrote or changed.
//!
//! A file belongs in the record before it is written. After a crash between the two, the record
//! has an entry whose print does not fit what is in the file's place, and that entry is void.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Print, ReadError, Reason, RegularFile, TrustError};

/// Size limit of a record, in bytes: some 5000 files.
const LIMIT: u64 = 1 << 20;

/// Name of a record in its directory.
const NAME: &str = "files.json";

/// A file in the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Path of the file.
    pub path: PathBuf,
    /// Its contents and permission bits.
    #[serde(flatten)]
    pub print: Print,
    /// False if the file was as it should be before it was written for the first time. Somebody
    /// else may have written it.
    pub made: bool,
}

/// The record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The record is unreadable, or not a regular file, or too large.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Another user can change the record.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The record has another format.
    #[error("cannot use {}: {source}; a new one replaces it", path.display())]
    Format {
        /// Path of the record.
        path: PathBuf,
        /// Position and kind of the error.
        source: serde_json::Error,
    },
}

/// Returns the path of the record in a program's own directory.
pub fn record_path(directory: &Path) -> PathBuf {
    directory.join(NAME)
}

/// Returns the text of a record.
pub fn record_text(files: &[Written]) -> String {
    // Fails only for a path that is not UTF-8, and then the others are not lost.
    let lines = files.iter().filter_map(|file| serde_json::to_string(file).ok());
    format!("[\n{}\n]\n", lines.collect::<Vec<_>>().join(",\n"))
}

/// Reads the record in a program's own directory. Empty if there is none.
///
/// # Errors
///
/// [`RecordError`]: the record cannot be used.
pub fn read_record(directory: &Path) -> Result<Vec<Written>, RecordError> {
    let path = record_path(directory);
    let file = match RegularFile::open_nofollow(&path) {
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        opened => opened?,
    };
    file.vouch()?;
    let text = file.read(LIMIT)?;
    serde_json::from_slice(&text).map_err(|source| RecordError::Format { path, source })
}

/// Returns true if the record of another program in a directory beside this one names a path.
/// Records that cannot be read name none.
///
/// # Errors
///
/// [`ReadError`]: the directory above cannot be read.
pub fn is_recorded_beside(directory: &Path, file: &Path) -> Result<bool, ReadError> {
    let above = directory.parent().unwrap_or(Path::new("/"));
    let failed =
        |error: std::io::Error| ReadError { path: above.to_owned(), reason: Reason::Io(error) };
    let entries = match std::fs::read_dir(above) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let other = entry.map_err(failed)?.path();
        if other != directory
            && read_record(&other).is_ok_and(|files| files.iter().any(|its| its.path == file))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn written(path: &str) -> Written {
        Written { path: path.into(), print: Print::of(0o644, b"text"), made: true }
    }

    fn store(directory: &Path, files: &[Written]) {
        fs::create_dir_all(directory).unwrap();
        fs::write(record_path(directory), record_text(files)).unwrap();
        fs::set_permissions(record_path(directory), fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[test]
    fn record_is_read_as_written() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read_record(root.path()).unwrap(), []);
        let files = [written("/run/a"), Written { made: false, ..written("/run/\"b\"\n") }];
        store(root.path(), &files);
        assert_eq!(read_record(root.path()).unwrap(), files);
        store(root.path(), &[]);
        assert_eq!(read_record(root.path()).unwrap(), []);
    }

    #[test]
    fn record_of_another_format_is_named() {
        let root = tempfile::tempdir().unwrap();
        store(root.path(), &[]);
        fs::write(record_path(root.path()), "{").unwrap();
        let error = read_record(root.path()).unwrap_err().to_string();
        assert!(error.contains("files.json") && error.contains("a new one replaces it"), "{error}");
    }

    #[test]
    fn record_that_others_can_change_is_refused() {
        let root = tempfile::tempdir().unwrap();
        store(root.path(), &[written("/run/a")]);
        fs::set_permissions(record_path(root.path()), fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(read_record(root.path()), Err(RecordError::Trust(_))));
    }

    #[test]
    fn file_of_another_instance_is_found_in_its_record() {
        let root = tempfile::tempdir().unwrap();
        let (own, other) = (root.path().join("own"), root.path().join("other"));
        store(&own, &[written("/run/a"), written("/run/b")]);
        store(&other, &[Written { made: false, ..written("/run/b") }]);
        assert!(!is_recorded_beside(&own, Path::new("/run/a")).unwrap());
        assert!(is_recorded_beside(&own, Path::new("/run/b")).unwrap());
    }
}
