//! Machines: hosts with their own file system, systemd and processes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Pid;

use crate::cgroup::Cgroup;
use crate::scratch::Scratch;
use crate::{Error, Host, Image, Lab, Namespace, run, wait_until};

/// Time limit for booting, and for shutting down, on a loaded machine.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// Starts systemd-nspawn in its own mount namespace, so that all of its mounts vanish with it: the
/// file system, the unified hierarchy of control groups, whatever this machine uses, and a
/// directory for nspawn's own state.
///
/// `$1` is the image, `$2` the machine's directory, `$3` its control group below the root; the rest
/// are arguments.
const START: &str = r#"set -e
mount -t overlay machine -o "lowerdir=$1,upperdir=$2/changes,workdir=$2/work" "$2/root"
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo $$ > "/sys/fs/cgroup/$3/cgroup.procs"
mkdir -p /run/systemd
mount -t tmpfs tmpfs /run/systemd
shift 3
exec systemd-nspawn "$@"
"#;

/// A host that runs systemd, in a container of systemd-nspawn. It has this machine's kernel and the
/// host's network namespace. Killed when dropped.
#[derive(Debug)]
pub struct Machine {
    // Fields are dropped in this order: running processes before their environment.
    running: Option<Running>,
    host: Host,
    /// Its changes to the image's file system.
    directory: Scratch,
    image: Image,
}

/// The processes of a machine from boot to shutdown.
#[derive(Debug)]
struct Running {
    cgroup: Cgroup,
    nspawn: Child,
    /// The process id of its init, as seen from outside.
    init: Pid,
}

impl Machine {
    /// Boots a machine on a host of the lab, and waits until it has started all of its services.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`], or [`Error::Failed`] with the units that did not start; also without
    /// root or systemd-nspawn.
    pub fn boot(host: Host, image: &Image) -> Result<Self, Error> {
        let directory = Scratch::on_disk(&format!("{}-machine", host.namespace.name()))?;
        let machine = directory.path();
        let make = |path: PathBuf| {
            std::fs::create_dir_all(&path)
                .map_err(Error::io(format!("creating {}", path.display())))
        };
        for name in ["root", "work", "changes/etc", "docker"] {
            make(machine.join(name))?;
        }
        let hostname = machine.join("changes/etc/hostname");
        std::fs::write(&hostname, format!("{}\n", host.name()))
            .map_err(Error::io(format!("writing {}", hostname.display())))?;
        let mut machine = Self { running: None, host, directory, image: image.clone() };
        machine.start()?;
        Ok(machine)
    }

    /// Returns its host: its addresses, and its network namespace from outside.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Runs a script in a login shell of root, up to the first command that fails, and returns its
    /// output.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] with the standard error.
    pub fn shell(&self, script: &str) -> Result<String, Error> {
        run(&mut self.command(&["bash", "-elc", script]))
    }

