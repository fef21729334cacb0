//! The state of a place that should hold a certain file, and its difference from that file.

use std::fmt;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{ReadError, Reason, RegularFile};

/// Fingerprint of a file: its permission bits and a digest of its contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Print {
    /// Permission bits.
    pub mode: u32,
    /// SHA-256 digest of the contents, in hexadecimal.
    pub digest: String,
}

impl Print {
    /// Returns the print of a file with these permission bits and contents.
    pub fn of(mode: u32, contents: &[u8]) -> Self {
        Self { mode, digest: format!("{:x}", Sha256::digest(contents)) }
    }
}

/// Object at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// No object.
    Missing,
    /// A regular file.
    Regular {
        /// Permission bits.
        mode: u32,
        /// The contents. None if they are larger than the limit.
        contents: Option<Vec<u8>>,
    },
    /// Something other than a regular file, such as "a FIFO".
    Other(&'static str),
}

/// The difference of a place from the file that should be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// There is no such file.
    Missing,
    /// There is something other than a regular file.
    Other(&'static str),
    /// The file has other contents.
    Contents,
    /// The file has other permission bits.
    Mode {
        /// The permission bits.
        found: u32,
        /// The expected ones.
        expected: u32,
    },
    /// The place cannot be read.
    Unreadable(String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing"),
            Self::Other(kind) => write!(f, "is {kind}"),
            Self::Contents => f.write_str("has other contents than written"),
            Self::Mode { found, expected } => {
                write!(f, "has mode {found:o} instead of {expected:o}")
            }
            Self::Unreadable(reason) => write!(f, "is unreadable: {reason}"),
        }
    }
}

impl Found {
    /// Returns the difference from the file that should be here. None if there is none.
    pub fn difference(&self, expected: &Print) -> Option<Difference> {
        match self {
            Self::Missing => Some(Difference::Missing),
            Self::Other(kind) => Some(Difference::Other(kind)),
            Self::Regular { contents: None, .. } => Some(Difference::Contents),
            Self::Regular { mode, contents: Some(contents) } => {
                let found = Print::of(*mode, contents);
                if found.digest != expected.digest {
                    return Some(Difference::Contents);
                }
                let (found, expected) = (found.mode, expected.mode);
                (found != expected).then_some(Difference::Mode { found, expected })
            }
        }
    }
}

/// Returns what is at a path, with contents of at most `limit` bytes. Follows no symbolic link in
/// the place of the file, and does not wait for a FIFO.
///
/// # Errors
///
/// [`ReadError`]: there is something that cannot be read.
pub fn look(path: &Path, limit: u64) -> Result<Found, ReadError> {
    let file = match RegularFile::open_nofollow(path) {
        Ok(file) => file,
        Err(error) => {
            return match error.reason {
                Reason::NotRegular(kind) => Ok(Found::Other(kind)),
                // Without the directory, or with a file in its place, there is no file either.
                _ if matches!(
                    error.reason.kind(),
                    ErrorKind::NotFound | ErrorKind::NotADirectory
                ) =>
                {
                    Ok(Found::Missing)
                }
                _ => Err(error),
            };
        }
    };
    let mode = file.metadata().permissions().mode() & 0o7777;
    match file.read(limit) {
        Ok(contents) => Ok(Found::Regular { mode, contents: Some(contents) }),
        Err(ReadError { reason: Reason::TooLarge(_), .. }) => {
            Ok(Found::Regular { mode, contents: None })
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn difference_names_what_is_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let expected = Print::of(0o644, b"text");
        let difference = |limit| {
            look(&path, limit).unwrap().difference(&expected).map(|found| found.to_string())
        };
        assert_eq!(difference(10).unwrap(), "is missing");
        fs::write(&path, "text").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(difference(10), None);
        assert_eq!(difference(3).unwrap(), "has other contents than written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(difference(10).unwrap(), "has mode 600 instead of 644");
        fs::write(&path, "test").unwrap();
        assert_eq!(difference(10).unwrap(), "has other contents than written");
    }

    #[test]
    fn link_directory_and_fifo_are_named_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "text").unwrap();
        symlink(path("file"), path("link")).unwrap();
        fs::create_dir(path("directory")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(path("fifo")).status().unwrap().success());
        for (name, kind) in
            [("link", "a symbolic link"), ("directory", "a directory"), ("fifo", "a FIFO")]
        {
            assert_eq!(look(&path(name), 10).unwrap(), Found::Other(kind));
        }
        assert_eq!(look(&path("file/below"), 10).unwrap(), Found::Missing);
        assert_eq!(look(&path("none/below"), 10).unwrap(), Found::Missing);
    }
}
