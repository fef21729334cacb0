//! Turns flags into membership: reads the network config, starts its plugins, selects the interface
//! and acquires a subnet. If the daemon carries packets itself, joining also opens the device and
//! the sockets for them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use heddle_core::allocation::{AllocationError, Claimant};
use heddle_core::config::{NetworkConfig, OverlayNetwork};
use heddle_core::diff::Scope;
use heddle_core::host_network::{Claims, HostNetwork, Vital};
use heddle_core::interface::{Facts, existing_links, select};
use heddle_core::lease::Lease;
use heddle_core::node::{Node, NodeId, Underlay};
use heddle_core::object::{Object, Plan, Route};
use heddle_core::site::Site;
use heddle_core::subnet_env::{previous_networks, previous_subnets};
use heddle_flags::Flags;
use heddle_packet::OpenError;
use heddle_plugin::{CallError, NodePlan, PluginError};
use heddle_store::{AcquireError, LeaseStore, OwnLease, Reach};

use crate::Fatal;
use crate::emit::Output;
use crate::files;
use crate::host_network;
use crate::leftovers;
use crate::ports::{FoundPlugin, PacketPath, Planner, Ports, Started};
use crate::readiness::{Condition, Readiness};

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
    pub(crate) site: Arc<Site>,
    pub(crate) backend: Arc<dyn Planner>,
    /// Plan for this node itself.
    pub(crate) plan: NodePlan,
    /// The part of the kernel's state that belongs to the overlay.
    pub(crate) scope: Scope,
    /// Addresses that this node needs apart from the overlay: its own and the store's.
    pub(crate) vital: Vital,
    /// The packet path of a backend that carries packets in user space.
    pub(crate) packets: Option<Box<dyn PacketPath>>,
}

impl Overlay {
    /// Returns the plugin's plans for these peers, in the same order.
    pub(crate) async fn plan_peers(&self, peers: Vec<Lease>) -> Vec<Result<Plan, CallError>> {
        let links = self.plan.links();
        self.backend.plan_peers(&self.site, links, peers).await
    }
}

/// Reason why this node has not joined.
pub(crate) enum Obstacle {
    /// The network config is missing or invalid. An operator can fix it in the store, so the node
    /// checks it repeatedly.
    Config(String),
    /// A plugin cannot be loaded. As with the config, an operator can fix that.
    Plugin(PluginError),
    /// A plugin returned no usable answer. The cause may be an invalid key of the config, so this
    /// is reported as a problem of the config.
    Call {
        /// The plugin's error.
        error: Box<CallError>,
        /// Time spent in the plugin's calls, without compiling the plugin.
        took: Duration,
        /// Config that was passed to the plugin.
        config: Box<NetworkConfig>,
    },
    /// No subnet is available at present.
    Lease(String),
    /// The device or a socket of the packet path cannot be opened at present.
    Packets(OpenError),
    /// A problem of this host or its command line. Only a restart can help.
    Fatal(Fatal),
}

