//! `heddle plugin run`: a plugin between two hosts, and the diagnostics if it does not work.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use heddle_tests::heddle;

/// Runs the command, and returns its exit code, standard output and standard error.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(heddle());
    command.args(["plugin", "run"]).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    let namespaces = Command::new("ip").args(["netns", "list"]).output().unwrap();
    let left = String::from_utf8(namespaces.stdout).unwrap();
    assert!(!left.contains(&format!("heddle-{pid}-")), "{left}");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn verdict(shown: &str) -> &str {
    shown.lines().last().unwrap_or_default()
}

#[test]
fn run_carries_both_families() {
    for (flag, ways) in [("--ipv6", 2), ("--dual-stack", 4)] {
        let (code, shown, errors) = run(&["vxlan", flag]);
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{shown}");
        assert_eq!(shown.matches(" bytes to ").count(), ways, "{shown}");
        assert!(shown.contains("$ bridge fdb show dev flannel-v6.1"), "{shown}");
        let expected = format!("run: PASS vxlan: {ways} ways");
        assert!(verdict(&shown).starts_with(&expected), "{shown}");
    }
}

#[test]
fn run_shows_grants_and_uses_given_backend() {
    let (code, shown, _) = run(&["udp", "--backend", r#"{"Port":4000}"#]);
    assert_eq!(code, Some(0), "{shown}");
    for expected in [
        "udp-ports = [\"1-65535\"]",
        r#""Backend": {"Port":4000,"Type":"udp"}"#,
        "1472 bytes to 10.244.",
        "$ ip -d link show flannel0",
        "10.244.0.0/16 dev flannel0",
    ] {
        assert!(shown.contains(expected), "{expected}:\n{shown}");
    }
}

/// `alloc` assigns subnets, and carries no packets.
#[test]
fn run_of_backend_without_packets_prints_diagnostics() {
    let (code, shown, _) = run(&["alloc"]);
    assert_eq!(code, Some(1), "{shown}");
    let expected = "run: FAIL alloc: packets do not get through: host1 → host2 to 10.244.";
    assert!(verdict(&shown).starts_with(expected), "{shown}");
    for expected in [
        "no answer from 10.244.",
        "$ ip -4 route show proto 72\n   no routes",
        "$ tcpdump -ni eth0   # on host1",
        "$ tcpdump -ni eth0   # on host2",
        "ICMP echo request",
        "The log of heddled on host1 ends with",
        "The log of heddled on host2 ends with",
    ] {
        assert!(shown.contains(expected), "{expected}:\n{shown}");
    }
}

#[test]
fn run_of_unready_backend_prints_reason() {
    let (code, shown, _) = run(&["vxlan", "--backend", r#"{"VNI":16777216}"#]);
    assert_eq!(code, Some(1), "{shown}");
    let reason = "network config: plugin vxlan, advertise: \
                  Backend.VNI is 16777216: expected a whole number from 0 to 9999999\n";
    assert!(shown.contains(&format!("Why host1 is not ready\n   {reason}")), "{shown}");
    assert!(shown.contains(&format!("Why host2 is not ready\n   {reason}")), "{shown}");
    assert!(verdict(&shown).starts_with("run: FAIL vxlan: a lease for each host"), "{shown}");
}

#[test]
fn run_shows_emitter_files_and_keeps_machine_files() {
    let real = Path::new("/run/flannel/docker.env");
    let before = fs::read(real).ok();
    let (code, shown, _) = run(&["docker-opts", "--setting", "key=DOCKER_NETWORK_OPTIONS"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("/run/flannel/docker.env mode 644"), "{shown}");
    assert!(shown.contains("DOCKER_NETWORK_OPTIONS=\" --bip=10.244."), "{shown}");
    assert!(verdict(&shown).starts_with("run: PASS docker-opts: 1 file"), "{shown}");
    assert_eq!(fs::read(real).ok(), before);
}

#[test]
fn run_refuses_impossible_arguments_before_start() {
    for (arguments, expected) in [
        (&["vxlan", "--setting", "path=/x"][..], "--setting: vxlan is a backend; use --backend"),
        (&["cni-conf", "--backend", "{}"], "--backend: cni-conf is an emitter; use --setting"),
        (&["vxlan", "--backend", "[]"], "expected a JSON object"),
        (
            &["vxlan", "--backend", r#"{"Type":"x"}"#],
            "expected \"vxlan\", the plugin's name, or none",
        ),
        (&["/etc/hostname"], "/etc/hostname: not a WebAssembly component: "),
        (&["vxlan", "--heddled", "/nowhere/heddled"], "the daemon is not at /nowhere/heddled"),
        (
            &["cni-conf", "--setting", "path=/x"],
            "cannot be kept apart from this machine's own files",
        ),
    ] {
        let (code, shown, errors) = run(arguments);
        assert_eq!((code, shown.as_str()), (Some(1), ""), "{arguments:?}: {errors}");
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
    }
}
