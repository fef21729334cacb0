//! Errors of calls to plugins.

use std::fmt;
use std::time::Duration;

use heddle_core::lease::Lease;
use heddle_grant::{Refusal, text};

/// A failed call to a plugin. Names the plugin, the call, the peer and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    /// The plugin's name.
    pub plugin: String,
    /// The function, such as `plan-peer`.
    pub call: &'static str,
    /// The peer that the call was about: the key of its lease and its owner. None for a call about
    /// the node.
    pub peer: Option<String>,
    /// The reason for the failure.
    pub reason: Reason,
}

/// The reason why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The plugin crashed.
    #[error("trapped: {0}")]
    Trapped(String),
    /// The call exceeded its time limit.
    #[error("exceeded the time limit of {}", text::time(*.0))]
    TimedOut(Duration),
    /// The plugin exceeded its memory limit.
    #[error("exceeded the memory limit of {} (asked for {})", text::memory(*.limit), text::memory(*.asked))]
    OutOfMemory {
        /// The limit in bytes.
        limit: usize,
        /// The requested amount in bytes.
        asked: usize,
    },
    /// An answer or a log line exceeds its size limit in bytes. The component model does not report
    /// by how much.
    #[error("exceeded the limit of {} on an answer", text::memory(*.0))]
    TooLong(usize),
    /// The circuit breaker is open: the plugin was not called, because too many calls failed in a
    /// row.
    #[error("suspended for another {} after {failures} calls in a row failed", text::time(*.rest))]
    Suspended {
        /// Remaining time of the suspension.
        rest: Duration,
        /// Number of calls that failed.
        failures: usize,
    },
    /// The answer cannot be programmed, or asks for something that the plugin may not have. No part
    /// of it is used.
    #[error("its answer is refused: {0}")]
    Refused(Refusal),
    /// The plugin rejects a key of the network config.
    #[error("{key} {message}")]
    Config {
        /// The key, such as `Backend.VNI`.
        key: String,
        /// The problem with it.
        message: String,
    },
    /// The peer's lease is for another backend, so nothing is programmed for it. Not a fault.
    #[error("the lease is for the backend {0}")]
    OtherBackend(String),
    /// The peer's lease is for this backend, but is invalid.
    #[error("the lease cannot be used: {0}")]
    Invalid(String),
    /// The emitter has no files, and says why.
    #[error("{0}")]
    Emitter(String),
    /// The plugin's thread has ended.
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

/// Formats a peer for messages.
pub(crate) fn describe(lease: &Lease) -> String {
    format!("lease {} of {}", lease.key, text::plain(&lease.owner()))
}
