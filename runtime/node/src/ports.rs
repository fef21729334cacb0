//! The traits through which a node acts on the world.
//!
//! Every decision in this crate is made behind these seams, so that a test can put a model in the place of the kernel, the
//! store, a plugin or the packet path. [`crate::adapters`] implements them with the real ones.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use heddle_core::address::LinkName;
use heddle_core::config::NetworkConfig;
use heddle_core::diff::{Change, Observed, Scope};
use heddle_core::host_network::{HostAddress, HostRouting};
use heddle_core::interface::Facts;
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::node::Node;
use heddle_core::object::{Plan, Route, Sysctl};
use heddle_firewall::Rules;
use heddle_kernel::{Event, Failure, KernelError, Refusal};
use heddle_packet::{Counters, OpenError};
use heddle_plugin::{
    Advertisements, CallError, File, Manifest, Metrics, NodePlan, PluginError, Setting, Source,
    Tunnel, View,
};
use heddle_probe::{Health, News, ProbeError};
use heddle_store::LeaseStore;
use ipnet::IpNet;
use tokio::sync::mpsc;

pub use crate::files::FileError;

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

    /// Returns Heddle's routes in the main table, but those through another Heddle daemon's device.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be read.
    async fn own_routes(&self, scope: &Scope) -> Result<Vec<Route>, KernelError>;

    /// Returns the IPv4 networks that any table has a connected route to, with the devices.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be read.
    async fn connected_networks(&self) -> Result<BTreeSet<(IpNet, LinkName)>, KernelError>;

    /// Makes the connected routes of IPv4 addresses again. Returns those that were refused, with the reason.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be read.
    async fn restore_connected(
        &self,
        addresses: Vec<HostAddress>,
    ) -> Result<Vec<(HostAddress, Refusal)>, KernelError>;

    /// Makes changes in their order. Returns those that were not made; a failure does not keep the others from being made.
    async fn apply(&self, scope: &Scope, changes: Vec<Change>) -> Vec<Failure>;

    /// Subscribes to what happens within a scope from now on.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be listened to.
    async fn subscribe(&self, scope: &Scope) -> Result<Box<dyn Events>, KernelError>;
}

/// A subscription to kernel events.
#[async_trait]
pub trait Events: Send {
    /// Waits for the next events. May be dropped while it waits; nothing is lost.
    async fn next_batch(&mut self) -> Vec<Event>;
}

/// The plugins that a node can start.
#[async_trait]
pub trait Plugins: Send + Sync {
    /// Finds and starts a backend and emitters.
    ///
    /// # Errors
    ///
    /// The first plugin that cannot be had.
    async fn start(&self, backend: &str, emitters: &[String]) -> Result<Started, PluginError>;
}

/// The plugins of a node, started.
pub struct Started {
    /// Describes the backend.
    pub backend_found: FoundPlugin,
    /// Computes plans.
    pub backend: Arc<dyn Planner>,
    /// Opens the packet path of a backend that carries packets in user space.
    pub packets: Option<Box<dyn PacketOpener>>,
    /// The emitters, in the order in which they were asked for.
    pub emitters: Vec<(FoundPlugin, Arc<dyn Emitter>)>,
}

/// A plugin as it was found.
#[derive(Clone, Debug)]
pub struct FoundPlugin {
    /// What it says of itself.
    pub manifest: Manifest,
    /// Where it was found.
    pub source: Source,
    /// The SHA-256 digest of its bytes, in hexadecimal.
    pub digest: String,
}

/// A backend: computes plans and changes nothing.
#[async_trait]
pub trait Planner: Send + Sync {
    /// Returns the plugin's name.
    fn name(&self) -> &str;

    /// Returns the counters of the plugin's calls.
    fn metrics(&self) -> &Arc<Metrics>;

    /// Returns what this node's lease should say.
    ///
    /// # Errors
    ///
    /// If the config is wrong or the call failed.
    async fn advertise(
        &self,
        config: &NetworkConfig,
        node: &Node,
    ) -> Result<Advertisements, CallError>;

