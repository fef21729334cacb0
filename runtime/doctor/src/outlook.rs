//! Predicts the daemon's behaviour on this host with these flags: sends the same queries in the
//! same order, without acting on them. Anything that would stop the daemon is an [`Obstacle`].

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use heddle_core::allocation::{AllocationError, Choice, Claimant, Holdings, choose};
use heddle_core::config::{ConfigError, NetworkConfig, OverlayNetwork};
use heddle_core::host_network::{Claims, HostNetwork, HostRouting, Vital};
use heddle_core::interface::{Facts, SelectionError, existing_links, select};
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::node::{Node, Underlay};
use heddle_core::site::Site;
use heddle_core::subnet_env::previous_subnets;
use heddle_flags::{Emit, Flags, IdentityError};
use heddle_plugin::{
    Backend, CallError, Catalogue, Emitter, NodePlan, PluginError, Role, Setting, View,
};
use heddle_store::etcd::EtcdTiming;
use heddle_store::{EtcdOptions, LeaseStore, Reach, StoreError, holdings};
use tokio::task::spawn_blocking;

/// Time limit for reading the network config from the store.
pub(crate) const STORE_LIMIT: Duration = Duration::from_secs(5);

/// Time limit for reading all leases. Each page of them has a limit of its own, as long as [`STORE_LIMIT`].
const LEASES_LIMIT: Duration = Duration::from_secs(60);

/// The daemon's expected decisions, as far as they can be determined.
#[derive(Debug, Default)]
pub(crate) struct Outlook {
    pub(crate) config: Option<NetworkConfig>,
    pub(crate) underlay: Option<Underlay>,
    /// This node's subnets: by its lease, or else by its subnet.env.
    pub(crate) subnets: Option<LeaseKey>,
    pub(crate) plan: Option<NodePlan>,
    /// Files that emitters write.
    pub(crate) files: Vec<PathBuf>,
    /// Leases of other nodes that are readable.
    pub(crate) peers: Vec<Lease>,
    /// Obstacles that keep the rest from being determined.
    pub(crate) obstacles: Vec<Obstacle>,
}

