//! Runs `nft` and the programs of iptables.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use heddle_core::cgroup::{GroupMemory, explain_kill};
use heddle_core::text::one_line;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::FirewallError;

/// Time limit for a program. Those of iptables may spend [`crate::iptables::LOCK_SECONDS`] of it
/// waiting for their lock.
const LIMIT: Duration = Duration::from_secs(15);

/// The maximum length of a failed program's error output in an error message, in characters.
const SAID: usize = 1000;

/// The remedies for a program that is not installed.
const INSTALL_IPTABLES: &str =
    "Install the package iptables, or set \"EnableNFTables\": true in the network config.";
const INSTALL_NFT: &str =
    "Install the package nftables, or set \"EnableNFTables\": false in the network config.";

/// Runs a program with this input until it exits, and returns its output. It runs in the network
/// namespace of the calling thread.
///
/// # Errors
///
/// All but `Output` and `StillDiffers`.
pub(crate) fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, FirewallError> {
    run_within(LIMIT, program, arguments, input)
}

#[expect(clippy::disallowed_methods, reason = "this crate runs programs")]
fn run_within(
    limit: Duration,
    program: &str,
    arguments: &[&str],
    input: &str,
) -> Result<String, FirewallError> {
    let command = command_line(program, arguments);
    let memory = group_memory();
    let start_error = |source| FirewallError::Start { command: command.clone(), source };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // The name may be that of a script: its own process group allows to kill its children too,
        // which would otherwise keep the pipes open.
        .process_group(0)
        .spawn()
        .map_err(|source| match source.kind() {
            ErrorKind::NotFound => FirewallError::Missing {
                program: program.to_owned(),
                remedy: if program == "nft" { INSTALL_NFT } else { INSTALL_IPTABLES },
            },
            _ => start_error(source),
        })?;
    let mut stdin = child.stdin.take().expect("standard input is piped");
    let stdout = child.stdout.take().expect("standard output is piped");
    let stderr = child.stderr.take().expect("standard error is piped");
    // One thread for each pipe: a program may print before it has read all of its input.
    let (status, stdout, stderr) = thread::scope(|scope| {
        // A write error is ignored: a program that exits without reading is judged by its exit
        // status.
        scope.spawn(move || stdin.write_all(input.as_bytes()));
        let stdout = scope.spawn(|| read(stdout));
        let stderr = scope.spawn(|| read(stderr));
        let status = wait(&mut child, limit);
        (status, stdout.join(), stderr.join())
    });
    let Some(status) = status.map_err(start_error)? else {
        return Err(FirewallError::Timeout { command, limit });
    };
    let stdout = stdout.expect("reading does not panic").map_err(start_error)?;
    let stderr = stderr.expect("reading does not panic").map_err(start_error)?;
    match status.signal() {
        _ if status.success() => Ok(stdout),
        Some(signal) if signal == Signal::KILL.as_raw() => {
            let reason = explain_kill(memory.as_ref(), group_memory().as_ref());
            Err(FirewallError::Killed { command, reason })
        }
        _ => {
            let stderr = one_line(&stderr, SAID);
            Err(FirewallError::Failed { command, status, stderr })
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "files of the kernel")]
fn group_memory() -> Option<GroupMemory> {
    GroupMemory::read(|path| std::fs::read_to_string(path).ok())
}

/// Waits until a program exits. Returns `None` if it exceeded the time limit and was killed.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let start = Instant::now();
    loop {
        let left = limit.saturating_sub(start.elapsed());
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(&ended, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) => {
                kill_process_group(Pid::from_child(child), Signal::KILL)?;
                child.wait()?;
                return Ok(None);
            }
            Ok(_) => return child.wait().map(Some),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn read(mut pipe: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes)?;
    // Foreign comments may contain any bytes.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns the command line as one would type it.
pub(crate) fn command_line(program: &str, arguments: &[&str]) -> String {
    std::iter::once(program).chain(arguments.iter().copied()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_larger_than_pipe_is_passed() {
        let input = "0123456789abcdef".repeat(1 << 16);
        assert_eq!(run("cat", &[], &input).unwrap(), input);
    }

    #[test]
    fn missing_program_error_names_remedy() {
        assert_eq!(
            run("no-such-iptables", &[], "").unwrap_err().to_string(),
            "cannot run `no-such-iptables`: it is not installed. Install the package iptables, or \
             set \"EnableNFTables\": true in the network config."
        );
    }

    #[test]
    fn failure_shows_command_and_error_output() {
        let error = run("sh", &["-c", "echo no such thing >&2; exit 3"], "").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`sh -c echo no such thing >&2; exit 3` failed (exit status: 3): no such thing"
        );
    }

    #[test]
    fn killed_program_error_names_remedy() {
        let error = run("sh", &["-c", "kill -KILL $$"], "").unwrap_err();
        assert!(matches!(error, FirewallError::Killed { .. }), "{error}");
        for part in ["`sh -c", "was killed by signal 9 (SIGKILL)", "OOM killer", "MemoryMax="] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn error_output_becomes_one_visible_line() {
        let script = "printf 'a\\nERROR b \\342\\200\\256c' >&2; exit 3";
        let error = run("sh", &["-c", script], "").unwrap_err();
        assert!(error.to_string().ends_with(": a ERROR b \\u{202e}c"), "{error}");
    }

    #[test]
    fn hanging_program_is_killed_with_its_children() {
        let limit = Duration::from_millis(50);
        for script in ["exec sleep 1000", "sleep 1000; true"] {
            let error = run_within(limit, "sh", &["-c", script], "").unwrap_err();
            assert!(matches!(error, FirewallError::Timeout { .. }), "{error}");
        }
    }
}
