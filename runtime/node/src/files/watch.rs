//! Notifications of changes of files, by inotify(7).
//!
//! A notification says only that something may have changed: the caller looks. So it does not
//! matter which events there were, whether some were lost, or whether a directory has been replaced
//! by another one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

/// A callback for changes. It is called on another thread.
pub(super) type OnChange = Arc<dyn Fn() + Send + Sync>;

/// Watches on the directories of files, and on those above, as far as they exist.
#[derive(Default)]
pub(super) struct Watches {
    watcher: Option<RecommendedWatcher>,
    files: Vec<PathBuf>,
    /// The watched directories. A directory that was replaced has the same path and another inode.
    directories: Vec<Directory>,
}

#[derive(Debug, PartialEq, Eq)]
struct Directory {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Watches {
    /// Watches these files from now on, and no others. To be called before each look at the files,
    /// so that no change falls in between: their directories may have been created or replaced.
    ///
    /// # Errors
    ///
    /// The reason why some changes will not be noticed.
    pub(super) fn follow(
        &mut self,
        files: &[PathBuf],
        on_change: &OnChange,
    ) -> Result<(), notify::Error> {
        let directories = existing(files);
        if directories == self.directories && files == self.files {
            return Ok(());
        }
        let (watched, on_change) = (files.to_vec(), on_change.clone());
        let mut watcher = notify::recommended_watcher(move |event| {
            if concerns(&watched, &event) {
                on_change();
            }
        })?;
        let mut complete = Ok(());
        for Directory { path, .. } in &directories {
            complete = complete.and(watcher.watch(path, RecursiveMode::NonRecursive));
        }
        (self.watcher, self.directories) = (Some(watcher), directories);
        self.files = files.to_vec();
        complete
    }
}

/// Returns the directories above files, as far as they exist, each once.
fn existing(files: &[PathBuf]) -> Vec<Directory> {
    let mut paths: Vec<_> = files.iter().flat_map(|file| file.ancestors().skip(1)).collect();
    paths.sort();
    paths.dedup();
    let directory = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        Some(Directory { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    };
    paths.into_iter().filter_map(directory).collect()
}

/// Returns true if an event may change one of the files.
fn concerns(files: &[PathBuf], event: &notify::Result<notify::Event>) -> bool {
    let Ok(event) = event else { return true };
    match event.kind {
        // Reads cause access events as well, those of the caller too.
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
        EventKind::Access(_) => return false,
        _ => {}
    }
    // An overflow of the inotify queue names no path.
    event.paths.is_empty()
        || event.paths.iter().any(|path| files.iter().any(|file| file.starts_with(path)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// Deadline far beyond the delay of a notification on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn every_change_of_file_and_directory_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("run/flannel/subnet.env");
        let (sender, changes) = mpsc::channel();
        let on_change: OnChange = Arc::new(move || _ = sender.send(()));
        let mut watches = Watches::default();
        let mut notices = |what: &str, change: &dyn Fn()| {
            watches.follow(std::slice::from_ref(&file), &on_change).unwrap();
            while changes.try_recv().is_ok() {}
            change();
            assert!(changes.recv_timeout(PATIENCE).is_ok(), "{what}");
        };
        let directory = file.parent().unwrap();
        notices("directories", &|| fs::create_dir_all(directory).unwrap());
        notices("creation", &|| fs::write(&file, "text").unwrap());
        notices("content", &|| fs::write(&file, "test").unwrap());
        notices("mode", &|| {
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        });
        notices("deletion", &|| fs::remove_file(&file).unwrap());
        notices("removal of the directory", &|| fs::remove_dir(directory).unwrap());
        notices("another directory", &|| fs::create_dir(directory).unwrap());
        notices("creation there", &|| fs::write(&file, "text").unwrap());
    }

    #[test]
    fn reads_and_other_files_are_no_change() {
        let files = [PathBuf::from("/run/flannel/subnet.env")];
        let concerned = |kind, path: &str| {
            let event = notify::Event::new(kind).add_path(path.into());
            concerns(&files, &Ok(event))
        };
        let any = EventKind::Any;
        assert!(concerned(any, "/run/flannel/subnet.env"));
        assert!(concerned(any, "/run/flannel") && concerned(any, "/run"));
        assert!(!concerned(any, "/run/flannel/.tmpX") && !concerned(any, "/run/heddle"));
        let read = EventKind::Access(AccessKind::Close(AccessMode::Read));
        assert!(!concerned(read, "/run/flannel/subnet.env"));
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert!(concerned(written, "/run/flannel/subnet.env"));
    }
}
