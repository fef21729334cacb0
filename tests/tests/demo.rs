//! `heddle demo`: the first command that new users run.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use heddle_tests::{heddle, heddled};

fn demo(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(heddle()).arg("demo").args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Returns true if network namespaces of the process are left.
fn left_behind(pid: u32) -> bool {
    let list = Command::new("ip").args(["netns", "list"]).output().unwrap();
    String::from_utf8_lossy(&list.stdout).contains(&format!("heddle-{pid}-"))
}

fn passes(arguments: &[&str]) {
    let (code, stdout, stderr) = demo(arguments);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.lines().last().unwrap().starts_with("demo: PASS "), "{stdout}");
    assert!(!stdout.contains('\x1b'), "colours without a terminal");
    assert_eq!(stderr, "");
}

#[test]
fn demo_with_directory_store_passes() {
    passes(&["--store", "dir"]);
}

#[test]
fn demo_with_etcd_and_three_hosts_passes() {
    passes(&["--store", "etcd", "--hosts", "3"]);
}

#[test]
fn demo_with_both_families_passes() {
    passes(&["--dual-stack"]);
}

#[test]
fn demo_with_ipv6_only_passes() {
    passes(&["--ipv6"]);
}

#[test]
fn demo_without_privileges_fails_with_one_line() {
    // A directory that an unprivileged user can enter, unlike possibly the build directory.
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    for program in [heddle(), heddled()] {
        std::fs::copy(&program, directory.path().join(program.file_name().unwrap())).unwrap();
    }
    let output = Command::new(directory.path().join("heddle"))
        .arg("demo")
        .current_dir("/")
        .uid(65_534)
        .gid(65_534)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("root") && stderr.lines().count() == 1, "{stderr}");
    assert!(output.stdout.is_empty());
}

#[test]
fn demo_with_missing_program_names_it_in_one_line() {
    let output = Command::new(heddle()).arg("demo").env("PATH", "/nowhere").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("`ip`") && stderr.lines().count() == 1, "{stderr}");
}

#[test]
fn demo_with_one_host_is_refused() {
    let (code, _, stderr) = demo(&["--hosts", "1"]);
    assert!(code.is_some_and(|code| code != 0));
    assert!(stderr.contains("hosts"), "{stderr}");
}

#[test]
fn interrupted_demo_leaves_nothing_behind() {
    let mut command = Command::new(heddle());
    let mut child = command.args(["demo", "--keep"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = lines.map_while(Result::ok);
    assert!(seen.any(|line| line.contains("Ctrl-C")), "it ended before it was interrupted");
    assert!(left_behind(child.id()));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!left_behind(child.id()));
}
