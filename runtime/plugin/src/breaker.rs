//! Circuit breaker: suspends a plugin when all its calls fail.
//!
//! It counts how many *different* subjects failed in a row. A single bad lease, asked about
//! repeatedly, alone or between good ones, is one subject and never opens the circuit breaker. The
//! subjects whose last call failed are also remembered, so that the host can ask about the others
//! first: good leases never wait long behind bad ones.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use heddle_core::lease::LeaseKey;
use heddle_core::pacing::{Backoff, RetryDelay};

const FIRST_SUSPENSION: Duration = Duration::from_secs(1);

/// Limit on the number of failed subjects that are remembered.
const MEMORY: usize = 65_536;

/// The subject of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    /// The node itself. Holds the name of the call.
    Node(&'static str),
    /// A peer. Holds the key of its lease.
    Peer(LeaseKey),
}

#[derive(Debug)]
pub(crate) struct Breaker {
    failures: usize,
    /// Subjects that failed since the last success or suspension.
    streak: HashSet<Subject>,
    /// Subjects whose last call failed.
    failed: HashSet<Subject>,
    until: Option<Instant>,
    suspension: RetryDelay,
}

impl Breaker {
    pub(crate) fn new(failures: usize, longest: Duration) -> Self {
        let backoff = Backoff { initial: FIRST_SUSPENSION, limit: longest };
        Self {
            failures,
            streak: HashSet::new(),
            failed: HashSet::new(),
            until: None,
            suspension: RetryDelay::new(backoff),
        }
    }

    /// Returns the remaining time of the suspension. None if the plugin is not suspended.
    pub(crate) fn suspended(&self, now: Instant) -> Option<Duration> {
        self.until
            .and_then(|until| until.checked_duration_since(now))
            .filter(|rest| !rest.is_zero())
    }

    /// Returns true if the last call about this subject failed.
    pub(crate) fn failed_before(&self, subject: Subject) -> bool {
        self.failed.contains(&subject)
    }

    pub(crate) fn succeeded(&mut self, subject: Subject) {
        self.streak.clear();
        self.failed.remove(&subject);
        self.until = None;
        self.suspension.reset();
    }

    pub(crate) fn failed(&mut self, subject: Subject, now: Instant) {
        self.streak.insert(subject);
        if self.failed.len() >= MEMORY {
            // Peers that are gone are not called again, so their keys would stay for ever.
            self.failed.clear();
        }
        self.failed.insert(subject);
        if self.streak.len() >= self.failures {
            self.streak.clear();
            self.until = Some(now + self.suspension.after_failure());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> Subject {
        let key = format!("10.244.{number}.0-24").parse().unwrap();
        Subject::Peer(key)
    }

    fn breaker() -> Breaker {
        Breaker::new(5, Duration::from_secs(60))
    }

    #[test]
    fn one_bad_peer_never_suspends_the_plugin() {
        let (mut breaker, now) = (breaker(), Instant::now());
        for _ in 0..100 {
            breaker.failed(peer(1), now);
        }
        assert_eq!(breaker.suspended(now), None);
    }

    #[test]
    fn bad_peers_between_good_ones_never_suspend_the_plugin() {
        let (mut breaker, now) = (breaker(), Instant::now());
        for number in 0..200 {
            match number % 5 {
                0 => breaker.succeeded(peer(number)),
                _ => breaker.failed(peer(number), now),
            }
            assert_eq!(breaker.suspended(now), None);
        }
        assert!(breaker.failed_before(peer(1)));
        assert!(!breaker.failed_before(peer(0)));
    }

    #[test]
    fn failure_is_remembered_after_many_peers_failed_and_left() {
        let (mut breaker, now) = (breaker(), Instant::now());
        for number in 0..MEMORY {
            let key = format!("10.{}.{}.0-24", number >> 8, number & 255).parse().unwrap();
            breaker.failed(Subject::Peer(key), now);
        }
        breaker.failed(Subject::Node("plan-node"), now);
        assert!(breaker.failed_before(Subject::Node("plan-node")));
        assert!(breaker.failed.len() <= MEMORY);
    }

    #[test]
    fn suspension_doubles_while_everything_fails() {
        let (mut breaker, mut now) = (breaker(), Instant::now());
        let mut times = Vec::new();
        for _ in 0..8 {
            for number in 0..5 {
                assert_eq!(breaker.suspended(now), None);
                breaker.failed(peer(number), now);
            }
            let time = breaker.suspended(now).unwrap();
            times.push(time.as_secs());
            now += time;
        }
        assert_eq!(times, [1, 2, 4, 8, 16, 32, 60, 60]);
        breaker.succeeded(peer(0));
        for number in 0..5 {
            breaker.failed(peer(number), now);
        }
        assert_eq!(breaker.suspended(now), Some(Duration::from_secs(1)));
    }
}
