//! Counters of a plugin's calls.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a plugin did since it was started. Read at any time, from any thread.
#[derive(Debug, Default)]
pub struct Metrics {
    calls: AtomicU64,
    failures: AtomicU64,
    refusals: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Metrics {
    /// Calls made, whatever came of them.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Calls that trapped, took too long or wanted too much memory.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Answers that were refused.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// Time spent in calls.
    pub fn time(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }

    pub(crate) fn count_call(&self, time: Duration, failed: bool) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.failures.fetch_add(u64::from(failed), Ordering::Relaxed);
        self.nanoseconds.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_refusal(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }
}
