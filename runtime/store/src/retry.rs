//! Exponential backoff between retries.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Longest delay, without its jitter.
pub(crate) const LONGEST: Duration = Duration::from_secs(5);

/// Exponential backoff: delays double from 100 ms to 5 s. Random jitter extends each by up to its
/// own length, so that nodes which failed together do not retry together.
#[derive(Debug)]
pub(crate) struct Backoff(ExponentialBackoff);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self(
            ExponentialBuilder::new()
                .with_min_delay(Duration::from_millis(100))
                .with_max_delay(LONGEST)
                .with_jitter()
                .without_max_times()
                .build(),
        )
    }

    /// Waits for the next delay, which is longer each time up to the maximum.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.0.next().unwrap_or(LONGEST)).await;
    }

    /// Resets the next delay to the shortest.
    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_maximum_and_never_ends() {
        let waits: Vec<_> = Backoff::new().0.take(1000).collect();
        assert_eq!(waits.len(), 1000);
        assert!(waits[0] < Duration::from_millis(200));
        assert!(waits[10..].iter().all(|wait| *wait >= LONGEST));
        assert!(waits.iter().all(|wait| *wait <= 2 * LONGEST));
    }

    #[test]
    fn backoff_of_two_nodes_differs() {
        let waits = || Backoff::new().0.take(10).collect::<Vec<_>>();
        assert_ne!(waits(), waits());
    }
}
