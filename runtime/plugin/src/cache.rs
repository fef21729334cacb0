//! Compiled plugins on disk, so that a start does not compile.
//!
//! An entry is a file named by what it was made from (the component's SHA-256 and the engine's fingerprint): the
//! SHA-256 of the native code, then the code. The hash finds damage; against forgery there is only the directory, which
//! must belong to this user and be writable by nobody else.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::{NamedTempFile, TempDir};

use crate::engine::{FINGERPRINT, TrustedCode};

const HASH: usize = 32;

/// What entries' names end with.
const EXTENSION: &str = ".cwasm";

/// Links are not followed (open(2)).
const O_NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

/// Group's and others' permission to write.
const FOREIGN_WRITE: u32 = 0o022;

/// A cache directory that cannot be trusted or used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It is not a directory.
    #[error("is not a directory (symbolic links are not followed)")]
    NotADirectory,
    /// It belongs to someone else.
    #[error(
        "belongs to user {owner}: expected user {expected}, who runs this, because code in it is run unchecked"
    )]
    Owner {
        /// User id of the owner.
        owner: u32,
        /// User id that runs this.
        expected: u32,
    },
    /// Others can write to it.
    #[error("has mode {0:o}: expected 700, because code in it is run unchecked")]
    Mode(u32),
    /// The operating system says no.
    #[error("cannot be used: {0}")]
    Io(#[from] io::Error),
}

/// A directory that was checked.
pub(crate) struct Cache {
    dir: PathBuf,
}

/// Native code that was read from a checked directory.
pub(crate) struct CachedCode(Vec<u8>);

impl CachedCode {
    pub(crate) fn trusted(&self) -> TrustedCode<'_> {
        TrustedCode::vouch(&self.0[HASH..])
    }
}

impl Cache {
    /// Opens a cache directory, and makes it if need be.
    pub(crate) fn open(dir: &Path) -> Result<Self, CacheError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).or_else(|error| {
            match error.kind() {
                // Looked at below.
                io::ErrorKind::AlreadyExists => Ok(()),
                _ => Err(error),
            }
        })?;
        let metadata = fs::symlink_metadata(dir)?;
        if !metadata.is_dir() {
            return Err(CacheError::NotADirectory);
        }
        let (owner, expected) = (metadata.uid(), rustix::process::geteuid().as_raw());
        if owner != expected {
            return Err(CacheError::Owner { owner, expected });
        }
        let mode = metadata.mode() & 0o7777;
        if mode & FOREIGN_WRITE != 0 {
            return Err(CacheError::Mode(mode));
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// The code made from a component, by its digest. An entry that is damaged, or that somebody else could have made
    /// or can change, is the same as none.
    pub(crate) fn get(&self, digest: &str) -> Option<CachedCode> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).custom_flags(O_NOFOLLOW).open(self.entry(digest)).ok()?;
        let metadata = file.metadata().ok()?;
        let ours = metadata.is_file()
            && metadata.uid() == rustix::process::geteuid().as_raw()
            && metadata.mode() & FOREIGN_WRITE == 0
            && metadata.nlink() == 1;
        if !ours {
            return None;
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        let (hash, code) = bytes.split_at_checked(HASH)?;
        (Sha256::digest(code).as_slice() == hash).then_some(CachedCode(bytes))
    }

    /// Keeps code that was made from a component. Whoever reads at the same time sees all of it or nothing. What other
    /// engines made goes: with an upgrade there is nobody left who could load it.
    pub(crate) fn put(&self, digest: &str, code: &[u8]) -> Result<CachedCode, CacheError> {
        let mut bytes = Sha256::digest(code).to_vec();
        bytes.extend_from_slice(code);
        let mut file = NamedTempFile::new_in(&self.dir)?;
        file.write_all(&bytes)?;
        file.as_file().sync_all()?;
        file.persist(self.entry(digest)).map_err(|error| error.error)?;
        self.prune();
        Ok(CachedCode(bytes))
    }

    fn prune(&self) {
        let current = format!("-{FINGERPRINT}{EXTENSION}");
        for file in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = file.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(EXTENSION) && !name.ends_with(&current) {
                // It will be tried again.
                let _ = fs::remove_file(file.path());
            }
        }
    }

    /// A place to work in, removed with everything in it when it is dropped.
    pub(crate) fn workplace(&self) -> Result<TempDir, CacheError> {
        Ok(tempfile::Builder::new().prefix("compile-").tempdir_in(&self.dir)?)
    }

    fn entry(&self, digest: &str) -> PathBuf {
        self.dir.join(format!("{digest}-{FINGERPRINT}{EXTENSION}"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_new_directory_is_ours_alone() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("cache");
        Cache::open(&dir).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        assert!(Cache::open(&dir).is_ok());
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o770, 0o707, 0o777, 0o1777] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert!(
                matches!(Cache::open(dir.path()), Err(CacheError::Mode(found)) if found == mode)
            );
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Cache::open(dir.path()).is_ok());
    }

    #[test]
    fn a_link_to_a_directory_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let (target, link) = (parent.path().join("target"), parent.path().join("link"));
        fs::create_dir(&target).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(matches!(Cache::open(&link), Err(CacheError::NotADirectory)));
    }

    #[test]
    fn an_entry_that_somebody_else_could_have_made_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let (entry, copy) = (cache.entry("d"), dir.path().join("copy"));
        let fresh = || {
            cache.put("d", b"code").unwrap();
            assert!(cache.get("d").is_some());
        };
        fresh();
        fs::set_permissions(&entry, fs::Permissions::from_mode(0o660)).unwrap();
        assert!(cache.get("d").is_none());
        fresh();
        fs::rename(&entry, &copy).unwrap();
        std::os::unix::fs::symlink(&copy, &entry).unwrap();
        assert!(cache.get("d").is_none());
        fresh();
        fs::remove_file(&copy).unwrap();
        fs::hard_link(&entry, &copy).unwrap();
        assert!(cache.get("d").is_none());
        fs::remove_file(&copy).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&entry, Some(65534), None).unwrap();
            assert!(cache.get("d").is_none());
        }
        fresh();
    }

    #[test]
    fn what_another_engine_made_goes_once_there_is_something_new() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        cache.put("old", b"code").unwrap();
        let foreign = dir.path().join("old-0123456789abcdef.cwasm");
        let other = dir.path().join("notes");
        fs::write(&foreign, "").unwrap();
        fs::write(&other, "").unwrap();
        cache.put("new", b"code").unwrap();
        assert!(!foreign.exists() && other.exists());
        assert!(cache.get("old").is_some() && cache.get("new").is_some());
    }

    #[test]
    fn a_damaged_entry_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        assert!(cache.get("d").is_none());
        cache.put("d", b"code").unwrap();
        assert_eq!(&cache.get("d").unwrap().0[HASH..], b"code");
        let mut bytes = fs::read(cache.entry("d")).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(cache.entry("d"), &bytes).unwrap();
        assert!(cache.get("d").is_none());
        fs::write(cache.entry("d"), b"short").unwrap();
        assert!(cache.get("d").is_none());
    }
}
