//! Tests whether files can be written, without writing any.

use std::path::{Path, PathBuf};

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

#[cfg(test)]
mod tests {
    use super::*;

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
