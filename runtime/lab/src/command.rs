//! Runs programs; errors show the command line and the program's error output.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::Error;

/// Runs a command to completion and returns its output.
///
/// # Errors
///
/// [`Error::Start`] or [`Error::Failed`].
pub fn run(command: &mut Command) -> Result<String, Error> {
    run_with_input(command, "")
}

/// Does the same with the given standard input.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Result<String, Error> {
    let start_error =
        |command: &Command, source| Error::Start { command: display(command), source };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| start_error(command, source))?;
    let mut stdin = child.stdin.take().expect("standard input is piped");
    // Written by a second thread: the program may print before it has read all of its input.
    let output = std::thread::scope(|scope| {
        // A write error is ignored: a program that exits without reading is judged by its exit
        // status.
        scope.spawn(move || stdin.write_all(input.as_bytes()));
        child.wait_with_output()
    })
    .map_err(|source| start_error(command, source))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let mut stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if stderr.is_empty() {
            String::from_utf8_lossy(&output.stdout).trim().clone_into(&mut stderr);
        }
        Err(Error::Failed { command: display(command), status: output.status, stderr })
    }
}

/// Returns the command line as one would type it.
pub(crate) fn display(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_shows_command_and_error_output() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such thing >&2; exit 3"]);
        assert_eq!(
            run(&mut command).unwrap_err().to_string(),
            "`sh -c echo no such thing >&2; exit 3` failed (exit status: 3): no such thing"
        );
    }

    #[test]
    fn missing_program_is_named() {
        let error = run(&mut Command::new("/no/such/program")).unwrap_err();
        assert!(error.to_string().starts_with("cannot run `/no/such/program`: "), "{error}");
    }

    #[test]
    fn input_larger_than_pipe_is_passed() {
        let input = "0123456789abcdef".repeat(1 << 16);
        assert_eq!(run_with_input(&mut Command::new("cat"), &input).unwrap(), input);
    }
}
