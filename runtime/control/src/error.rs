//! What goes wrong between tool and daemon.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// The daemon cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A daemon answers there.
    #[error(
        "--control-socket {0}: another daemon listens there; give each instance a socket of its own"
    )]
    InUse(PathBuf),
    /// Something else stands in its place.
    #[error(
        "--control-socket {0}: expected a socket or nothing at all, and there is something else"
    )]
    NotASocket(PathBuf),
    /// There is no such group.
    #[error("--control-group {0}: there is no such group")]
    NoGroup(String),
    /// The system refuses.
    #[error("--control-socket {path}: {step}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was being done.
        step: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

/// The tool got no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no socket.
    #[error(
        "{0} does not exist: is heddled running? (`systemctl status heddled`; an instance is named with --instance, \
         another socket with --socket)"
    )]
    Missing(PathBuf),
    /// There is a socket, and nobody behind it.
    #[error("nobody listens on {0}: is heddled running? (`systemctl status heddled`)")]
    NotRunning(PathBuf),
    /// The caller has no right to ask.
    #[error("{path} may not be used by this user: it is for {allowed}")]
    Denied {
        /// The socket.
        path: PathBuf,
        /// Who may, and how others could.
        allowed: String,
    },
    /// No answer in time.
    #[error("heddled did not answer on {path} within {} seconds", .limit.as_secs())]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        limit: Duration,
    },
    /// The daemon cannot answer.
    #[error("heddled cannot answer: {0}")]
    Unavailable(String),
    /// The answer is none that a daemon gives.
    #[error("what answers on {path} does not speak heddled's protocol: {reason}")]
    Protocol {
        /// The socket.
        path: PathBuf,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The system refuses.
    #[error("{path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}
