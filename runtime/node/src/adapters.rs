//! The ports, implemented by the kernel, the plugin runtime, the packet path, the firewall and the
//! prober.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use heddle_core::address::LinkName;
use heddle_core::diff::{ObjectChange, Observed, Scope};
use heddle_core::host_network::{HostAddress, HostRouting};
use heddle_core::interface::Facts;
use heddle_core::link_counters::LinkCounters;
use heddle_core::object::{Route, Sysctl};
use heddle_core::site::Site;
use heddle_firewall::{Firewall, Rules};
use heddle_kernel::{Event, Failure, Kernel, KernelError, Refusal, RulesetChanges};
use heddle_packet::OpenError;
use heddle_plugin::{
    CallError, Catalogue, File, Metrics, NodePlan, PacketPlugin, Plugin, Role, Setting, Tunnel,
    View,
};
use heddle_probe::{Health, News, ProbeError};
use ipnet::IpNet;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::packets::Packets;
use crate::ports::{
    Dataplane, Emitter, Events, FoundPlugin, Host, PacketOpener, PacketPath, Plugins, Prober,
    Ruleset, StartError, Started,
};

#[async_trait]
impl Dataplane for ThisHost {
    async fn facts(&self, can_reach: Option<IpAddr>) -> Result<Facts, KernelError> {
        self.kernel.facts(can_reach).await
    }

    async fn egress(
        &self,
        source: IpAddr,
        destinations: Vec<IpAddr>,
    ) -> Result<BTreeSet<LinkName>, KernelError> {
        self.kernel.egress(source, destinations).await
    }

    async fn observe(&self, scope: &Scope, sysctls: &[Sysctl]) -> Result<Observed, KernelError> {
        self.kernel.observe(scope, sysctls).await
    }

    async fn host_routing(&self, scope: &Scope) -> Result<HostRouting, KernelError> {
        self.kernel.host_routing(scope).await
    }

    async fn own_routes(&self, scope: &Scope) -> Result<Vec<Route>, KernelError> {
        self.kernel.own_routes(scope).await
    }

    async fn connected_networks(&self) -> Result<BTreeSet<(IpNet, LinkName)>, KernelError> {
        self.kernel.connected_networks().await
    }

    async fn restore_connected(
        &self,
        addresses: Vec<HostAddress>,
    ) -> Result<Vec<(HostAddress, Refusal)>, KernelError> {
        self.kernel.restore_connected(addresses).await
    }

    async fn apply(&self, scope: &Scope, changes: Vec<ObjectChange>) -> Vec<Failure> {
        self.kernel.apply(scope, changes).await
    }

    fn link_counters(&self) -> BTreeMap<LinkName, LinkCounters> {
        heddle_kernel::link_counters().unwrap_or_default()
    }

    async fn subscribe(&self, scope: &Scope) -> Result<Box<dyn Events>, KernelError> {
        Ok(Box::new(KernelEvents(self.kernel.subscribe(scope).await?)))
    }
}

struct KernelEvents(heddle_kernel::Events);

#[async_trait]
impl Events for KernelEvents {
    async fn next_batch(&mut self) -> Vec<Event> {
        self.0.next_batch().await
    }
}

/// Plugins from a catalogue.
#[derive(Clone)]
pub struct CataloguePlugins(Arc<Catalogue>);

impl CataloguePlugins {
    /// Creates the port for plugins that this catalogue finds.
    pub fn new(catalogue: Catalogue) -> Self {
        Self(Arc::new(catalogue))
    }
}

#[async_trait]
impl Plugins for CataloguePlugins {
    async fn start(&self, backend: &str, emitters: &[String]) -> Result<Started, StartError> {
        let (catalogue, backend, emitters) =
            (self.0.clone(), backend.to_owned(), emitters.to_vec());
        // Off the async threads, because a plugin from a directory may have to be compiled first.
        on_thread(move || start(&catalogue, &backend, &emitters)).await
    }
}

/// Runs a job on a thread for blocking calls.
///
/// # Panics
///
/// If the job does.
#[expect(clippy::disallowed_methods, reason = "the simulation has other adapters")]
pub(crate) async fn on_thread<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> T {
    let ended = spawn_blocking(job).await;
    ended.unwrap_or_else(|error| panic!("a job on a thread for blocking calls: {error}"))
}

