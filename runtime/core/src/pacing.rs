//! Pacing of recurring work: when the next attempt, run or update may be made.
//!
//! Times, durations and random numbers are arguments, so that tests decide them. Rate limits of
//! events are in [`crate::rate`].
//!
//! | type | limits |
//! | --- | --- |
//! | [`Backoff`], [`RetryDelay`] | attempts at one thing that fails, with jitter where nodes could fail together |
//! | [`RetryQueue`] | attempts at many things, each with a backoff of its own |
//! | [`DutyCycle`] | the share of time that recurring work takes |
//! | [`Debounce`] | updates after events that come in bursts |

mod backoff;
mod debounce;
mod duty_cycle;
mod retry_queue;

pub use backoff::{Backoff, RetryDelay};
pub use debounce::Debounce;
pub use duty_cycle::DutyCycle;
pub use retry_queue::{Failing, RetryQueue};
