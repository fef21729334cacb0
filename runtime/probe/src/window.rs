//! Reachability, round trip and loss of one address, computed from its last answers.

use std::time::{Duration, SystemTime};

/// Number of consecutive requests without an answer after which an address counts as unreachable. A
/// single one can be lost by chance.
pub const PATIENCE: u32 = 3;

/// Number of requests over which the loss is computed.
pub const SPAN: u32 = 32;

/// Reachability of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Too few requests to tell.
    Unknown,
    /// The address answers.
    Reachable,
    /// The address does not answer.
    Unreachable,
}

/// Summary of the last answers of an address.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Health {
    /// Reachability of the address.
    pub state: State,
    /// Time of the last change of `state`.
    pub since: SystemTime,
    /// Time from request to answer, smoothed as TCP does (RFC 6298, section 2). None before the
    /// first answer.
    pub round_trip: Option<Duration>,
    /// Fraction of the last [`SPAN`] requests without an answer, from 0 to 1.
    pub loss: f64,
}

impl Health {
    /// Returns the worse of two addresses of one host: unreachable before unknown before reachable,
    /// then the one with the higher loss.
    pub fn worst(self, other: Self) -> Self {
        let badness = |health: &Self| match health.state {
            State::Unreachable => 2,
            State::Unknown => 1,
            State::Reachable => 0,
        };
        let order = badness(&self).cmp(&badness(&other)).then(self.loss.total_cmp(&other.loss));
        if order.is_lt() { other } else { self }
    }
}

/// A sliding window over the last answers of one address.
#[derive(Clone, Debug)]
pub struct Window {
    state: State,
    since: SystemTime,
    round_trip: Option<Duration>,
    /// One bit per request, set if it was lost; the lowest bit is the latest request.
    lost: u32,
    /// Number of requests in `lost`, at most [`SPAN`].
    requests: u32,
}

impl Window {
    /// Creates an empty window.
    pub fn new(now: SystemTime) -> Self {
        Self { state: State::Unknown, since: now, round_trip: None, lost: 0, requests: 0 }
    }

    /// Records the outcome of a request: the time until the answer, or None if it was lost. Returns
    /// the new state if it changed.
    pub fn note(&mut self, answer: Option<Duration>, now: SystemTime) -> Option<State> {
        self.lost = (self.lost << 1) | u32::from(answer.is_none());
        self.requests = (self.requests + 1).min(SPAN);
        if let Some(time) = answer {
            self.round_trip = Some(match self.round_trip {
                None => time,
                Some(smoothed) => (smoothed * 7 + time) / 8,
            });
        }
        let in_a_row = self.lost.trailing_ones();
        let state = match answer {
            Some(_) => State::Reachable,
            None if in_a_row >= PATIENCE => State::Unreachable,
            None => self.state,
        };
        if state == self.state {
            return None;
        }
        (self.state, self.since) = (state, now);
        Some(state)
    }

    /// Returns the summary of the window.
    pub fn health(&self) -> Health {
        let lost = self.lost.count_ones();
        let loss =
            if self.requests == 0 { 0.0 } else { f64::from(lost) / f64::from(self.requests) };
        Health { state: self.state, since: self.since, round_trip: self.round_trip, loss }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: Option<Duration> = Some(Duration::from_millis(8));

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    #[test]
    fn first_answer_and_third_consecutive_loss_change_the_state() {
        let mut window = Window::new(at(0));
        assert_eq!(window.health().state, State::Unknown);
        assert_eq!(window.note(ANSWER, at(1)), Some(State::Reachable));
        for (second, answer) in [(2, None), (3, None), (4, ANSWER), (5, None), (6, None)] {
            assert_eq!(window.note(answer, at(second)), None);
        }
        assert_eq!(window.health().since, at(1));
        assert_eq!(window.note(None, at(7)), Some(State::Unreachable));
        assert_eq!(window.note(None, at(8)), None);
        assert_eq!((window.health().state, window.health().since), (State::Unreachable, at(7)));
        assert_eq!(window.note(ANSWER, at(9)), Some(State::Reachable));
    }

    #[test]
    fn silent_address_is_unreachable_after_three_requests() {
        let mut window = Window::new(at(0));
        let news: Vec<_> = (1..=4).map(|second| window.note(None, at(second))).collect();
        assert_eq!(news, [None, None, Some(State::Unreachable), None]);
        assert_eq!(window.health().round_trip, None);
    }

    #[test]
    fn loss_is_computed_over_the_last_requests() {
        let mut window = Window::new(at(0));
        assert_eq!(window.health().loss.to_bits(), 0f64.to_bits());
        window.note(None, at(1));
        window.note(ANSWER, at(2));
        assert!((window.health().loss - 0.5).abs() < 1e-9);
        for second in 0..u64::from(SPAN) {
            window.note(ANSWER, at(3 + second));
        }
        assert!(window.health().loss < 1e-9);
        for second in 0..u64::from(SPAN) {
            window.note(None, at(100 + second));
        }
        assert!((window.health().loss - 1.0).abs() < 1e-9);
    }

    #[test]
    fn unreachable_is_worse_than_high_loss() {
        let health = |state, loss| Health { state, since: at(0), round_trip: None, loss };
        let order = [
            health(State::Reachable, 0.1),
            health(State::Reachable, 0.9),
            health(State::Unknown, 0.0),
            health(State::Unreachable, 0.5),
        ];
        for pair in order.windows(2) {
            assert_eq!(pair[0].worst(pair[1]), pair[1]);
            assert_eq!(pair[1].worst(pair[0]), pair[1]);
        }
    }

    #[test]
    fn round_trip_is_smoothed() {
        let mut window = Window::new(at(0));
        window.note(ANSWER, at(1));
        window.note(Some(Duration::from_millis(16)), at(2));
        assert_eq!(window.health().round_trip, Some(Duration::from_millis(9)));
        window.note(None, at(3));
        assert_eq!(window.health().round_trip, Some(Duration::from_millis(9)));
    }
}
