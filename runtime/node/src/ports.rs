//! The traits through which a node acts on the world.
//!
//! Every decision in this crate is made behind these traits, so that a test can substitute a model
//! for the kernel, the store, a plugin or the packet path. [`crate::adapters`] implements them with
//! the real ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use heddle_core::address::LinkName;
use heddle_core::diff::{ObjectChange, Observed, Scope};
use heddle_core::host_network::{HostAddress, HostRouting};
use heddle_core::interface::Facts;
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::link_counters::LinkCounters;
use heddle_core::object::{Route, Sysctl};
use heddle_core::site::Site;
use heddle_files::{Found, Print, ReadError, Written};
use heddle_firewall::Rules;
use heddle_kernel::{Event, Failure, KernelError, Refusal};
use heddle_packet::{Counters, OpenError};
use heddle_plugin::{
    CallError, File, Manifest, Metrics, NodePlan, PluginError, PluginSource, Setting, Tunnel, View,
};
use heddle_probe::{Health, News, ProbeError};
use heddle_store::LeaseStore;
use ipnet::IpNet;
use tokio::sync::mpsc;

pub use heddle_join::Planner;

/// Everything that a node acts on.
#[derive(Clone)]
pub struct Ports {
    /// The leases and the network config.
    pub store: Arc<dyn LeaseStore>,
    /// The kernel's devices, addresses, routes and neighbours.
    pub dataplane: Arc<dyn Dataplane>,
    /// The plugins that this node can start.
    pub plugins: Arc<dyn Plugins>,
    /// Traffic rules and probes.
    pub host: Arc<dyn Host>,
    /// Files for other programs.
    pub files: Arc<dyn Files>,
}

/// The kernel's network configuration, as far as a node reads and changes it.
#[async_trait]
pub trait Dataplane: Send + Sync + fmt::Debug {
    /// Returns the host's interfaces and default routes, and the route to `can_reach`.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be read.
    async fn facts(&self, can_reach: Option<IpAddr>) -> Result<Facts, KernelError>;

    /// Returns the devices by which packets from `source` to these destinations leave.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be read.
    async fn egress(
        &self,
        source: IpAddr,
        destinations: Vec<IpAddr>,
    ) -> Result<BTreeSet<LinkName>, KernelError>;

    /// Returns the objects within a scope, and the current values of `sysctls`.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be read.
    async fn observe(&self, scope: &Scope, sysctls: &[Sysctl]) -> Result<Observed, KernelError>;

    /// Returns the host's own routes and addresses that meet the scope's networks.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be read.
    async fn host_routing(&self, scope: &Scope) -> Result<HostRouting, KernelError>;

    /// Returns Heddle's routes in the main table, except those through another Heddle daemon's
    /// device.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be read.
    async fn own_routes(&self, scope: &Scope) -> Result<Vec<Route>, KernelError>;

    /// Returns the IPv4 networks that have a connected route in any table, with the devices.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be read.
    async fn connected_networks(&self) -> Result<BTreeSet<(IpNet, LinkName)>, KernelError>;

    /// Restores the connected routes of IPv4 addresses. Returns the addresses whose route the
    /// kernel refused, with the reason.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be read.
    async fn restore_connected(
        &self,
        addresses: Vec<HostAddress>,
    ) -> Result<Vec<(HostAddress, Refusal)>, KernelError>;

    /// Applies changes in order and returns those that failed. A failed change does not stop the
    /// others.
    async fn apply(&self, scope: &Scope, changes: Vec<ObjectChange>) -> Vec<Failure>;

    /// Returns the traffic counters of all devices. Empty if they cannot be read.
    fn link_counters(&self) -> BTreeMap<LinkName, LinkCounters>;

    /// Subscribes to kernel events within a scope, from now on.
    ///
    /// # Errors
    ///
    /// If kernel events cannot be subscribed to.
    async fn subscribe(&self, scope: &Scope) -> Result<Box<dyn Events>, KernelError>;
}

/// A subscription to kernel events.
#[async_trait]
pub trait Events: Send {
    /// Waits for the next batch of events. The future may be dropped while it waits without losing
    /// events.
    async fn next_batch(&mut self) -> Vec<Event>;
}

/// The plugins that a node can start.
#[async_trait]
pub trait Plugins: Send + Sync {
    /// Finds and starts a backend and emitters.
    ///
    /// # Errors
    ///
    /// The first plugin that cannot be found or started.
    async fn start(&self, backend: &str, emitters: &[String]) -> Result<Started, StartError>;
}

/// The first plugin that cannot be found or started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It is the backend.
    #[error(transparent)]
    Backend(Box<PluginError>),
    /// It is an emitter.
    #[error("--emit={name}: {error}")]
    Emitter {
        /// The requested name.
        name: String,
        /// The emitter's error.
        error: Box<PluginError>,
    },
}

/// The started plugins of a node.
pub struct Started {
    /// Manifest, source and digest of the backend.
    pub backend_found: FoundPlugin,
    /// The backend, which computes plans.
    pub backend: Arc<dyn Planner>,
    /// Opener of the packet path, if the backend carries packets in user space.
    pub packets: Option<Box<dyn PacketOpener>>,
    /// The emitters, in the order of the request.
    pub emitters: Vec<(FoundPlugin, Arc<dyn Emitter>)>,
}

/// Manifest, source and digest of a plugin.
#[derive(Clone, Debug)]
pub struct FoundPlugin {
    /// The plugin's manifest.
    pub manifest: Manifest,
    /// File or built-in copy from which it was loaded.
    pub source: PluginSource,
    /// SHA-256 digest of its bytes, in hexadecimal.
    pub digest: String,
}

