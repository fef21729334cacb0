//! A directory of lease files, for labs and static clusters.
//!
//! `PATH/config` is the network config and `PATH/subnets/<key>` a lease each, with the values that etcd would hold.
//! Any number of daemons may share one directory. Leases do not expire: a file is there until somebody deletes it.
//!
//! Files appear and change in one step (written under a hidden name, synced, renamed), so a reader never sees half
//! of one. What is compared and what is swapped for it lies under an exclusive lock on `PATH/.lock` (flock(2)).
//! People who edit files by hand need no lock, but do well to write elsewhere and rename.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, Permissions, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, ErrorKind, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use async_trait::async_trait;
use heddle_core::lease::Age;
use tokio::task::spawn_blocking;

mod watch;

use crate::{LeaseStore, Record, Renewal, StoreError, Watch};

/// The file with the network config.
const CONFIG: &str = "config";

/// How long to wait for others to finish their writes.
const LOCK_LIMIT: Duration = Duration::from_secs(5);

/// A failure of the directory store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// A file or directory cannot be read or written.
    #[error("cannot {action} {}: {reason}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// The kind of error.
        kind: ErrorKind,
        /// The system's words.
        reason: String,
    },
    /// Another process does not let go of the lock.
    #[error("{} has been locked by another process for {} s", path.display(), LOCK_LIMIT.as_secs())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A key that cannot be a file.
    #[error(
        "`{0}` cannot name a lease file: expected a text without `/` that does not start with a dot"
    )]
    InvalidKey(String),
    /// The runtime is shutting down.
    #[error("the daemon is stopping")]
    Stopping,
}

impl DirectoryError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { action, path, kind: error.kind(), reason: error.to_string() }
    }

    /// See [`StoreError::is_transient`].
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Locked { .. } | Self::Stopping => true,
            Self::InvalidKey(_) => false,
            Self::Io { kind, .. } => !matches!(
                kind,
                ErrorKind::PermissionDenied
                    | ErrorKind::ReadOnlyFilesystem
                    | ErrorKind::NotADirectory
                    | ErrorKind::IsADirectory
                    | ErrorKind::InvalidFilename
            ),
        }
    }
}

/// Leases in a directory.
#[derive(Clone, Debug)]
pub struct DirectoryStore(Arc<Layout>);

impl DirectoryStore {
    /// A store below this path. Nothing is read yet; what is missing is created with the first lease.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(Arc::new(Layout { root: path.into() }))
    }

    /// Does file work where it holds up nobody.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Layout) -> Result<T, DirectoryError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let layout = self.0.clone();
        let done = spawn_blocking(move || work(&layout)).await;
        Ok(done.unwrap_or(Err(DirectoryError::Stopping))?)
    }
}

#[async_trait]
impl LeaseStore for DirectoryStore {
    async fn network_config(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.run(Layout::config).await
    }

    async fn list(&self) -> Result<Vec<Record>, StoreError> {
        self.run(Layout::list).await
    }

    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        let key = key.to_owned();
        self.run(move |layout| layout.get(&key)).await
    }

    async fn create(&self, key: &str, value: &[u8]) -> Result<Option<Record>, StoreError> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.run(move |layout| layout.put(&key, None, value)).await
    }

    async fn replace(&self, current: &Record, value: &[u8]) -> Result<Option<Record>, StoreError> {
        let (current, value) = (current.clone(), value.to_owned());
        self.run(move |layout| layout.put(&current.key, Some(&current.value), value)).await
    }

    async fn delete(&self, current: &Record) -> Result<bool, StoreError> {
        let current = current.clone();
        self.run(move |layout| layout.delete(&current.key, &current.value)).await
    }

    async fn renew(&self, _current: &Record) -> Result<Renewal, StoreError> {
        Ok(Renewal::Permanent)
    }

    async fn addresses(&self) -> BTreeSet<IpAddr> {
        BTreeSet::new()
    }

    fn is_named(&self) -> bool {
        false
    }

    async fn reload(&self) -> Result<(), StoreError> {
        // Nothing is remembered.
        Ok(())
    }

    fn watch(&self) -> Watch {
        Watch::spawn(|events, pulse| watch::run(self.0.clone(), events, pulse))
    }
}

/// Where things are, and the work on them.
#[derive(Debug)]
struct Layout {
    root: PathBuf,
}

impl Layout {
    fn subnets(&self) -> PathBuf {
        self.root.join("subnets")
    }

    fn config(&self) -> Result<Option<Vec<u8>>, DirectoryError> {
        Ok(read(&self.root.join(CONFIG))?.map(|(value, _)| value))
    }

