//! Backoff of a node that cannot join.
//!
//! Problems that an operator can fix in the store are checked every second. A failing plugin burns
//! CPU on every attempt, and possibly more each time, so attempts that involve a plugin are limited
//! to a tenth of wall time.

use std::time::Duration;

use crate::retry::Backoff;

/// Interval of attempts that cost nothing.
const STEADY: Duration = Duration::from_secs(1);

/// Exponential backoff of repeated failures.
const BACKOFF: Backoff = Backoff { initial: STEADY, limit: Duration::from_secs(60) };

/// Pause after an attempt, as a multiple of the plugin's time. 9 limits a failing plugin to a tenth
/// of wall time: after one second of it, the next attempt is at least nine seconds later.
const SHARE: u32 = 9;

/// Upper limit of that pause.
const LONGEST: Duration = Duration::from_secs(600);

/// The reason why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InVain<Q> {
    /// The node waits for something that costs nothing to check.
    Waiting,
    /// A plugin cannot be loaded.
    Plugin {
        /// True if compiling the plugin failed, which costs CPU time at each attempt.
        compiling: bool,
        /// Time spent before the failure.
        took: Duration,
    },
    /// A plugin was called and returned no usable answer.
    Answer {
        /// The question put to the plugin.
        question: Q,
        /// Time spent on the call, without compiling the plugin.
        took: Duration,
    },
}

/// State of the join backoff.
#[derive(Clone, Debug)]
pub struct Patience<Q> {
    compiled: u32,
    /// Consecutive attempts with the same question that failed for another reason than the attempt
    /// before.
    said: u32,
    asked: Option<Q>,
}

impl<Q: PartialEq> Patience<Q> {
    /// Creates the state before the first attempt.
    pub fn new() -> Self {
        Self { compiled: 0, said: 0, asked: None }
    }

    /// Returns the pause after a failed attempt. `news` is true if the reason differs from that of
    /// the attempt before, so that it is logged again. A plugin that fails the same question for a
    /// different reason each time is called at exponentially growing intervals.
    pub fn after(&mut self, what: InVain<Q>, news: bool) -> Duration {
        let share = |took: Duration| took.saturating_mul(SHARE).min(LONGEST);
        let pause = match what {
            InVain::Waiting => STEADY,
            InVain::Plugin { compiling, took } => {
                self.compiled = self.compiled.saturating_add(u32::from(compiling));
                BACKOFF.delay(self.compiled).max(share(took))
            }
            InVain::Answer { question, took } => {
                if self.asked.as_ref() != Some(&question) {
                    self.said = 0;
                    self.asked = Some(question);
                }
                BACKOFF.delay(self.said).max(share(took))
            }
        };
        self.said = if news { self.said.saturating_add(1) } else { 0 };
        pause
    }
}

impl<Q: PartialEq> Default for Patience<Q> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_TIME: Duration = Duration::ZERO;

    fn answer(question: u8, took: Duration) -> InVain<u8> {
        InVain::Answer { question, took }
    }

    #[test]
    fn free_attempts_are_made_every_second() {
        let mut patience = Patience::<u8>::new();
        for _ in 0..100 {
            assert_eq!(patience.after(InVain::Waiting, false), STEADY);
            let looked = InVain::Plugin { compiling: false, took: Duration::from_millis(3) };
            assert_eq!(patience.after(looked, false), STEADY);
            assert_eq!(patience.after(answer(1, Duration::from_millis(3)), false), STEADY);
        }
    }

    #[test]
    fn changing_question_is_retried_every_second() {
        let mut patience = Patience::new();
        for question in 0..20 {
            assert_eq!(patience.after(answer(question, NO_TIME), true), STEADY);
        }
    }

    #[test]
    fn plugin_with_changing_errors_is_backed_off() {
        let mut patience = Patience::new();
        let pauses: Vec<_> =
            (0..9).map(|_| patience.after(answer(1, NO_TIME), true).as_secs()).collect();
        assert_eq!(pauses, [1, 1, 2, 4, 8, 16, 32, 60, 60]);
        // One repeated error resets the backoff.
        patience.after(answer(1, NO_TIME), false);
        assert_eq!(patience.after(answer(1, NO_TIME), true), STEADY);
    }

    #[test]
    fn plugin_that_does_not_compile_is_backed_off() {
        let mut patience = Patience::<u8>::new();
        let compiled = || InVain::Plugin { compiling: true, took: NO_TIME };
        let pauses: Vec<_> = (0..8).map(|_| patience.after(compiled(), false).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn failing_plugin_is_limited_to_a_tenth_of_the_time() {
        let mut patience = Patience::new();
        let seconds = Duration::from_secs;
        let compiled = InVain::Plugin { compiling: true, took: seconds(5) };
        assert_eq!(patience.after(compiled, true), seconds(45));
        assert_eq!(patience.after(answer(1, seconds(3)), true), seconds(27));
        assert_eq!(patience.after(answer(1, seconds(100)), false), LONGEST);
    }
}
