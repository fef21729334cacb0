//! One result for everybody who asks at the same time.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;

/// Time for which a result is kept for others. After that, its memory is free.
const KEPT: Duration = Duration::from_secs(1);

/// Maximum number of results that are made at a time. More than one, so that a caller that needs a current result does
/// not wait for an older one: that takes as long as a part of the daemon hangs.
const AT_ONCE: usize = 4;

/// Delay before a result is made again after making it panicked.
const RETRY: Duration = Duration::from_millis(100);

/// A result that is expensive to make. It is made once for all who ask meanwhile, and made to its end even if none of
/// them waits for it any more: a client that asks and leaves does not make the next one ask again. Clones share it.
#[derive(Debug)]
pub struct Shared<T> {
    state: Arc<Mutex<State<T>>>,
    runtime: Handle,
}

#[derive(Debug)]
struct State<T> {
    /// The newest result, its number, and when making it began.
    last: Option<(u64, Instant, T)>,
    /// The results that are being made, the oldest first.
    making: Vec<Making>,
    /// The number of the next result.
    next: u64,
}

/// A result that is being made.
#[derive(Clone, Debug)]
struct Making {
    number: u64,
    begun: Instant,
    /// True when the result is there. Closed without that: making it panicked, or the runtime has ended.
    done: watch::Receiver<bool>,
}

/// The entry of a result in [`State::making`]. Dropping it removes the entry, whether or not the result was made, and then
/// wakes those that wait for it.
struct Entry<T> {
    shared: Shared<T>,
    number: u64,
    begun: Instant,
    done: watch::Sender<bool>,
}

impl<T> Drop for Entry<T> {
    fn drop(&mut self) {
        self.shared.lock().making.retain(|making| making.number != self.number);
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), runtime: self.runtime.clone() }
    }
}

impl<T: Clone + Send + 'static> Shared<T> {
    /// Returns one without a result. Results are made on this runtime, which needs time.
    pub fn new(runtime: Handle) -> Self {
        let state = State { last: None, making: Vec::new(), next: 0 };
        Self { state: Arc::new(Mutex::new(state)), runtime }
    }

    /// Returns a result that is of no earlier moment than `age` before the call; `make` makes it if need be. With an age
    /// of zero it reflects everything that happened before the call. If making it panics, it is made again.
    pub async fn get<F>(&self, age: Duration, make: impl Fn() -> F) -> T
    where
        F: Future<Output = T> + Send + 'static,
    {
        // None: the machine has been up for a shorter time than that.
        let oldest = Instant::now().checked_sub(age);
        let is_new = |begun: Instant| oldest.is_none_or(|oldest| begun >= oldest);
        loop {
            let (mut making, entry) = {
                let mut state = self.lock();
                let last = state.last.as_ref().filter(|(_, begun, _)| is_new(*begun));
                if let Some((_, _, result)) = last {
                    return result.clone();
                }
                let joined = state.making.iter().find(|making| is_new(making.begun));
                match joined {
                    Some(making) => (making.clone(), None),
                    None if state.making.len() < AT_ONCE => {
                        let (making, entry) = self.begin(&mut state);
                        (making, Some(entry))
                    }
                    None => (state.making[0].clone(), None),
                }
            };
            // Without the lock, which the entry takes when it is dropped: a runtime that has ended drops the task at once.
            if let Some(entry) = entry {
                self.spawn(entry, make());
            }
            if making.done.wait_for(|done| *done).await.is_err() {
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Adds an entry for a new result.
    fn begin(&self, state: &mut State<T>) -> (Making, Entry<T>) {
        let (sender, done) = watch::channel(false);
        let making = Making { number: state.next, begun: Instant::now(), done };
        state.next += 1;
        state.making.push(making.clone());
        let Making { number, begun, .. } = making;
        let entry = Entry { shared: self.clone(), number, begun, done: sender };
        (making, entry)
    }

    /// Makes a result on a task of its own.
    fn spawn(&self, entry: Entry<T>, result: impl Future<Output = T> + Send + 'static) {
        let this = self.clone();
        self.runtime.spawn(async move {
            let number = entry.number;
            this.finish(entry, result.await);
            tokio::time::sleep(KEPT).await;
            this.forget(number);
        });
    }

    fn finish(&self, entry: Entry<T>, result: T) {
        let mut state = self.lock();
        if state.last.as_ref().is_none_or(|(last, _, _)| *last < entry.number) {
            state.last = Some((entry.number, entry.begun, result));
        }
        drop(state);
        entry.done.send_replace(true);
    }

    fn forget(&self, number: u64) {
        let mut state = self.lock();
        if state.last.as_ref().is_some_and(|(last, _, _)| *last == number) {
            state.last = None;
        }
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
