//! podman on the hosts of a lab.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use heddle_lab::{Error, Host, run};

/// A host's podman, as on a machine that has nothing but it: with mounts, processes and a `/run` and `/var/lib` of its
/// own, all of which go with this value, which has to go before the host. Its networks are CNI's.
///
/// Needs `podman`, `crun`, the plugins of CNI and a static `busybox`.
#[derive(Debug)]
pub struct Podman {
    /// Holds the namespaces. All that runs in them ends with it.
    unshare: Child,
    network: String,
    config: PathBuf,
}

/// Where Debian has the plugins, and where they are on other systems.
const PLUGINS: &str = r#"["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"]"#;

/// What the first of the processes does. It ends with its standard input, and all others end with it. Only version 2 of
/// control groups is left, and no container has one: nothing stays behind outside of these namespaces.
const INIT: &str = "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib && \
                    umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && \
                    echo ready && exec cat";

impl Podman {
    /// The image in its store: a static busybox, and `/index.html`.
    pub const IMAGE: &'static str = "busybox";

    /// Where it looks for networks, below [`Host::directory`].
    pub const NETWORKS: &'static str = "cni/net.d";

    /// What stands in the image's `/index.html`.
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

    /// Runs podman with these arguments, separated by white space, and returns what it printed.
    ///
    /// # Errors
    ///
    /// As of podman.
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

    /// Runs a program of busybox in a container.
    ///
    /// # Errors
    ///
    /// As of podman, and what the program says when it fails.
    pub fn exec(&self, container: &str, arguments: &str) -> Result<String, Error> {
        self.podman(&format!("exec {container} /bin/busybox {arguments}"))
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        drop(self.unshare.stdin.take());
        // It may have ended by itself; either way it is gone afterwards, and with it all that ran below it.
        let _ = self.unshare.wait();
    }
}
