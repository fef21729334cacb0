//! Cache of compiled plugins on disk, so that a start does not compile.
//!
//! There are three kinds of files, each replaced atomically:
//! - *code*, named by its origin (the component's SHA-256 and the engine's fingerprint), mapped and
//!   not read;
//! - a *seal* beside it, with the code's SHA-256, which detects damage, and the code's stamp at the
//!   last comparison: while the stamp is unchanged, the code is not compared again;
//! - a *receipt* for each plugin, with the stamp of the component's file, its SHA-256 and its
//!   manifest: while the stamp is unchanged, the component is not read.
//!
//! So a plugin of many megabytes loads as fast as a small one. The only protection against forgery
//! is the directory, which must belong to this user and be writable by nobody else.

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use heddle_files::RegularFile;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::{NamedTempFile, TempDir};

use crate::engine::{FINGERPRINT, TrustedFile};

mod stamp;

pub(crate) use stamp::Stamp;

/// File name extension of code.
const CODE: &str = "cwasm";
/// File name extension of seals.
const SEAL: &str = "seal";
/// File name extension of receipts.
const RECEIPT: &str = "receipt";

/// Host version that receipts must match: another version might judge a manifest differently.
const HOST: &str = env!("CARGO_PKG_VERSION");

/// Size limit of a seal or receipt in bytes. Its longest part is a manifest, of at most 16 KiB.
const NOTE_LIMIT: u64 = 1 << 20;

/// Mode bits that allow the group and others to write.
const FOREIGN_WRITE: u32 = 0o022;

/// The reason why a cache directory cannot be trusted or used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The path is not a directory.
    #[error("is not a directory (symbolic links are not followed)")]
    NotADirectory,
    /// The directory belongs to another user.
    #[error(
        "belongs to user {owner}: expected user {expected}, who runs this, because code in it is run unchecked"
    )]
    Owner {
        /// User ID of the owner.
        owner: u32,
        /// User ID of this process.
        expected: u32,
    },
    /// Other users can write to the directory. Holds its mode.
    #[error("has mode {0:o}: expected 700, because code in it is run unchecked")]
    Mode(u32),
    /// An operation failed with this error.
    #[error("cannot be used: {0}")]
    Io(#[from] io::Error),
}

/// A cache directory whose owner and mode were checked.
pub(crate) struct Cache {
    dir: PathBuf,
}

/// Native code in a checked directory.
pub(crate) struct CachedCode(PathBuf);

impl CachedCode {
    pub(crate) fn trusted(&self) -> TrustedFile<'_> {
        TrustedFile::vouch(&self.0)
    }
}

/// Data about a component, recorded when it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// SHA-256 of the component, in hexadecimal.
    pub(crate) digest: String,
    /// The text of its manifest.
    pub(crate) manifest: String,
}

#[derive(Serialize, Deserialize)]
struct Receipt {
    host: String,
    path: PathBuf,
    component: Stamp,
    known: Known,
}

#[derive(Serialize, Deserialize)]
struct Seal {
    sha256: String,
    code: Stamp,
}

