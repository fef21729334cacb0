//! What can go wrong in a lab.

use std::fmt;
use std::process::ExitStatus;
use std::time::Duration;

/// Something did not work; the text is meant to be shown as it is.
#[derive(thiserror::Error)]
pub enum Error {
    /// A program could not be started.
    #[error("cannot run `{command}`: {source}")]
    Start {
        /// The whole command line.
        command: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A program failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    Failed {
        /// The whole command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// A program's output was not what it should be.
    #[error("`{command}` printed something unexpected: {problem}")]
    Output {
        /// The whole command line.
        command: String,
        /// What was wrong.
        problem: String,
    },
    /// A file could not be read or written, or something like it.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with the path.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Something did not happen in time.
    #[error("{what}: not within {limit:?}; last seen: {seen}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
        /// How it stood at the end.
        seen: String,
    },
    /// A daemon ended by itself.
    #[error("heddled on {host} ended ({status}); its log ends with:\n{log}")]
    Ended {
        /// On which host.
        host: String,
        /// How.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// etcd or a daemon answered a request with an error, or not at all.
    #[error("{request}: {problem}")]
    Http {
        /// Method and address.
        request: String,
        /// What came back.
        problem: String,
    },
    /// Something is missing that a lab cannot do without.
    #[error("{0}")]
    Missing(String),
}

/// The same as [`Display`](fmt::Display), so that `unwrap` in a test shows logs with their line breaks.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        |source| Self::Io { what, source }
    }
}
