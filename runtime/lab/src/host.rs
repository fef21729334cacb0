//! A host of the lab.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Container, Daemon, Error, KernelState, Namespace, SubnetEnv};

/// A network namespace with an interface `eth0` on the lab's switch.
#[derive(Debug)]
pub struct Host {
    pub(crate) name: String,
    pub(crate) namespace: Arc<Namespace>,
    pub(crate) v4: Option<Ipv4Addr>,
    pub(crate) v6: Option<Ipv6Addr>,
    pub(crate) directory: PathBuf,
    pub(crate) containers: AtomicU32,
    pub(crate) daemons: AtomicU32,
}

impl Host {
    /// Returns its name in the lab.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Returns the IPv4 address of `eth0`.
    ///
    /// # Panics
    ///
    /// In a lab without IPv4.
    pub fn v4(&self) -> Ipv4Addr {
        self.v4.expect("the lab has IPv4")
    }

    /// Returns the IPv6 address of `eth0`.
    ///
    /// # Panics
    ///
    /// In a lab without IPv6.
    pub fn v6(&self) -> Ipv6Addr {
        self.v6.expect("the lab has IPv6")
    }

    /// Returns the addresses of `eth0`, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4.map(IpAddr::V4);
        v4.into_iter().chain(self.v6.map(IpAddr::V6))
    }

    /// Returns the directory of this host, which replaces a real host's `/var/lib`, `/run` and so
    /// on.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the path of the `subnet.env` that its daemon writes.
    pub fn subnet_file(&self) -> PathBuf {
        self.directory.join("run/flannel/subnet.env")
    }

    /// Returns the path of its daemon's control socket, which answers `heddle status`.
    pub fn control_socket(&self) -> PathBuf {
        self.directory.join("run/heddle/heddled.sock")
    }

    /// Reads the `subnet.env` that its daemon wrote for the container runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file does not exist.
    pub fn subnet_env(&self) -> Result<SubnetEnv, Error> {
        let path = self.subnet_file();
        std::fs::read_to_string(&path)
            .map(|text| SubnetEnv::parse(&text))
            .map_err(Error::io(format!("reading {}", path.display())))
    }

    /// Starts a daemon on this host.
    ///
    /// # Errors
    ///
    /// [`Error::Start`].
    pub fn start(&self, command: Command) -> Result<Daemon, Error> {
        let number = self.daemons.fetch_add(1, Ordering::Relaxed);
        Daemon::start(&self.name, &self.namespace, &self.directory, command, number)
    }

    /// Starts a container on this host, attached to a bridge with the subnet's first address.
    ///
    /// # Errors
    ///
    /// If the host has no subnet yet, and those of `ip`.
    pub fn container(&self) -> Result<Container, Error> {
        let number = self.containers.fetch_add(1, Ordering::Relaxed);
        let env = self.subnet_env()?;
        let mtu = env.mtu.ok_or_else(|| Error::Output {
            command: self.subnet_file().display().to_string(),
            problem: "no FLANNEL_MTU".into(),
        })?;
        Container::start(&self.namespace, &env.subnets, mtu, number)
    }

    /// Returns the state of its kernel.
    ///
    /// # Errors
    ///
    /// Those of `ip` and `bridge`.
    pub fn kernel_state(&self) -> Result<KernelState, Error> {
        KernelState::read(&self.namespace)
    }
}
