//! The thread that runs one plugin: calls block, so they are made there and nowhere else.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use wasmtime::component::InstancePre;
use wasmtime::{Store, Trap};
use wasmtime_wasi::I32Exit;

use crate::breaker::{Breaker, Subject};
use crate::engine::Runtime;
use crate::error::{CallError, Reason};
use crate::host::{self, HostState};
use crate::limits::{Limits, MemoryExceeded};
use crate::metrics::Metrics;
use crate::text::plain;
use crate::ticker::epochs;
use crate::voice::Voice;

/// The thread's stack: wasmtime gives guests 512 KiB of it.
const STACK: usize = 1 << 20;

/// A world's generated bindings.
pub(crate) trait World: Sized + Send + 'static {
    /// What is worked out about a component once for all its instances.
    type Pre: Send;

    fn prepare(component: InstancePre<HostState>) -> wasmtime::Result<Self::Pre>;

    fn instantiate(pre: &Self::Pre, store: &mut Store<HostState>) -> wasmtime::Result<Self>;
}

type Job<W> = Box<dyn FnOnce(&mut Worker<W>) + Send>;

/// The tokio side of a [`Worker`]. The thread ends when this is dropped and its last job is done.
pub(crate) struct WorkerHandle<W: World> {
    plugin: String,
    jobs: mpsc::Sender<Job<W>>,
    metrics: Arc<Metrics>,
}

/// Owns the plugin's instance.
pub(crate) struct Worker<W: World> {
    runtime: Runtime,
    pre: W::Pre,
    limits: Limits,
    voice: Voice,
    instance: Option<(Store<HostState>, W)>,
    breaker: Breaker,
    metrics: Arc<Metrics>,
}

impl<W: World> WorkerHandle<W> {
    /// Starts the thread. On a tokio runtime it uses that one, otherwise wasmtime's WASI makes its own when a guest
    /// writes to standard output.
    pub(crate) fn start(
        plugin: &str,
        runtime: Runtime,
        pre: W::Pre,
        limits: Limits,
    ) -> std::io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job<W>>();
        let metrics = Arc::new(Metrics::default());
        let mut worker = Worker {
            runtime,
            pre,
            voice: Voice::new(plugin),
            instance: None,
            breaker: Breaker::new(limits.failures, limits.suspension),
            limits,
            metrics: metrics.clone(),
        };
        let tokio = Handle::try_current().ok();
        thread::Builder::new().name(format!("plugin {plugin}")).stack_size(STACK).spawn(
            move || {
                let _guard = tokio.as_ref().map(Handle::enter);
                for job in inbox {
                    job(&mut worker);
                    // Functions are pure, so nothing is lost, and an idle plugin holds no memory.
                    worker.instance = None;
                }
            },
        )?;
        Ok(Self { plugin: plugin.to_owned(), jobs, metrics })
    }

    pub(crate) fn plugin(&self) -> &str {
        &self.plugin
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Runs a job on the thread, after those before it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        call: &'static str,
        job: impl FnOnce(&mut Worker<W>) -> T + Send + 'static,
    ) -> Result<T, CallError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.jobs.send(Box::new(move |worker| {
            // Nobody waits any more: then nobody needs the answer.
            let _ = reply.send(job(worker));
        }));
        let stopped =
            || CallError { plugin: self.plugin.clone(), call, peer: None, reason: Reason::Stopped };
        match sent {
            Ok(()) => answer.await.map_err(|_| stopped()),
            Err(_) => Err(stopped()),
        }
    }
}

impl<W: World> Worker<W> {
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The runtime, for [`Ticker::running`](crate::ticker::Ticker::running) around a job's calls.
    pub(crate) fn runtime(&self) -> Runtime {
        self.runtime.clone()
    }

    /// Makes one call. Epochs must be passing.
    ///
    /// An instance that trapped, or was stopped, is in no state to be called again: the next call gets a new one.
    pub(crate) fn call<T>(
        &mut self,
        subject: Subject,
        function: impl FnOnce(&W, &mut Store<HostState>) -> wasmtime::Result<T>,
    ) -> Result<T, Reason> {
        let start = Instant::now();
        if let Some(rest) = self.breaker.suspended(start) {
            return Err(Reason::Suspended { rest, failures: self.limits.failures });
        }
        self.voice.begin_call();
        let result = self.try_call(function);
        let end = Instant::now();
        self.metrics.count_call(end - start, result.is_err());
        match result {
            Ok(answer) => {
                self.breaker.succeeded(subject);
                Ok(answer)
            }
            Err(error) => {
                self.instance = None;
                self.breaker.failed(subject, end);
                Err(self.explain(&error))
            }
        }
    }

    fn try_call<T>(
        &mut self,
        function: impl FnOnce(&W, &mut Store<HostState>) -> wasmtime::Result<T>,
    ) -> wasmtime::Result<T> {
        let deadline = epochs(self.limits.call);
        if self.instance.is_none() {
            let mut store = host::store(self.runtime.engine(), &self.limits, &self.voice);
            store.set_epoch_deadline(deadline);
            let guest = W::instantiate(&self.pre, &mut store)?;
            self.instance = Some((store, guest));
        }
        let Some((store, guest)) = &mut self.instance else {
            unreachable!("an instance was just put there")
        };
        store.set_epoch_deadline(deadline);
        function(guest, store)
    }

    fn explain(&self, error: &wasmtime::Error) -> Reason {
        if let Some(exceeded) = error.downcast_ref::<MemoryExceeded>() {
            return Reason::OutOfMemory { limit: exceeded.limit, asked: exceeded.asked };
        }
        let what = match (error.downcast_ref::<Trap>(), error.downcast_ref::<I32Exit>()) {
            (Some(Trap::Interrupt), _) => return Reason::TimedOut(self.limits.call),
            (Some(Trap::UnreachableCodeReached), _) => "`unreachable`".to_owned(),
            (Some(trap), _) => trap.to_string(),
            (None, Some(exit)) => format!("it exited with status {}", exit.0),
            (None, None) => format!("{error:#}"),
        };
        let words = self.voice.last_words();
        match words.is_empty() {
            true => Reason::Trapped(plain(&what)),
            false => Reason::Trapped(plain(&format!("{what} ({words})"))),
        }
    }
}