/// A plugin that produces files for other programs.
#[async_trait]
pub trait Emitter: Send + Sync {
    /// Returns the plugin's name.
    fn name(&self) -> &str;

    /// Returns the counters of the plugin's calls.
    fn metrics(&self) -> &Arc<Metrics>;

    /// Returns the files that should exist.
    ///
    /// # Errors
    ///
    /// If the plugin returns no files or the call failed.
    async fn emit(&self, view: &View, settings: &[Setting]) -> Result<Vec<File>, CallError>;
}

/// Opens the packet path of a backend in user space.
pub trait PacketOpener: Send {
    /// Opens the device and the sockets, and starts to carry packets. No peer is known yet. Packets
    /// from peers may go to the node's own subnets, to those of peers and to the networks in
    /// `allowed`. The plugin's instances get the `site` that `plan` was made for.
    ///
    /// # Errors
    ///
    /// If the device or a socket cannot be opened.
    fn open(
        self: Box<Self>,
        site: Arc<Site>,
        plan: &NodePlan,
        tunnel: &Tunnel,
        allowed: &[IpNet],
    ) -> Result<Box<dyn PacketPath>, OpenError>;
}

/// The packet path of a backend in user space. Dropping it stops the path and removes its device.
#[async_trait]
pub trait PacketPath: Send + Sync {
    /// Starts to steer packets to this peer, or updates its lease.
    fn put(&self, lease: Lease);

    /// Stops steering packets to this peer.
    fn remove(&self, key: LeaseKey);

    /// Waits until earlier calls have taken effect.
    async fn flush(&self);

    /// Returns a reader of the path's counters. The reader returns None once the path has ended.
    fn counters(&self) -> Box<dyn Fn() -> Option<Counters> + Send + Sync>;
}

/// Traffic rules and probes of a host.
pub trait Host: Send + Sync {
    /// Returns a handle that checks and repairs `rules` on this host. Changes nothing yet.
    fn ruleset(&self, rules: Rules) -> Box<dyn Ruleset>;

    /// Starts a prober that probes each address once per `interval`. Changes of reachability are
    /// sent to the receiver.
    ///
    /// # Errors
    ///
    /// If no socket can be opened.
    fn prober(
        &self,
        interval: Duration,
    ) -> Result<(Box<dyn Prober>, mpsc::Receiver<News>), ProbeError>;
}

/// The traffic rules of a host.
#[async_trait]
pub trait Ruleset: Send {
    /// Returns the reason why changes of rules cannot be monitored. None if they are monitored.
    fn deaf(&self) -> Option<&str>;

    /// Checks the rules and repairs those that are not in place. Returns a line for each repair.
    ///
    /// # Errors
    ///
    /// The rules that are not in place, and the reason.
    async fn ensure(&mut self) -> Result<Vec<String>, String>;

    /// Waits until a program has changed rules.
    async fn changed(&mut self);
}

/// A prober of peers over the overlay.
pub trait Prober: Send + Sync {
    /// Replaces the set of addresses to probe.
    fn watch(&self, addresses: BTreeSet<IpAddr>);

    /// Returns the health of an address. None if it is not probed.
    fn health(&self, address: IpAddr) -> Option<Health>;
}

/// Files that other programs read.
#[async_trait]
pub trait Files: Send + Sync {
    /// Returns the text of the subnet.env that an earlier run wrote. Empty if there is none, or it
    /// cannot be read.
    fn subnet_env(&self) -> String;

    /// Returns what is at a path, with contents of at most `limit` bytes. Follows no symbolic link
    /// in the place of the file.
    ///
    /// # Errors
    ///
    /// If there is something that cannot be read.
    async fn look(&self, path: &Path, limit: u64) -> Result<Found, ReadError>;

    /// Replaces files, all or none, and returns the paths of those that were not right already.
    /// `named` are the settings of their emitter, in which an operator names paths: at other paths,
    /// a plugin may not follow symbolic links.
    ///
    /// # Errors
    ///
    /// The first file that cannot be written, and the reason.
    async fn replace(&self, files: Vec<File>, named: &[Setting])
    -> Result<Vec<PathBuf>, FileError>;

    /// Removes a file if it has one of `prints`, and is neither one of `kept` under another name nor
    /// in use by another daemon.
    ///
    /// # Errors
    ///
    /// If the file is still there and cannot be read or removed.
    async fn remove(
        &self,
        path: &Path,
        prints: &[Print],
        kept: &[PathBuf],
    ) -> Result<Removal, FileError>;

    /// Returns the record of the files that this daemon or its earlier runs wrote. Empty if there
    /// is none, or it cannot be used.
    async fn recorded(&self) -> Vec<Written>;

    /// Replaces the record.
    ///
    /// # Errors
    ///
    /// If the record cannot be written.
    async fn record(&self, written: &[Written]) -> Result<(), FileError>;

    /// Notices changes of these files from now on, and no others.
    async fn watch(&self, paths: &[PathBuf]);

    /// Waits until a watched file may have changed since the last call.
    async fn changed(&self);
}

/// The outcome of removing a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The file was removed.
    Removed,
    /// There is no such file.
    Missing,
    /// Somebody else has changed or replaced the file, which stays.
    Foreign,
    /// The file is in use under this or another name, and stays.
    InUse,
}

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {}: {source}", path.display())]
pub struct FileError {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    /// Creates the error of a failed attempt. `verb` is the attempted action, such as `write`.
    pub fn new(verb: &'static str, path: PathBuf, source: io::Error) -> Self {
        Self { verb, path, source }
    }
}
