//! Following a directory.
//!
//! The kernel's notifications (inotify(7)) say when to look; what has changed is found by reading the directory
//! and comparing. So it does not matter which events there were, whether some were lost, or whether the directory
//! is another one by now.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

use super::{CONFIG, DirectoryError, Layout};
use crate::Record;
use crate::outage::Outage;
use crate::watch::{Pulse, RecordChange, Update, WatchEvent};

/// How often to look without a notification. Network file systems notify of local changes alone.
const RESCAN: Duration = Duration::from_secs(5);

/// How often to look while the directory cannot be read.
const RETRY: Duration = Duration::from_secs(1);

type Records = BTreeMap<String, Record>;

/// Delivers updates until nobody listens.
pub(super) async fn run(layout: Arc<Layout>, events: mpsc::Sender<WatchEvent>, pulse: Pulse) {
    let mut outage = Outage::new(format!("the watch of {}", layout.subnets().display()));
    let changed = Arc::new(Notify::new());
    let mut ears = Ears::default();
    // What the consumer knows. None: nothing, or nothing that is still true.
    let mut known: Option<Records> = None;
    // What it was last told of the config.
    let mut config: Option<Option<Vec<u8>>> = None;
    loop {
        ears.listen(&layout, &changed);
        let scanned = layout.clone();
        let scan =
            spawn_blocking(move || Ok::<_, DirectoryError>((scanned.config()?, scanned.list()?)));
        let Ok(scan) = scan.await else {
            return;
        };
        let (event, pause) = match scan {
            Ok((now, records)) => {
                pulse.beat();
                outage.end();
                if config.as_ref() != Some(&now) {
                    config = Some(now.clone());
                    if events.send(WatchEvent::Config(now)).await.is_err() {
                        return;
                    }
                }
                let records: Records = records.into_iter().map(|r| (r.key.clone(), r)).collect();
                let update = match &known {
                    None => Some(Update::Snapshot(records.values().cloned().collect())),
                    Some(known) => changes(known, &records),
                };
                known = Some(records);
                (update.map(WatchEvent::Update), RESCAN)
            }
            Err(error) => {
                known = None;
                let reason = error.to_string();
                let news = outage.begin(&reason);
                (news.then_some(WatchEvent::Stale { reason }), RETRY)
            }
        };
        if let Some(event) = event
            && events.send(event).await.is_err()
        {
            return;
        }
        // Whichever it was, the next step is to look.
        let _ = timeout(pause, changed.notified()).await;
    }
}

/// The difference, if there is one.
fn changes(known: &Records, now: &Records) -> Option<Update> {
    let gone = known.keys().filter(|key| !now.contains_key(*key));
    let new = now.values().filter(|record| known.get(&record.key) != Some(record));
    let changes: Vec<_> = gone
        .map(|key| RecordChange::Delete(key.clone()))
        .chain(new.map(|record| RecordChange::Put(record.clone())))
        .collect();
    (!changes.is_empty()).then_some(Update::Changes(changes))
}

/// Listens to the directory and to those above it, as far as they exist.
#[derive(Default)]
struct Ears {
    watcher: Option<RecommendedWatcher>,
    /// What is listened to. A directory that was replaced has the same path and another inode.
    directories: Vec<Directory>,
}

#[derive(PartialEq, Eq)]
struct Directory {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Ears {
    /// Makes sure that the present directories are listened to. To be called before reading them, so that no change
    /// falls between. What cannot be listened to is seen late, by reading it every [`RESCAN`].
    fn listen(&mut self, layout: &Layout, changed: &Arc<Notify>) {
        let subnets = layout.subnets();
        let directories = existing(&subnets);
        if directories == self.directories {
            return;
        }
        let changed = changed.clone();
        let watcher = notify::recommended_watcher(move |event| {
            if concerns(&subnets, &event) {
                changed.notify_one();
            }
        });
        self.watcher = watcher
            .inspect_err(|error| warn!("no notifications of changed lease files: {error}"))
            .ok();
        for Directory { path, .. } in &directories {
            if let Some(watcher) = &mut self.watcher
                && let Err(error) = watcher.watch(path, RecursiveMode::NonRecursive)
            {
                warn!("no notifications of changes in {}: {error}", path.display());
            }
        }
        self.directories = directories;
    }
}

/// The directory and all above it, as far as they exist.
fn existing(directory: &Path) -> Vec<Directory> {
    directory
        .ancestors()
        .filter_map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some(Directory { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
        })
        .collect()
}

/// Whether an event may change what is in the directory.
fn concerns(directory: &Path, event: &notify::Result<notify::Event>) -> bool {
    let Ok(event) = event else { return true };
    match event.kind {
        // Our own reading is an event as well.
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
        EventKind::Access(_) => return false,
        _ => {}
    }
    // An overflow of the queue names no path.
    event.paths.is_empty()
        || event.paths.iter().any(|path| {
            let config = || {
                let root = directory.parent();
                path.file_name() == Some(CONFIG.as_ref()) && path.parent() == root
            };
            let hidden = || {
                let name = path.file_name().unwrap_or_default();
                name.as_encoded_bytes().starts_with(b".")
            };
            directory.starts_with(path) || path.parent() == Some(directory) && !hidden() || config()
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::record;
    use heddle_core::lease::Age;
    use notify::event::{CreateKind, ModifyKind, RenameMode};

    fn records(records: &[(&str, &str)]) -> Records {
        records
            .iter()
            .map(|(key, value)| {
                let record = record((*key).to_owned(), (*value).into(), Age::default());
                ((*key).to_owned(), record)
            })
            .collect()
    }

    #[test]
    fn changes_are_what_differs() {
        let known = records(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let now = records(&[("b", "1"), ("c", "2"), ("d", "1")]);
        assert_eq!(
            changes(&known, &now),
            Some(Update::Changes(vec![
                RecordChange::Delete("a".into()),
                RecordChange::Put(now["c"].clone()),
                RecordChange::Put(now["d"].clone()),
            ]))
        );
        assert_eq!(changes(&known, &known), None);
    }

    #[test]
    fn reading_and_hidden_files_and_neighbours_are_no_change() {
        let subnets = Path::new("/leases/subnets");
        let concerned = |kind, path: &str| {
            let event = notify::Event::new(kind).add_path(path.into());
            concerns(subnets, &Ok(event))
        };
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        assert!(concerned(renamed, "/leases/subnets/10.244.8.0-24"));
        assert!(concerned(
            EventKind::Access(AccessKind::Close(AccessMode::Write)),
            "/leases/subnets/10.244.8.0-24"
        ));
        assert!(concerned(EventKind::Create(CreateKind::Folder), "/leases"));
        assert!(!concerned(
            EventKind::Access(AccessKind::Open(AccessMode::Any)),
            "/leases/subnets/10.244.8.0-24"
        ));
        assert!(!concerned(renamed, "/leases/subnets/.new-x"));
        assert!(concerned(renamed, "/leases/config"));
        assert!(!concerned(renamed, "/leases/notes") && !concerned(renamed, "/config"));
        assert!(!concerned(EventKind::Create(CreateKind::File), "/tmp"));
    }
}
