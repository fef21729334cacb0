//! Advances the epochs for epoch interruption, but only while there are calls: an idle daemon is
//! not woken up.
//!
//! A call in the packet path takes less than a microsecond, so it must not lock or wake anything.
//! It only checks whether the ticker is going to run for long enough. About once a second it is
//! not, and then the call extends the time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use wasmtime::{Engine, Store};

/// Length of an epoch.
const PERIOD: Duration = Duration::from_millis(20);

/// Number of epochs for which the ticker runs beyond what a call may need: 1 s. A caller that calls
/// continuously wakes it only that rarely.
const AHEAD: u64 = 50;

/// Returns the number of epochs that a call may last to have at least `limit`.
fn epochs(limit: Duration) -> u64 {
    let whole = limit.as_nanos().div_ceil(PERIOD.as_nanos());
    // One more, because the current epoch is already under way.
    u64::try_from(whole).unwrap_or(u64::MAX).saturating_add(1)
}

#[derive(Clone)]
pub(crate) struct Ticker(Arc<Shared>);

struct Shared {
    /// Number of epochs that have passed. Never behind the engine's own count.
    now: AtomicU64,
    /// Epoch up to which the ticker runs. Changed under the lock, so that the thread does not miss
    /// a change while it goes to sleep.
    until: AtomicU64,
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Ticker {
    /// Starts the thread that advances the epochs of `engine`.
    #[expect(clippy::disallowed_methods, reason = "on a thread of its own")]
    pub(crate) fn start(engine: &Engine) -> std::io::Result<TickerThread> {
        let ticker = Self(Arc::new(Shared {
            now: AtomicU64::new(0),
            until: AtomicU64::new(0),
            stopped: Mutex::new(false),
            changed: Condvar::new(),
        }));
        let (shared, engine) = (ticker.0.clone(), engine.weak());
        thread::Builder::new().name("plugin-epochs".into()).stack_size(64 << 10).spawn(
            move || {
                let mut stopped = shared.lock();
                while !*stopped {
                    if !shared.awake() {
                        stopped =
                            shared.changed.wait(stopped).unwrap_or_else(PoisonError::into_inner);
                        continue;
                    }
                    drop(stopped);
                    thread::sleep(PERIOD);
                    shared.now.fetch_add(1, Ordering::Release);
                    match engine.upgrade() {
                        Some(engine) => engine.increment_epoch(),
                        None => return,
                    }
                    stopped = shared.lock();
                }
            },
        )?;
        Ok(TickerThread(ticker))
    }

    /// Returns true if epochs are advancing at present.
    #[cfg(test)]
    pub(crate) fn awake(&self) -> bool {
        self.0.awake()
    }

    /// Lets the guest in `store` run for `limit` from now on, rounded up to whole epochs, and for
    /// one epoch more at most.
    pub(crate) fn limit<T>(&self, store: &mut Store<T>, limit: Duration) {
        let epochs = epochs(limit);
        // The deadline is set first: whatever happens between here and the call, epochs advance
        // until it is over.
        store.set_epoch_deadline(epochs);
        let needed = self.0.now.load(Ordering::Acquire) + epochs + 1;
        if self.0.until.load(Ordering::Acquire) < needed {
            self.0.go_on(needed + AHEAD);
        }
    }
}

impl Shared {
    fn awake(&self) -> bool {
        self.now.load(Ordering::Acquire) < self.until.load(Ordering::Acquire)
    }

    #[cold]
    fn go_on(&self, until: u64) {
        let _lock = self.lock();
        self.until.fetch_max(until, Ordering::Release);
        self.changed.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, bool> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Owner of the thread behind a [`Ticker`]. The thread ends when this is dropped.
pub(crate) struct TickerThread(Ticker);

impl TickerThread {
    pub(crate) fn ticker(&self) -> &Ticker {
        &self.0
    }
}

impl Drop for TickerThread {
    fn drop(&mut self) {
        *self.0.0.lock() = true;
        self.0.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn now(ticker: &Ticker) -> u64 {
        ticker.0.now.load(Ordering::Acquire)
    }

    /// Waits until epochs stop advancing, up to a generous time limit.
    fn sleep_of(ticker: &Ticker) {
        let start = Instant::now();
        while ticker.awake() {
            assert!(start.elapsed() < Duration::from_secs(60), "the ticker does not go to sleep");
            thread::sleep(PERIOD);
        }
    }

    #[test]
    fn epochs_advance_during_calls_and_stop_afterwards() {
        let engine = Engine::default();
        let thread = Ticker::start(&engine).unwrap();
        let ticker = thread.ticker();
        let mut store = Store::new(&engine, ());
        assert!(!ticker.awake());

        // Calls wake the ticker once, not each time.
        ticker.limit(&mut store, Duration::from_millis(100));
        let until = ticker.0.until.load(Ordering::Acquire);
        ticker.limit(&mut store, Duration::from_millis(100));
        assert_eq!(ticker.0.until.load(Ordering::Acquire), until);

        sleep_of(ticker);
        let epoch = now(ticker);
        assert_eq!(epoch, until);
        thread::sleep(PERIOD * 5);
        assert_eq!(now(ticker), epoch);

        ticker.limit(&mut store, Duration::from_millis(100));
        sleep_of(ticker);
        assert!(now(ticker) > epoch);
    }

    #[test]
    fn epochs_advance_longer_than_the_longest_call() {
        let engine = Engine::default();
        let thread = Ticker::start(&engine).unwrap();
        let mut store = Store::new(&engine, ());
        thread.ticker().limit(&mut store, Duration::from_secs(60));
        assert!(thread.ticker().0.until.load(Ordering::Acquire) > 60_000 / 20);
    }
}
