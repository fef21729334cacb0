//! What can go wrong with a call.

use std::fmt;
use std::time::Duration;

use heddle_core::lease::Lease;
use heddle_grant::{Refusal, text};

/// A call to a plugin that brought no answer to act on. Names the plugin, the call, the peer and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    /// The plugin's name.
    pub plugin: String,
    /// The function: `plan-peer`.
    pub call: &'static str,
    /// The peer that it was about: its lease's key and its owner.
    pub peer: Option<String>,
    /// Why.
    pub reason: Reason,
}

/// Why a call brought no answer to act on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The plugin crashed.
    #[error("trapped: {0}")]
    Trapped(String),
    /// It took too long.
    #[error("exceeded the time limit of {}", text::time(*.0))]
    TimedOut(Duration),
    /// It asked for too much memory.
    #[error("exceeded the memory limit of {} (asked for {})", text::memory(*.limit), text::memory(*.asked))]
    OutOfMemory {
        /// In bytes.
        limit: usize,
        /// In bytes.
        asked: usize,
    },
    /// Its answer, or a line for the log, is too long to be taken over. By how much, the component model does not say.
    #[error("exceeded the limit of {} on an answer", text::memory(*.0))]
    TooLong(usize),
    /// It was not called, because too many calls failed one after the other.
    #[error("suspended for another {} after {failures} calls in a row failed", text::time(*.rest))]
    Suspended {
        /// How long it will not be called.
        rest: Duration,
        /// How many failed.
        failures: usize,
    },
    /// It answered with something that cannot be done or that it may not ask for. Nothing of the answer is used.
    #[error("its answer is refused: {0}")]
    Refused(Refusal),
    /// It complains about a key of the network config.
    #[error("{key} {message}")]
    Config {
        /// Which one, `Backend.VNI`.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// The peer's lease is for another backend: nothing is to be programmed for it. Not a fault.
    #[error("the lease is for the backend {0}")]
    OtherBackend(String),
    /// The peer's lease is for this backend, but something in it is wrong.
    #[error("the lease cannot be used: {0}")]
    Invalid(String),
    /// An emitter has no files, and says why.
    #[error("{0}")]
    Emitter(String),
    /// The thread that runs the plugin is gone.
    #[error("its thread has ended")]
    Stopped,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin {}, {}", self.plugin, self.call)?;
        if let Some(peer) = &self.peer {
            write!(f, " for {peer}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for CallError {}

/// A peer in messages.
pub(crate) fn describe(lease: &Lease) -> String {
    format!("lease {} of {}", lease.key, text::plain(&lease.owner()))
}
