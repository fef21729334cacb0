//! Trust checks: nobody else could have written a file or directory.
//!
//! The rule is that of sshd(8) for `authorized_keys`: the file and every directory above it belong
//! to root or to this process's user, and nobody else can write to them. One exception: a directory
//! above may be writable by others if it is sticky, such as `/tmp`, because only owners can rename
//! or remove files there.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use crate::RegularFile;

/// Write permission of the group and of others.
const FOREIGN_WRITE: u32 = 0o022;

/// Mode bit of a directory in which only its owner and a file's owner can rename or remove that
/// file.
const STICKY: u32 = 0o1000;

/// A file or directory that another user can change. The message names it, and the command that
/// fixes its permissions.
#[derive(Debug, thiserror::Error)]
#[error("{} {untrusted}{}", .path.display(), .untrusted.remedy(.path))]
pub struct TrustError {
    /// The file or directory: the one that was checked, or one above it. Symbolic links are
    /// resolved.
    pub path: PathBuf,
    /// The reason why the file or directory is not trusted.
    pub untrusted: Untrusted,
}

/// The reason why a file or directory is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// The file or directory belongs to another user.
    #[error("belongs to user {owner}, who can change it: expected {}", owners(*.expected))]
    Owner {
        /// User id of the owner.
        owner: u32,
        /// User id of this process.
        expected: u32,
    },
    /// Users other than the owner can write to the file or directory.
    #[error(
        "has mode {0:o}, so that others can change it: expected write permission for its owner alone"
    )]
    Mode(u32),
    /// The operating system failed to return its owner and mode.
    #[error("cannot be checked: {0}")]
    Io(#[from] io::Error),
}

impl Untrusted {
    /// Returns the command that makes the file or directory trusted, formatted as the end of a
    /// message.
    fn remedy(&self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::Owner { expected, .. } => {
                format!("; to trust it as it is: chown {expected} {path}")
            }
            Self::Mode(_) => format!("; to trust it as it is: chmod go-w {path}"),
            Self::Io(_) => String::new(),
        }
    }
}

fn owners(expected: u32) -> String {
    match expected {
        0 => "root".to_owned(),
        user => format!("root, or user {user} who runs this"),
    }
}

/// Checks that nobody but root and this process's user can change the object at this path, or
/// replace it.
///
/// # Errors
///
/// [`TrustError`], naming the first file or directory that another user can change, from the path
/// upwards.
pub fn vouch(path: &Path) -> Result<(), TrustError> {
    let failed = |path: &Path, untrusted| TrustError { path: path.to_owned(), untrusted };
    let resolved = path.canonicalize().map_err(|error| failed(path, error.into()))?;
    for (height, part) in resolved.ancestors().enumerate() {
        let found = part.symlink_metadata().map_err(Untrusted::Io);
        let checked = found.and_then(|found| check(&found, height > 0));
        checked.map_err(|untrusted| failed(part, untrusted))?;
    }
    Ok(())
}

impl RegularFile {
    /// Checks that nobody but root and this process's user can change this file, or replace it.
    ///
    /// # Errors
    ///
    /// As [`vouch`].
    pub fn vouch(&self) -> Result<(), TrustError> {
        // Check the open file first, since the path may lead to another one by now.
        check(self.metadata(), false)
            .map_err(|untrusted| TrustError { path: self.path().to_owned(), untrusted })?;
        vouch(self.path())
    }
}

fn check(found: &Metadata, is_above: bool) -> Result<(), Untrusted> {
    judge(found.uid(), geteuid().as_raw(), found.mode() & 0o7777, is_above)
}

/// Applies the rule to the owner and mode of a file or directory. `expected` is this process's
/// user. `is_above` is true for a directory above the one to be checked.
fn judge(owner: u32, expected: u32, mode: u32, is_above: bool) -> Result<(), Untrusted> {
    if owner != 0 && owner != expected {
        return Err(Untrusted::Owner { owner, expected });
    }
    let is_sticky = is_above && mode & STICKY != 0;
    if mode & FOREIGN_WRITE != 0 && !is_sticky {
        return Err(Untrusted::Mode(mode));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
