//! Arguments that name something other than a regular file: each is reported, and none blocks the
//! tool.

#![allow(clippy::disallowed_methods, reason = "tests may run programs, wait and read files")]

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Far longer than any of these calls takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the tool, which must not block. Returns its exit code and standard error.
fn heddle(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heddle"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{arguments:?} is still running");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (status.code(), said)
}

fn fifo(directory: &Path, name: &str) -> String {
    let path = directory.join(name);
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    path.to_str().unwrap().to_owned()
}

#[test]
fn fifo_as_argument_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = fifo(directory.path(), "fifo.wasm");
    let file = directory.path().join("file").to_str().unwrap().to_owned();
    fs::write(&file, "{}").unwrap();
    for arguments in [
        &["config", "check", &fifo][..],
        &["config", "check", &file, "--plugin-policy", &fifo],
        &["plugin", "inspect", &fifo],
        &["plugin", "compile", &fifo, &file],
        &["plugin", "manifest", &fifo, &file],
        &["plugin", "plan", "vxlan", &fifo],
        &["doctor", "--environment-file", &fifo],
    ] {
        let (code, said) = heddle(arguments);
        assert!(code.is_some_and(|code| code != 0), "{arguments:?}: {said}");
        assert!(said.contains(&fifo) && said.contains("it is a FIFO"), "{arguments:?}: {said}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "{}");
}

#[test]
fn process_substitution_of_a_shell_is_read() {
    let heddle = env!("CARGO_BIN_EXE_heddle");
    let config = r#"<(echo '{"Network":"10.244.0.0/16"}')"#;
    for arguments in [
        config.to_owned(),
        format!("/dev/fd/5 5< {config}"),
        format!("/proc/self/fd/5 5< {config}"),
        format!("/dev/stdin < {config}"),
        format!("- < {config}"),
    ] {
        let script = format!("'{heddle}' config check {arguments}");
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments}: {said}");
    }
}

#[test]
fn file_name_with_control_characters_is_made_visible() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("\u{1b}[2Jconfig");
    fs::write(&path, r#"{"Network":"10.244.0.0/33","Unheard":1}"#).unwrap();
    let (code, said) = heddle(&["config", "check", path.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("`Unheard`") && said.contains("10.244.0.0/33"), "{said}");
    assert!(said.contains(r"/\u{1b}[2Jconfig: ") && !said.contains('\u{1b}'), "{said:?}");
}

#[test]
fn fifo_in_plugin_directory_is_listed_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let path = fifo(directory.path(), "pipe.wasm");
    let mut command = Command::new(env!("CARGO_BIN_EXE_heddle"));
    command.args(["plugin", "list", "--plugin-dir"]).arg(directory.path());
    let listed = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let line = listed.lines().find(|line| line.starts_with("pipe ")).unwrap();
    assert!(line.contains(&path) && line.contains("it is a FIFO"), "{line}");
}

#[test]
fn file_larger_than_limit_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config");
    // A sparse file.
    fs::File::create(&path).unwrap().set_len((16 << 20) + 1).unwrap();
    let (code, said) = heddle(&["config", "check", path.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{said}");
    let expected = format!("heddle: cannot read {}: it has more than 16 MiB", path.display());
    assert!(said.starts_with(&expected), "{said}");
}
