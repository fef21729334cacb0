//! Lets epochs pass, but only while a call is running: an idle daemon is not woken up.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use wasmtime::Engine;

/// How often an epoch ends.
const PERIOD: Duration = Duration::from_millis(20);

/// How many epochs a call may last to have at least `limit`.
pub(crate) fn epochs(limit: Duration) -> u64 {
    // The first one is already under way.
    limit.as_nanos().div_ceil(PERIOD.as_nanos()) as u64 + 1
}

#[derive(Clone)]
pub(crate) struct Ticker(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    running: usize,
    stopped: bool,
}

/// Epochs pass while this lives.
pub(crate) struct Running<'a>(&'a Ticker);

impl Ticker {
    pub(crate) fn start(engine: &Engine) -> std::io::Result<TickerThread> {
        let ticker = Self(Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() }));
        let (shared, engine) = (ticker.0.clone(), engine.weak());
        thread::Builder::new().name("plugin-epochs".into()).stack_size(64 << 10).spawn(
            move || {
                let mut state = shared.lock();
                while !state.stopped {
                    if state.running == 0 {
                        state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                        continue;
                    }
                    drop(state);
                    thread::sleep(PERIOD);
                    match engine.upgrade() {
                        Some(engine) => engine.increment_epoch(),
                        None => return,
                    }
                    state = shared.lock();
                }
            },
        )?;
        Ok(TickerThread(ticker))
    }

    pub(crate) fn running(&self) -> Running<'_> {
        self.0.lock().running += 1;
        self.0.changed.notify_one();
        Running(self)
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.0.lock().running -= 1;
    }
}

/// The thread behind a [`Ticker`]. It ends when this is dropped.
pub(crate) struct TickerThread(Ticker);

impl TickerThread {
    pub(crate) fn ticker(&self) -> &Ticker {
        &self.0
    }
}

impl Drop for TickerThread {
    fn drop(&mut self) {
        self.0.0.lock().stopped = true;
        self.0.0.changed.notify_one();
    }
}