/// A condition that would stop the daemon.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Obstacle {
    /// The store failed, or the flags for it are wrong.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store exceeded the time limit.
    #[error("store: no answer within {} s", .0.as_secs())]
    StoreLate(Duration),
    /// There is no network config.
    #[error("{0} does not exist")]
    NoConfig(String),
    /// The network config is invalid.
    #[error("{key}: {error}")]
    Config { key: String, error: ConfigError },
    /// There is no usable plugin of a requested name.
    #[error("{origin}: {error}")]
    Plugin { origin: String, error: Box<PluginError> },
    /// An emitter rejects its settings, or fails.
    #[error("--emit={asked}: {error}")]
    Emitter { asked: Emit, error: Box<CallError> },
    /// The plugin rejects the config, or fails.
    #[error("{key}: {error}")]
    Backend { key: String, error: Box<CallError> },
    /// No interface can be chosen.
    #[error(transparent)]
    Interface(#[from] SelectionError),
    /// No subnet can be leased.
    #[error(transparent)]
    Lease(#[from] AllocationError),
    /// This node has no identity.
    #[error("this node has no identity: {0}")]
    Identity(#[from] IdentityError),
}

/// Sends the daemon's queries.
pub(crate) async fn look(flags: &Flags, facts: &Facts, routing: &HostRouting) -> Outlook {
    let mut outlook = Outlook {
        subnets: previous(flags),
        files: vec![flags.files.subnet_env().to_owned()],
        ..Outlook::default()
    };
    if let Err(obstacle) = outlook.fill(flags, facts, routing).await {
        outlook.obstacles.push(obstacle);
    }
    outlook
}

impl Outlook {
    /// Fills in as much as can be determined.
    async fn fill(
        &mut self,
        flags: &Flags,
        facts: &Facts,
        routing: &HostRouting,
    ) -> Result<(), Obstacle> {
        let contents = contents(flags).await?;
        let key = format!("{}/config", flags.lease.network_name());
        let text = contents.config.ok_or_else(|| Obstacle::NoConfig(key.clone()))?;
        let config = NetworkConfig::parse(&text)
            .map_err(|error| Obstacle::Config { key: key.clone(), error })?;
        self.config = Some(config.clone());

        // Neither depends on the other, so both may fail.
        let plugins = plugins(flags, &config, &key).await;
        let underlay = match underlay(flags, &config, facts) {
            Ok(underlay) => underlay,
            Err(error) => {
                self.obstacles.extend(plugins.err());
                return Err(error.into());
            }
        };
        self.underlay = Some(underlay.clone());
        let Plugins { backend, emitters } = plugins?;

        let links = existing_links(&facts.interfaces);
        let node = Node { id: flags.identity()?.id, underlay, links };
        let site = Site::new(config, node);
        let refused = |error| Obstacle::Backend { key: key.clone(), error: Box::new(error) };
        let advertised = backend.advertise(&site).await.map_err(refused)?;
        let Site { config, node, .. } = &site;
        let host = host_network(contents.store.as_ref(), config, &node.underlay, routing).await;
        let mut holdings = contents.holdings;
        let claimant = Claimant {
            id: &node.id,
            public_addresses: node.underlay.public_addresses,
            previous: previous(flags),
            host: &host,
            underlay: node.underlay.link,
        };
        let choice = choose(config, &holdings, &claimant, &mut |_| 0)?;
        let own = match choice {
            Choice::TakeOver(key) => {
                self.subnets = Some(key);
                key
            }
            // The daemon may choose another subnet, but any is good enough to plan with.
            Choice::Create(key) => key,
            Choice::Discard(key) => {
                holdings.remove(key);
                match choose(config, &holdings, &claimant, &mut |_| 0)? {
                    Choice::TakeOver(key) | Choice::Create(key) | Choice::Discard(key) => key,
                }
            }
        };
        self.peers = holdings.leases().iter().filter(|lease| lease.key != own).cloned().collect();
        let lease = advertised.lease(own, node, None);
        let site = Arc::new(site.with_lease(lease));
        let plan = backend.plan_node(&site).await.map_err(refused)?;
        let mtu = plan.mtu;
        self.plan = Some(plan);

        let view = View { site, mtu, ip_masq: flags.rules.ip_masq };
        self.emit(flags, &view, &emitters).await;
        Ok(())
    }

    /// Asks the emitters for their files.
    async fn emit(&mut self, flags: &Flags, view: &View, emitters: &[Emitter]) {
        let mut files = BTreeSet::new();
        for (emitter, asked) in emitters.iter().zip(&flags.files.emit) {
            let settings = flags.files.settings(asked).into_iter();
            let settings: Vec<_> = settings.map(|(name, value)| Setting { name, value }).collect();
            match emitter.emit(view, &settings).await {
                Ok(found) => files.extend(found.into_iter().map(|file| file.path)),
                Err(error) => {
                    let error = Box::new(error);
                    self.obstacles.push(Obstacle::Emitter { asked: asked.clone(), error });
                }
            }
        }
        self.files = files.into_iter().collect();
    }
}

/// Content of the store.
struct Contents {
    store: Arc<dyn LeaseStore>,
    config: Option<Vec<u8>>,
    holdings: Holdings,
}

async fn contents(flags: &Flags) -> Result<Contents, Obstacle> {
    let options = flags.lease.etcd_options();
    let endpoints = u32::try_from(options.endpoints.len()).unwrap_or(u32::MAX).max(1);
    let timing = EtcdTiming::default();
    // All endpoints are tried within the limit, with some of it left for the query.
    let connect = timing.connect.min(STORE_LIMIT * 4 / 5 / endpoints);
    let timing = EtcdTiming { connect, ..timing };
    let store = flags.lease.store.open(EtcdOptions { timing, ..options })?;
    let reading = tokio::time::timeout(STORE_LIMIT, store.network_config()).await;
    let config = reading.map_err(|_| Obstacle::StoreLate(STORE_LIMIT))??;
    let reading = tokio::time::timeout(LEASES_LIMIT, holdings(store.as_ref(), &|_| ())).await;
    let holdings = reading.map_err(|_| Obstacle::StoreLate(LEASES_LIMIT))??;
    Ok(Contents { store, config, holdings })
}

/// Plugins that the daemon would start.
struct Plugins {
    backend: Backend,
    emitters: Vec<Emitter>,
}

async fn plugins(flags: &Flags, config: &NetworkConfig, key: &str) -> Result<Plugins, Obstacle> {
    let (files, name) = (flags.files.clone(), config.backend.kind.clone());
    let origin = format!("{key}, `Backend.Type`");
    // A plugin from a directory may have to be compiled first.
    let find = move || {
        let plugin = |origin: String, error| Obstacle::Plugin { origin, error: Box::new(error) };
        let backend = |error| plugin(origin.clone(), error);
        let catalogue = Catalogue::new(files.plugin_dir, None, files.cache_dir).map_err(backend)?;
        let catalogue = catalogue.with_policy(files.plugin_policy);
        let found = catalogue.find(&name, Role::Backend).map_err(backend)?;
        let mut emitters = Vec::new();
        for asked in &files.emit {
            let started = catalogue.find(&asked.emitter, Role::Emitter);
            let started = started.and_then(|found| found.emitter());
            let origin = format!("--emit={asked}");
            emitters.push(started.map_err(|error| plugin(origin, error))?);
        }
        Ok(Plugins { backend: found.backend().map_err(backend)?, emitters })
    };
    let found = spawn_blocking(find).await;
    found.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

fn underlay(
    flags: &Flags,
    config: &NetworkConfig,
    facts: &Facts,
) -> Result<Underlay, SelectionError> {
    select(&config.networks.families(), &flags.interface.selection(), facts)
}

/// Returns the destinations that plans may have, before there is a subnet.
pub(crate) fn claims(config: &NetworkConfig) -> Claims {
    let overlay = config.networks.iter().map(|overlay| overlay.network).collect();
    let reserved = config.networks.iter().filter_map(OverlayNetwork::reserved_range).collect();
    Claims { overlay, reserved, ..Claims::default() }
}

/// Returns the host's own networks and addresses, which the daemon would leave to the host.
async fn host_network(
    store: &dyn LeaseStore,
    config: &NetworkConfig,
    underlay: &Underlay,
    routing: &HostRouting,
) -> HostNetwork {
    let mut reach = Reach::default();
    reach.look(store).await;
    let store = reach.addresses();
    let vital = Vital { store, own: underlay.public_addresses.iter().copied().collect() };
    HostNetwork::new(&claims(config), routing, vital)
}

/// Returns the subnets that this node had before, according to its subnet file.
fn previous(flags: &Flags) -> Option<LeaseKey> {
    previous_subnets(&flags.files.read_subnet_env().ok()?)
}