fn start(catalogue: &Catalogue, backend: &str, emitters: &[String]) -> Result<Started, StartError> {
    let of_backend = |error| StartError::Backend(Box::new(error));
    let found_backend = catalogue.find(backend, Role::Backend).map_err(of_backend)?;
    let packets = found_backend.packets().map_err(of_backend)?;
    let emitter = |name: &String| {
        let of_emitter = |error| StartError::Emitter { name: name.clone(), error: Box::new(error) };
        let plugin = catalogue.find(name, Role::Emitter).map_err(of_emitter)?;
        let emitter = PluginEmitter(plugin.emitter().map_err(of_emitter)?);
        Ok((found(&plugin), Arc::new(emitter) as Arc<dyn Emitter>))
    };
    Ok(Started {
        backend_found: found(&found_backend),
        backend: Arc::new(found_backend.backend().map_err(of_backend)?),
        packets: packets.map(|plugin| Box::new(plugin) as Box<dyn PacketOpener>),
        emitters: emitters.iter().map(emitter).collect::<Result<_, _>>()?,
    })
}

fn found(plugin: &Plugin) -> FoundPlugin {
    FoundPlugin {
        manifest: plugin.manifest().clone(),
        source: plugin.source().clone(),
        digest: plugin.digest().to_owned(),
    }
}

struct PluginEmitter(heddle_plugin::Emitter);

#[async_trait]
impl Emitter for PluginEmitter {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn metrics(&self) -> &Arc<Metrics> {
        self.0.metrics()
    }

    async fn emit(&self, view: &View, settings: &[Setting]) -> Result<Vec<File>, CallError> {
        self.0.emit(view, settings).await
    }
}

impl PacketOpener for PacketPlugin {
    fn open(
        self: Box<Self>,
        site: Arc<Site>,
        plan: &NodePlan,
        tunnel: &Tunnel,
        allowed: &[IpNet],
    ) -> Result<Box<dyn PacketPath>, OpenError> {
        Ok(Box::new(Packets::open(*self, site, plan, tunnel, allowed)?))
    }
}

/// Traffic rules of this host, and probes from it.
#[derive(Clone, Debug)]
pub struct ThisHost {
    kernel: Kernel,
}

impl ThisHost {
    /// Creates the port. Changes of rules are monitored through `kernel`.
    pub fn new(kernel: Kernel) -> Self {
        Self { kernel }
    }
}

impl Host for ThisHost {
    fn ruleset(&self, rules: Rules) -> Box<dyn Ruleset> {
        let (changes, deaf) = match self.kernel.ruleset_changes() {
            Ok(changes) => (Some(changes), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Box::new(KernelRuleset {
            firewall: Arc::new(Mutex::new(Firewall::new(rules))),
            changes,
            deaf,
        })
    }

    fn prober(
        &self,
        interval: Duration,
    ) -> Result<(Box<dyn Prober>, mpsc::Receiver<News>), ProbeError> {
        let (prober, news) = heddle_probe::Prober::start(interval)?;
        Ok((Box::new(IcmpProber(prober)), news))
    }
}

struct KernelRuleset {
    /// Locked on a thread for blocking calls, for as long as a check takes.
    firewall: Arc<Mutex<Firewall>>,
    changes: Option<RulesetChanges>,
    deaf: Option<String>,
}

#[async_trait]
impl Ruleset for KernelRuleset {
    fn deaf(&self) -> Option<&str> {
        self.deaf.as_deref()
    }

    async fn ensure(&mut self) -> Result<Vec<String>, String> {
        let firewall = self.firewall.clone();
        let check = move || firewall.lock().unwrap_or_else(PoisonError::into_inner).ensure();
        on_thread(check).await.map_err(|error| error.to_string())
    }

    async fn changed(&mut self) {
        match &mut self.changes {
            Some(changes) => changes.next().await,
            None => std::future::pending().await,
        }
    }
}

struct IcmpProber(heddle_probe::Prober);

impl Prober for IcmpProber {
    fn watch(&self, addresses: BTreeSet<IpAddr>) {
        self.0.watch(addresses);
    }

    fn health(&self, address: IpAddr) -> Option<Health> {
        self.0.health(address)
    }
}

#[cfg(test)]
mod tests;
