//! A lease store in a directory of files, for labs and static clusters.
//!
//! `PATH/config` holds the network config, and each `PATH/subnets/<key>` holds one lease, with the
//! same values as in etcd. Any number of daemons may share one directory. Leases do not expire: a
//! file stays until somebody deletes it.
//!
//! Writes are atomic (written under a hidden name, synced, renamed), so a reader never sees half a
//! file. Each compare-and-swap holds an exclusive lock on `PATH/.lock` (flock(2)). People who edit
//! files by hand need no lock, but should write to another name and rename.
//!
//! Files are opened without blocking and read up to a size limit, so neither a FIFO nor a huge file
//! harms a reader.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, Permissions, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, ErrorKind, Write};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use async_trait::async_trait;
use heddle_core::lease::VALUE_LIMIT;
use heddle_core::record::{Age, Record, Unread};
use heddle_files::{ReadError, Reason, RegularFile};
use rustix::fs::OFlags;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

mod watch;

use crate::{Handle, LeaseStore, Page, Renewal, StoreError, Stored, Watch, bounded_key};

/// Name of the file with the network config.
const CONFIG: &str = "config";

/// Limit on the number of lease files. No cluster has that many nodes, and the watch keeps all
/// their names in memory.
const FILES: usize = 100_000;

/// Size at which a page is complete, in bytes of keys and values.
const PAGE_BYTES: usize = 1 << 20;
/// Number of records at which a page is complete.
const PAGE_RECORDS: usize = 1000;

/// Time limit for acquiring the lock that other writers may hold.
const LOCK_LIMIT: Duration = Duration::from_secs(5);

/// A failure of the directory store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// A file or directory cannot be read or written.
    #[error("cannot {action} {}: {reason}", path.display())]
    Io {
        /// The attempted action, a verb such as "read".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kind of error.
        kind: ErrorKind,
        /// The operating system's error message.
        reason: String,
    },
    /// A file that exists but is not read.
    #[error("{}: {reason}", path.display())]
    Unread {
        /// The file.
        path: PathBuf,
        /// The reason why it is not read.
        reason: Unread,
    },
    /// A directory with more files than the limit.
    #[error("{} has more than {FILES} files: delete those that are not leases", path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
    },
    /// The lock is held by another process for longer than the time limit.
    #[error("{} has been locked by another process for {} s", path.display(), LOCK_LIMIT.as_secs())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A key that is not a valid file name.
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
            Self::InvalidKey(_) | Self::Unread { .. } | Self::TooMany { .. } => false,
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

/// A lease store in a directory.
#[derive(Clone, Debug)]
pub struct DirectoryStore(Arc<Layout>);

impl DirectoryStore {
    /// Returns a store below this path. Reads nothing yet; missing directories are created with the
    /// first lease.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(Arc::new(Layout { root: path.into() }))
    }

    /// Runs file operations on Tokio's pool for blocking work.
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

    async fn scan(&self, visit: &mut (dyn FnMut(Page) + Send)) -> Result<(), StoreError> {
        // `visit` cannot be moved to the blocking thread, so that thread sends the pages here.
        let (sender, mut pages) = mpsc::channel(1);
        let reading = self.run(move |layout| {
            layout.scan(&mut |page| match sender.blocking_send(page) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            })
        });
        let visiting = async {
            while let Some(page) = pages.recv().await {
                visit(page);
            }
        };
        tokio::join!(reading, visiting).0
    }

    async fn find_key(
        &self,
        wanted: &(dyn for<'k> Fn(&'k str) -> bool + Sync),
    ) -> Result<Option<String>, StoreError> {
        let names = self.run(Layout::names).await?;
        Ok(names.iter().map(|name| bounded_key(name.as_bytes())).find(|key| wanted(key)))
    }

    async fn get(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        let key = key.to_owned();
        self.run(move |layout| layout.get(&key)).await
    }

    async fn create(&self, key: &str, value: &[u8]) -> Result<Option<Stored>, StoreError> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.run(move |layout| layout.put(&key, None, value)).await
    }

    async fn replace(&self, current: &Stored, value: &[u8]) -> Result<Option<Stored>, StoreError> {
        let (current, value) = (current.clone(), value.to_owned());
        self.run(move |layout| layout.put(current.key(), Some(&current), value)).await
    }

    async fn rename(
        &self,
        current: &Stored,
        key: &str,
        value: &[u8],
    ) -> Result<Option<Stored>, StoreError> {
        let (current, key, value) = (current.clone(), key.to_owned(), value.to_owned());
        self.run(move |layout| layout.rename(&current, &key, value)).await
    }

    async fn delete(&self, current: &Stored) -> Result<bool, StoreError> {
        let current = current.clone();
        self.run(move |layout| layout.delete(&current)).await
    }

    async fn renew(&self, _current: &Stored) -> Result<Renewal, StoreError> {
        Ok(Renewal::Permanent)
    }

    fn hosts(&self) -> Vec<String> {
        Vec::new()
    }

    async fn reload(&self) -> Result<(), StoreError> {
        // Nothing is cached.
        Ok(())
    }

    fn watch(&self) -> Watch {
        Watch::spawn(|events, pulse| watch::run(self.0.clone(), events, pulse))
    }
}

