//! Files placed by other users: the daemon reports special files instead of blocking on them, and
//! loads plugins only from files and directories that nobody else can change. `docs/security.md`
//! has the reasons.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use heddle_lab::{Daemon, Families, Host, Signal};
use heddle_tests::wording::NOT_A_FILE;
use heddle_tests::{Cluster, Node, SOON, rogue, status, wait_unready};

/// Log line of a SIGHUP whose flags cannot be read.
const UNCHANGED: &str = "SIGHUP: cannot read the flags; keeping the current ones";

/// Replaces whatever is at the path with a FIFO.
fn put_fifo(path: &Path) {
    let _ = fs::remove_file(path);
    heddle_lab::run(Command::new("mkfifo").arg(path)).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A node that loads `tests/rogue` from a directory, as permitted by its operator's policy.
struct Place {
    cluster: Cluster,
    node: Node,
    plugin: PathBuf,
    policy: PathBuf,
}

impl Place {
    /// Starts the node after `prepare` has changed its files.
    fn starting(prepare: impl FnOnce(&Path, &Path)) -> Self {
        // Build the component before anything waits for it.
        let component = rogue();
        let config = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"rogue"}}"#;
        let cluster = Cluster::with_config(Families::V4, Some(config));
        let directory = cluster.lab().directory();
        let (plugins, policy) = (directory.join("plugins"), directory.join("plugins.toml"));
        fs::create_dir(&plugins).unwrap();
        let plugin = plugins.join("rogue.wasm");
        fs::copy(component, &plugin).unwrap();
        fs::write(&policy, "").unwrap();
        prepare(&plugin, &policy);
        let flags = [
            format!("--plugin-dir={}", plugins.display()),
            format!("--plugin-policy={}", policy.display()),
        ];
        let node = cluster.starting_node("a", &flags.each_ref().map(String::as_str));
        Self { cluster, node, plugin, policy }
    }

    /// Asserts that the node is not ready, answers requests, and reports the reason.
    fn waits(&mut self, expected: &[&str]) {
        wait_unready(self.node.daemon(), expected, SOON);
        assert_eq!(status(&self.node.host)["ready"], false);
        self.node.daemon().check_running().unwrap();
    }
}

#[test]
fn fifo_in_place_of_plugin_or_policy_is_reported() {
    let mut place = Place::starting(|plugin, _| put_fifo(plugin));
    let named = place.plugin.display().to_string();
    place.waits(&[&named, "it is a FIFO: expected a regular file"]);

    put_fifo(&place.policy);
    fs::remove_file(&place.plugin).unwrap();
    fs::copy(rogue(), &place.plugin).unwrap();
    let named = place.policy.display().to_string();
    place.waits(&[&named, "it is a FIFO: expected a regular file"]);

    fs::remove_file(&place.policy).unwrap();
    fs::write(&place.policy, "").unwrap();
    place.node.daemon().wait_ready().unwrap();
}

#[test]
fn fifos_in_place_of_cache_entries_are_replaced() {
    let mut place = Place::starting(|_, _| {});
    place.node.daemon().wait_ready().unwrap();
    let cache = place.node.host.directory().join("cache");
    let entries = || fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path());
    for kind in ["receipt", "seal", "cwasm"] {
        place.node.stop(Signal::TERM);
        let of_kind = |path: &PathBuf| path.extension().is_some_and(|found| found == kind);
        let found: Vec<_> = entries().filter(of_kind).collect();
        assert_eq!(found.len(), 1, "{kind}: {found:?}");
        put_fifo(&found[0]);
        place.cluster.restart(&mut place.node);
    }
    assert!(entries().all(|path| path.is_file()));
}

#[test]
fn fifo_in_place_of_start_file_exits_daemon() {
    let cluster = Cluster::new(Families::V4);
    let host = cluster.host("a");
    let fifo = host.directory().join("fifo");
    put_fifo(&fifo);
    let state = host.directory().join("own-state");
    let node_id = state.join("coreos.com-network/node-id");
    fs::create_dir_all(node_id.parent().unwrap()).unwrap();
    put_fifo(&node_id);
    for (flags, path) in [
        (vec![format!("--environment-file={}", fifo.display())], &fifo),
        (vec!["--node-id=".to_owned(), format!("--state-dir={}", state.display())], &node_id),
    ] {
        let mut command = cluster.heddled(&host);
        command.args(&flags);
        let mut daemon = host.start(command).unwrap();
        let ended = daemon.wait_exit(SOON).unwrap();
        let log = daemon.log();
        assert!(!ended.success(), "{flags:?}: {log}");
        let named = path.display().to_string();
        assert!(log.contains(&named) && log.contains("it is a FIFO"), "{flags:?}: {log}");
    }
}

