//! Errors in a lab.

use std::fmt;
use std::process::ExitStatus;
use std::time::Duration;

/// A failure, whose text is meant to be shown as it is.
#[derive(thiserror::Error)]
pub enum Error {
    /// A program could not be started.
    #[error("cannot run `{command}`: {source}")]
    Start {
        /// The whole command line.
        command: String,
        /// The I/O error.
        source: std::io::Error,
    },
    /// A program failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    Failed {
        /// The whole command line.
        command: String,
        /// The exit status.
        status: ExitStatus,
        /// The program's error output.
        stderr: String,
    },
    /// A program printed unexpected output.
    #[error("`{command}` printed something unexpected: {problem}")]
    Output {
        /// The whole command line.
        command: String,
        /// The problem with the output.
        problem: String,
    },
    /// A file operation or a similar system call failed.
    #[error("{what}: {source}")]
    Io {
        /// The operation, with the path.
        what: String,
        /// The I/O error.
        source: std::io::Error,
    },
    /// A condition was not met in time.
    #[error("{what}: not within {limit:?}; last seen: {seen}")]
    Timeout {
        /// The condition.
        what: String,
        /// The time limit.
        limit: Duration,
        /// The last observation.
        seen: String,
    },
    /// A daemon exited unexpectedly.
    #[error("heddled on {host} ended ({status}); its log ends with:\n{log}")]
    Ended {
        /// The name of its host.
        host: String,
        /// Its exit status.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// etcd or a daemon answered a request with an error, or not at all.
    #[error("{request}: {problem}")]
    Http {
        /// The method and URL.
        request: String,
        /// The error or the answer.
        problem: String,
    },
    /// A requirement of the lab is missing.
    #[error("{0}")]
    Missing(String),
}

/// Writes the same as [`Display`](fmt::Display), so that `unwrap` in a test shows logs with their
/// line breaks.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    /// Returns a closure for `map_err` on file operations.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        |source| Self::Io { what, source }
    }
}
