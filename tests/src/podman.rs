//! podman on the hosts of a lab.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use heddle_lab::{Error, Host, run};

/// A host's podman, isolated from the machine's: it has mounts, processes, `/run` and `/var/lib` of
/// its own, which end with this value. Must be dropped before the host. Its networks are CNI's.
///
/// Needs `podman`, `crun`, the plugins of CNI and a static `busybox`.
#[derive(Debug)]
pub struct Podman {
    /// Holds the namespaces, and ends all processes in them.
    unshare: Child,
    network: String,
    config: PathBuf,
}

/// Plugin directories: Debian's, and those of other systems.
const PLUGINS: &str = r#"["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"]"#;

/// Script of the namespaces' first process. It ends when its standard input closes, and all others
/// end with it. Only version 2 of control groups is mounted, and containers get none, so nothing is
/// left behind outside of these namespaces.
const INIT: &str = "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib && \
                    umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && \
                    echo ready && exec cat";

impl Podman {
    /// Name of the image in the store: a static busybox, and `/index.html`.
    pub const IMAGE: &'static str = "busybox";

    /// Directory of the networks' configs, below [`Host::directory`].
    pub const NETWORKS: &'static str = "cni/net.d";

    /// Content of the image's `/index.html`.
    pub const PAGE: &'static str = "from a container\n";

    /// Prepares podman on a host.
    pub fn on(host: &Host) -> Self {
        let config = host.directory().join("containers.conf");
        let networks = host.directory().join(Self::NETWORKS);
        let text = format!(
            "[containers]\ncgroups = \"disabled\"\n\
             [network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = {PLUGINS}\nnetwork_config_dir = \"{}\"\n\
             [engine]\nruntime = \"crun\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n",
            networks.display()
        );
        std::fs::write(&config, text).unwrap();

        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        unshare.args(["sh", "-c", INIT]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut unshare = host.namespace().spawn(unshare).unwrap();
        let mut line = String::new();
        let output = unshare.stdout.take().expect("standard output is piped");
        BufReader::new(output).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the mounts of {} failed", host.name());

        let podman = Self { unshare, network: host.namespace().name().to_owned(), config };
        podman.import();
        podman
    }

    fn import(&self) {
        let root = self.config.with_file_name("busybox");
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::fs::write(root.join("index.html"), Self::PAGE).unwrap();
        let which = run(Command::new("sh").args(["-c", "command -v busybox"])).unwrap();
        std::fs::copy(which.trim(), root.join("bin/busybox")).unwrap();
        let archive = self.config.with_file_name("busybox.tar");
        run(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg(".")).unwrap();
        self.podman(&format!("import {} {}", archive.display(), Self::IMAGE)).unwrap();
    }

    /// Runs podman with these arguments, separated by white space, and returns its output.
    ///
    /// # Errors
    ///
    /// If podman fails.
    pub fn podman(&self, arguments: &str) -> Result<String, Error> {
        let proc = format!("/proc/{}/ns", self.unshare.id());
        let mut command = Command::new("nsenter");
        // `ip netns exec` would mount a `/sys` of its own, without control groups.
        command
            .arg(format!("--net=/run/netns/{}", self.network))
            .arg(format!("--mount={proc}/mnt"))
            .arg(format!("--pid={proc}/pid_for_children"))
            .args(["podman", "--storage-driver=vfs"])
            .args(arguments.split_whitespace())
            .env("CONTAINERS_CONF", &self.config);
        run(&mut command)
    }

    /// Runs a busybox applet in a container.
    ///
    /// # Errors
    ///
    /// If podman or the applet fails.
    pub fn exec(&self, container: &str, arguments: &str) -> Result<String, Error> {
        self.podman(&format!("exec {container} /bin/busybox {arguments}"))
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        drop(self.unshare.stdin.take());
        // It may have exited already; in any case it and all processes below it are gone
        // afterwards.
        let _ = self.unshare.wait();
    }
}
