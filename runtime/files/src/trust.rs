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
mod tests {
    use std::fs::{self, Permissions};
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use heddle_requires::requires;
    use tempfile::TempDir;

    use super::*;

    /// Creates a directory `plugins` with a file in it, both with usual modes.
    fn place() -> (TempDir, PathBuf, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let plugins = directory.path().canonicalize().unwrap().join("plugins");
        fs::create_dir(&plugins).unwrap();
        let file = plugins.join("x.wasm");
        fs::write(&file, "").unwrap();
        set_mode(&plugins, 0o755);
        set_mode(&file, 0o644);
        (directory, plugins, file)
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn refused(path: &Path) -> String {
        vouch(path).unwrap_err().to_string()
    }

    #[test]
    fn own_file_in_own_directory_is_trusted() {
        let (_directory, plugins, file) = place();
        vouch(&plugins).unwrap();
        vouch(&file).unwrap();
        RegularFile::open(&file).unwrap().vouch().unwrap();
    }

    #[test]
    fn file_that_others_can_write_is_refused() {
        let (_directory, plugins, file) = place();
        for mode in [0o664, 0o646, 0o666] {
            set_mode(&file, mode);
            let error = RegularFile::open(&file).unwrap().vouch().unwrap_err();
            assert!(matches!(error.untrusted, Untrusted::Mode(found) if found == mode), "{error}");
            let path = file.display();
            assert!(refused(&file).starts_with(&format!("{path} has mode {mode:o}, ")));
            assert!(refused(&file).ends_with(&format!("chmod go-w {path}")));
        }
        vouch(&plugins).unwrap();
    }

    #[test]
    fn directory_that_others_can_write_is_refused() {
        let (_directory, plugins, file) = place();
        for mode in [0o775, 0o757, 0o777, 0o1777] {
            set_mode(&plugins, mode);
            let named = format!("{} has mode {mode:o}, ", plugins.display());
            assert!(refused(&plugins).starts_with(&named), "{}", refused(&plugins));
        }
        // The file itself is trusted, and in a sticky directory it stays in place.
        vouch(&file).unwrap();
        set_mode(&plugins, 0o777);
        assert!(refused(&file).starts_with(&format!("{} has mode 777", plugins.display())));
    }

    #[test]
    fn directory_above_that_others_can_write_is_refused() {
        let (directory, plugins, file) = place();
        set_mode(directory.path(), 0o777);
        let above = plugins.parent().unwrap().display().to_string();
        for path in [&plugins, &file] {
            assert!(refused(path).starts_with(&format!("{above} has mode 777")));
        }
        set_mode(directory.path(), 0o1777);
        vouch(&plugins).unwrap();
    }

    #[test]
    fn link_is_as_trusted_as_its_target() {
        let (_directory, plugins, file) = place();
        let (_elsewhere, other, target) = place();
        let link = plugins.join("link.wasm");
        symlink(&target, &link).unwrap();
        vouch(&link).unwrap();
        set_mode(&other, 0o777);
        assert!(refused(&link).starts_with(&other.display().to_string()));
        vouch(&file).unwrap();
    }

    #[test]
    fn missing_path_is_named() {
        let error = vouch(Path::new("/nonexistent/plugins")).unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent/plugins cannot be checked: "));
        assert!(
            matches!(error.untrusted, Untrusted::Io(error) if error.kind() == io::ErrorKind::NotFound)
        );
    }

    #[test]
    fn rule_of_owners_and_modes_holds_for_every_user() {
        let judged = |owner, expected, mode, is_above| match judge(owner, expected, mode, is_above)
        {
            Ok(()) => "trusted",
            Err(Untrusted::Owner { owner: named, expected: user }) => {
                assert_eq!((named, user), (owner, expected));
                "owner"
            }
            Err(Untrusted::Mode(named)) => {
                assert_eq!(named, mode);
                "mode"
            }
            Err(Untrusted::Io(error)) => panic!("nothing is read: {error}"),
        };
        for (owner, expected, mode, itself, above) in [
            (0, 0, 0o644, "trusted", "trusted"),
            (0, 1000, 0o644, "trusted", "trusted"),
            (1000, 1000, 0o755, "trusted", "trusted"),
            (65534, 0, 0o644, "owner", "owner"),
            (65534, 1000, 0o600, "owner", "owner"),
            (1000, 0, 0o755, "owner", "owner"),
            (0, 0, 0o664, "mode", "mode"),
            (0, 1000, 0o646, "mode", "mode"),
            (1000, 1000, 0o777, "mode", "mode"),
            (0, 1000, 0o1777, "mode", "trusted"),
            (1000, 1000, 0o1775, "mode", "trusted"),
            // The owner of a sticky directory can rename the files in it.
            (65534, 1000, 0o1777, "owner", "owner"),
        ] {
            let found = [false, true].map(|is_above| judged(owner, expected, mode, is_above));
            assert_eq!(found, [itself, above], "{owner} {expected} {mode:o}");
        }
    }

    #[test]
    fn file_of_another_owner_is_refused() {
        // To give files away; the rule itself is tested above.
        requires!(Root);
        let (_directory, plugins, file) = place();
        chown(&file, Some(65534), None).unwrap();
        let error = RegularFile::open(&file).unwrap().vouch().unwrap_err().to_string();
        let path = file.display();
        assert!(error.starts_with(&format!("{path} belongs to user 65534, who can")), "{error}");
        assert!(error.ends_with(&format!("expected root; to trust it as it is: chown 0 {path}")));
        chown(&file, Some(0), None).unwrap();
        chown(&plugins, Some(65534), None).unwrap();
        assert!(
            refused(&file).starts_with(&format!("{} belongs to user 65534", plugins.display()))
        );
    }

    #[test]
    fn other_owner_is_named() {
        let (owner, expected) = (65534, 1000);
        let said = Untrusted::Owner { owner, expected }.to_string();
        assert!(said.starts_with("belongs to user 65534, "), "{said}");
        assert!(said.ends_with(": expected root, or user 1000 who runs this"), "{said}");
    }
}
