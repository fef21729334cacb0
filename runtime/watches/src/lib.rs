//! Notifications of changes in directories, by inotify(7).
//!
//! A notification says only that something may have changed: the caller looks. So it does not
//! matter which events there were, whether some were lost, or whether a directory has been replaced
//! by another one.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};

pub use notify::Error as WatchError;

/// Watches on directories and on those above, as far as they exist.
#[derive(Debug, Default)]
pub struct Watches {
    watcher: Option<RecommendedWatcher>,
    /// The watched directories. A directory that was replaced has the same path and another inode.
    directories: Vec<Directory>,
    /// True if a watch may be gone although the directory looks as before: it was moved away and
    /// back, its inode was used again, or the watch could not be set.
    is_incomplete: Arc<AtomicBool>,
}

#[derive(Debug, PartialEq, Eq)]
struct Directory {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Watches {
    /// Watches these directories from now on, and those above. To be called before each look at
    /// what is in them, so that no change falls in between: they may have been created or replaced.
    ///
    /// `on_change` is called on another thread after a change of a path for which `concerns` is
    /// true, and when events were lost. Both are kept for as long as the watched directories are
    /// the same; use another value of this type for others.
    ///
    /// # Errors
    ///
    /// The reason why some changes will not be noticed. The next call tries again.
    pub fn follow<'a>(
        &mut self,
        directories: impl IntoIterator<Item = &'a Path>,
        concerns: impl Fn(&Path) -> bool + Send + 'static,
        on_change: impl Fn() + Send + 'static,
    ) -> Result<(), WatchError> {
        let directories = existing(directories);
        if !self.is_incomplete.swap(false, Ordering::Relaxed) && directories == self.directories {
            return Ok(());
        }
        let watched: Vec<_> = directories.iter().map(|directory| directory.path.clone()).collect();
        let is_incomplete = Arc::new(AtomicBool::new(false));
        let ends_a_watch = is_incomplete.clone();
        let watcher = notify::recommended_watcher(move |event: Result<Event, WatchError>| {
            if event.as_ref().map_or(true, |event| is_replacement(event, &watched)) {
                ends_a_watch.store(true, Ordering::Relaxed);
            }
            if event.map_or(true, |event| is_change(&event, &concerns)) {
                on_change();
            }
        });
        let complete = watcher.and_then(|mut watcher| {
            let watch = |path| watcher.watch(path, RecursiveMode::NonRecursive);
            let complete =
                directories.iter().map(|directory| directory.path.as_path()).try_for_each(watch);
            self.watcher = Some(watcher);
            complete
        });
        is_incomplete.fetch_or(complete.is_err(), Ordering::Relaxed);
        (self.directories, self.is_incomplete) = (directories, is_incomplete);
        complete
    }
}

/// Returns directories and those above, as far as they exist, each once.
fn existing<'a>(directories: impl IntoIterator<Item = &'a Path>) -> Vec<Directory> {
    let mut paths: Vec<_> = directories.into_iter().flat_map(Path::ancestors).collect();
    paths.sort();
    paths.dedup();
    let directory = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        Some(Directory { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    };
    paths.into_iter().filter_map(directory).collect()
}

/// Returns true if an event may be about the removal or replacement of a watched directory, after
/// which it is no longer watched.
fn is_replacement(event: &Event, watched: &[PathBuf]) -> bool {
    let moves = matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)));
    moves && event.paths.iter().any(|path| watched.contains(path))
}

/// Returns true if an event may be a change of a path that `concerns` the caller.
fn is_change(event: &Event, concerns: impl Fn(&Path) -> bool) -> bool {
    match event.kind {
        // Reads cause access events as well, those of the caller too.
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
        EventKind::Access(_) => return false,
        _ => {}
    }
    // An overflow of the inotify queue names no path.
    event.paths.is_empty() || event.paths.iter().any(|path| concerns(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// Deadline far beyond the delay of a notification on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A file below some directories, and the notifications of its changes.
    struct Watched {
        root: tempfile::TempDir,
        file: PathBuf,
        watches: Watches,
        changes: mpsc::Receiver<()>,
        sender: mpsc::Sender<()>,
    }

    impl Watched {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let file = root.path().join("run/flannel/subnet.env");
            let (sender, changes) = mpsc::channel();
            Self { root, file, watches: Watches::default(), changes, sender }
        }

        fn directory(&self) -> &Path {
            self.file.parent().unwrap()
        }

        fn follow(&mut self) {
            let (file, sender) = (self.file.clone(), self.sender.clone());
            let concerns = move |path: &Path| file.starts_with(path);
            let on_change = move || _ = sender.send(());
            let directory = self.file.parent().unwrap();
            self.watches.follow([directory], concerns, on_change).unwrap();
        }

        fn notices(&mut self, what: &str, change: impl FnOnce(&Path, &Path)) {
            self.follow();
            while self.changes.try_recv().is_ok() {}
            change(&self.file, self.directory());
            assert!(self.changes.recv_timeout(PATIENCE).is_ok(), "{what}");
        }
    }

    #[test]
    fn every_change_of_file_and_directory_is_noticed() {
        let mut watched = Watched::new();
        watched.notices("directories", |_, directory| fs::create_dir_all(directory).unwrap());
        watched.notices("creation", |file, _| fs::write(file, "text").unwrap());
        watched.notices("content", |file, _| fs::write(file, "test").unwrap());
        watched.notices("mode", |file, _| {
            fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
        });
        watched.notices("deletion", |file, _| fs::remove_file(file).unwrap());
        watched
            .notices("removal of the directory", |_, directory| fs::remove_dir(directory).unwrap());
        watched.notices("another directory", |_, directory| fs::create_dir(directory).unwrap());
        watched.notices("creation there", |file, _| fs::write(file, "text").unwrap());
    }

    #[test]
    fn directory_that_was_moved_away_and_back_is_watched_again() {
        let mut watched = Watched::new();
        fs::create_dir_all(watched.directory()).unwrap();
        let aside = watched.root.path().join("aside");
        watched.notices("the move", |_, directory| {
            fs::rename(directory, &aside).unwrap();
            fs::rename(&aside, directory).unwrap();
        });
        // All that the moves cause is here before the next change.
        while watched.changes.recv_timeout(Duration::from_millis(500)).is_ok() {}
        watched.notices("creation", |file, _| fs::write(file, "text").unwrap());
    }

    #[test]
    fn reads_and_other_paths_are_no_change() {
        let file = Path::new("/run/flannel/subnet.env");
        let concerned = |kind, path: &str| {
            is_change(&Event::new(kind).add_path(path.into()), |path: &Path| file.starts_with(path))
        };
        let any = EventKind::Any;
        assert!(concerned(any, "/run/flannel/subnet.env"));
        assert!(concerned(any, "/run/flannel") && concerned(any, "/run"));
        assert!(!concerned(any, "/run/flannel/.tmpX") && !concerned(any, "/run/heddle"));
        for mode in [AccessMode::Read, AccessMode::Any] {
            let read = EventKind::Access(AccessKind::Close(mode));
            assert!(!concerned(read, "/run/flannel/subnet.env"));
        }
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert!(concerned(written, "/run/flannel/subnet.env"));
        assert!(is_change(&Event::new(EventKind::Other), |_: &Path| false), "events were lost");
    }
}
