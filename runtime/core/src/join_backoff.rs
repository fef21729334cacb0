//! Backoff of a node that cannot join.
//!
//! Problems that an operator can fix in the store are checked every second. A failing plugin burns
//! CPU on every attempt, and possibly more each time, so attempts that involve a plugin are limited
//! to a tenth of wall time.

use std::time::Duration;

use crate::pacing::{Backoff, DutyCycle};

/// Interval of attempts that cost nothing.
const STEADY: Duration = Duration::from_secs(1);

/// Exponential backoff of repeated failures.
const BACKOFF: Backoff = Backoff { initial: STEADY, limit: Duration::from_secs(60) };

/// Upper limit of the pause after a failing plugin's attempt.
const LONGEST: Duration = Duration::from_secs(600);

/// Limits a failing plugin to a tenth of wall time: after one second of it, the next attempt is at
/// least nine seconds later.
const DUTY: DutyCycle = DutyCycle::one_in(10).pause_at_most(LONGEST);

/// The reason why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure<Q> {
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
pub struct JoinBackoff<Q> {
    compile_failures: u32,
    /// Consecutive attempts with the same question that failed for another reason than the attempt
    /// before.
    changed_answers: u32,
    question: Option<Q>,
}

impl<Q: PartialEq> JoinBackoff<Q> {
    /// Creates the state before the first attempt.
    pub fn new() -> Self {
        Self { compile_failures: 0, changed_answers: 0, question: None }
    }

    /// Returns the pause after a failed attempt. `is_new` is true if the reason differs from that of
    /// the attempt before, so that it is logged again. A plugin that fails the same question for a
    /// different reason each time is called at exponentially growing intervals.
    pub fn after(&mut self, failure: Failure<Q>, is_new: bool) -> Duration {
        let pause = match failure {
            Failure::Waiting => STEADY,
            Failure::Plugin { compiling, took } => {
                self.compile_failures = self.compile_failures.saturating_add(u32::from(compiling));
                BACKOFF.delay(self.compile_failures).max(DUTY.pause(took))
            }
            Failure::Answer { question, took } => {
                if self.question.as_ref() != Some(&question) {
                    self.changed_answers = 0;
                    self.question = Some(question);
                }
                BACKOFF.delay(self.changed_answers).max(DUTY.pause(took))
            }
        };
        self.changed_answers = if is_new { self.changed_answers.saturating_add(1) } else { 0 };
        pause
    }
}

impl<Q: PartialEq> Default for JoinBackoff<Q> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_TIME: Duration = Duration::ZERO;

    fn answer(question: u8, took: Duration) -> Failure<u8> {
        Failure::Answer { question, took }
    }

    #[test]
    fn free_attempts_are_made_every_second() {
        let mut backoff = JoinBackoff::<u8>::new();
        for _ in 0..100 {
            assert_eq!(backoff.after(Failure::Waiting, false), STEADY);
            let looked = Failure::Plugin { compiling: false, took: Duration::from_millis(3) };
            assert_eq!(backoff.after(looked, false), STEADY);
            assert_eq!(backoff.after(answer(1, Duration::from_millis(3)), false), STEADY);
        }
    }

    #[test]
    fn changing_question_is_retried_every_second() {
        let mut backoff = JoinBackoff::new();
        for question in 0..20 {
            assert_eq!(backoff.after(answer(question, NO_TIME), true), STEADY);
        }
    }

    #[test]
    fn plugin_with_changing_errors_is_backed_off() {
        let mut backoff = JoinBackoff::new();
        let pauses: Vec<_> =
            (0..9).map(|_| backoff.after(answer(1, NO_TIME), true).as_secs()).collect();
        assert_eq!(pauses, [1, 1, 2, 4, 8, 16, 32, 60, 60]);
        // One repeated error resets the backoff.
        backoff.after(answer(1, NO_TIME), false);
        assert_eq!(backoff.after(answer(1, NO_TIME), true), STEADY);
    }

    #[test]
    fn plugin_that_does_not_compile_is_backed_off() {
        let mut backoff = JoinBackoff::<u8>::new();
        let compiled = || Failure::Plugin { compiling: true, took: NO_TIME };
        let pauses: Vec<_> = (0..8).map(|_| backoff.after(compiled(), false).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn failing_plugin_is_limited_to_a_tenth_of_the_time() {
        let mut backoff = JoinBackoff::new();
        let seconds = Duration::from_secs;
        let compiled = Failure::Plugin { compiling: true, took: seconds(5) };
        assert_eq!(backoff.after(compiled, true), seconds(45));
        assert_eq!(backoff.after(answer(1, seconds(3)), true), seconds(27));
        assert_eq!(backoff.after(answer(1, seconds(100)), false), LONGEST);
    }
}
