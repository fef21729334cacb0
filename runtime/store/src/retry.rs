//! How long to wait before trying again.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The longest wait, without its jitter.
pub(crate) const LONGEST: Duration = Duration::from_secs(5);

/// Waits that double from 100 ms to 5 s, each stretched at random by up to as much again, so that many nodes which
/// failed together do not come back together.
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

    /// Waits, longer each time.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.0.next().unwrap_or(LONGEST)).await;
    }

    /// Starts again with the shortest wait.
    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_never_end() {
        let waits: Vec<_> = Backoff::new().0.take(1000).collect();
        assert_eq!(waits.len(), 1000);
        assert!(waits[0] < Duration::from_millis(200));
        assert!(waits[10..].iter().all(|wait| *wait >= LONGEST));
        assert!(waits.iter().all(|wait| *wait <= 2 * LONGEST));
    }

    #[test]
    fn two_nodes_do_not_wait_alike() {
        let waits = || Backoff::new().0.take(10).collect::<Vec<_>>();
        assert_ne!(waits(), waits());
    }
}
