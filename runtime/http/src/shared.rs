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
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// Counts how often a result is made, which takes a permit each time.
    #[derive(Clone)]
    struct Counted {
        shared: Shared<u32>,
        made: Arc<AtomicU32>,
        permits: Arc<Semaphore>,
    }

    impl Counted {
        fn new(permits: usize) -> Self {
            let permits = Arc::new(Semaphore::new(permits));
            Self { shared: Shared::new(Handle::current()), made: Arc::default(), permits }
        }

        async fn get(&self, age: Duration) -> u32 {
            let make = || {
                let (made, permits) = (self.made.clone(), self.permits.clone());
                async move {
                    let begun = made.fetch_add(1, Ordering::Relaxed) + 1;
                    permits.acquire().await.unwrap().forget();
                    begun
                }
            };
            self.shared.get(age, make).await
        }

        fn ask(&self, age: Duration) -> tokio::task::JoinHandle<u32> {
            let this = self.clone();
            tokio::spawn(async move { this.get(age).await })
        }

        async fn wait_made(&self, count: u32) {
            while self.made.load(Ordering::Relaxed) < count {
                tokio::task::yield_now().await;
            }
        }
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn clients_that_leave_do_not_start_it_again() {
        let counted = Counted::new(0);
        for _ in 0..100 {
            let asking = counted.ask(LONG);
            counted.wait_made(1).await;
            asking.abort();
            assert!(asking.await.unwrap_err().is_cancelled());
        }
        let asking = counted.ask(LONG);
        counted.permits.add_permits(1);
        assert_eq!((asking.await.unwrap(), counted.made.load(Ordering::Relaxed)), (1, 1));
    }

    #[tokio::test]
    async fn age_zero_takes_no_result_begun_before_the_call() {
        let counted = Counted::new(0);
        let first = counted.ask(Duration::ZERO);
        counted.wait_made(1).await;
        // It does not wait for what was begun before.
        let second = counted.ask(Duration::ZERO);
        counted.wait_made(2).await;
        counted.permits.add_permits(1);
        assert_eq!(first.await.unwrap(), 1);
        counted.permits.add_permits(1);
        assert_eq!((second.await.unwrap(), counted.get(LONG).await), (2, 2));
    }

    #[tokio::test]
    async fn results_are_made_a_few_at_a_time() {
        let counted = Counted::new(0);
        let mut asking = Vec::new();
        for _ in 0..50 {
            asking.push(counted.ask(Duration::ZERO));
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(counted.made.load(Ordering::Relaxed) as usize, AT_ONCE);
        counted.permits.add_permits(50);
        for (number, asking) in asking.into_iter().enumerate() {
            let made = asking.await.unwrap() as usize;
            assert!(made > number.min(AT_ONCE), "{number}: {made}");
        }
        // All the others had one.
        assert_eq!(counted.made.load(Ordering::Relaxed) as usize, AT_ONCE + 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn panic_while_making_a_result_leaves_the_next_to_be_made() {
        let shared = Shared::<u32>::new(Handle::current());
        let made = Arc::new(AtomicU32::new(0));
        let get = || {
            let (shared, made) = (shared.clone(), made.clone());
            let make = move || {
                let made = made.clone();
                async move {
                    let number = made.fetch_add(1, Ordering::Relaxed);
                    assert!(number > 0, "a panic that the test is about");
                    number
                }
            };
            async move { shared.get(LONG, make).await }
        };
        let first = tokio::spawn(get());
        while made.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let limit = Duration::from_secs(20);
        assert_eq!(tokio::time::timeout(limit, get()).await, Ok(1));
        // Whoever waited for the one that failed has the next one.
        let first = tokio::time::timeout(limit, first).await.unwrap();
        assert!(first.unwrap() >= 1);
    }

    #[tokio::test]
    async fn result_is_not_kept_when_nobody_can_use_it() {
        let shared = Shared::<Arc<()>>::new(Handle::current());
        let result = shared.get(LONG, || async { Arc::new(()) }).await;
        assert_eq!(Arc::strong_count(&result), 2);
        while Arc::strong_count(&result) > 1 {
            tokio::time::sleep(KEPT / 10).await;
        }
    }
}
