//! What a watch delivers.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::Record;

/// Number of events that wait for a slow consumer before the watch waits with it. Each may have as many bytes as a
/// [`Page`].
const QUEUE: usize = 4;

/// One change of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordChange {
    /// Created or replaced.
    Put(Record),
    /// Removed or expired; the key.
    Delete(String),
}

impl RecordChange {
    /// The key of the record that changed.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(record) => &record.key,
            Self::Delete(key) => key,
        }
    }
}

/// A part of all records, some megabytes at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order of their keys. May be empty.
    pub records: Vec<Record>,
    /// True if the list begins with this page. An earlier list that has not come to its end is void.
    pub first: bool,
    /// True if the list is complete with this page.
    pub last: bool,
}

/// News of the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// A part of all that there is. What is in none of the pages from the first to the last does not exist any more.
    Snapshot(Page),
    /// What changed since the last update, in the order in which it happened. One key may occur more than once.
    Changes(Vec<RecordChange>),
}

impl Update {
    /// Returns true if the consumer knows all records after this update: it is not a page with others to follow.
    pub fn is_complete(&self) -> bool {
        match self {
            Self::Snapshot(page) => page.last,
            Self::Changes(_) => true,
        }
    }
}

/// What a watch says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// The records as they are now. Changes, and the last page of a snapshot, end staleness.
    Update(Update),
    /// The bytes of the network config, if there is one: before the first snapshot, and whenever they have changed.
    Config(Option<Vec<u8>>),
    /// Updates cannot be had at present. The next update is a snapshot. Said again when the reason changes.
    Stale {
        /// Why, in one sentence without a full stop.
        reason: String,
    },
    /// The store went back to an earlier state: it lost data, or was restored. The snapshot that follows may lack records
    /// whose owners have not written them again.
    SetBack {
        /// How that was seen, in one sentence without a full stop.
        reason: String,
    },
}

/// When a store was last heard, whether or not it had news. Clones are of the same store.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<Mutex<Option<Instant>>>);

impl Pulse {
    /// It is heard now.
    pub(crate) fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// When it was last heard. None: not yet.
    pub fn last(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running watch. It starts with the network config and a snapshot, or with the reason why there are none yet.
#[derive(Debug)]
pub struct Watch {
    events: mpsc::Receiver<WatchEvent>,
    pulse: Pulse,
    task: JoinHandle<()>,
}

impl Watch {
    /// Runs a watch as a task of its own, for whoever implements a store. The task ends when the watch is dropped.
    pub fn spawn<F>(run: impl FnOnce(mpsc::Sender<WatchEvent>, Pulse) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, events) = mpsc::channel(QUEUE);
        let pulse = Pulse::default();
        Self { events, task: tokio::spawn(run(sender, pulse.clone())), pulse }
    }

    /// When the store was last heard: to be asked while somebody else waits for [`next`](Self::next).
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// The next event. May be dropped while it waits; nothing is lost.
    ///
    /// None only when the runtime is shutting down.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        self.events.recv().await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
