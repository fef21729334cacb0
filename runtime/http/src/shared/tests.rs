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
