//! Network namespaces.

use std::fs::File;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::de::DeserializeOwned;

use crate::command::{display, run, run_with_input};
use crate::{Error, PingStream, registry};

/// A network namespace. One that was made here is removed when dropped, together with all that runs in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    path: PathBuf,
}

impl Namespace {
    /// Makes one. Its loopback interface is up.
    ///
    /// # Errors
    ///
    /// As `ip netns add`: no root, or the name is taken.
    pub fn create(name: impl Into<String>) -> Result<Self, Error> {
        let name = name.into();
        registry::add_namespace(&name);
        let path = Path::new("/run/netns").join(&name);
        let namespace = Self { name, path };
        namespace.add()?;
        Ok(namespace)
    }

    /// One that somebody else made, and removes: `path` leads to it, as `/proc/PID/ns/net` does.
    pub(crate) fn borrowed(name: String, path: PathBuf) -> Self {
        Self { name, path }
    }

    fn add(&self) -> Result<(), Error> {
        run(Command::new("ip").args(["netns", "add", &self.name]))?;
        self.ip("link set lo up")?;
        Ok(())
    }

    /// Puts an empty one in its place.
    pub(crate) fn renew(&self) -> Result<(), Error> {
        registry::clear_namespace(&self.name);
        self.add()
    }

    /// Its name, for `ip netns exec` by hand.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it can be opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Does something on a thread inside the namespace. Processes started and sockets opened there stay in it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the namespace cannot be entered. What `work` returns is passed on.
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

    /// A UDP socket inside, bound to this address.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the address is not there or the port is taken.
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

    /// Runs a program inside to its end and returns what it printed.
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
        PingStream::start(self, address, interval)
    }

    /// Runs `ip` with these arguments, separated by white space.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn ip(&self, arguments: &str) -> Result<String, Error> {
        self.tool("ip", arguments)
    }

    /// Runs `bridge` with these arguments, separated by white space.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn bridge(&self, arguments: &str) -> Result<String, Error> {
        self.tool("bridge", arguments)
    }

    fn tool(&self, program: &str, arguments: &str) -> Result<String, Error> {
        let mut command = Command::new(program);
        command.args(arguments.split_whitespace());
        self.run(command)
    }

    /// Runs many commands of `ip` or `bridge`, one a line, in one process.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run); the first line that fails ends it.
    pub fn batch(&self, program: &str, lines: &str) -> Result<(), Error> {
        let mut command = Command::new(program);
        command.args(["-batch", "-"]);
        self.enter(move || run_with_input(&mut command, lines))??;
        Ok(())
    }

    /// Runs `ip` or `bridge` with these arguments, `-j` among them, and reads the JSON that it prints.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), and [`Error::Output`].
    pub fn json<T: DeserializeOwned>(&self, program: &str, arguments: &str) -> Result<T, Error> {
        let printed = self.tool(program, arguments)?;
        // bridge prints nothing at all where there is nothing to list.
        let printed = if printed.trim().is_empty() { "[]" } else { &printed };
        serde_json::from_str(printed).map_err(|error| Error::Output {
            command: format!("{program} {arguments}"),
            problem: error.to_string(),
        })
    }

    /// Writes a setting below `/proc/sys/net`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn set_sysctl(&self, path: &str, value: &str) -> Result<(), Error> {
        let file = Path::new("/proc/sys/net").join(path);
        self.enter(|| std::fs::write(&file, value))?
            .map_err(Error::io(format!("writing {}", file.display())))
    }

    /// Reads a setting below `/proc/sys/net`.
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

impl Drop for Namespace {
    fn drop(&mut self) {
        // Of a borrowed one, the registry knows nothing.
        registry::remove_namespace(&self.name);
    }
}
