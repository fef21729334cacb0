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

use std::collections::HashSet;
use std::fs::{self, DirBuilder, DirEntry, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

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

/// Beginning of the names of temporary directories for compilations.
const WORKPLACE: &str = "compile-";

/// Beginning of the names of files that are not complete yet.
const PARTIAL: &str = ".tmp";

/// Age at which nobody uses a temporary file, or code without a receipt, any more. A compilation
/// takes ten minutes at most.
const ABANDONED: Duration = Duration::from_secs(60 * 60);

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
    /// None if a change of the code could go unnoticed: then it is compared again.
    code: Option<Stamp>,
}

impl Seal {
    /// Creates the seal of code that was written just now. A clock that was set back makes the stamp
    /// one of the future, which does not settle.
    fn new(sha256: String, stamp: Stamp, now: SystemTime) -> Self {
        Self { sha256, code: stamp.settled(now).then_some(stamp) }
    }
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

    pub(crate) fn directory(&self) -> &Path {
        &self.dir
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
        if seal.code != Some(stamp) {
            let mut hasher = Sha256::new();
            io::copy(&mut file.file(), &mut hasher).ok()?;
            if hex(hasher) != seal.sha256 {
                return None;
            }
            if stamp.settled(SystemTime::now()) {
                // Otherwise the code is compared again the next time.
                let _ = self.write_json(&seal_path, &Seal { code: Some(stamp), ..seal });
            }
        }
        Some(CachedCode(path))
    }

    /// Stores code compiled from a component. Concurrent readers see all of it or nothing. Also
    /// removes what nobody uses any more, such as the entries of other engines after an upgrade.
    pub(crate) fn put(&self, digest: &str, code: &[u8]) -> Result<CachedCode, CacheError> {
        let path = self.entry(digest, CODE);
        let sha256 = hex(Sha256::new().chain_update(code));
        // Code without a matching seal counts as missing.
        self.write(&path, code)?;
        let stamp = Stamp::of(&fs::symlink_metadata(&path)?);
        stamp.wait_until_settled();
        let seal = Seal::new(sha256, stamp, SystemTime::now());
        self.write_json(&self.entry(digest, SEAL), &seal)?;
        self.prune();
        Ok(CachedCode(path))
    }

    /// Removes what nobody uses any more: entries of other engines, code that no receipt names, and
    /// what a process that was killed left behind. A failed removal is retried at the next call.
    fn prune(&self) {
        let files = || fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let receipts = files().filter_map(|file| {
            let path = file.path();
            let is_receipt = path.extension().is_some_and(|kind| kind == RECEIPT);
            is_receipt.then(|| self.read::<Receipt>(&path)).flatten()
        });
        let named: HashSet<String> = receipts.map(|receipt| receipt.known.digest).collect();
        for file in files() {
            let name = file.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(WORKPLACE) || name.starts_with(PARTIAL) {
                if is_abandoned(&file) {
                    let path = file.path();
                    let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
                }
                continue;
            }
            let Some((stem, kind)) = name.rsplit_once('.') else { continue };
            let is_unused = match (stem.strip_suffix(&format!("-{FINGERPRINT}")), kind) {
                (None, CODE | SEAL | RECEIPT) => true,
                (Some(digest), CODE | SEAL) => !named.contains(digest) && is_abandoned(&file),
                _ => false,
            };
            if is_unused {
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
        let mut file = NamedTempFile::with_prefix_in(PARTIAL, &self.dir).map_err(without_path)?;
        file.write_all(bytes).map_err(without_path)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    /// Creates a temporary directory in the cache. Dropping it removes it with its contents.
    pub(crate) fn workplace(&self) -> io::Result<TempDir> {
        workplace_in(&self.dir)
    }

    fn entry(&self, name: &str, kind: &str) -> PathBuf {
        self.dir.join(format!("{name}-{FINGERPRINT}.{kind}"))
    }
}

/// Returns true if a file or directory has not been changed for long enough that nobody uses it.
fn is_abandoned(file: &DirEntry) -> bool {
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    let age = modified.ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
    age.is_some_and(|age| age >= ABANDONED)
}

/// Creates a temporary directory for a compilation. Nobody else can write to it, whatever the umask
/// is, because the native code that the compiler leaves there is run unchecked.
pub(crate) fn workplace_in(parent: &Path) -> io::Result<TempDir> {
    let private = Permissions::from_mode(0o700);
    let created =
        tempfile::Builder::new().prefix(WORKPLACE).permissions(private).tempdir_in(parent);
    created.map_err(without_path)
}

/// Removes the path that `tempfile` appends to an error. It differs each time, so the log would take
/// a repeated error for a new one.
fn without_path(error: io::Error) -> io::Error {
    match error.to_string().rsplit_once(" at path ") {
        Some((reason, _)) => io::Error::new(error.kind(), reason),
        None => error,
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
