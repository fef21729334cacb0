//! Network namespaces.

use std::fs::File;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::de::DeserializeOwned;

use crate::command::{display, run, run_with_input};
use crate::registry::{Cleanup, Registration, Stage};
use crate::{Error, PingStream};

/// A network namespace. One created here is removed when dropped, after all processes in it are
/// killed.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    path: PathBuf,
    /// `None` for a borrowed namespace, which its owner removes.
    _registration: Option<Registration>,
}

/// The name of a namespace, by which it is removed.
struct Name(String);

impl Cleanup for Name {
    fn clean_up(&self) {
        clear(&self.0);
    }
}

impl Namespace {
    /// Creates a namespace. Its loopback device is up.
    ///
    /// # Errors
    ///
    /// Those of `ip netns add`: no root, or the name is in use.
    pub fn create(name: impl Into<String>) -> Result<Self, Error> {
        let name = name.into();
        let registration = Registration::new(Stage::Namespaces, Name(name.clone()));
        let path = Path::new("/run/netns").join(&name);
        let namespace = Self { name, path, _registration: Some(registration) };
        namespace.add()?;
        Ok(namespace)
    }

    /// Returns a namespace that somebody else owns and removes. `path` leads to it, like
    /// `/proc/PID/ns/net`.
    pub(crate) fn borrowed(name: String, path: PathBuf) -> Self {
        Self { name, path, _registration: None }
    }

    fn add(&self) -> Result<(), Error> {
        run(Command::new("ip").args(["netns", "add", &self.name]))?;
        self.ip("link set lo up")?;
        Ok(())
    }

    /// Replaces it with an empty one.
    pub(crate) fn renew(&self) -> Result<(), Error> {
        clear(&self.name);
        self.add()
    }

    /// Returns its name, for `ip netns exec` by hand.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the path to open it by.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs a closure on a thread inside the namespace. Processes started and sockets opened there
    /// stay in it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the namespace cannot be entered. The result of `work` is passed on.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let what = || format!("entering network namespace {}", self.name);
        let file = File::open(self.path()).map_err(Error::io(what()))?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .map(|()| work())
            });
            match thread.join() {
                Ok(result) => result.map_err(|errno| Error::io(what())(errno.into())),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Opens a UDP socket inside, bound to this address.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the address does not exist or the port is in use.
    pub fn udp_socket(&self, address: SocketAddr) -> Result<UdpSocket, Error> {
        self.enter(|| UdpSocket::bind(address))?
            .map_err(Error::io(format!("binding UDP {address} in {}", self.name)))
    }

    /// Starts a program inside.
    ///
    /// # Errors
    ///
    /// [`Error::Start`].
    pub fn spawn(&self, mut command: Command) -> Result<Child, Error> {
        self.enter(move || {
            command.spawn().map_err(|source| Error::Start { command: display(&command), source })
        })?
    }

    /// Runs a program inside to completion and returns its output.
    ///
    /// # Errors
    ///
    /// [`Error::Start`] or [`Error::Failed`].
    pub fn run(&self, mut command: Command) -> Result<String, Error> {
        self.enter(move || run(&mut command))?
    }

    /// Starts sending an echo request every 10 ms.
    ///
    /// # Errors
    ///
    /// [`Error::Start`].
    pub fn ping_stream(&self, address: IpAddr) -> Result<PingStream, Error> {
        self.ping_stream_every(Duration::from_millis(10), address)
    }

    /// Starts sending echo requests, at intervals of whole milliseconds.
    ///
    /// # Errors
    ///
    /// [`Error::Start`].
    pub fn ping_stream_every(
        &self,
        interval: Duration,
        address: IpAddr,
    ) -> Result<PingStream, Error> {
        let child = self.spawn(PingStream::command(address, interval))?;
        Ok(PingStream::read(child, interval))
    }

    /// Runs `ip` with these arguments, separated by white space.
    ///
    /// # Errors
    ///
    /// The same as [`run`](Self::run).
    pub fn ip(&self, arguments: &str) -> Result<String, Error> {
        self.tool("ip", arguments)
    }

    /// Runs `bridge` with these arguments, separated by white space.
    ///
    /// # Errors
    ///
    /// The same as [`run`](Self::run).
    pub fn bridge(&self, arguments: &str) -> Result<String, Error> {
        self.tool("bridge", arguments)
    }

    fn tool(&self, program: &str, arguments: &str) -> Result<String, Error> {
        let mut command = Command::new(program);
        command.args(arguments.split_whitespace());
        self.run(command)
    }

    /// Runs many commands of `ip` or `bridge`, one per line, in one process.
    ///
    /// # Errors
    ///
    /// The same as [`run`](Self::run); it stops at the first failing line.
    pub fn batch(&self, program: &str, lines: &str) -> Result<(), Error> {
        let mut command = Command::new(program);
        command.args(["-batch", "-"]);
        self.enter(move || run_with_input(&mut command, lines))??;
        Ok(())
    }

    /// Runs `ip` or `bridge` with these arguments, including `-j`, and parses the JSON output.
    ///
    /// # Errors
    ///
    /// The same as [`run`](Self::run), and [`Error::Output`].
    pub fn json<T: DeserializeOwned>(&self, program: &str, arguments: &str) -> Result<T, Error> {
        let printed = self.tool(program, arguments)?;
        // bridge prints nothing at all if there is nothing to list.
        let printed = if printed.trim().is_empty() { "[]" } else { &printed };
        serde_json::from_str(printed).map_err(|error| Error::Output {
            command: format!("{program} {arguments}"),
            problem: error.to_string(),
        })
    }

    /// Writes a sysctl below `/proc/sys/net`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn set_sysctl(&self, path: &str, value: &str) -> Result<(), Error> {
        let file = Path::new("/proc/sys/net").join(path);
        self.enter(|| std::fs::write(&file, value))?
            .map_err(Error::io(format!("writing {}", file.display())))
    }

    /// Reads a sysctl below `/proc/sys/net`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn sysctl(&self, path: &str) -> Result<String, Error> {
        let file = Path::new("/proc/sys/net").join(path);
        self.enter(|| std::fs::read_to_string(&file))?
            .map(|value| value.trim().to_owned())
            .map_err(Error::io(format!("reading {}", file.display())))
    }
}

/// Kills the processes of a namespace and removes it. Ignores errors, because it runs during
/// cleanup and the namespace may be gone already.
fn clear(namespace: &str) {
    let pids = run(Command::new("ip").args(["netns", "pids", namespace])).unwrap_or_default();
    for pid in pids.lines().filter_map(|line| line.trim().parse().ok()) {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    let _ = run(Command::new("ip").args(["netns", "del", namespace]));
}
