//! Reads files that another user may have put in place.
//!
//! `std::fs::read` trusts everybody who can create or rename a file in the directory: opening a
//! FIFO blocks until somebody writes to it, opening a device can have side effects, and reading
//! `/dev/zero` never ends. The functions here open only regular files, never block on the object at
//! the path, and read at most as many bytes as the caller allows.
//!
//! [`vouch`] and [`RegularFile::vouch`] answer another question: whether anybody but root and this
//! process's user could have written the file. Code that is run, and the policy that grants it
//! something, must come from such files.
//!
//! [`look`] compares a place with the file that should be there, and [`read_record`] tells which
//! files an earlier run of the program has written.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may run programs and wait"))]

mod place;
mod record;
mod trust;

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};

pub use crate::place::{Difference, Found, Print, look};
pub use crate::record::{
    RecordError, Written, is_recorded_beside, read_record, record_path, record_text,
};
pub use crate::trust::{TrustError, Untrusted, vouch};

/// A file that cannot be used. The message names the path, the reason and, where one applies, the
/// limit.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {reason}", .path.display())]
pub struct ReadError {
    /// The path as it was given.
    pub path: PathBuf,
    /// The reason why the file cannot be used.
    pub reason: Reason,
}

/// The reason why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The operating system failed to open or to read the file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The path leads to something other than a regular file, such as a FIFO or a directory.
    #[error("it is {0}: expected a regular file")]
    NotRegular(&'static str),
    /// The file is longer than this limit, in bytes.
    #[error("it has more than {}, which is the limit", size(*.0))]
    TooLarge(u64),
    /// The file is not UTF-8 text.
    #[error("it is not UTF-8 text")]
    NotText,
}

impl Reason {
    /// Returns the kind of the corresponding [`io::Error`].
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io(error) => error.kind(),
            Self::NotRegular(_) => ErrorKind::InvalidInput,
            Self::TooLarge(_) => ErrorKind::FileTooLarge,
            Self::NotText => ErrorKind::InvalidData,
        }
    }
}

impl ReadError {
    /// Returns true if there is no such file.
    pub fn is_not_found(&self) -> bool {
        self.reason.kind() == ErrorKind::NotFound
    }
}

/// Keeps the error's kind. The path is dropped: the caller adds it when reporting the error.
impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        match error.reason {
            Reason::Io(error) => error,
            reason => Self::new(reason.kind(), reason),
        }
    }
}

/// Formats a limit in bytes; whole KiB and MiB are shown as such.
fn size(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 && bytes % (1 << 20) == 0 => format!("{} MiB", bytes >> 20),
        bytes if bytes >= 1 << 10 && bytes % (1 << 10) == 0 => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} bytes"),
    }
}

/// Reads a regular file of at most `limit` bytes. Symbolic links are followed.
///
/// # Errors
///
/// [`ReadError`]: the file is missing, unreadable, not a regular file, or too large.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    RegularFile::open(path)?.read(limit)
}

/// Reads a regular file of at most `limit` bytes as UTF-8 text. Symbolic links are followed.
///
/// # Errors
///
/// As [`read`], and if it is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> Result<String, ReadError> {
    RegularFile::open(path)?.read_text(limit)
}

/// A regular file that is open for reading.
#[derive(Debug)]
pub struct RegularFile {
    path: PathBuf,
    file: File,
    metadata: Metadata,
}

impl RegularFile {
    /// Opens a file. Symbolic links are followed.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: the file is missing, unreadable or not a regular file.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Self::open_with(path, OFlags::empty())
    }

    /// Opens a file. A symbolic link as the last component of the path is refused.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_nofollow(path: &Path) -> Result<Self, ReadError> {
        Self::open_with(path, OFlags::NOFOLLOW)
    }

    fn open_with(path: &Path, flags: OFlags) -> Result<Self, ReadError> {
        let open = || -> Result<_, Reason> {
            // An `O_PATH` descriptor shows the type of the file without opening it: it does not
            // wait for a FIFO's writer, and does not start a device, such as a watchdog, that
            // starts when it is opened.
            let place = open(path, OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty());
            let place = File::from(place.map_err(io::Error::from)?);
            let metadata = place.metadata()?;
            if !metadata.is_file() {
                return Err(Reason::NotRegular(kind(&metadata)));
            }
            Ok((reopen(&place)?, metadata))
        };
        match open() {
            Ok((file, metadata)) => Ok(Self { path: path.to_owned(), file, metadata }),
            Err(reason) => Err(ReadError { path: path.to_owned(), reason }),
        }
    }

    /// Returns the path as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Returns the metadata of the file when it was opened.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Reads from the current position to the end, which must be at most `limit` bytes away.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: the file is unreadable, or too large, even if it only became so during the
    /// read.
    pub fn read(&self, limit: u64) -> Result<Vec<u8>, ReadError> {
        let failed = |reason| ReadError { path: self.path.clone(), reason };
        if self.metadata.len() > limit {
            return Err(failed(Reason::TooLarge(limit)));
        }
        // One byte more than expected, so that the first read also finds the end.
        let capacity = usize::try_from(self.metadata.len() + 1).unwrap_or(0);
        let mut bytes = Vec::with_capacity(capacity);
        let read = (&self.file).take(limit.saturating_add(1)).read_to_end(&mut bytes);
        match read {
            Ok(count) if count as u64 > limit => Err(failed(Reason::TooLarge(limit))),
            Ok(_) => Ok(bytes),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Reads like [`read`](Self::read), and returns UTF-8 text.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), and if the content is not UTF-8.
    pub fn read_text(&self, limit: u64) -> Result<String, ReadError> {
        let not_text = |_| ReadError { path: self.path.clone(), reason: Reason::NotText };
        String::from_utf8(self.read(limit)?).map_err(not_text)
    }
}

/// Opens the very file that an `O_PATH` descriptor refers to, for reading. `O_NONBLOCK` also keeps
/// another process's file lease (`F_SETLEASE`) from delaying this.
fn reopen(place: &File) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", place.as_raw_fd());
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    opened.map_err(|error| match error.kind() {
        // The file itself was found before, so `/proc` must be missing.
        ErrorKind::NotFound => io::Error::other("/proc/self/fd is missing; is /proc mounted?"),
        _ => error,
    })
}

/// Returns the name of a file type other than a regular file.
fn kind(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    match kind {
        _ if kind.is_dir() => "a directory",
        _ if kind.is_symlink() => "a symbolic link",
        _ if kind.is_fifo() => "a FIFO",
        _ if kind.is_socket() => "a socket",
        _ if kind.is_char_device() || kind.is_block_device() => "a device",
        _ => "no file",
    }
}

#[cfg(test)]
mod tests;
