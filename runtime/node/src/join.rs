//! From flags to membership: what the network is, which plugins make it, how this host is reached, and its subnet.
//! Where the daemon is to carry packets, the device and the sockets for that are a part of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use heddle_core::address::Family;
use heddle_core::allocation::{AllocationError, Claimant};
use heddle_core::config::{NetworkConfig, OverlayNetwork};
use heddle_core::diff::Scope;
use heddle_core::host_network::{Claims, HostNetwork, Vital};
use heddle_core::interface::{Facts, select};
use heddle_core::lease::Lease;
use heddle_core::node::{Node, NodeId, Underlay, existing_links};
use heddle_core::object::{Object, Plan, Route};
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
use crate::ports::{FoundPlugin, PacketPath, Planner, Ports, Started, Terms};
use crate::readiness::{Condition, Readiness};

/// Where this node belongs, and everything it needs there.
pub(crate) struct Membership {
    pub(crate) overlay: Overlay,
    pub(crate) own: OwnLease,
    pub(crate) outputs: Vec<Arc<Output>>,
    /// The backend, and the emitters in the order of `outputs`, as they were found.
    pub(crate) found: Found,
}

/// What plans are made of, peers apart.
pub(crate) struct Overlay {
    pub(crate) config: NetworkConfig,
    pub(crate) node: Node,
    /// This node's own.
    pub(crate) lease: Lease,
    pub(crate) backend: Arc<dyn Planner>,
    /// For this node itself.
    pub(crate) plan: NodePlan,
    /// What of the kernel is the network's.
    pub(crate) scope: Scope,
    /// The addresses that this node needs beside the overlay.
    pub(crate) vital: Vital,
    /// Of a backend that carries packets in user space.
    pub(crate) packets: Option<Box<dyn PacketPath>>,
}

impl Overlay {
    /// The plugin's plans for these peers, in their order.
    pub(crate) async fn plan_peers(&self, peers: Vec<Lease>) -> Vec<Result<Plan, CallError>> {
        let links = self.plan.links();
        self.backend.plan_peers(&self.config, &self.node, &self.lease, links, peers).await
    }
}

/// Why this node has not joined.
pub(crate) enum Obstacle {
    /// The network config. An operator can put it right in the store, so it is looked at again and again.
    Config(String),
    /// A plugin that cannot be had. As with the config, an operator can put that right.
    Plugin(PluginError),
    /// A plugin that answers nothing to go on. It may be a key of the config that is wrong, and is said to be that.
    Call {
        /// What it answered instead.
        error: Box<CallError>,
        /// How long it took over that: its calls alone, not what it takes to compile it.
        took: Duration,
        /// What it was asked about.
        config: Box<NetworkConfig>,
    },
    /// There is no subnet to be had at present.
    Lease(String),
    /// The device or a socket of the packet path cannot be had at present.
    Packets(OpenError),
    /// This host or its command line. Only another start can help.
    Fatal(Fatal),
}

impl<E: Into<Fatal>> From<E> for Obstacle {
    fn from(error: E) -> Self {
        Self::Fatal(error.into())
    }
}

/// Who this node is, apart from its addresses.
#[derive(Clone)]
pub struct Identity {
    /// The node id.
    pub id: NodeId,
    /// The host's name, for people.
    pub name: Option<String>,
}

/// One attempt to join.
///
/// # Errors
///
/// [`Obstacle`], with what has to change.
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
    let advertised = backend.advertise(&config, &node).await.map_err(failed)?;

    // Of an earlier run. Where there is no such file, nothing is known of one.
    let remembered = files.subnet_env();
    let value = |key| advertised.lease(key, &node, identity.name.clone());
    let claimant = Claimant {
        id: &node.id,
        public_addresses: &node.underlay.public_addresses,
        previous: previous_subnets(&remembered),
        host: &host,
        underlay: node.underlay.link,
    };
    readiness.met(Condition::Config);
    readiness.met(Condition::Underlay);
    let report = |reason: &str| _ = readiness.unmet(Condition::Lease, reason);
    let acquiring = heddle_store::acquire(store.as_ref(), &config, &claimant, value, &report);
    // It may wait for the store for hours, and the host be another one by then.
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
    let lease = own.lease().clone();
    let mut plan = backend.plan_node(&config, &node, &lease).await.map_err(failed)?;
    if flags.rules.ip_blackhole_route {
        let routes = lease.key.subnets().map(|own| Object::Route(Route::last_resort(own)));
        plan.plan.objects.extend(routes);
    }
    let (links, own_subnets) = (plan.links().into_iter().collect(), lease.key.subnets().collect());
    let scope = Scope { links, own: own_subnets, ..scope };
    host_network::restore_connected(dataplane, &scope, |_| true).await?;
    leftovers::remove_routes(dataplane, &scope, previous_networks(&remembered)).await?;
    let packets = match (packets, &plan.tunnel) {
        (Some(plugin), Some(tunnel)) => {
            leftovers::remove_devices(dataplane, &scope).await?;
            let terms = Terms { config: config.clone(), node: node.clone(), lease: lease.clone() };
            let allowed = &flags.rules.allow_destinations;
            Some(plugin.open(terms, &plan, tunnel, allowed).map_err(Obstacle::Packets)?)
        }
        _ => None,
    };
    let used = &backend_found;
    tracing::info!("backend {} {}, {}", used.manifest.name, used.manifest.version, used.source);
    let underlay = &node.underlay;
    let addresses = list(&underlay.public_addresses);
    tracing::info!("interface {}, mtu {}, public address {addresses}", underlay.link, underlay.mtu);
    tracing::info!("lease {}", own.key());
    let (emitters_found, emitters): (Vec<_>, Vec<_>) = emitters.into_iter().unzip();
    Ok(Membership {
        overlay: Overlay { config, node, lease, backend, plan, scope, vital, packets },
        own,
        outputs: emitters
            .into_iter()
            .zip(&flags.files.emit)
            .map(|(emitter, asked)| Arc::new(Output::new(emitter, asked, flags)))
            .collect(),
        found: Found { backend: backend_found, emitters: emitters_found },
    })
}

/// The plugins of this node as they were found.
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

/// Which interface it is to be, by the flags and what there is.
fn underlay(flags: &Flags, config: &NetworkConfig, facts: &Facts) -> Result<Underlay, Obstacle> {
    Ok(select(&families(config), &flags.interface.selection(), facts)?)
}

/// The families of the overlay, which are the underlay's as well.
pub(crate) fn families(config: &NetworkConfig) -> Vec<Family> {
    config.networks.iter().map(|overlay| Family::of_network(overlay.network)).collect()
}

/// This node's identity, from flags and files. That a derived one cannot be stored is only a warning, since it will be
/// the same next time.
///
/// # Errors
///
/// When neither says.
pub fn identity(flags: &Flags) -> Result<Identity, Fatal> {
    let known = flags.identity()?;
    if let Some(path) = known.unstored
        && let Err(error) = files::write(&path, format!("{}\n", known.id).as_bytes(), 0o644)
    {
        tracing::warn!("the node id is not stored: {error}");
    }
    Ok(Identity { id: known.id, name: files::node_name() })
}

fn list(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