/// The store's paths, and the blocking file operations on them.
#[derive(Debug)]
struct Layout {
    root: PathBuf,
}

impl Layout {
    fn subnets(&self) -> PathBuf {
        self.root.join("subnets")
    }

    fn config(&self) -> Result<Option<Vec<u8>>, DirectoryError> {
        let path = self.root.join(CONFIG);
        match read(&path)? {
            Some(Found { unread: Some(reason), .. }) => {
                Err(DirectoryError::Unread { path, reason })
            }
            found => Ok(found.map(|found| found.value)),
        }
    }

    fn path_of(&self, key: &str) -> Result<PathBuf, DirectoryError> {
        if key.is_empty() || key.starts_with('.') || key.contains(['/', '\0']) {
            return Err(DirectoryError::InvalidKey(key.to_owned()));
        }
        Ok(self.subnets().join(key))
    }

    fn get(&self, key: &str) -> Result<Option<Stored>, DirectoryError> {
        let found = read(&self.path_of(key)?)?;
        Ok(found.map(|found| found.stored(key.to_owned())))
    }

    /// Returns the names of the files that may be leases, sorted.
    fn names(&self) -> Result<Vec<OsString>, DirectoryError> {
        let directory = self.subnets();
        let failed = |error| DirectoryError::io("read", &directory)(error);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if name.as_bytes().starts_with(b".") || entry.path().is_dir() {
                continue;
            }
            if names.len() == FILES {
                return Err(DirectoryError::TooMany { path: directory });
            }
            names.push(name);
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Reads one of the files that [`names`](Self::names) found. None if it was deleted since.
    fn named(&self, name: &OsString) -> Result<Option<Stored>, DirectoryError> {
        let key = bounded_key(name.as_bytes());
        match read(&self.subnets().join(name)) {
            Ok(found) => Ok(found.map(|found| found.stored(key))),
            // One unreadable file does not hide the others: it is reported as a record that was not
            // read.
            Err(DirectoryError::Io { kind, .. }) => {
                let (value, unread) = (Vec::new(), Some(Unread::Unreadable(kind)));
                Ok(Some(Found { value, unread, age: Age::default() }.stored(key)))
            }
            Err(error) => Err(error),
        }
    }

    /// Reads all files, page by page, until `visit` breaks.
    fn scan(&self, visit: &mut dyn FnMut(Page) -> ControlFlow<()>) -> Result<(), DirectoryError> {
        let mut page = Page { records: Vec::new(), first: true, last: false };
        let mut bytes = 0;
        for name in self.names()? {
            let Some(stored) = self.named(&name)? else { continue };
            bytes += stored.record.key.len() + stored.record.value.len();
            page.records.push(stored);
            if bytes >= PAGE_BYTES || page.records.len() == PAGE_RECORDS {
                let next = Page { records: Vec::new(), first: false, last: false };
                if visit(std::mem::replace(&mut page, next)).is_break() {
                    return Ok(());
                }
                bytes = 0;
            }
        }
        let _ = visit(Page { last: true, ..page });
        Ok(())
    }

    /// Writes a value if the file still matches `old`, where None means that there is no file.
    /// Returns the new record, or None if the file does not match.
    fn put(
        &self,
        key: &str,
        old: Option<&Stored>,
        value: Vec<u8>,
    ) -> Result<Option<Stored>, DirectoryError> {
        let put = |path: &Path| {
            write(&self.subnets(), path, &value)?;
            Ok(age(&fs::metadata(path)?))
        };
        let age = self.instead_of(old, key, put)?;
        Ok(age.map(|age| Found { value, unread: None, age }.stored(key.to_owned())))
    }

    /// Deletes a file that still matches `old`, and writes another one that does not exist yet.
    /// Returns None if either is not so.
    fn rename(
        &self,
        old: &Stored,
        key: &str,
        value: Vec<u8>,
    ) -> Result<Option<Stored>, DirectoryError> {
        let new = self.path_of(key)?;
        if new.try_exists().map_err(DirectoryError::io("read", &new))? {
            return Ok(None);
        }
        let rename = |path: &Path| {
            // The lease stays as it was if the process ends between the two.
            write(&self.subnets(), path, &value)?;
            fs::rename(path, &new)?;
            Ok(age(&fs::metadata(&new)?))
        };
        let age = self.instead_of(Some(old), old.key(), rename)?;
        Ok(age.map(|age| Found { value, unread: None, age }.stored(key.to_owned())))
    }

    /// Deletes the file if it still matches `old`. Returns false if it does not.
    fn delete(&self, old: &Stored) -> Result<bool, DirectoryError> {
        Ok(self.instead_of(Some(old), old.key(), |path| fs::remove_file(path))?.is_some())
    }

    /// Locks the store and applies `change` to a file if the file still matches `old`, then syncs
    /// the directory. Returns None if it does not match.
    #[expect(clippy::disallowed_methods, reason = "opens the directory itself, to sync it")]
    fn instead_of<T>(
        &self,
        old: Option<&Stored>,
        key: &str,
        change: impl FnOnce(&Path) -> io::Result<T>,
    ) -> Result<Option<T>, DirectoryError> {
        let path = self.path_of(key)?;
        let directory = self.subnets();
        fs::create_dir_all(&directory).map_err(DirectoryError::io("create", &directory))?;
        let _lock = self.lock()?;
        // The age of a value that was read is not compared: somebody may have written the same
        // value again. Of a value that was not read, only the reason and the age can be compared.
        let compared = |stored: &Stored| {
            let Record { value, unread, age, .. } = &stored.record;
            (value.clone(), unread.map(|unread| (unread, *age)))
        };
        let found = read(&path)?.map(|found| found.stored(key.to_owned()));
        if found.as_ref().map(compared) != old.map(compared) {
            return Ok(None);
        }
        let synced = |done| File::open(&directory)?.sync_all().map(|()| Some(done));
        change(&path).and_then(synced).map_err(DirectoryError::io("write", &path))
    }

    /// Acquires the store's lock. It is held until the returned file is dropped.
    #[expect(clippy::disallowed_methods, reason = "a blocking call has a thread of its own")]
    fn lock(&self) -> Result<File, DirectoryError> {
        let path = self.root.join(".lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .custom_flags(UNBLOCKED)
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
                // Random delays, so that no process loses every race for the lock.
                Err(TryLockError::WouldBlock) => {
                    std::thread::sleep(Duration::from_micros(fastrand::u64(500..5000)));
                }
            }
        }
    }
}

