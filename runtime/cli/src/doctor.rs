//! `heddle doctor`.

use std::process::ExitCode;

use clap::Args;
use heddle_doctor::examine;

use crate::daemon::wait_for;
use crate::daemon_flags::DaemonFlags;
use crate::output::{json, print};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Print JSON, for programs; must precede the daemon's flags
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: DaemonFlags,
}

/// Prints the findings; prints nothing if there are none.
pub(crate) fn doctor(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let unit = arguments.flags.unit();
    let flags = arguments.flags.read();
    wait_for(async {
        let report = examine(&flags, &unit).await;
        print(&if arguments.json { json(&report)? } else { report.to_string() })?;
        Ok(if report.is_healthy() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}
