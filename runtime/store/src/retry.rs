//! Retries of calls to a store: exponential backoff with jitter.

use std::time::Duration;

use heddle_core::pacing::{self, RetryDelay};

/// Longest delay, without its jitter.
pub(crate) const LONGEST: Duration = Duration::from_secs(5);

/// Exponential backoff: delays double from 100 ms to 5 s. Random jitter extends each by up to its
/// own length, so that nodes which failed together do not retry together.
#[derive(Debug)]
pub(crate) struct Backoff(RetryDelay);

impl Backoff {
    pub(crate) fn new() -> Self {
        let initial = Duration::from_millis(100);
        Self(RetryDelay::new(pacing::Backoff { initial, limit: LONGEST }))
    }

    /// Waits for the next delay, which is longer each time up to the maximum.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.delay()).await;
    }

    fn delay(&mut self) -> Duration {
        self.0.after_failure_with_jitter(fastrand::f64())
    }

    /// Resets the next delay to the shortest.
    pub(crate) fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_maximum_and_never_ends() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..1000).map(|_| backoff.delay()).collect();
        assert!(waits[0] < Duration::from_millis(200));
        assert!(waits[10..].iter().all(|wait| *wait >= LONGEST));
        assert!(waits.iter().all(|wait| *wait <= 2 * LONGEST));
    }

    #[test]
    fn backoff_of_two_nodes_differs() {
        let waits = || {
            let mut backoff = Backoff::new();
            (0..10).map(|_| backoff.delay()).collect::<Vec<_>>()
        };
        assert_ne!(waits(), waits());
    }
}
