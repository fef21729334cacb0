//! Scratch directories, in memory if there is room, so that a busy disk does not slow down a lab.
//!
//! etcd waits for the disk before each answer, and a daemon before it reports that its files are
//! written; ext4 blocks all writers while another process syncs. On a real host `/run` is in
//! memory, and etcd has its own disk.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Once;

use rustix::fs::{StatVfsMountFlags, statfs, statvfs};
use tempfile::TempDir;

use crate::Error;
use crate::registry::{Cleanup, Registration, Stage};

/// The directory of POSIX shared memory (shm_overview(7)): a tmpfs on Linux, usually half the size
/// of the machine's memory.
const SHARED_MEMORY: &str = "/dev/shm";

/// The environment variable that overrides the location, for a machine with another tmpfs, or to
/// compare with a disk.
const VARIABLE: &str = "HEDDLE_LAB_DIR";

/// The free space in bytes that is required in memory: twice the default maximum size of an etcd (2
/// GiB), since its data may be copied. An empty etcd takes 128 MiB.
const ROOM: u64 = 4 << 30;

/// `f_type` of a tmpfs (statfs(2)).
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Name of a file in each directory that its process keeps locked.
const LOCK: &str = ".lock";

/// Prefix of the names of scratch directories.
const PREFIX: &str = "heddle-";

/// The location of scratch directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In a tmpfs.
    Memory(PathBuf),
    /// The directory for temporary files.
    Disk {
        /// The directory.
        path: PathBuf,
        /// The reason why memory is not used.
        reason: String,
    },
    /// The directory in the environment variable `HEDDLE_LAB_DIR`.
    Given(PathBuf),
}

impl Storage {
    /// Returns the location for a scratch directory created now.
    pub fn now() -> Self {
        if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
            return Self::Given(path.into());
        }
        let available = fs::read_to_string("/proc/meminfo").ok();
        let available = available.as_deref().and_then(available_memory).unwrap_or(0);
        match check_memory(Path::new(SHARED_MEMORY), available) {
            Ok(()) => Self::Memory(SHARED_MEMORY.into()),
            Err(reason) => Self::Disk { path: std::env::temp_dir(), reason },
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Memory(path) | Self::Disk { path, .. } | Self::Given(path) => path,
        }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(path) => write!(f, "memory ({})", path.display()),
            Self::Disk { path, reason } => write!(f, "disk ({}), because {reason}", path.display()),
            Self::Given(path) => write!(f, "{} ({VARIABLE})", path.display()),
        }
    }
}

/// Checks that a directory is a tmpfs with enough room, from which programs can be executed.
fn check_memory(path: &Path, available: u64) -> Result<(), String> {
    let shown = path.display();
    let unusable = |errno: rustix::io::Errno| format!("{shown} cannot be used: {errno}");
    let (found, flags) = (statfs(path).map_err(unusable)?, statvfs(path).map_err(unusable)?);
    if u64::try_from(found.f_type) != Ok(TMPFS_MAGIC) {
        return Err(format!("{shown} is no tmpfs"));
    }
    if flags.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        return Err(format!("{shown} is mounted with noexec"));
    }
    let free = flags.f_bavail.saturating_mul(flags.f_frsize);
    let room = free.min(available);
    if room < ROOM {
        return Err(format!(
            "{shown} has room for {} MiB, and it takes {}",
            room >> 20,
            ROOM >> 20
        ));
    }
    Ok(())
}

/// Parses `MemAvailable` from `/proc/meminfo`, in bytes.
fn available_memory(meminfo: &str) -> Option<u64> {
    let mut lines = meminfo.lines().filter_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes: u64 = lines.next()?.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// A directory that is removed when this value is dropped, or when a signal ends the process.
///
/// If a process is killed (SIGKILL), the next one removes its directories in memory.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _registration: Registration,
    /// The kernel unlocks it when the process ends in any way.
    _lock: File,
}

/// The path of a scratch directory, by which it is removed.
struct Directory(PathBuf);

