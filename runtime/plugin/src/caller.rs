//! The host's side of every call: limits, counters, and an explanation of each failure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use heddle_grant::Limits;
use heddle_grant::text::plain;
use wasmtime::{Store, Trap};
use wasmtime_wasi::I32Exit;

use crate::engine::Runtime;
use crate::error::Reason;
use crate::guest_output::GuestOutput;
use crate::host::{self, HostState};
use crate::limits::MemoryExceeded;
use crate::metrics::Metrics;

/// Makes the calls of one plugin, one at a time.
pub(crate) struct Caller {
    runtime: Runtime,
    limits: Limits,
    guest_output: GuestOutput,
    metrics: Arc<Metrics>,
}

impl Caller {
    pub(crate) fn new(plugin: &str, runtime: Runtime, limits: Limits) -> Self {
        let guest_output = GuestOutput::new(plugin, &limits);
        Self { runtime, limits, guest_output, metrics: Arc::default() }
    }

    /// Returns another caller of the same plugin, for concurrent calls.
    pub(crate) fn another(&self) -> Self {
        Self {
            runtime: self.runtime.clone(),
            limits: self.limits.clone(),
            guest_output: self.guest_output.of_another_instance(),
            metrics: self.metrics.clone(),
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Returns a store for a fresh instance.
    pub(crate) fn store(&self) -> Store<HostState> {
        host::store(self.runtime.engine(), &self.limits, &self.guest_output)
    }

    /// Sets the epoch deadline, so that the guest may run for `limit` from now on.
    pub(crate) fn limit(&self, store: &mut Store<HostState>, limit: Duration) {
        self.runtime.ticker().limit(store, limit);
    }

    /// Makes one call. `limit` is the time limit that was set for the guest; the error reports it.
    pub(crate) fn call<T>(
        &self,
        limit: Duration,
        function: impl FnOnce() -> wasmtime::Result<T>,
    ) -> Result<T, Reason> {
        self.guest_output.begin_call();
        let start = Instant::now();
        let result = function();
        self.metrics.count_call(start.elapsed(), result.is_err());
        result.map_err(|error| self.explain(limit, &error))
    }

    #[cold]
    fn explain(&self, limit: Duration, error: &wasmtime::Error) -> Reason {
        if let Some(exceeded) = error.downcast_ref::<MemoryExceeded>() {
            return Reason::OutOfMemory { limit: exceeded.limit, asked: exceeded.asked };
        }
        // wasmtime does not export the type of this error, so its text decides.
        if error.chain().any(|cause| cause.to_string().contains("fuel allocated for hostcalls")) {
            return Reason::TooLong(self.limits.answer);
        }
        let what = match (error.downcast_ref::<Trap>(), error.downcast_ref::<I32Exit>()) {
            (Some(Trap::Interrupt), _) => return Reason::TimedOut(limit),
            (Some(Trap::UnreachableCodeReached), _) => "`unreachable`".to_owned(),
            (Some(trap), _) => trap.to_string(),
            (None, Some(exit)) => format!("it exited with status {}", exit.0),
            (None, None) => format!("{error:#}"),
        };
        let words = self.guest_output.last_output();
        match words.is_empty() {
            true => Reason::Trapped(plain(&what)),
            false => Reason::Trapped(plain(&format!("{what} ({words})"))),
        }
    }
}
