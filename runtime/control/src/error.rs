//! Errors between tool and daemon.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Error of the daemon when it starts to listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another daemon listens on the socket.
    #[error(
        "--control-socket {0}: another daemon listens there; give each instance a socket of its own"
    )]
    InUse(PathBuf),
    /// The path exists and is not a socket.
    #[error("--control-socket {0}: exists and is not a socket; remove it or name another path")]
    NotASocket(PathBuf),
    /// The path is longer than an address of a socket may be (unix(7)).
    #[error("--control-socket {path}: longer than {limit} bytes; name a shorter path")]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Length limit in bytes.
        limit: usize,
    },
    /// The group does not exist.
    #[error("--control-group {0}: no such group")]
    NoGroup(String),
    /// A system call failed.
    #[error("--control-socket {path}: {step}: {source}")]
    Io {
        /// Path of the socket.
        path: PathBuf,
        /// Step that failed.
        step: &'static str,
        /// Error from the system.
        source: io::Error,
    },
}

/// Error of the tool when it gets no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The socket does not exist.
    #[error(
        "{0} does not exist: is heddled running? (`systemctl status heddled`; an instance is named with --instance, \
         another socket with --socket)"
    )]
    Missing(PathBuf),
    /// The socket exists, and no process listens on it.
    #[error("no process listens on {0}: is heddled running? (`systemctl status heddled`)")]
    NotRunning(PathBuf),
    /// The caller has no access to the socket.
    #[error("{path}: permission denied; only {allowed} may use it")]
    Denied {
        /// Path of the socket.
        path: PathBuf,
        /// Users with access, and how to grant it to others.
        allowed: String,
    },
    /// The time limit was exceeded.
    #[error("heddled did not answer on {path} within {} seconds", .limit.as_secs())]
    Timeout {
        /// Path of the socket.
        path: PathBuf,
        /// Time limit.
        limit: Duration,
    },
    /// The daemon cannot answer at present.
    #[error("heddled cannot answer: {0}")]
    Unavailable(String),
    /// The answer is not of heddled's protocol.
    #[error("{path}: the answer does not follow heddled's protocol: {reason}")]
    Protocol {
        /// Path of the socket.
        path: PathBuf,
        /// Problem with the answer.
        reason: String,
    },
    /// A system call failed.
    #[error("{path}: {source}")]
    Io {
        /// Path of the socket.
        path: PathBuf,
        /// Error from the system.
        source: io::Error,
    },
}