    fn path_of(&self, key: &str) -> Result<PathBuf, DirectoryError> {
        if key.is_empty() || key.starts_with('.') || key.contains(['/', '\0']) {
            return Err(DirectoryError::InvalidKey(key.to_owned()));
        }
        Ok(self.subnets().join(key))
    }

    fn get(&self, key: &str) -> Result<Option<Record>, DirectoryError> {
        let found = read(&self.path_of(key)?)?;
        Ok(found.map(|(value, age)| record(key.to_owned(), value, age)))
    }

    fn list(&self) -> Result<Vec<Record>, DirectoryError> {
        let directory = self.subnets();
        let failed = |error| DirectoryError::io("read", &directory)(error);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut records = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let key = entry.file_name().to_string_lossy().into_owned();
            if key.starts_with('.') || entry.path().is_dir() {
                continue;
            }
            // A file that was deleted since is none.
            if let Some((value, age)) = read(&entry.path())? {
                records.push(record(key, value, age));
            }
        }
        records.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(records)
    }

    /// Puts a value in the place of `old`, where none means no file. The new record if `old` was there.
    fn put(
        &self,
        key: &str,
        old: Option<&Vec<u8>>,
        value: Vec<u8>,
    ) -> Result<Option<Record>, DirectoryError> {
        let put = |path: &Path| {
            write(&self.subnets(), path, &value)?;
            Ok(age(&fs::metadata(path)?))
        };
        let age = self.instead_of(old, key, put)?;
        Ok(age.map(|age| record(key.to_owned(), value, age)))
    }

    /// Deletes `old`. Whether it was there.
    fn delete(&self, key: &str, old: &Vec<u8>) -> Result<bool, DirectoryError> {
        Ok(self.instead_of(Some(old), key, |path| fs::remove_file(path))?.is_some())
    }

    /// Changes a file, if its value is `old`.
    fn instead_of<T>(
        &self,
        old: Option<&Vec<u8>>,
        key: &str,
        change: impl FnOnce(&Path) -> io::Result<T>,
    ) -> Result<Option<T>, DirectoryError> {
        let path = self.path_of(key)?;
        let directory = self.subnets();
        fs::create_dir_all(&directory).map_err(DirectoryError::io("create", &directory))?;
        let _lock = self.lock()?;
        if read(&path)?.map(|(value, _)| value).as_ref() != old {
            return Ok(None);
        }
        let synced = |done| File::open(&directory)?.sync_all().map(|()| Some(done));
        change(&path).and_then(synced).map_err(DirectoryError::io("write", &path))
    }

    /// Held until it is dropped.
    fn lock(&self) -> Result<File, DirectoryError> {
        let path = self.root.join(".lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(DirectoryError::io("open", &path))?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => {
                    return Err(DirectoryError::io("lock", &path)(error));
                }
                Err(TryLockError::WouldBlock) if start.elapsed() > LOCK_LIMIT => {
                    return Err(DirectoryError::Locked { path });
                }
                // Uneven waits, so that it is not always the same one that comes too late.
                Err(TryLockError::WouldBlock) => {
                    std::thread::sleep(Duration::from_micros(rand::random_range(500..5000)));
                }
            }
        }
    }
}

fn record(key: String, value: Vec<u8>, age: Age) -> Record {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    Record { key, version: hasher.finish(), value, age, lease_id: None }
}

/// A file is replaced as a whole, so it was made when it was last written.
fn age(metadata: &Metadata) -> Age {
    let since_1970 = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let nanos = since_1970.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    Age { made: nanos, written: nanos }
}

fn read(path: &Path) -> Result<Option<(Vec<u8>, Age)>, DirectoryError> {
    let read = || -> io::Result<_> {
        let mut file = File::open(path)?;
        let mut value = Vec::new();
        file.read_to_end(&mut value)?;
        Ok((value, age(&file.metadata()?)))
    };
    match read() {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DirectoryError::io("read", path)(error)),
    }
}

fn write(directory: &Path, path: &Path, value: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(directory)?;
    file.write_all(value)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_leads_out_of_the_directory() {
        let layout = Layout { root: "/x".into() };
        for key in ["", ".", "..", ".lock", "../config", "a/b", "a\0b"] {
            assert_eq!(layout.path_of(key), Err(DirectoryError::InvalidKey(key.into())));
        }
        assert_eq!(
            layout.path_of("10.244.8.0-24&fc00:0:0:8::-64").unwrap(),
            Path::new("/x/subnets/10.244.8.0-24&fc00:0:0:8::-64")
        );
    }
}
