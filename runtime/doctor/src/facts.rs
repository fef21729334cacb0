//! Facts: everything that is read from the host, one kind of source in each module. Nothing here
//! judges.

pub(crate) mod credentials;
pub(crate) mod docker;
pub(crate) mod files;
pub(crate) mod offload;
pub(crate) mod settings;
pub(crate) mod sockets;
pub(crate) mod tun;
pub(crate) mod unit;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Returns the text of a file below `/proc`. `None` if it cannot be read.
#[expect(clippy::disallowed_methods, reason = "a file of the kernel")]
fn kernel_file(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// Time limit for another program.
const PROGRAM_LIMIT: Duration = Duration::from_secs(3);

/// Returns the output of a program. `None` if it is missing, failed, or exceeded the time limit.
#[expect(clippy::disallowed_methods, reason = "programs are asked for facts, with a limit")]
async fn printed(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PROGRAM_LIMIT, command.output()).await.ok()?.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
