//! Running programs, with errors that show the command line and what it said.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::Error;

/// Runs a command to its end and returns what it printed.
///
/// # Errors
///
/// [`Error::Start`] or [`Error::Failed`].
pub fn run(command: &mut Command) -> Result<String, Error> {
    run_with_input(command, "")
}

/// The same, with something on its standard input.
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
    // Written from a second thread: the program may print before it has read everything.
    let output = std::thread::scope(|scope| {
        // A program that ends without reading is judged by its exit status.
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

/// The command line as one would type it.
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
    fn a_failure_shows_the_command_and_what_it_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such thing >&2; exit 3"]);
        assert_eq!(
            run(&mut command).unwrap_err().to_string(),
            "`sh -c echo no such thing >&2; exit 3` failed (exit status: 3): no such thing"
        );
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("/no/such/program")).unwrap_err();
        assert!(error.to_string().starts_with("cannot run `/no/such/program`: "), "{error}");
    }

    #[test]
    fn more_than_a_pipe_holds_goes_through() {
        let input = "0123456789abcdef".repeat(1 << 16);
        assert_eq!(run_with_input(&mut Command::new("cat"), &input).unwrap(), input);
    }
}
