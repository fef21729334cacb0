//! Predicts the daemon's behaviour on this host with these flags: sends the same queries in the
//! same order, without acting on them. Anything that would stop the daemon is a [`Problem`].

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use heddle_core::allocation::{Choice, Holder, Holders, Holdings, HostMarks, choose};
use heddle_core::config::{ConfigWarning, NetworkConfig};
use heddle_core::diff::Scope;
use heddle_core::host_network::{Claims, HostNetwork, HostRouting, Vital};
use heddle_core::interface::{Facts, Requirements, Selection, existing_links, select};
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::node::{Node, NodeId, Underlay};
use heddle_core::object::Plan;
use heddle_core::site::Site;
use heddle_core::subnet_env::previous_subnets;
use heddle_flags::{Emit, Flags, IdentityError};
use heddle_join::{Loaded, Obstacle, Planned, network_config};
use heddle_plugin::{Backend, CallError, Catalogue, Emitter, NodePlan, Role, Setting, View};
use heddle_store::etcd::EtcdTiming;
use heddle_store::{EtcdOptions, LeaseStore, Reach, StoreError, holdings};
use tokio::task::spawn_blocking;

/// Time limit for reading the network config from the store.
pub(crate) const STORE_LIMIT: Duration = Duration::from_secs(10);

/// Time limit for reading all leases. Each page of them has a limit of its own.
const LEASES_LIMIT: Duration = Duration::from_secs(60);

/// Largest number of peers to plan for.
const PLANNED_PEERS: usize = 256;

/// The daemon's expected decisions, as far as they can be determined.
#[derive(Debug, Default)]
pub(crate) struct Outlook {
    pub(crate) config: Option<NetworkConfig>,
    /// Parts of the network config that have no effect, or not the intended one.
    pub(crate) config_warnings: Vec<ConfigWarning>,
    pub(crate) underlay: Option<Underlay>,
    /// This node's subnets: by its lease, or else by its subnet.env.
    pub(crate) subnets: Option<LeaseKey>,
    pub(crate) plan: Option<NodePlan>,
    /// Files that emitters write.
    pub(crate) files: Vec<PathBuf>,
    /// Leases of other nodes that are readable.
    pub(crate) peers: Vec<Lease>,
    /// The plans for the first of them; not for those that the plugin rejects.
    pub(crate) peer_plans: Vec<Plan>,
    /// Problems that keep the rest from being determined.
    pub(crate) problems: Vec<Problem>,
}

