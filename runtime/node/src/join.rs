//! Turns flags into membership: reads the network config, starts its plugins, selects the interface
//! and acquires a subnet. If the daemon carries packets itself, joining also opens the device and
//! the sockets for them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use heddle_core::allocation::{AllocationError, Holders, HostMarks, Recognition};
use heddle_core::config::{ConfigWarning, NetworkConfig};
use heddle_core::diff::Scope;
use heddle_core::host_network::{Claims, HostNetwork, Vital};
use heddle_core::interface::{Requirements, existing_links, is_ambiguous};
use heddle_core::node::{Node, NodeId};
use heddle_core::object::{Object, Route};
use heddle_core::site::Site;
use heddle_core::subnet_env::{previous_networks, previous_subnets};
use heddle_core::text::{list, one_line};
use heddle_flags::Flags;
use heddle_join::{Loaded, Obstacle, Planned, network_config};
use heddle_kernel::KernelError;
use heddle_packet::OpenError;
use heddle_plugin::{CallError, PluginError, Reason};
use heddle_store::{AcquireError, OwnLease, Reach, published_addresses};

use crate::Fatal;
use crate::egress::{self, Chosen, Unchosen};
use crate::emit::Output;
use crate::files;
use crate::host_network;
use crate::leftovers;
use crate::ports::{FoundPlugin, PacketPath, Planner, Ports, StartError, Started};
use crate::readiness::{Condition, Readiness};

/// Maximum number of warnings about one network config that are logged.
const WARNINGS: usize = 20;

/// Longest warning about the network config, in characters.
const LONGEST: usize = 500;

/// Membership of this node in the overlay, with everything that it runs on.
pub(crate) struct Membership {
    pub(crate) overlay: Overlay,
    pub(crate) own: OwnLease,
    pub(crate) outputs: Vec<Arc<Output>>,
    /// The backend, and the emitters in the order of `outputs`.
    pub(crate) found: Found,
}

/// The inputs of planning, except peers.
pub(crate) struct Overlay {
    /// This node, its backend and the plan for itself.
    pub(crate) planned: Planned<Arc<dyn Planner>>,
    /// The part of the kernel's state that belongs to the overlay.
    pub(crate) scope: Scope,
    /// Addresses that this node needs apart from the overlay: its own and the store's.
    pub(crate) vital: Vital,
    /// The packet path of a backend that carries packets in user space.
    pub(crate) packets: Option<Box<dyn PacketPath>>,
    /// True if packets to peers leave by the underlay's interface itself.
    pub(crate) carries: bool,
    /// The properties by which the host recognizes leases of earlier runs.
    pub(crate) marks: HostMarks,
}

impl Overlay {
    /// Returns the node as leases are recognized by it.
    pub(crate) fn recognition(&self) -> Recognition {
        let Site { node, lease, .. } = self.planned.site.as_ref();
        let mut marks = self.marks.clone();
        marks.macs.extend(lease.published_macs());
        let public_addresses = node.underlay.public_addresses;
        Recognition { id: node.id.clone(), public_addresses, marks }
    }
}

/// Reaction of this node to an attempt to join that failed.
pub(crate) enum Halt {
    /// There is no network config. The node tries again.
    NoConfig(Obstacle),
    /// The condition does not hold. The node tries again.
    Wait {
        /// The unmet condition.
        condition: Condition,
        /// The reason why it does not hold.
        reason: String,
    },
    /// A plugin cannot be loaded. The node tries again.
    Plugin {
        /// The unmet condition.
        condition: Condition,
        /// The reason why it does not hold.
        reason: String,
        /// True if compiling the plugin failed, which costs CPU time at each attempt.
        compiling: bool,
    },
    /// The backend's plugin returned no usable answer. The node tries again.
    Call {
        /// The plugin's error.
        error: Box<CallError>,
        /// Time spent in the plugin's calls, without compiling the plugin.
        took: Duration,
        /// Config that was passed to the plugin.
        config: Box<NetworkConfig>,
    },
    /// A problem of this host or its command line. Only a restart can help.
    Fatal(Fatal),
}

impl Halt {
    /// Returns the reaction to a store that cannot be read.
    fn store(reason: impl ToString) -> Self {
        Self::Wait { condition: Condition::Store, reason: reason.to_string() }
    }

    /// Returns the reaction to a config that cannot be used. An operator can fix it, so the node
    /// checks it repeatedly.
    fn config(reason: impl ToString) -> Self {
        Self::Wait { condition: Condition::Config, reason: reason.to_string() }
    }

    /// Returns the reaction to a subnet that is not available at present.
    fn lease(reason: impl ToString) -> Self {
        Self::Wait { condition: Condition::Lease, reason: reason.to_string() }
    }
}

