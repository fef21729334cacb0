//! How long a node that cannot join waits before it tries again.
//!
//! What an operator can put right in the store is looked at every second. But what a plugin does before it is of no use
//! costs time, and may cost more each time: so it gets a share of the time at most.

use std::time::Duration;

use crate::retry::Backoff;

/// How often what costs nothing is tried again.
const STEADY: Duration = Duration::from_secs(1);

/// How long the time between two tries grows.
const BACKOFF: Backoff = Backoff { initial: STEADY, limit: Duration::from_secs(60) };

/// A plugin in vain may take a tenth of the time: after a second of it, the next try is at least nine seconds later.
const SHARE: u32 = 9;

/// But not later than this.
const LONGEST: Duration = Duration::from_secs(600);

/// Why a try was in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InVain<Q> {
    /// There is nothing to be done but to look again.
    Waiting,
    /// A plugin cannot be had.
    Plugin {
        /// Whether it was compiled in vain, which takes a processor each time.
        compiling: bool,
        /// How long it took to find that out.
        took: Duration,
    },
    /// A plugin was asked, and has no answer.
    Answer {
        /// What it was asked.
        question: Q,
        /// How long it took over that, the time to compile it excepted.
        took: Duration,
    },
}

/// How it has gone so far.
#[derive(Clone, Debug)]
pub struct Patience<Q> {
    compiled: u32,
    /// How often in a row something else was said of one question.
    said: u32,
    asked: Option<Q>,
}

impl<Q: PartialEq> Patience<Q> {
    /// Before the first try.
    pub fn new() -> Self {
        Self { compiled: 0, said: 0, asked: None }
    }

    /// How long to wait after a try in vain. `news`: whether the reason is another than the time before, so that it is in
    /// the log once more. A plugin that says something else of the same question each time is asked less and less often.
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
    fn what_costs_nothing_is_looked_at_every_second() {
        let mut patience = Patience::<u8>::new();
        for _ in 0..100 {
            assert_eq!(patience.after(InVain::Waiting, false), STEADY);
            let looked = InVain::Plugin { compiling: false, took: Duration::from_millis(3) };
            assert_eq!(patience.after(looked, false), STEADY);
            assert_eq!(patience.after(answer(1, Duration::from_millis(3)), false), STEADY);
        }
    }

    #[test]
    fn a_config_that_is_mended_again_and_again_is_read_every_second() {
        let mut patience = Patience::new();
        for question in 0..20 {
            assert_eq!(patience.after(answer(question, NO_TIME), true), STEADY);
        }
    }

    #[test]
    fn what_says_something_else_each_time_is_asked_less_and_less_often() {
        let mut patience = Patience::new();
        let pauses: Vec<_> =
            (0..9).map(|_| patience.after(answer(1, NO_TIME), true).as_secs()).collect();
        assert_eq!(pauses, [1, 1, 2, 4, 8, 16, 32, 60, 60]);
        // Until it says the same once.
        patience.after(answer(1, NO_TIME), false);
        assert_eq!(patience.after(answer(1, NO_TIME), true), STEADY);
    }

    #[test]
    fn what_cannot_be_compiled_is_compiled_less_and_less_often() {
        let mut patience = Patience::<u8>::new();
        let compiled = || InVain::Plugin { compiling: true, took: NO_TIME };
        let pauses: Vec<_> = (0..8).map(|_| patience.after(compiled(), false).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn a_plugin_in_vain_takes_a_tenth_of_the_time() {
        let mut patience = Patience::new();
        let seconds = Duration::from_secs;
        let compiled = InVain::Plugin { compiling: true, took: seconds(5) };
        assert_eq!(patience.after(compiled, true), seconds(45));
        assert_eq!(patience.after(answer(1, seconds(3)), true), seconds(27));
        assert_eq!(patience.after(answer(1, seconds(100)), false), LONGEST);
    }
}
