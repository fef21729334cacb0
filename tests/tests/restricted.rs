//! Daemons in restricted environments: sysctls that cannot be written, and a log without a reader.

use std::process::Command;

use heddle_lab::{Container, Families, Host, Signal, wait_until};
use heddle_tests::{Cluster, Node, Overlay, SOON, heddle, wait_ready};

/// Returns the command line of a host's daemon, started by a script of bash that ends with it:
/// `exec "$0" "$@"`.
fn through(cluster: &Cluster, host: &Host, program: &[&str], script: &str) -> Command {
    let daemon = cluster.heddled(host);
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).args(["bash", "-ec", script]);
    command.arg(daemon.get_program()).args(daemon.get_args());
    command
}

/// Makes a part of the kernel's files read-only for a daemon alone.
fn read_only(part: &str) -> String {
    format!("mount --bind {part} {part}; mount -o remount,ro,bind {part}; exec \"$0\" \"$@\"")
}

fn reaches(from: &Container, to: &Container) -> bool {
    from.ping(Overlay::V4.address_in(to), 56).is_ok()
}

#[test]
fn read_only_sysctls_are_a_warning_and_packets_pass() {
    for part in ["/proc/sys", "/proc/sys/net/ipv6"] {
        let cluster = Cluster::new(Families::V4);
        let host = cluster.host("alpha");
        let script = read_only(part);
        let command = through(&cluster, &host, &["unshare", "--mount"], &script);
        let mut daemon = host.start(command).unwrap();
        daemon.wait_ready().unwrap();
        let warning =
            ["WARN", "flannel.1/accept_ra: Read-only file system", "packets pass without it"];
        let line = daemon.wait_log(&warning, SOON).unwrap();
        assert!(line.contains("whoever starts this container"), "{line}");
        let (status, body) = daemon.health("/readyz").unwrap();
        assert_eq!(status, 200, "{body}");
        assert!(body.contains("warning: ") && body.contains("accept_ra"), "{body}");
        let beta = cluster.node("beta");
        let containers = [host.container().unwrap(), beta.host.container().unwrap()];
        let both = || match reaches(&containers[0], &containers[1]) {
            true => Ok(()),
            false => Err("no answer"),
        };
        wait_until("a ping", SOON, both).unwrap();
        assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
    }
}

#[test]
fn read_only_sysctl_with_the_wanted_value_is_no_warning() {
    let cluster = Cluster::new(Families::V4);
    let host = cluster.host("alpha");
    host.namespace().set_sysctl("ipv6/conf/default/accept_ra", "0").unwrap();
    let script = read_only("/proc/sys");
    let mut daemon =
        host.start(through(&cluster, &host, &["unshare", "--mount"], &script)).unwrap();
    daemon.wait_ready().unwrap();
    let (status, body) = daemon.health("/readyz").unwrap();
    assert!(status == 200 && !body.contains("warning: "), "{body}");
    assert!(!daemon.log().contains("Read-only"), "{}", daemon.log());
}

#[test]
fn daemon_goes_on_when_the_reader_of_its_log_has_gone() {
    let cluster = Cluster::new(Families::V4);
    let host = cluster.host("alpha");
    let script = "exec \"$0\" \"$@\" 2> >(head -n 1 > /dev/null)";
    let mut daemon = host.start(through(&cluster, &host, &["env"], script)).unwrap();
    daemon.wait_ready().unwrap();
    // It logs each of these.
    let mut beta = cluster.node("beta");
    beta.stop(Signal::TERM);
    cluster.delete_lease_of(&beta.host);
    wait_until("readiness", SOON, || daemon.health("/readyz").map(drop)).unwrap();
    daemon.signal(Signal::HUP).unwrap();
    wait_ready(&daemon, SOON);
    daemon.check_running().unwrap();
    assert_eq!(daemon.stop(Signal::TERM).unwrap().code(), Some(0));
}

/// Runs a script with HEDDLE in it on a host, with the control socket in the environment.
fn ask(node: &Node, script: &str, socket: &str) -> String {
    let mut command = Command::new("bash");
    let script = script.replace("HEDDLE", &heddle().display().to_string());
    command.args(["-o", "pipefail", "-c", &script]);
    command.env("FLANNELD_CONTROL_SOCKET", socket);
    node.host.namespace().run(command).unwrap()
}

#[test]
fn tool_goes_on_when_the_reader_of_its_output_has_gone() {
    let cluster = Cluster::new(Families::V4);
    let node = cluster.node("alpha");
    let socket = node.host.control_socket().display().to_string();
    for arguments in ["status", "status --json", "lease list", "plugin list", "--help"] {
        // The reader has gone before the tool writes.
        let script = format!("{{ sleep 0.3; HEDDLE {arguments}; }} 2>&1 | true");
        assert_eq!(ask(&node, &script, &socket), "", "{arguments}");
    }
}

#[test]
fn tool_finds_the_control_socket_in_the_environment() {
    let cluster = Cluster::new(Families::V4);
    let mut node = cluster.node("alpha");
    let socket = node.host.control_socket();
    let path = socket.display().to_string();
    assert!(ask(&node, "HEDDLE status", &path).contains(" ready, running for "));
    assert!(ask(&node, "HEDDLE lease list", &path).contains(" own"));
    assert!(socket.exists());
    assert_eq!(node.stop(Signal::TERM), Some(0));
    assert!(!socket.exists(), "{path}");
}
