//! What a watch delivers.

use std::future::Future;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::Record;

/// How many events wait for a slow consumer before the watch waits with it.
const QUEUE: usize = 16;

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

/// News of the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// All that there is. What is not in it does not exist any more.
    Snapshot(Vec<Record>),
    /// What changed since the last update, in the order in which it happened. One key may occur more than once.
    Changes(Vec<RecordChange>),
}

/// What a watch says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// The records as they are now. Ends staleness.
    Update(Update),
    /// The bytes of the network config, if there is one: before the first snapshot, and whenever they have changed.
    Config(Option<Vec<u8>>),
    /// Updates cannot be had at present. The next update is a snapshot. Said again when the reason changes.
    Stale {
        /// Why, in one sentence without a full stop.
        reason: String,
    },
}

/// A running watch. It starts with the network config and a snapshot, or with the reason why there are none yet.
#[derive(Debug)]
pub struct Watch {
    events: mpsc::Receiver<WatchEvent>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Runs a watch beside its consumer.
    pub(crate) fn spawn<F>(run: impl FnOnce(mpsc::Sender<WatchEvent>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, events) = mpsc::channel(QUEUE);
        Self { events, task: tokio::spawn(run(sender)) }
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