impl Cache {
    /// Opens a cache directory, and creates it if it is missing.
    pub(crate) fn open(dir: &Path) -> Result<Self, CacheError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).or_else(|error| {
            match error.kind() {
                // Checked below.
                io::ErrorKind::AlreadyExists => Ok(()),
                _ => Err(error),
            }
        })?;
        let metadata = fs::symlink_metadata(dir)?;
        if !metadata.is_dir() {
            return Err(CacheError::NotADirectory);
        }
        check_own(metadata.uid(), rustix::process::geteuid().as_raw(), metadata.mode() & 0o7777)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Returns the recorded data about the component in a file, unless the file has changed since.
    /// `plugin` is the plugin's name.
    pub(crate) fn recall(&self, plugin: &str, path: &Path) -> Option<Known> {
        let receipt: Receipt = self.read(&self.entry(plugin, RECEIPT))?;
        let component = Stamp::of(&fs::metadata(path).ok()?);
        let same = receipt.host == HOST && receipt.path == path && receipt.component == component;
        same.then_some(receipt.known)
    }

    /// Records data about the component in a file that had this stamp before and after it was read.
    /// A failure is harmless: the component is then read again.
    pub(crate) fn note(&self, plugin: &str, path: &Path, component: Stamp, known: Known) {
        if component.settled(SystemTime::now()) {
            let receipt = Receipt { host: HOST.into(), path: path.to_owned(), component, known };
            let _ = self.write_json(&self.entry(plugin, RECEIPT), &receipt);
        }
    }

    /// Returns the code compiled from the component with this digest. An entry that is damaged, or
    /// that another user could have created or can modify, counts as missing.
    pub(crate) fn get(&self, digest: &str) -> Option<CachedCode> {
        let (path, seal_path) = (self.entry(digest, CODE), self.entry(digest, SEAL));
        let seal: Seal = self.read(&seal_path)?;
        let file = open_own(&path)?;
        let stamp = Stamp::of(file.metadata());
        if seal.code != stamp {
            let mut hasher = Sha256::new();
            io::copy(&mut file.file(), &mut hasher).ok()?;
            if hex(hasher) != seal.sha256 {
                return None;
            }
            if stamp.settled(SystemTime::now()) {
                // Otherwise the code is compared again the next time.
                let _ = self.write_json(&seal_path, &Seal { code: stamp, ..seal });
            }
        }
        Some(CachedCode(path))
    }

    /// Stores code compiled from a component. Concurrent readers see all of it or nothing. Also
    /// removes the entries of other engines, which nobody can load any more after an upgrade.
    pub(crate) fn put(&self, digest: &str, code: &[u8]) -> Result<CachedCode, CacheError> {
        let path = self.entry(digest, CODE);
        let sha256 = hex(Sha256::new().chain_update(code));
        // Code without a matching seal counts as missing.
        self.write(&path, code)?;
        let stamp = Stamp::of(&fs::symlink_metadata(&path)?);
        stamp.settle();
        self.write_json(&self.entry(digest, SEAL), &Seal { sha256, code: stamp })?;
        self.prune();
        Ok(CachedCode(path))
    }

    fn prune(&self) {
        let kinds = [CODE, SEAL, RECEIPT];
        for file in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = file.file_name();
            let name = name.to_string_lossy();
            let Some((stem, kind)) = name.rsplit_once('.') else { continue };
            if kinds.contains(&kind) && !stem.ends_with(&format!("-{FINGERPRINT}")) {
                // A failed removal is retried at the next call.
                let _ = fs::remove_file(file.path());
            }
        }
    }

    fn read<T: DeserializeOwned>(&self, path: &Path) -> Option<T> {
        serde_json::from_slice(&open_own(path)?.read(NOTE_LIMIT).ok()?).ok()
    }

    fn write_json(&self, path: &Path, value: &impl Serialize) -> io::Result<()> {
        self.write(path, &serde_json::to_vec(value)?)
    }

    /// Replaces a file atomically.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = NamedTempFile::new_in(&self.dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    /// Creates a temporary directory in the cache. Dropping it removes it with its contents.
    pub(crate) fn workplace(&self) -> Result<TempDir, CacheError> {
        Ok(tempfile::Builder::new().prefix("compile-").tempdir_in(&self.dir)?)
    }

    fn entry(&self, name: &str, kind: &str) -> PathBuf {
        self.dir.join(format!("{name}-{FINGERPRINT}.{kind}"))
    }
}

/// Opens a file if it is regular, has a single link, and only this user can write to it.
fn open_own(path: &Path) -> Option<RegularFile> {
    let file = RegularFile::open_nofollow(path).ok()?;
    let metadata = file.metadata();
    let expected = rustix::process::geteuid().as_raw();
    check_own(metadata.uid(), expected, metadata.mode() & 0o7777).ok()?;
    (metadata.nlink() == 1).then_some(file)
}

/// Checks that a file or directory belongs to the user `expected`, and that nobody else can write
/// to it.
fn check_own(owner: u32, expected: u32, mode: u32) -> Result<(), CacheError> {
    if owner != expected {
        return Err(CacheError::Owner { owner, expected });
    }
    if mode & FOREIGN_WRITE != 0 {
        return Err(CacheError::Mode(mode));
    }
    Ok(())
}

fn hex(hasher: Sha256) -> String {
    format!("{:x}", hasher.finalize())
}

#[cfg(test)]
mod tests;
