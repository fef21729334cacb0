//! Watch of a directory.
//!
//! The kernel's notifications (inotify(7)) only trigger a scan; changes are found by reading the
//! directory and comparing. So it does not matter which events there were, whether some were lost,
//! or whether the directory has been replaced by another one.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

use heddle_core::record::{Age, RecordChange};
use heddle_watches::Watches;

use super::{CONFIG, DirectoryError, Layout, PAGE_BYTES, PAGE_RECORDS};
use crate::outage::Outage;
use crate::watch::{Pulse, Update, WatchEvent};
use crate::{Stored, bounded_key};

/// Interval between scans without a notification. Network file systems notify of local changes
/// only.
const RESCAN: Duration = Duration::from_secs(5);

/// Interval between retries while the directory cannot be read.
const RETRY: Duration = Duration::from_secs(1);

/// Version and age of a record, which together identify one state of a file.
type Fingerprint = (u64, Age);

fn fingerprint(stored: &Stored) -> Fingerprint {
    (stored.handle.version, stored.record.age)
}

/// The state that was delivered to the consumer.
#[derive(Default)]
struct Delivered {
    /// Records by key. None before the first snapshot, and after an error, which makes the next
    /// update a snapshot.
    records: Option<BTreeMap<String, Fingerprint>>,
    config: Option<Option<Vec<u8>>>,
}

/// The consumer has dropped the watch.
struct ConsumerGone;

/// Delivers updates until the consumer drops the watch.
pub(super) async fn run(layout: Arc<Layout>, events: mpsc::Sender<WatchEvent>, pulse: Pulse) {
    let mut outage = Outage::new(format!("store: watch of {}", layout.subnets().display()));
    let changed = Arc::new(Notify::new());
    let (mut watches, mut told) = (Watches::default(), false);
    let mut delivered = Delivered::default();
    loop {
        let (subnets, notify) = (layout.subnets(), changed.clone());
        let directory = subnets.clone();
        let concerns = move |changed: &Path| concerns(&subnets, changed);
        // Before each scan, so that no change falls in between.
        let followed = watches.follow([&*directory], concerns, move || notify.notify_one());
        if let Err(error) = followed
            && !std::mem::replace(&mut told, true)
        {
            warn!(%error, "store: cannot watch the directory of lease files; polling it");
        }
        let (scanned, sender, shared_pulse) = (layout.clone(), events.clone(), pulse.clone());
        let scanning = spawn_blocking(move || {
            let deliver = &mut |event| {
                shared_pulse.beat();
                sender.blocking_send(event).is_ok()
            };
            (delivered.scan(&scanned, deliver), delivered)
        });
        let Ok((found, now)) = scanning.await else {
            return;
        };
        delivered = now;
        let pause = match found {
            Ok(Ok(())) => {
                pulse.beat();
                outage.end();
                RESCAN
            }
            Ok(Err(ConsumerGone)) => return,
            Err(error) => {
                delivered.records = None;
                let reason = error.to_string();
                if outage.begin(&reason) && events.send(WatchEvent::Stale { reason }).await.is_err()
                {
                    return;
                }
                RETRY
            }
        };
        // Notification or timeout: the next step is a scan either way.
        let _ = timeout(pause, changed.notified()).await;
    }
}

impl Delivered {
    /// Scans the directory and delivers what changed. `deliver` returns false when the consumer is
    /// gone.
    fn scan(
        &mut self,
        layout: &Layout,
        deliver: &mut dyn FnMut(WatchEvent) -> bool,
    ) -> Result<Result<(), ConsumerGone>, DirectoryError> {
        let config = layout.config()?;
        if self.config.as_ref() != Some(&config) {
            self.config = Some(config.clone());
            if !deliver(WatchEvent::Config(config)) {
                return Ok(Err(ConsumerGone));
            }
        }
        match &mut self.records {
            Some(known) => {
                let mut changes = Changes { list: Vec::new(), bytes: 0, deliver };
                changes.find(known, layout)
            }
            None => self.deliver_all(layout, deliver),
        }
    }

    fn deliver_all(
        &mut self,
        layout: &Layout,
        deliver: &mut dyn FnMut(WatchEvent) -> bool,
    ) -> Result<Result<(), ConsumerGone>, DirectoryError> {
        let mut known = BTreeMap::new();
        let mut listening = Ok(());
        layout.scan(&mut |page| {
            let records = page.records.iter();
            known.extend(records.map(|stored| (stored.key().to_owned(), fingerprint(stored))));
            if deliver(WatchEvent::Update(Update::Snapshot(page))) {
                return ControlFlow::Continue(());
            }
            listening = Err(ConsumerGone);
            ControlFlow::Break(())
        })?;
        self.records = Some(known);
        Ok(listening)
    }
}

/// Changes between the delivered state and the directory, delivered in batches.
struct Changes<'a> {
    list: Vec<RecordChange>,
    bytes: usize,
    deliver: &'a mut dyn FnMut(WatchEvent) -> bool,
}