impl<E: Into<Fatal>> From<E> for Obstacle {
    fn from(error: E) -> Self {
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

/// Makes one attempt to join.
///
/// # Errors
///
/// [`Obstacle`], which tells what has to change.
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
) -> Result<Membership, Obstacle> {
    let Ports { store, dataplane, plugins, files, .. } = ports;
    let dataplane = dataplane.as_ref();
    let config = network_config(flags, store).await?;
    let asked: Vec<_> = flags.files.emit.iter().map(|emit| emit.emitter.clone()).collect();
    let started = plugins.start(&config.backend.kind, &asked).await.map_err(Obstacle::Plugin)?;
    let Started { backend_found, backend, packets, emitters } = started;

    let facts = dataplane.facts(flags.interface.iface_can_reach).await?;
    let underlay = underlay(flags, &config, &facts)?;
    let node = Node { id: identity.id.clone(), underlay, links: existing_links(&facts.interfaces) };
    let site = Site::new(config, node);
    let Site { config, node, .. } = &site;
    let scope = Scope {
        networks: config.networks.iter().map(|overlay| overlay.network).collect(),
        granted: backend_found.manifest.capabilities.routes.clone(),
        reserved: config.networks.iter().filter_map(OverlayNetwork::reserved_range).collect(),
        own: Vec::new(),
        links: BTreeSet::new(),
        alias: alias(flags),
    };
    let vital = Vital {
        store: reach.addresses(),
        own: node.underlay.public_addresses.iter().copied().collect(),
    };
    let host = HostNetwork::new(
        &Claims::of(&scope),
        &dataplane.host_routing(&scope).await?,
        vital.clone(),
    );
    let failed = |error| {
        let (error, took) = (Box::new(error), backend.metrics().time());
        Obstacle::Call { error, took, config: Box::new(config.clone()) }
    };
    let advertised = backend.advertise(&site).await.map_err(failed)?;

    // Of an earlier run. Empty if that run left no subnet.env, or none that can be read.
    let remembered = files.subnet_env();
    let value = |key| advertised.lease(key, node, identity.name.clone());
    let claimant = Claimant {
        id: &node.id,
        public_addresses: node.underlay.public_addresses,
        previous: previous_subnets(&remembered),
        host: &host,
        underlay: node.underlay.link,
    };
    readiness.met(Condition::Config);
    readiness.met(Condition::Underlay);
    let report = |reason: &str| _ = readiness.unmet(Condition::Lease, reason);
    let acquiring = heddle_store::acquire(store.as_ref(), config, &claimant, value, &report);
    // Acquiring a lease may wait for the store for hours, and the host's network may change
    // meanwhile.
    let changing = host_network::changed(dataplane, &scope, &host, store.as_ref(), reach);
    let own = tokio::select! {
        biased;
        own = acquiring => own,
        reason = changing => return Err(Obstacle::Lease(reason)),
    };
    let own = own.map_err(|error| match error {
        AcquireError::Allocation(error @ AllocationError::AddressInUse { .. }) => error.into(),
        other => Obstacle::Lease(other.to_string()),
    })?;
    let site = Arc::new(site.clone().with_lease(own.lease().clone()));
    let Site { node, lease, .. } = site.as_ref();
    let mut plan = backend.plan_node(&site).await.map_err(failed)?;
    if flags.rules.ip_blackhole_route {
        let routes = lease.key.subnets().map(|own| Object::Route(Route::last_resort(own)));
        plan.plan.objects.extend(routes);
    }
    let (links, own_subnets) =
        (plan.links().into_iter().collect(), lease.key.subnets().into_iter().collect());
    let scope = Scope { links, own: own_subnets, ..scope };
    host_network::restore_connected(dataplane, &scope, |_| true).await?;
    leftovers::remove_routes(dataplane, &scope, previous_networks(&remembered)).await?;
    let packets = match (packets, &plan.tunnel) {
        (Some(plugin), Some(tunnel)) => {
            leftovers::remove_devices(dataplane, &scope).await?;
            let allowed = &flags.rules.allow_destinations;
            Some(plugin.open(site.clone(), &plan, tunnel, allowed).map_err(Obstacle::Packets)?)
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
    let underlay = &node.underlay;
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
        overlay: Overlay { site, backend, plan, scope, vital, packets },
        own,
        outputs: emitters
            .into_iter()
            .zip(&flags.files.emit)
            .map(|(emitter, asked)| Arc::new(Output::new(emitter, asked, flags)))
            .collect(),
        found: Found { backend: backend_found, emitters: emitters_found },
    })
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

async fn network_config(
    flags: &Flags,
    store: &Arc<dyn LeaseStore>,
) -> Result<NetworkConfig, Obstacle> {
    let key = format!("{}/config", flags.lease.network_name());
    let text = store.network_config().await.map_err(|error| Obstacle::Config(error.to_string()))?;
    let text = text.ok_or_else(|| {
        let example = r#"{"Network":"10.244.0.0/16"}"#;
        Obstacle::Config(format!("{key} does not exist: expected an object such as {example}"))
    })?;
    NetworkConfig::parse(&text).map_err(|error| Obstacle::Config(format!("{key}: {error}")))
}

/// Selects the underlay interface, according to the flags and the host's interfaces.
fn underlay(flags: &Flags, config: &NetworkConfig, facts: &Facts) -> Result<Underlay, Obstacle> {
    Ok(select(&config.networks.families(), &flags.interface.selection(), facts)?)
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

fn list(items: impl IntoIterator<Item = impl ToString>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}
