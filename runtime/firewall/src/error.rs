//! What can go wrong.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

/// Rules that could not be looked at or put right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FirewallError {
    /// A program that is needed is not installed.
    #[error("cannot run `{program}`: it is not installed. {remedy}")]
    Missing {
        /// Its name.
        program: String,
        /// What to install or to set.
        remedy: &'static str,
    },
    /// A program could not be started, or spoken with.
    #[error("cannot run `{command}`: {source}")]
    Start {
        /// Its command line.
        command: String,
        /// Why not.
        source: io::Error,
    },
    /// A program said that it failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    Failed {
        /// Its command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// A program was killed, by whom nobody says.
    #[error("`{command}` was killed by signal 9 (SIGKILL): {reason}")]
    Killed {
        /// Its command line.
        command: String,
        /// The most likely cause, and the remedy.
        reason: String,
    },
    /// A program took too long, and was ended.
    #[error("`{command}` did not end within {limit:?}, and was killed")]
    Timeout {
        /// Its command line.
        command: String,
        /// How long it could have taken.
        limit: Duration,
    },
    /// A program printed something else than it should.
    #[error("`{command}` printed what cannot be read: {problem}")]
    Output {
        /// Its command line.
        command: String,
        /// Which part, and why.
        problem: String,
    },
    /// A table of iptables that has rules which only `nft` can have written.
    #[error(
        "{place}: table {table} has rules that iptables cannot read, so nothing is changed there. Move what `nft` wrote \
         into a table of its own, or set \"EnableNFTables\": true in the network config."
    )]
    Hidden {
        /// Which flavour of iptables.
        place: String,
        /// The table.
        table: &'static str,
    },
    /// What was written is not what is read back, several times over.
    #[error(
        "{place}: {difference}, even after it was put right {rounds} times; something else may be \
         changing it all the time"
    )]
    Unsettled {
        /// Which rules.
        place: String,
        /// How they differ.
        difference: String,
        /// How often they were written.
        rounds: usize,
    },
}