impl Cleanup for Directory {
    fn clean_up(&self) {
        // The next process removes what is left.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Scratch {
    /// Creates a directory, in memory if there is room. `name` is a part of its name.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn new(name: &str) -> Result<Self, Error> {
        let storage = Storage::now();
        if let Storage::Memory(path) = &storage {
            static ONCE: Once = Once::new();
            ONCE.call_once(|| sweep(path));
        }
        Self::new_in(storage.path(), name)
    }

    /// Creates a directory for temporary files on disk, for data that does not fit in memory.
    pub(crate) fn on_disk(name: &str) -> Result<Self, Error> {
        Self::new_in(&std::env::temp_dir(), name)
    }

    fn new_in(parent: &Path, name: &str) -> Result<Self, Error> {
        let make = || -> std::io::Result<Self> {
            let name = format!("{PREFIX}{}-", name.strip_prefix(PREFIX).unwrap_or(name));
            let made = tempfile::Builder::new().prefix(&name).tempdir_in(parent)?;
            // The lock file must appear already locked, or another process would take the directory
            // for a dead one's.
            let (unlocked, locked) = (made.path().join(".new"), made.path().join(LOCK));
            let lock = File::create(&unlocked)?;
            lock.lock()?;
            fs::rename(unlocked, locked)?;
            let directory = Directory(made.path().to_owned());
            let registration = Registration::new(Stage::Directories, directory);
            Ok(Self { path: TempDir::keep(made), _registration: registration, _lock: lock })
        };
        make().map_err(Error::io(format!("creating a scratch directory in {}", parent.display())))
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Removes the scratch directories of this user's dead processes.
fn sweep(parent: &Path) {
    let own = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        // Does not follow symbolic links, which anybody can create here.
        let Ok(found) = entry.metadata() else { continue };
        let named = entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes());
        if !named || !found.is_dir() || found.uid() != own {
            continue;
        }
        let lock = File::open(entry.path().join(LOCK));
        if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
            // What cannot be removed now is left to another process.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_scratch_removes_directory() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::new_in(parent.path(), "heddle-1-2").unwrap();
        let path = scratch.path().to_owned();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("heddle-1-2-"), "{name}");
        fs::create_dir(path.join("data")).unwrap();
        drop(scratch);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_directories_of_dead_processes_are_swept() {
        let parent = tempfile::tempdir().unwrap();
        let live = Scratch::new_in(parent.path(), "live").unwrap();
        let path = |name: &str| parent.path().join(name);
        for name in ["heddle-dead", "heddle-unfinished", "other"] {
            fs::create_dir(path(name)).unwrap();
            fs::write(path(name).join("file"), "").unwrap();
        }
        for name in ["heddle-dead", "other"] {
            fs::write(path(name).join(LOCK), "").unwrap();
        }
        std::os::unix::fs::symlink(path("other"), path("heddle-link")).unwrap();
        sweep(parent.path());
        assert!(!path("heddle-dead").exists());
        for left in ["heddle-unfinished/file", "heddle-link", "other/file"] {
            assert!(path(left).exists(), "{left}");
        }
        assert!(live.path().join(LOCK).exists());
    }

    #[test]
    fn memory_location_requires_tmpfs_with_room() {
        let refused = |path: &str, available| check_memory(Path::new(path), available).unwrap_err();
        assert_eq!(refused("/proc", u64::MAX), "/proc is no tmpfs");
        assert!(refused("/nonexistent", u64::MAX).starts_with("/nonexistent cannot be used: "));
        // Whether or not the machine has shared memory, it is unusable without free memory.
        let reason = refused(SHARED_MEMORY, 1 << 20);
        assert!(
            ["room for 1 MiB, and it takes 4096", "no tmpfs", "noexec", "cannot be used"]
                .iter()
                .any(|expected| reason.contains(expected)),
            "{reason}"
        );
    }

    #[test]
    fn available_memory_is_parsed_in_bytes() {
        let text = "MemTotal:       100 kB\nMemFree:         1 kB\nMemAvailable:     42 kB\n";
        assert_eq!(available_memory(text), Some(42 * 1024));
        assert_eq!(available_memory("MemTotal: 1 kB\n"), None);
    }
}