impl Changes<'_> {
    fn find(
        &mut self,
        known: &mut BTreeMap<String, Fingerprint>,
        layout: &Layout,
    ) -> Result<Result<(), ConsumerGone>, DirectoryError> {
        let names: BTreeMap<String, OsString> =
            layout.names()?.into_iter().map(|name| (bounded_key(name.as_bytes()), name)).collect();
        let gone: Vec<_> = known.keys().filter(|key| !names.contains_key(*key)).cloned().collect();
        for key in gone {
            known.remove(&key);
            if !self.add(RecordChange::Delete(key)) {
                return Ok(Err(ConsumerGone));
            }
        }
        for (key, name) in names {
            let change = match layout.named(&name)? {
                Some(stored) => {
                    let now = fingerprint(&stored);
                    if known.insert(key, now) == Some(now) {
                        continue;
                    }
                    RecordChange::Put(stored.record)
                }
                // Deleted since its name was read.
                None if known.remove(&key).is_some() => RecordChange::Delete(key),
                None => continue,
            };
            if !self.add(change) {
                return Ok(Err(ConsumerGone));
            }
        }
        Ok(if self.flush() { Ok(()) } else { Err(ConsumerGone) })
    }

    /// Adds a change, and delivers the batch if it is full. Returns false when the consumer is
    /// gone.
    fn add(&mut self, change: RecordChange) -> bool {
        self.bytes += match &change {
            RecordChange::Put(record) => record.key.len() + record.value.len(),
            RecordChange::Delete(key) => key.len(),
        };
        self.list.push(change);
        let full = self.bytes >= PAGE_BYTES || self.list.len() == PAGE_RECORDS;
        !full || self.flush()
    }

    fn flush(&mut self) -> bool {
        self.bytes = 0;
        let list = std::mem::take(&mut self.list);
        list.is_empty() || (self.deliver)(WatchEvent::Update(Update::Changes(list)))
    }
}

/// Returns true if a changed path may change the leases in the directory or the network config
/// beside it.
fn concerns(directory: &Path, changed: &Path) -> bool {
    let root = directory.parent();
    let is_config = changed.file_name() == Some(CONFIG.as_ref()) && changed.parent() == root;
    let name = changed.file_name().unwrap_or_default();
    let is_hidden = name.as_encoded_bytes().starts_with(b".");
    directory.starts_with(changed) || changed.parent() == Some(directory) && !is_hidden || is_config
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::directory::write;

    fn look(delivered: &mut Delivered, layout: &Layout) -> Vec<WatchEvent> {
        let mut events = Vec::new();
        let deliver = &mut |event| {
            events.push(event);
            true
        };
        assert!(delivered.scan(layout, deliver).unwrap().is_ok());
        events
    }

    fn puts(event: &WatchEvent) -> Vec<&str> {
        match event {
            WatchEvent::Update(Update::Changes(changes)) => {
                changes.iter().map(RecordChange::key).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn scan_delivers_only_differences() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout { root: root.path().to_owned() };
        let directory = layout.subnets();
        fs::create_dir(&directory).unwrap();
        let put = |key: &str, value: &str| {
            write(&directory, &directory.join(key), value.as_bytes()).unwrap();
        };
        ["a", "b", "c"].into_iter().for_each(|key| put(key, "1"));
        let mut delivered = Delivered::default();
        assert!(matches!(
            &look(&mut delivered, &layout)[..],
            [WatchEvent::Config(None), WatchEvent::Update(Update::Snapshot(_))]
        ));
        assert_eq!(look(&mut delivered, &layout), []);
        fs::remove_file(directory.join("a")).unwrap();
        put("c", "2");
        put("d", "1");
        let events = look(&mut delivered, &layout);
        assert_eq!(events.iter().flat_map(puts).collect::<Vec<_>>(), ["a", "c", "d"]);
        assert!(matches!(
            &events[0],
            WatchEvent::Update(Update::Changes(changes)) if changes[0] == RecordChange::Delete("a".into())
        ));
        assert_eq!(look(&mut delivered, &layout), []);
    }

    #[test]
    fn many_changes_are_delivered_in_batches() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout { root: root.path().to_owned() };
        let directory = layout.subnets();
        fs::create_dir(&directory).unwrap();
        let mut delivered = Delivered::default();
        look(&mut delivered, &layout);
        for number in 0..40 {
            fs::write(directory.join(number.to_string()), vec![b'x'; 60_000]).unwrap();
        }
        let events = look(&mut delivered, &layout);
        assert_eq!(events.iter().map(|event| puts(event).len()).collect::<Vec<_>>(), [18, 18, 4]);
    }

    #[test]
    fn hidden_files_and_neighbours_are_no_change() {
        let concerned = |path: &str| concerns(Path::new("/leases/subnets"), Path::new(path));
        assert!(concerned("/leases/subnets/10.244.8.0-24") && concerned("/leases"));
        assert!(!concerned("/leases/subnets/.new-x"));
        assert!(concerned("/leases/config"));
        assert!(!concerned("/leases/notes") && !concerned("/config") && !concerned("/tmp"));
    }
}