#[test]
fn fifo_in_place_of_certificate_is_reported() {
    let cluster = Cluster::new(Families::V4);
    let host = cluster.host("a");
    let fifo = host.directory().join("fifo");
    put_fifo(&fifo);
    for flag in ["--etcd-cafile", "--etcd-certfile"] {
        let mut command = cluster.heddled(&host);
        command.arg("--etcd-endpoints=https://192.0.2.1:2379");
        command.arg(format!("{flag}={}", fifo.display()));
        if flag == "--etcd-certfile" {
            command.arg(format!("--etcd-keyfile={}", fifo.display()));
        }
        let mut daemon = host.start(command).unwrap();
        let named = format!("{flag} {}: it is a FIFO", fifo.display());
        wait_unready(&daemon, &[&named], SOON);
        daemon.check_running().unwrap();
        daemon.stop(Signal::TERM).unwrap();
    }
}

/// Starts a daemon with an environment file, and waits until it is ready.
fn with_environment_file(cluster: &Cluster, host: &Host, file: &Path) -> Daemon {
    let mut command = cluster.heddled(host);
    command.arg(format!("--environment-file={}", file.display()));
    let mut daemon = host.start(command).unwrap();
    daemon.wait_ready().unwrap();
    daemon
}

#[test]
fn unreadable_environment_file_changes_nothing_on_reload() {
    let cluster = Cluster::new(Families::V4);
    let host = cluster.host("a");
    let file = host.directory().join("heddled.env");
    fs::write(&file, "FLANNELD_V=0\n").unwrap();
    let mut daemon = with_environment_file(&cluster, &host, &file);
    let named = file.display().to_string();
    put_fifo(&file);
    daemon.signal(Signal::HUP).unwrap();
    daemon.wait_log(&[UNCHANGED, &named, "it is a FIFO"], SOON).unwrap();
    fs::remove_file(&file).unwrap();
    fs::write(&file, vec![b'#'; (256 << 10) + 1]).unwrap();
    daemon.signal(Signal::HUP).unwrap();
    daemon.wait_log(&[UNCHANGED, &named, "256 KiB"], SOON).unwrap();
    assert_eq!(daemon.health("/readyz").unwrap().0, 200);
    fs::write(&file, "FLANNELD_V=2\n").unwrap();
    daemon.signal(Signal::HUP).unwrap();
    daemon.wait_log(&["SIGHUP: flags read", "--v=2"], SOON).unwrap();
    daemon.check_running().unwrap();
}

#[test]
fn fifo_in_place_of_subnet_env_is_reported_until_removed() {
    let cluster = Cluster::new(Families::V4);
    let host = cluster.host("a");
    let path = host.subnet_file();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    put_fifo(&path);
    let mut node = cluster.starting_node_on(host, &[]);
    let named = path.display().to_string();
    // The daemon proceeds as if the file were missing: the node gets a subnet, and others reach it.
    node.daemon().wait_log(&["WARN", &named, "it is a FIFO"], SOON).unwrap();
    wait_unready(node.daemon(), &["emitters", &named, NOT_A_FILE], SOON);
    assert!(!fs::metadata(&path).unwrap().is_file());
    fs::remove_file(&path).unwrap();
    node.daemon().wait_ready().unwrap();
    node.host.subnet_env().unwrap();
}

#[test]
fn plugin_writable_by_others_is_refused() {
    let mut place = Place::starting(|plugin, _| set_mode(plugin.parent().unwrap(), 0o777));
    let plugins = place.plugin.parent().unwrap().to_owned();
    let directory = plugins.display().to_string();
    place.waits(&["plugin directory", "has mode 777", &format!("chmod go-w {directory}")]);

    set_mode(&place.plugin, 0o666);
    set_mode(&plugins, 0o755);
    let plugin = place.plugin.display().to_string();
    place.waits(&["has mode 666", &format!("chmod go-w {plugin}")]);

    chown(&place.plugin, Some(65534), None).unwrap();
    set_mode(&place.plugin, 0o644);
    place.waits(&["belongs to user 65534", &format!("chown 0 {plugin}")]);

    set_mode(&place.policy, 0o666);
    chown(&place.plugin, Some(0), None).unwrap();
    place.waits(&["has mode 666", &format!("chmod go-w {}", place.policy.display())]);

    set_mode(&place.policy, 0o644);
    place.node.daemon().wait_ready().unwrap();

    // The same applies to a built-in plugin: whoever can change the directory could have removed
    // the operator's replacement for it.
    place.node.stop(Signal::TERM);
    place.cluster.store().put_config(&Families::V4.config()).unwrap();
    set_mode(&plugins, 0o777);
    let mut other = place.cluster.starting_node("b", &[&format!("--plugin-dir={directory}")]);
    wait_unready(other.daemon(), &[&format!("chmod go-w {directory}")], SOON);
    set_mode(&plugins, 0o755);
    other.daemon().wait_ready().unwrap();
}
