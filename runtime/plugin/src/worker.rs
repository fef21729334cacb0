//! The thread that runs one plugin. Calls block, so they are made only on this thread.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use heddle_grant::{Limits, World};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::InstancePre;

use crate::breaker::{Breaker, Subject};
use crate::caller::Caller;
use crate::error::{CallError, Reason};
use crate::host::HostState;
use crate::metrics::Metrics;

/// Stack size of the thread in bytes; wasmtime gives guests 512 KiB of it.
const STACK: usize = 1 << 20;

/// Exports of a plugin's instance, as the generated bindings provide them.
pub(crate) trait Exports: Sized + Send + 'static {
    /// Data computed once per component for all its instances.
    type Prepared: Send;

    /// Prepares a component. Returns an error if it lacks an export of its world.
    fn prepare(component: InstancePre<HostState>, world: World)
    -> wasmtime::Result<Self::Prepared>;

    fn instantiate(
        prepared: &Self::Prepared,
        store: &mut Store<HostState>,
    ) -> wasmtime::Result<Self>;
}

type Job<E> = Box<dyn FnOnce(&mut Worker<E>) + Send>;

/// The Tokio side of a [`Worker`]. The thread ends when this is dropped and its last job is done.
pub(crate) struct WorkerHandle<E: Exports> {
    plugin: String,
    jobs: mpsc::Sender<Job<E>>,
    metrics: Arc<Metrics>,
}

/// State of the thread, which owns the plugin's instance.
pub(crate) struct Worker<E: Exports> {
    prepared: E::Prepared,
    caller: Caller,
    instance: Option<(Store<HostState>, E)>,
    breaker: Breaker,
}

impl<E: Exports> WorkerHandle<E> {
    /// Starts the thread. It uses the current Tokio runtime, if there is one; otherwise wasmtime's
    /// WASI starts its own when a guest writes to standard output.
    pub(crate) fn start(
        plugin: &str,
        prepared: E::Prepared,
        caller: Caller,
    ) -> std::io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job<E>>();
        let metrics = caller.metrics().clone();
        let breaker = Breaker::new(caller.limits().failures, caller.limits().suspension);
        let mut worker = Worker { prepared, caller, instance: None, breaker };
        let tokio = Handle::try_current().ok();
        thread::Builder::new().name(format!("plugin {plugin}")).stack_size(STACK).spawn(
            move || {
                let _guard = tokio.as_ref().map(Handle::enter);
                for job in inbox {
                    job(&mut worker);
                    // Plugin functions are pure, so dropping the instance loses nothing, and an
                    // idle plugin holds no memory.
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

    /// Runs a job on the thread, after the jobs queued before it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        call: &'static str,
        job: impl FnOnce(&mut Worker<E>) -> T + Send + 'static,
    ) -> Result<T, CallError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.jobs.send(Box::new(move |worker| {
            // If the caller has stopped waiting, nobody needs the answer.
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

impl<E: Exports> Worker<E> {
    pub(crate) fn limits(&self) -> &Limits {
        self.caller.limits()
    }

    pub(crate) fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        self.caller.metrics()
    }

    /// Makes one call, unless the circuit breaker is open.
    ///
    /// An instance that trapped or was stopped cannot be called again: the next call gets a new
    /// one.
    pub(crate) fn call<T>(
        &mut self,
        subject: Subject,
        function: impl FnOnce(&E, &mut Store<HostState>) -> wasmtime::Result<T>,
    ) -> Result<T, Reason> {
        if let Some(rest) = self.breaker.suspended(Instant::now()) {
            return Err(Reason::Suspended { rest, failures: self.limits().failures });
        }
        let Self { prepared, caller, instance, breaker } = self;
        let limit = caller.limits().call;
        let result = caller.call(limit, || {
            let (store, exports) = match instance {
                Some(instance) => instance,
                None => {
                    let mut store = caller.store();
                    caller.limit(&mut store, limit);
                    let exports = E::instantiate(prepared, &mut store)?;
                    instance.insert((store, exports))
                }
            };
            caller.limit(store, limit);
            function(exports, store)
        });
        match &result {
            Ok(_) => breaker.succeeded(subject),
            Err(_) => {
                *instance = None;
                breaker.failed(subject, Instant::now());
            }
        }
        result
    }
}