/// A condition that would stop the daemon.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// The node does not get to its plan.
    #[error(transparent)]
    Obstacle(#[from] Obstacle),
    /// The network config is only in etcd's v2 API. Holds its key.
    #[error("{0} does not exist in etcd's v3 API, and does in its v2 API")]
    ConfigInV2(String),
    /// The store failed, or the flags for it are wrong.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store exceeded the time limit.
    #[error("store: no answer within {} s", .0.as_secs())]
    StoreLate(Duration),
    /// An emitter rejects its settings, or fails.
    #[error("--emit={asked}: {error}")]
    Emitter { asked: Emit, error: Box<CallError> },
    /// This node has no identity.
    #[error("this node has no identity: {0}")]
    Identity(#[from] IdentityError),
}

/// Sends the daemon's queries. `running` is the id of the daemon that runs, which may have other
/// flags.
pub(crate) async fn look(
    flags: &Flags,
    running: Option<NodeId>,
    facts: &Facts,
    routing: &HostRouting,
) -> Outlook {
    let mut outlook = Outlook {
        subnets: previous(flags),
        files: vec![flags.files.subnet_env().to_owned()],
        ..Outlook::default()
    };
    if let Err(problem) = outlook.fill(flags, running, facts, routing).await {
        outlook.problems.push(problem);
    }
    outlook
}

impl Outlook {
    /// Fills in as much as can be determined.
    async fn fill(
        &mut self,
        flags: &Flags,
        running: Option<NodeId>,
        facts: &Facts,
        routing: &HostRouting,
    ) -> Result<(), Problem> {
        let contents = contents(flags).await?;
        let key = format!("{}/config", flags.lease.network_name());
        self.config_warnings =
            contents.config.as_deref().map(NetworkConfig::warnings).unwrap_or_default();
        let config = contents.network_config(&key).await?;
        self.config = Some(config.clone());

        // Neither depends on the other, so both may fail.
        let plugins = plugins(flags, &config, &key).await;
        let id = running.map_or_else(|| flags.identity().map(|known| known.id), Ok);
        let published = id.iter().flat_map(|id| contents.holdings.published(id)).collect();
        let selection = Selection { published, ..flags.interface.selection() };
        let requirements = Requirements::of(&config.networks);
        let underlay = match select(&requirements, &selection, facts) {
            Ok(underlay) => underlay,
            Err(error) => {
                self.problems.extend(plugins.err().map(Problem::from));
                return Err(Obstacle::Interface(error).into());
            }
        };
        self.underlay = Some(underlay.clone());
        let Plugins { backend, keys, emitters } = plugins?;
        let unknown = keys.map(|keys| config.backend.unknown_keys(&keys));
        self.config_warnings.extend(unknown.into_iter().flatten());

        let links = existing_links(&facts.interfaces);
        let node = Node { id: id?, underlay, links };
        let underlay = node.underlay.clone();
        let refused = |error| Obstacle::Backend { key: key.clone(), error: Box::new(error) };
        let loaded = Loaded { site: Site::new(config.clone(), node), planner: &backend };
        let advertised = loaded.advertise().await.map_err(refused)?;
        let host = host_network(contents.store.as_ref(), &config, &underlay, routing).await;
        let mut holdings = contents.holdings;
        let marks = HostMarks::of(&facts.interfaces);
        let mut holders = Holders::new();
        let own = loop {
            let claimant = advertised.claimant(previous(flags), &host, &marks, &holders);
            let choice = choose(&config, &holdings, &claimant, &mut |_| 0);
            match choice.map_err(Obstacle::Lease)? {
                Choice::TakeOver(key) => {
                    self.subnets = Some(key);
                    break key;
                }
                // The daemon may choose another subnet, but any is good enough to plan with.
                Choice::Create(key) | Choice::Move { to: key, .. } => break key,
                Choice::Discard(key) => holdings.remove(key),
                // The question would be a write. Whoever it is, the lease is not this node's yet.
                Choice::Ask(key) => _ = holders.insert(key, Holder::Alive),
            }
        };
        self.peers = holdings.leases().iter().filter(|lease| lease.key != own).cloned().collect();
        let lease = advertised.lease(own, None);
        let planned = advertised.with_lease(lease).plan().await.map_err(refused)?;
        let first = self.peers.iter().take(PLANNED_PEERS).cloned().collect();
        self.peer_plans = planned.plan_peers(first).await.into_iter().flatten().collect();
        let Planned { site, plan, .. } = planned;
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
                    self.problems.push(Problem::Emitter { asked: asked.clone(), error });
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

impl Contents {
    /// Parses the network config, and looks for one in etcd's v2 API if there is none.
    async fn network_config(&self, key: &str) -> Result<NetworkConfig, Problem> {
        match network_config(key, self.config.as_deref()) {
            Err(Obstacle::NoConfig(key)) if self.store.has_v2_config().await => {
                Err(Problem::ConfigInV2(key))
            }
            other => Ok(other?),
        }
    }
}

async fn contents(flags: &Flags) -> Result<Contents, Problem> {
    let options = flags.lease.etcd_options();
    // All endpoints are tried within the limit, with some of it left for the query.
    let timing = EtcdTiming::default().within(STORE_LIMIT * 4 / 5, options.endpoints.len());
    let store = flags.lease.store.open(EtcdOptions { timing, ..options })?;
    let reading = tokio::time::timeout(STORE_LIMIT, store.network_config()).await;
    let config = reading.map_err(|_| Problem::StoreLate(STORE_LIMIT))??;
    let reading = tokio::time::timeout(LEASES_LIMIT, holdings(store.as_ref(), &|_| ())).await;
    let holdings = reading.map_err(|_| Problem::StoreLate(LEASES_LIMIT))??;
    Ok(Contents { store, config, holdings })
}

/// Plugins that the daemon would start.
struct Plugins {
    backend: Backend,
    /// The keys that the backend declares.
    keys: Option<Vec<String>>,
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
        let keys = found.manifest().keys.clone();
        Ok(Plugins { backend: found.backend().map_err(backend)?, keys, emitters })
    };
    let found = spawn_blocking(find).await;
    found.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Returns the destinations that plans may have, before there is a subnet.
pub(crate) fn claims(config: &NetworkConfig) -> Claims {
    Claims::of(&Scope::of(config))
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
    HostNetwork::new(&claims(config), routing, Vital::of(reach.addresses(), underlay))
}

/// Returns the subnets that this node had before, according to its subnet file.
fn previous(flags: &Flags) -> Option<LeaseKey> {
    previous_subnets(&flags.files.read_subnet_env().ok()?)
}