/// Content and age of a file when it was read.
#[derive(Debug)]
struct Found {
    value: Vec<u8>,
    unread: Option<Unread>,
    age: Age,
}

impl Found {
    fn stored(self, key: String) -> Stored {
        let Self { value, unread, age } = self;
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        unread.map(|unread| (unread, age)).hash(&mut hasher);
        let handle = Handle { version: hasher.finish(), lease_id: None };
        Stored { record: Record { key, value, unread, age }, handle }
    }
}

/// Flag with which opening a FIFO whose other end nobody has open does not block (open(2)).
const UNBLOCKED: i32 = OFlags::NONBLOCK.bits().cast_signed();

/// Returns the age of a file. Files are replaced as a whole, so creation and last write coincide.
fn age(metadata: &Metadata) -> Age {
    let since_1970 = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let nanos = since_1970.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    Age { made: nanos, written: nanos }
}

fn read(path: &Path) -> Result<Option<Found>, DirectoryError> {
    let read = || -> io::Result<_> {
        let unread = |unread, metadata: &Metadata| Found {
            value: Vec::new(),
            unread: Some(unread),
            age: age(metadata),
        };
        let file = match RegularFile::open(path) {
            Err(ReadError { reason: Reason::NotRegular(_), .. }) => {
                return Ok(unread(Unread::NotAFile, &fs::metadata(path)?));
            }
            opened => opened?,
        };
        match file.read(VALUE_LIMIT as u64) {
            Err(ReadError { reason: Reason::TooLarge(limit), .. }) => {
                // A file that has grown since it was opened is longer than its metadata says.
                let length = file.metadata().len().max(limit + 1);
                Ok(unread(Unread::TooLong(length), file.metadata()))
            }
            value => Ok(Found { value: value?, unread: None, age: age(&file.file().metadata()?) }),
        }
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
    fn key_that_leaves_the_directory_is_rejected() {
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
