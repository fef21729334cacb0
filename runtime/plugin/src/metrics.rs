//! Counters of a plugin's calls.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters of a plugin since its start. They can be read at any time, from any thread.
#[derive(Debug, Default)]
pub struct Metrics {
    calls: AtomicU64,
    failures: AtomicU64,
    refusals: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Metrics {
    /// Returns the number of calls, whatever their outcome.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Returns the number of calls that failed: they trapped or exceeded a limit.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Returns the number of answers that were refused.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// Returns the total time spent in calls.
    pub fn time(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }

    pub(crate) fn count_call(&self, time: Duration, failed: bool) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.failures.fetch_add(u64::from(failed), Ordering::Relaxed);
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    pub(crate) fn count_refusal(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }
}