    /// Returns the plan for this node itself.
    ///
    /// # Errors
    ///
    /// If the config is wrong, the plan was refused or the call failed.
    async fn plan_node(
        &self,
        config: &NetworkConfig,
        node: &Node,
        lease: &Lease,
    ) -> Result<NodePlan, CallError>;

    /// Returns the plan for each peer, in their order. `links` are the devices of the node's plan.
    async fn plan_peers(
        &self,
        config: &NetworkConfig,
        node: &Node,
        lease: &Lease,
        links: Vec<LinkName>,
        peers: Vec<Lease>,
    ) -> Vec<Result<Plan, CallError>>;
}

/// A plugin that makes files for other programs.
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
    /// If the plugin has none or the call failed.
    async fn emit(&self, view: &View, settings: &[Setting]) -> Result<Vec<File>, CallError>;
}

/// What the plugin was told when it planned: its packets are steered on the same terms.
pub struct Terms {
    /// The network config.
    pub config: NetworkConfig,
    /// This node.
    pub node: Node,
    /// This node's lease.
    pub lease: Lease,
}

/// Opens the packet path of a backend in user space.
pub trait PacketOpener: Send {
    /// Makes the device and the sockets, and carries packets from then on. No peer is known yet. Besides the node's own
    /// subnets and those of peers, packets from peers may go to the networks in `allowed`.
    ///
    /// # Errors
    ///
    /// If the device or a socket cannot be had.
    fn open(
        self: Box<Self>,
        terms: Terms,
        plan: &NodePlan,
        tunnel: &Tunnel,
        allowed: &[IpNet],
    ) -> Result<Box<dyn PacketPath>, OpenError>;
}

/// The packet path of a backend in user space. It ends when this is dropped, and its device with it.
#[async_trait]
pub trait PacketPath: Send + Sync {
    /// Steers this peer's packets from now on.
    fn put(&self, lease: Lease);

    /// Steers no packets to this peer any more.
    fn remove(&self, key: LeaseKey);

    /// Waits until earlier calls have come into force.
    async fn flush(&self);

    /// Returns a reader of the path's counters, which answers for as long as there is a path.
    fn counters(&self) -> Box<dyn Fn() -> Option<Counters> + Send + Sync>;
}

/// Traffic rules and probes of a host.
pub trait Host: Send + Sync {
    /// Returns the traffic rules of this host. Nothing is changed yet.
    fn ruleset(&self, rules: Rules) -> Box<dyn Ruleset>;

    /// Starts to probe addresses, each once in an interval. Changes of reachability are sent to the receiver.
    ///
    /// # Errors
    ///
    /// If there is no socket to be had.
    fn prober(
        &self,
        interval: Duration,
    ) -> Result<(Box<dyn Prober>, mpsc::Receiver<News>), ProbeError>;
}

/// The traffic rules of a host.
#[async_trait]
pub trait Ruleset: Send {
    /// Returns why changes of rules cannot be heard. None if they are.
    fn deaf(&self) -> Option<&str>;

    /// Makes the rules hold. Returns a line for each repair.
    ///
    /// # Errors
    ///
    /// What does not hold, and why.
    async fn ensure(&mut self) -> Result<Vec<String>, String>;

    /// Waits until a program has changed rules.
    async fn changed(&mut self);
}

/// Probes peers over the overlay.
pub trait Prober: Send + Sync {
    /// Probes these addresses from now on, and no others.
    fn watch(&self, addresses: BTreeSet<IpAddr>);

    /// Returns the health of an address. None if it is not probed.
    fn health(&self, address: IpAddr) -> Option<Health>;
}

/// Files that other programs read.
pub trait Files: Send + Sync {
    /// Returns what an earlier run wrote to subnet.env. Empty if there is none, or it cannot be read.
    fn subnet_env(&self) -> String;

    /// Replaces files, all or none. `named` are the settings of their emitter, in which an operator names paths: at other
    /// paths, a plugin may not follow symbolic links. Returns the paths.
    ///
    /// # Errors
    ///
    /// The file that cannot be written, and why.
    fn replace(&self, files: Vec<File>, named: &[Setting]) -> Result<Vec<PathBuf>, FileError>;
}