impl From<Obstacle> for Halt {
    fn from(obstacle: Obstacle) -> Self {
        match obstacle {
            Obstacle::NoConfig(_) => Self::NoConfig(obstacle),
            Obstacle::Config { .. } => Self::config(obstacle),
            Obstacle::Plugin { ref error, .. } => Self::Plugin {
                condition: Condition::Plugins,
                reason: obstacle.to_string(),
                compiling: is_compiling(error),
            },
            Obstacle::Backend { error, .. } => Self::config(error),
            Obstacle::Interface(error) if error.is_passing() => {
                Self::Wait { condition: Condition::Underlay, reason: error.to_string() }
            }
            Obstacle::Interface(error) => Self::Fatal(error.into()),
            Obstacle::Lease(error @ AllocationError::AddressInUse { .. }) => {
                Self::Fatal(error.into())
            }
            Obstacle::Lease(error) => Self::lease(error),
        }
    }
}

impl From<Unchosen> for Halt {
    fn from(reason: Unchosen) -> Self {
        match reason {
            Unchosen::Interface(error) => Obstacle::Interface(error).into(),
            Unchosen::Store(error) => Self::store(error),
            Unchosen::Kernel(error) => error.into(),
        }
    }
}

/// Returns true if compiling a plugin failed.
fn is_compiling(error: &PluginError) -> bool {
    matches!(error, PluginError::Compile { .. })
}

/// Returns the condition that a failed call of the backend's plugin leaves unmet.
pub(crate) fn unmet_by_call(error: &CallError) -> Condition {
    match error.reason {
        Reason::Config { .. } => Condition::Config,
        _ => Condition::Plugins,
    }
}

impl From<KernelError> for Halt {
    fn from(error: KernelError) -> Self {
        Self::Fatal(error.into())
    }
}

/// Identity of this node, without its addresses.
#[derive(Clone)]
pub struct Identity {
    /// The node id.
    pub id: NodeId,
    /// The host's name, for display.
    pub name: Option<String>,
}

/// Returns the reaction to a plugin that cannot be started. `key` is the network config's.
fn not_started(key: &str, error: StartError) -> Halt {
    match error {
        StartError::Backend(error) => {
            let origin = format!("{key}, `Backend.Type`");
            Obstacle::Plugin { origin, error }.into()
        }
        StartError::Emitter { error: ref cause, .. } => Halt::Plugin {
            condition: Condition::Emitters,
            reason: error.to_string(),
            compiling: is_compiling(cause),
        },
    }
}

