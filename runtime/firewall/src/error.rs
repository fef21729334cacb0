//! Errors of this crate.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

/// Rules that could not be read or repaired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FirewallError {
    /// A required program is not installed.
    #[error("cannot run `{program}`: it is not installed. {remedy}")]
    Missing {
        /// The program's name.
        program: String,
        /// The package to install, or the setting to change.
        remedy: &'static str,
    },
    /// A program could not be started, or its pipes failed.
    #[error("cannot run `{command}`: {source}")]
    Start {
        /// The program's command line.
        command: String,
        /// The I/O error.
        source: io::Error,
    },
    /// A program exited with a failure.
    #[error("`{command}` failed ({status}): {stderr}")]
    Failed {
        /// The program's command line.
        command: String,
        /// The program's exit status.
        status: ExitStatus,
        /// The program's error output.
        stderr: String,
    },
    /// A program was killed by SIGKILL; the kernel does not say by whom.
    #[error("`{command}` was killed by signal 9 (SIGKILL): {reason}")]
    Killed {
        /// The program's command line.
        command: String,
        /// The most likely cause, and the remedy.
        reason: String,
    },
    /// A program exceeded its time limit and was killed.
    #[error("`{command}` did not end within {limit:?}, and was killed")]
    Timeout {
        /// The program's command line.
        command: String,
        /// The time limit.
        limit: Duration,
    },
    /// A program printed unexpected output.
    #[error("cannot read the output of `{command}`: {problem}")]
    Output {
        /// The program's command line.
        command: String,
        /// The part that was not understood, and the reason.
        problem: String,
    },
    /// An iptables table has rules that iptables cannot read, which only `nft` can have written.
    #[error(
        "{place}: table {table} has rules that iptables cannot read, so heddled does not change it. Move what `nft` wrote \
         into a table of its own, or set \"EnableNFTables\": true in the network config."
    )]
    Hidden {
        /// The flavour of iptables, by its command.
        place: String,
        /// The table.
        table: &'static str,
    },
    /// The rules read back still differ from those written, after several rounds.
    #[error(
        "{place}: {difference}, even after {rounds} repairs; another program may be changing it \
         continuously"
    )]
    StillDiffers {
        /// The place of the rules.
        place: String,
        /// The first difference.
        difference: String,
        /// The number of times that they were written.
        rounds: usize,
    },
}
