//! The daemon's privileges, and what other users of its host can see and change. `docs/security.md`
//! has the reasons.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use heddle_lab::{Families, Signal, wait_until};
use heddle_tests::{Cluster, SOON, heddle};

/// CAP_CHOWN, CAP_DAC_READ_SEARCH, CAP_NET_ADMIN and CAP_NET_RAW (capability.h), as in the unit.
const NEEDED: u64 = 1 << 0 | 1 << 2 | 1 << 12 | 1 << 13;

/// Returns a field of `/proc/PID/status`.
fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
}

/// Returns the status of every thread.
fn threads(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok()).collect()
}

#[test]
fn root_daemon_drops_unneeded_privileges() {
    for backend in ["vxlan", "udp"] {
        let cluster = Cluster::with_backend(Families::V4, backend);
        let [mut a, b] = cluster.nodes(["a", "b"]);
        // By now it has done all kinds of work: joined, programmed rules, written files.
        let [in_a, in_b] = [&a, &b].map(|node| node.host.container().unwrap());
        wait_until("a packet", SOON, || in_a.ping(in_b.addresses()[0], 56)).unwrap();
        let threads = threads(a.daemon().pid());
        assert!(threads.len() > 2, "{}", threads.len());
        for thread in threads {
            for set in ["CapPrm", "CapEff", "CapBnd"] {
                let found = u64::from_str_radix(&field(&thread, set), 16).unwrap();
                assert_eq!(found, NEEDED, "{set}: {found:#x}");
            }
            for set in ["CapInh", "CapAmb"] {
                assert_eq!(field(&thread, set), "0000000000000000", "{set}");
            }
            assert_eq!(field(&thread, "NoNewPrivs"), "1");
        }
    }
}

/// Lists all files below a directory, with their modes.
fn modes(directory: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            found.extend(modes(&entry.path()));
        }
        found.push((entry.path(), metadata.permissions().mode() & 0o7777));
    }
    found
}

#[test]
fn files_of_daemon_are_writable_by_root_only() {
    let cluster = Cluster::new(Families::V4);
    let node = cluster.node("a");
    let made = modes(node.host.directory());
    for (path, mode) in &made {
        assert_eq!(mode & 0o022, 0, "{}: {mode:o}", path.display());
        assert_eq!(fs::symlink_metadata(path).unwrap().uid(), 0, "{}", path.display());
    }
    let mode = |path: &Path| {
        let found = made.iter().find(|(made, _)| made == path);
        found.unwrap_or_else(|| panic!("{} is not there: {made:?}", path.display())).1
    };
    // Docker's and podman's scripts read `subnet.env`; only root connects to the socket.
    assert_eq!(mode(&node.host.subnet_file()), 0o644);
    assert_eq!(mode(&node.host.control_socket()), 0o600);
}

#[test]
fn password_is_never_shown() {
    const PASSWORD: &str = "correct-horse-battery-staple";
    let cluster = Cluster::new(Families::V4);
    let user = format!("root:{PASSWORD}");
    for words in
        [&["user", "add", &user][..], &["user", "grant-role", "root", "root"], &["auth", "enable"]]
    {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", cluster.etcd().endpoint()])
            .args(words);
        cluster.etcd().host().namespace().run(command).unwrap();
    }
    let host = cluster.host("a");
    let start = |password: &str| {
        let mut command = cluster.heddled(&host);
        command.args(["--etcd-username=root", "--v=10"]);
        command.env("FLANNELD_ETCD_PASSWORD", password);
        host.start(command).unwrap()
    };
    let wrong = format!("{PASSWORD}-wrong");
    let daemon = start(&wrong);
    let said = daemon.wait_log(&["--etcd-password"], SOON).unwrap();
    let (_, told) = daemon.health("/readyz").unwrap();
    let logged = daemon.log();
    daemon.stop(Signal::TERM).unwrap();
    let mut daemon = start(PASSWORD);
    daemon.wait_ready().unwrap();
    let ask = |words: &[&str]| {
        let mut command = Command::new(heddle());
        command.args(words).arg("--socket").arg(host.control_socket());
        host.namespace().run(command).unwrap()
    };
    let (status, leases) = (ask(&["status", "--json"]), ask(&["lease", "list", "--json"]));
    assert!(status.contains("\"ready\"") && leases.contains("10.244."), "{status} {leases}");
    for text in [said, told, logged, daemon.log(), status, leases] {
        assert!(!text.contains(PASSWORD), "{text}");
    }
}