/// Makes one attempt to join.
///
/// # Errors
///
/// [`Halt`], which tells what has to change.
#[expect(
    clippy::too_many_lines,
    reason = "the steps of joining, each of which needs results of those before it"
)]
pub(crate) async fn join(
    flags: &Flags,
    identity: &Identity,
    ports: &Ports,
    reach: &Reach,
    readiness: &Readiness,
    warned: &mut Warned,
) -> Result<Membership, Halt> {
    let Ports { store, dataplane, plugins, files, .. } = ports;
    let dataplane = dataplane.as_ref();
    let key = format!("{}/config", flags.lease.network_name());
    let value = store.network_config().await.map_err(Halt::store)?;
    readiness.met(Condition::Store);
    warned.log(&value.as_deref().map(NetworkConfig::warnings).unwrap_or_default());
    let config = network_config(&key, value.as_deref())?;
    let asked: Vec<_> = flags.files.emit.iter().map(|emit| emit.emitter.clone()).collect();
    let started = plugins.start(&config.backend.kind, &asked).await;
    let Started { backend_found, backend, packets, emitters } =
        started.map_err(|error| not_started(&key, error))?;
    // An earlier attempt may have lacked an emitter.
    readiness.unchecked(Condition::Emitters);
    let keys = backend_found.manifest.keys.as_deref();
    warned.log(&keys.map(|keys| config.backend.unknown_keys(keys)).unwrap_or_default());

    let mut facts = dataplane.facts(flags.interface.iface_can_reach).await?;
    let requirements = Requirements::of(&config.networks);
    let mut selection = flags.interface.selection();
    if is_ambiguous(&requirements, &selection, &facts) {
        let published = published_addresses(store.as_ref(), &identity.id).await;
        selection.published = published.map_err(Halt::store)?;
    }
    let marks = HostMarks::of(&facts.interfaces);
    let Chosen { underlay, carries } =
        egress::choose(&requirements, &selection, ports, &mut facts).await?;
    let scope = Scope {
        granted: backend_found.manifest.capabilities.routes.clone(),
        alias: alias(flags),
        ..Scope::of(&config)
    };
    let vital = Vital::of(reach.addresses(), &underlay);
    let routing = dataplane.host_routing(&scope).await?;
    let host = HostNetwork::new(&Claims::of(&scope), &routing, vital.clone());
    let node = Node { id: identity.id.clone(), underlay, links: existing_links(&facts.interfaces) };
    let failed = |error| Halt::Call {
        error: Box::new(error),
        took: backend.metrics().time(),
        config: Box::new(config.clone()),
    };
    let loaded = Loaded { site: Site::new(config.clone(), node), planner: backend.clone() };
    let advertised = loaded.advertise().await.map_err(failed)?;

    // Of an earlier run. Empty if that run left no subnet.env, or none that can be read.
    let remembered = files.subnet_env();
    let value = |key| advertised.lease(key, identity.name.clone());
    let holders = Holders::new();
    let claimant = advertised.claimant(previous_subnets(&remembered), &host, &marks, &holders);
    readiness.met_before(Condition::Lease);
    let report = |reason: &str| _ = readiness.unmet(Condition::Lease, reason);
    let acquiring = heddle_store::acquire(store.as_ref(), &config, &claimant, value, &report);
    // Acquiring a lease may wait for the store for hours, and the host's network may change
    // meanwhile.
    let changing = host_network::changed(dataplane, &scope, &host, store.as_ref(), reach);
    let own = tokio::select! {
        biased;
        own = acquiring => own,
        reason = changing => return Err(Halt::lease(reason)),
    };
    let own = own.map_err(|error| match error {
        AcquireError::Allocation(error) => Obstacle::Lease(error).into(),
        AcquireError::Store(error) => Halt::lease(error),
    })?;
    let leased = advertised.with_lease(own.lease().clone());
    let mut planned = leased.plan().await.map_err(failed)?;
    let subnets = planned.site.lease.key.subnets();
    if flags.rules.ip_blackhole_route {
        let routes = subnets.map(|own| Object::Route(Route::last_resort(own)));
        planned.plan.plan.objects.extend(routes);
    }
    let links = planned.plan.links().into_iter().collect();
    let scope = Scope { links, own: subnets.into_iter().collect(), ..scope };
    host_network::restore_connected(dataplane, &scope, |_| true).await?;
    leftovers::remove_routes(dataplane, &scope, previous_networks(&remembered)).await?;
    let packets = match (packets, &planned.plan.tunnel) {
        (Some(plugin), Some(tunnel)) => {
            leftovers::remove_devices(dataplane, &scope).await?;
            let allowed = &flags.rules.allow_destinations;
            let opened = plugin.open(planned.site.clone(), &planned.plan, tunnel, allowed);
            let wait = |error: OpenError| {
                let (condition, reason) = (Condition::Packets, error.to_string());
                Halt::Wait { condition, reason }
            };
            Some(opened.map_err(wait)?)
        }
        _ => None,
    };
    let used = &backend_found;
    tracing::info!(
        version = %used.manifest.version,
        source = %used.source,
        "plugin {}: selected as backend",
        used.manifest.name
    );
    let underlay = &planned.site.node.underlay;
    let addresses = list(underlay.public_addresses);
    tracing::info!(
        interface = %underlay.link,
        mtu = underlay.mtu,
        addresses,
        "underlay: interface selected"
    );
    tracing::info!("lease {}: acquired", own.key());
    let (emitters_found, emitters): (Vec<_>, Vec<_>) = emitters.into_iter().unzip();
    Ok(Membership {
        overlay: Overlay { planned, scope, vital, packets, carries, marks },
        own,
        outputs: emitters
            .into_iter()
            .zip(&flags.files.emit)
            .map(|(emitter, asked)| Arc::new(Output::new(emitter, asked, flags)))
            .collect(),
        found: Found { backend: backend_found, emitters: emitters_found },
    })
}

/// Warnings about the network config that have been logged.
#[derive(Default)]
pub(crate) struct Warned(BTreeSet<String>);

impl Warned {
    /// Logs each warning once, and of one config a few.
    fn log(&mut self, warnings: &[ConfigWarning]) {
        if self.0.len() > WARNINGS * WARNINGS {
            self.0.clear();
        }
        for warning in warnings.iter().take(WARNINGS) {
            let warning = one_line(&warning.to_string(), LONGEST);
            if self.0.insert(warning.clone()) {
                tracing::warn!("network config: {warning}");
            }
        }
    }
}

/// The plugins of this node, as they were found.
pub(crate) struct Found {
    pub(crate) backend: FoundPlugin,
    pub(crate) emitters: Vec<FoundPlugin>,
}

/// Returns the alias (`ip link set … alias`) that marks this daemon's devices.
pub(crate) fn alias(flags: &Flags) -> String {
    heddle_kernel::alias(&flags.lease.network_label())
}

/// Returns this node's identity, from flags and files. Failure to store a derived id is only a
/// warning, because the same id is derived at the next start.
///
/// # Errors
///
/// If neither the stored identity nor the machine id can be used.
pub fn identity(flags: &Flags) -> Result<Identity, Fatal> {
    let known = flags.identity()?;
    if let Some(path) = known.unstored
        && let Err(error) = files::write(&path, format!("{}\n", known.id).as_bytes(), 0o644)
    {
        tracing::warn!(%error, "node: cannot store the node id; deriving it again at the next start");
    }
    Ok(Identity { id: known.id, name: files::node_name() })
}
