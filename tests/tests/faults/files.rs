//! Conditions for readiness, and behaviour without writable storage.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use heddle_lab::{Daemon, Error, Families, Signal, wait_until};
use heddle_tests::{
    Cluster, HEALED, NETWORK_FOR_PEERS, Peer, Recovery, SOON, Snapshot, Trio, heddle, status,
    wait_ready, wait_unready,
};

/// Upper limit for the retry of failed writes, which back off to one every 30 s.
const BACKED_OFF: Duration = Duration::from_secs(60);

#[test]
fn row_13_ready_means_complete_and_failure_exits_nonzero() {
    const PEERS: u16 = 500;
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let mut trio = Trio::on(cluster, &[]);
    let flows = trio.flows(&[(1, 2)]);
    let peers = Peer::range(1, PEERS);
    trio.cluster.etcd().put_all(&Peer::leases(&peers), 100).unwrap();

    // A file occupies the path of the directory of `subnet.env`.
    let host = trio.cluster.host("d");
    let obstacle = host.directory().join("run");
    fs::write(&obstacle, "").unwrap();
    let mut command = trio.cluster.heddled(&host);
    command.arg(format!("--control-socket={}", host.directory().join("d.sock").display()));
    let mut daemon = host.start(command).unwrap();
    let named = host.subnet_file().parent().unwrap().display().to_string();
    wait_unready(&daemon, &["emitters", &named], SOON);
    fs::remove_file(&obstacle).unwrap();
    let recovery = Recovery::from("row 13");
    daemon.wait_ready().unwrap();
    // READY means that everything is in place already.
    let state = host.kernel_state().unwrap().on("flannel.1");
    let env = host.subnet_env().unwrap();
    recovery.done("ready after subnet.env can be written");
    assert_eq!(state.len(), 3 * (usize::from(PEERS) + trio.nodes.len()));
    let mut known = Peer::objects(&peers, "72");
    known.routes.retain(|route| !state.routes.contains(route));
    assert!(known.routes.is_empty(), "{known:#?}");
    assert_eq!(env.mtu, Some(1450));

    // Another node takes over the lease. The daemon must exit with an error, so that systemd
    // restarts it.
    let lease = trio.cluster.lease(&trio.nodes[0]);
    let thief = lease.value.replace(r#""NodeID":"a""#, r#""NodeID":"thief""#);
    assert_ne!(thief, lease.value);
    let before = Snapshot::of(&trio.nodes[0]);
    trio.cluster.etcd().put(&lease.key, &thief).unwrap();
    let status = trio.nodes[0].daemon().wait_exit(SOON).unwrap();
    assert_eq!(status.code(), Some(1));
    before.compare(&trio.nodes[0]).unwrap();
    flows.lost_nothing();
}

/// A node whose daemon has a small file system for some of its files. It is mounted in the daemon's
/// own mount namespace and ends with it, so that nothing is left behind.
struct SmallDisk {
    mount: PathBuf,
    pid: u32,
}

impl SmallDisk {
    /// Wraps a daemon's command line. The file system is full at first.
    fn wrap(mount: &Path, daemon: &Command) -> Command {
        let script = r#"
            mount -t tmpfs -o size=8m,nr_inodes=64 small "$0"
            dd if=/dev/zero of="$0/filler" bs=4k 2>/dev/null || true
            exec "$@"
        "#;
        fs::create_dir_all(mount).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", script]).arg(mount);
        command.arg(daemon.get_program()).args(daemon.get_args());
        command
    }

    fn of(daemon: &Daemon, mount: &Path) -> Self {
        Self { mount: mount.to_owned(), pid: daemon.pid() }
    }

    /// Returns a path on the file system as seen from outside of the namespace.
    fn path(&self, path: &Path) -> PathBuf {
        let inside = path.strip_prefix("/").unwrap();
        Path::new("/proc").join(self.pid.to_string()).join("root").join(inside)
    }

    /// Lists all files and directories, relative to the mount point.
    fn files(&self) -> Vec<String> {
        let root = self.path(&self.mount);
        let mut command = Command::new("find");
        command.arg(&root).args(["-mindepth", "1", "-printf", "%P\n"]);
        let mut files: Vec<_> =
            heddle_lab::run(&mut command).unwrap().lines().map(str::to_owned).collect();
        files.sort();
        files
    }

    /// Frees space by deleting the filler.
    fn empty(&self) {
        fs::remove_file(self.path(&self.mount.join("filler"))).unwrap();
    }
}

/// Runs the doctor of a node. Returns its findings.
fn findings(trio: &Trio, place: usize, flags: &[String]) -> String {
    let host = &trio.nodes[place].host;
    let mut command = Command::new(heddle());
    command.args(["doctor", "--json"]).args(trio.cluster.heddled(host).get_args()).args(flags);
    command.arg("--environment-file=-/no/such/file");
    match host.namespace().run(command) {
        Ok(printed) => printed,
        Err(Error::Failed { stderr, .. }) => stderr,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn fault_emitted_files_are_deleted_and_edited() {
    let mut trio = Trio::new();
    let flows = trio.flows(&[(0, 1), (1, 2)]);
    let directory = trio.nodes[0].host.subnet_file().parent().unwrap().to_owned();
    let (subnet_env, docker_env) = (directory.join("subnet.env"), directory.join("docker.env"));
    let former = directory.join("former.env");
    let restart = |trio: &mut Trio, docker: &Path| {
        trio.nodes[0].stop(Signal::TERM);
        let emit = format!("--emit=docker-opts:path={}", docker.display());
        let flags = vec!["--emit=subnet-env".to_owned(), emit];
        trio.cluster.restart_with(&mut trio.nodes[0], &flags);
        flags
    };
    restart(&mut trio, &former);
    assert!(former.exists());
    // Another path: the former file goes, and no other.
    fs::write(directory.join("mine.env"), "").unwrap();
    let flags = restart(&mut trio, &docker_env);
    assert!(!former.exists() && directory.join("mine.env").exists());

    let read = || [&subnet_env, &docker_env].map(|path| fs::read_to_string(path).ok());
    let before = read();
    assert!(before.iter().all(Option::is_some), "{before:?}");
    let restored = |what: &str, harm: &dyn Fn()| {
        let recovery = Recovery::from("emitted files");
        harm();
        recovery.wait(what, HEALED, || match read() {
            now if now == before => Ok(()),
            now => Err(format!("{now:?}")),
        });
        // Time for the next check: more changes within it are handled together.
        thread::sleep(Duration::from_millis(500));
    };
    restored("both deleted", &|| {
        fs::remove_file(&subnet_env).unwrap();
        fs::remove_file(&docker_env).unwrap();
    });
    restored("both edited", &|| {
        fs::write(&subnet_env, "FLANNEL_MTU=1500\n").unwrap();
        fs::write(&docker_env, "DOCKER_OPTS=\"--mtu=1500\"\n").unwrap();
    });
    restored("their directory deleted", &|| fs::remove_dir_all(&directory).unwrap());
    let mode = || fs::metadata(&docker_env).unwrap().permissions().mode() & 0o777;
    fs::set_permissions(&docker_env, fs::Permissions::from_mode(0o600)).unwrap();
    wait_until("the mode", HEALED, || if mode() == 0o644 { Ok(()) } else { Err(mode()) }).unwrap();

    let status = status(&trio.nodes[0].host);
    assert_eq!(status["changes"]["repairs"]["file"], 7, "{status:#}");
    assert!(!findings(&trio, 0, &flags).contains("docker.env"));
    let named = docker_env.display().to_string();
    thread::sleep(Duration::from_millis(500));
    fs::remove_file(&docker_env).unwrap();
    fs::create_dir(&docker_env).unwrap();
    wait_unready(trio.nodes[0].daemon(), &["emitters", &named, "is a directory"], SOON);
    let found = findings(&trio, 0, &flags);
    assert!(found.contains("docker.env is a directory"), "{found}");
    fs::remove_dir(&docker_env).unwrap();
    wait_ready(trio.nodes[0].daemon(), SOON);
    assert_eq!(read(), before);
    let log = trio.nodes[0].daemon().log();
    assert!(log.lines().count() < 100, "{log}");
    flows.lost_nothing();
}

#[test]
fn fault_there_is_no_room_for_the_files_of_emitters() {
    let trio = Trio::new();
    let flows = trio.flows(&[(0, 1), (1, 2)]);
    let host = trio.cluster.host("d");
    let mount = host.directory().join("run/flannel");
    let cni = mount.join("cni/10-heddle.conflist");
    let mut command = trio.cluster.heddled(&host);
    command.arg("--emit=subnet-env").arg(format!("--emit=cni-conf:path={}", cni.display()));
    let mut daemon = host.start(SmallDisk::wrap(&mount, &command)).unwrap();
    let disk = SmallDisk::of(&daemon, &mount);
    let subnet_env = host.subnet_file().display().to_string();
    wait_unready(&daemon, &["emitters", &subnet_env, "No space left on device"], SOON);
    // The network works; only the readers of the files have to wait. No partial file is left.
    assert_eq!(host.kernel_state().unwrap().on("flannel.1").routes.len(), 3);
    thread::sleep(Duration::from_secs(1));
    let left = disk.files();
    assert!(left.iter().all(|name| name == "filler" || name == "cni"), "{left:?}");
    disk.empty();
    let recovery = Recovery::from("disk full");
    recovery.wait("emitters' files", BACKED_OFF, || match daemon.health("/readyz") {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    daemon.wait_ready().unwrap();
    assert_eq!(disk.files(), ["cni", "cni/10-heddle.conflist", "subnet.env"]);
    let env = fs::read_to_string(disk.path(&host.subnet_file())).unwrap();
    assert!(env.contains("FLANNEL_MTU=1450\n"), "{env}");
    let log = daemon.log();
    assert!(log.lines().count() < 100, "{log}");
    flows.lost_nothing();
}

#[test]
fn fault_there_is_no_room_for_state_and_cache() {
    // A plugin from a directory, so that there is a compiled plugin to cache.
    let trio = Trio::with_rogue();
    let plugins = trio.cluster.lab().directory().join("plugins");
    let flag = format!("--plugin-dir={}", plugins.display());
    let flows = trio.flows(&[(0, 1), (1, 2)]);

    let host = trio.cluster.host("d");
    let disk = host.directory().join("disk");
    let with = |program: &Command| {
        let mut command = Command::new(program.get_program());
        // Only a derived node id is stored, so the flags that set one are dropped.
        let flags = program.get_args().filter(|flag| {
            let flag = flag.to_string_lossy();
            !["--node-id=", "--state-dir=", "--cache-dir="]
                .iter()
                .any(|name| flag.starts_with(name))
        });
        command.args(flags).arg(&flag);
        for (flag, name) in [("--state-dir", "state"), ("--cache-dir", "cache")] {
            command.arg(format!("{flag}={}", disk.join(name).display()));
        }
        command
    };
    let full = SmallDisk::wrap(&disk, &with(&trio.cluster.heddled(&host)));
    let mut daemon = host.start(full).unwrap();
    // The daemon knows its identity without storing it. A compiled plugin, however, needs the
    // cache.
    let cache = disk.join("cache").display().to_string();
    wait_unready(&daemon, &["plugins", &cache, "No space left on device"], SOON);
    SmallDisk::of(&daemon, &disk).empty();
    let recovery = Recovery::from("disk full");
    daemon.wait_ready().unwrap();
    recovery.done("ready after there is room for a plugin to be compiled");
    daemon
        .wait_log(&["WARN", "node: cannot store the node id", "No space left on device"], SOON)
        .unwrap();
    let id = |daemon: &Daemon| {
        let line = daemon.wait_log(&["INFO node: identity determined"], SOON).unwrap();
        line.rsplit_once("id=").unwrap().1.to_owned()
    };
    let first = id(&daemon);
    assert_eq!(daemon.stop(Signal::TERM).unwrap().code(), Some(0));
    // The next start finds free space, and keeps the node id.
    let mut daemon = host.start(with(&trio.cluster.heddled(&host))).unwrap();
    daemon.wait_ready().unwrap();
    assert_eq!(id(&daemon), first);
    assert_eq!(trio.cluster.etcd().leases().unwrap().len(), 4);
    assert!(disk.join("state/coreos.com-network/node-id").is_file());
    let container = host.container().unwrap();
    let ping = || trio.containers[0].ping(container.addresses()[0], 56);
    wait_until("a ping", SOON, ping).unwrap();
    flows.lost_nothing();
}
