//! Watches, and the events they deliver.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use heddle_core::record::RecordChange;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::Stored;

/// Number of events queued for a slow consumer before the watch blocks (back pressure). Each may be
/// as large as a [`Page`].
const QUEUE: usize = 4;

/// A part of a list of all records, a few megabytes at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Records ordered by key. May be empty.
    pub records: Vec<Stored>,
    /// True if this page starts a list. An earlier list that lacks its last page is then void.
    pub first: bool,
    /// True if this page completes the list.
    pub last: bool,
}

/// An update of the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// A page of a snapshot of all records. A record that is in none of the pages from the first to
    /// the last no longer exists.
    Snapshot(Page),
    /// Changes since the last update, in the order in which they happened. A key may occur more
    /// than once.
    Changes(Vec<RecordChange>),
}

impl Update {
    /// Returns true if the consumer knows all records after this update, that is, unless it is a
    /// page that others follow.
    pub fn is_complete(&self) -> bool {
        match self {
            Self::Snapshot(page) => page.last,
            Self::Changes(_) => true,
        }
    }
}

/// An event of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// An update of the records. Changes, and the last page of a snapshot, end staleness.
    Update(Update),
    /// Bytes of the network config; None if there is none. Delivered before the first snapshot, and
    /// whenever they have changed.
    Config(Option<Vec<u8>>),
    /// Updates are unavailable at present; the next one is a snapshot. Delivered again when the
    /// reason changes.
    Stale {
        /// The reason, in one sentence without a full stop.
        reason: String,
    },
    /// The store went back to an earlier state: it lost data, or was restored. The snapshot that
    /// follows may lack records which their owners have not written again yet.
    SetBack {
        /// The evidence for it, in one sentence without a full stop.
        reason: String,
    },
}

/// Time of a store's last response, with or without changes. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<Mutex<Option<Instant>>>);

impl Pulse {
    /// Records a response of the store at the current time.
    pub(crate) fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Returns the time of the last response. None before the first one.
    pub fn last(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running watch. Its first event is the network config, followed by a snapshot, or the reason
/// why they are not available yet.
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

    /// Returns the time of the store's last response, for use while another task awaits
    /// [`next`](Self::next).
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Returns the next event. Cancellation-safe: if the future is dropped while it waits, no event
    /// is lost.
    ///
    /// Returns None only when the runtime is shutting down.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        self.events.recv().await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