    /// Builds a command line that runs a program inside, as root, in `/root`, without this
    /// process's environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.init().as_raw_nonzero()))
            .args(["--all", "--", "env", "-i", "-C", "/root", "HOME=/root", "TERM=dumb"])
            .arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .args(arguments);
        command
    }

    /// Returns the path of one of its files, as seen from outside.
    pub fn path(&self, path: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.init().as_raw_nonzero().to_string())
            .join("root")
            .join(path.trim_start_matches('/'))
    }

    /// Copies a file to this path inside.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn install(&self, file: &Path, path: &str) -> Result<(), Error> {
        std::fs::copy(file, self.path(path)).map(drop).map_err(Error::io(format!(
            "copying {} to {path} on {}",
            file.display(),
            self.host.name()
        )))
    }

    /// Returns the network namespace of one of its Docker containers.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if there is no such container, [`Error::Output`] if it is not running.
    pub fn docker_container(&self, name: &str) -> Result<Namespace, Error> {
        let command = ["docker", "inspect", "--format={{.State.Pid}}", name];
        let printed = run(&mut self.command(&command))?;
        match printed.trim() {
            "0" => Err(Error::Output {
                command: command.join(" "),
                problem: "0: the container does not run".into(),
            }),
            // The process id as seen inside the machine.
            pid => Ok(Namespace::borrowed(
                format!("{}-{name}", self.host.namespace.name()),
                self.path(&format!("/proc/{pid}/ns/net")),
            )),
        }
    }

    /// Reboots it, and waits like [`boot`](Self::boot). Changes to the host's network namespace are
    /// lost.
    ///
    /// # Errors
    ///
    /// The same as [`boot`](Self::boot).
    pub fn reboot(&mut self, lab: &Lab) -> Result<(), Error> {
        // It may be gone before it answers.
        let _ = self.command(&["systemctl", "reboot"]).stdin(Stdio::null()).output();
        if let Some(running) = &mut self.running {
            wait_until(
                format!("{} shutting down", self.host.name()),
                BOOT_LIMIT,
                || match running.nspawn.try_wait() {
                    Ok(Some(_)) => Ok(()),
                    Ok(None) => Err("it runs".to_owned()),
                    Err(error) => Err(error.to_string()),
                },
            )?;
        }
        self.running = None;
        lab.renew(&self.host)?;
        self.start()
    }

    fn init(&self) -> Pid {
        self.running.as_ref().expect("it runs but for the middle of a reboot").init
    }

    fn start(&mut self) -> Result<(), Error> {
        let host = &self.host;
        // The kernel's default; hosts of the lab forward only because containers of the lab need
        // it.
        for setting in
            ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/default/forwarding"]
        {
            host.namespace.set_sysctl(setting, "0")?;
        }
        let directory = self.directory.path();
        let name = host.namespace.name();
        let cgroup = Cgroup::create(name)?;
        let log = directory.join("console.log");
        let console =
            File::create(&log).map_err(Error::io(format!("creating {}", log.display())))?;
        let errors =
            console.try_clone().map_err(Error::io(format!("creating {}", log.display())))?;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--", "sh", "-c", START, "sh"])
            .args([self.image.directory(), directory])
            .args([name, "--boot", "--quiet", "--console=pipe", "--register=no", "--keep-unit"])
            .arg(format!("--machine={name}"))
            .arg(format!("--hostname={}", host.name()))
            .arg(format!("--directory={}", directory.join("root").display()))
            .arg(format!("--network-namespace-path={}", host.namespace.path().display()))
            // Docker, and a daemon with a TUN device, need this.
            .args(["--capability=all", "--system-call-filter=add_key bpf keyctl"])
            .arg("--bind=/dev/net/tun")
            // Docker's own overlays cannot be on an overlay.
            .arg(format!("--bind={}:/var/lib/docker", directory.join("docker").display()))
            .args(["--link-journal=no", "--resolv-conf=off", "--timezone=off"])
            // Network sysctls are writable, as on a real machine; no others are.
            .env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network")
            .stdin(Stdio::null())
            .stdout(console)
            .stderr(errors);
        let mut nspawn = command.spawn().map_err(|source| Error::Start {
            command: "unshare … systemd-nspawn".into(),
            source,
        })?;
        let first = cgroup.path().join("payload/init.scope/cgroup.procs");
        let init = wait_until(format!("systemd on {}", host.name()), BOOT_LIMIT, || {
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            if let Ok(Some(status)) = nspawn.try_wait() {
                return Ok(Err(Error::Output {
                    command: "systemd-nspawn".into(),
                    problem: format!("{status}: {}", said()),
                }));
            }
            let pids = std::fs::read_to_string(&first).unwrap_or_default();
            let pid = pids.lines().next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
            pid.map(Ok).ok_or_else(said)
        })??;
        self.running = Some(Running { cgroup, nspawn, init });
        self.wait_started()
    }

    /// Waits until systemd has finished starting up.
    fn wait_started(&self) -> Result<(), Error> {
        wait_until(format!("{} booting", self.host.name()), BOOT_LIMIT, || {
            let asked = self
                .command(&["systemctl", "is-system-running", "--wait"])
                .stdin(Stdio::null())
                .output()
                .map_err(|error| error.to_string())?;
            match String::from_utf8_lossy(&asked.stdout).trim() {
                "running" => Ok(Ok(())),
                "degraded" => Ok(Err(())),
                // systemd does not answer yet.
                _ => Err(String::from_utf8_lossy(&asked.stderr).into_owned()),
            }
        })?
        .or_else(|()| {
            let failed = "systemctl --failed --plain --no-legend; journalctl --boot --priority=err";
            Err(Error::Output {
                command: format!("systemctl is-system-running on {}", self.host.name()),
                problem: format!("degraded\n{}", self.shell(failed)?),
            })
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cgroup.kill();
        // It was killed, or has exited already.
        let _ = self.nspawn.wait();
    }
}
