//! Backends: the host's side of the interface `backend`, which three worlds export.

use std::sync::Arc;

use heddle_core::address::LinkName;
use heddle_core::family::PerFamily;
use heddle_core::lease::{Lease, LeaseFamily, LeaseKey};
use heddle_core::node::Node;
use heddle_core::object::Plan;
use heddle_core::site::{NoLease, Site};
use heddle_grant::text::plain;
use heddle_grant::{Capabilities, NodePlan, Refusal, World, check};
use wasmtime::Store;
use wasmtime::component::InstancePre;

use crate::bindings::backend::exports::heddle::overlay::backend::PeerError;
use crate::bindings::backend::exports::heddle::overlay::{backend, transform};
use crate::bindings::backend::heddle::overlay::types as wit;
use crate::breaker::Subject;
use crate::error::{CallError, Reason, describe};
use crate::host::HostState;
use crate::metrics::Metrics;
use crate::worker::{Exports, Worker, WorkerHandle};
use crate::{from_wit, to_wit};

/// Lease data that a node advertises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisements {
    /// `BackendType`. None omits the field, as flannel's udp backend does.
    pub backend_type: Option<String>,
    /// JSON texts for `BackendData` and `BackendV6Data`.
    pub backend_data: PerFamily<String>,
}

impl Advertisements {
    /// Returns the lease of a node with these subnets.
    pub fn lease(&self, key: LeaseKey, node: &Node, node_name: Option<String>) -> Lease {
        let places = key.subnets().zip(node.underlay.public_addresses);
        let families = places.map_with(|family, (subnet, public_address)| LeaseFamily {
            subnet,
            public_address,
            backend_data: self.backend_data.get(family).cloned(),
        });
        Lease {
            key,
            families,
            backend_type: self.backend_type.clone(),
            node_id: Some(node.id.clone()),
            node_name,
        }
    }
}

/// A running backend plugin. Calls are queued; none blocks the caller's thread.
///
/// Every answer has been checked: it can be programmed, and the plugin is allowed to ask for it.
pub struct Backend {
    worker: WorkerHandle<BackendExports>,
    world: World,
    capabilities: Arc<Capabilities>,
}

impl Backend {
    pub(crate) fn new(
        worker: WorkerHandle<BackendExports>,
        world: World,
        capabilities: Arc<Capabilities>,
    ) -> Self {
        Self { worker, world, capabilities }
    }

    /// Returns the plugin's name.
    pub fn name(&self) -> &str {
        self.worker.plugin()
    }

    /// Returns the plugin's counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        self.worker.metrics()
    }

    /// Asks the plugin for the contents of this node's lease.
    ///
    /// # Errors
    ///
    /// [`Reason::Config`], when a key of the config is invalid, or another reason why the call
    /// failed.
    pub async fn advertise(&self, site: &Site<NoLease>) -> Result<Advertisements, CallError> {
        const CALL: &str = "advertise";
        let Site { config, node, .. } = site.clone();
        self.node_call(CALL, move |worker| {
            let networks = config.networks;
            let (config, node) = (to_wit::config(&config), to_wit::node(&node));
            let answer = worker.call(Subject::Node(CALL), |guest, store| {
                guest.backend.call_advertise(store, &config, &node)
            })?;
            let advertisements = answer.map_err(config_error)?;
            let (backend_type, backend_data) =
                from_wit::advertisements(advertisements, &networks).map_err(Reason::Refused)?;
            Ok(Advertisements { backend_type, backend_data })
        })
        .await
    }

    /// Asks the plugin for the devices, addresses and settings of this node.
    ///
    /// If the plugin adds bytes to packets, the MTUs of the plan are lowered by that overhead.
    ///
    /// # Errors
    ///
    /// [`Reason::Config`], when a key of the config is invalid; [`Reason::Refused`], when the plan
    /// is not acceptable; or another reason why a call failed.
    pub async fn plan_node(&self, site: &Arc<Site>) -> Result<NodePlan, CallError> {
        const CALL: &str = "plan-node";
        let (world, capabilities) = (self.world, self.capabilities.clone());
        let here = site.clone();
        let plan = self
            .node_call(CALL, move |worker| {
                let wit = Arguments::of(&here);
                let answer = worker.call(Subject::Node(CALL), |guest, store| {
                    guest.backend.call_plan_node(store, &wit.config, &wit.node, &wit.lease)
                })?;
                let answer = answer.map_err(config_error)?;
                let checked = || -> Result<NodePlan, Refusal> {
                    let plan = from_wit::node_plan(answer, worker.limits().node_objects)?;
                    check::node_plan(&plan, &capabilities, world, &here)?;
                    Ok(plan)
                };
                checked().map_err(Reason::Refused)
            })
            .await?;
        match plan.tunnel {
            Some(_) if world == World::TransformPlugin => self.leave_room(plan, site).await,
            _ => Ok(plan),
        }
    }

    /// Lowers the MTUs of a plan by the number of bytes that the plugin adds to packets.
    async fn leave_room(&self, plan: NodePlan, site: &Arc<Site>) -> Result<NodePlan, CallError> {
        const CALL: &str = "overhead";
        let site = site.clone();
        self.node_call(CALL, move |worker| {
            let config = to_wit::config(&site.config);
            let answer =
                worker.call(Subject::Node(CALL), |guest, store| match &guest.transform {
                    Some(transform) => transform.call_overhead(store, &config),
                    None => Ok(Ok(0)),
                })?;
            let overhead = answer.map_err(config_error)?;
            from_wit::overhead(overhead)
                .and_then(|overhead| plan.leave_room(overhead))
                .map_err(Reason::Refused)
        })
        .await
    }

    /// Asks the plugin for the plan of each peer. Returns one answer per peer, in their order.
    ///
    /// `links` are the devices in the node's plan ([`NodePlan::links`]). Peers whose last call
    /// failed are asked about last, so that they delay no other peer.
    pub async fn plan_peers(
        &self,
        site: &Arc<Site>,
        links: Vec<LinkName>,
        peers: Vec<Lease>,
    ) -> Vec<Result<Plan, CallError>> {
        const CALL: &str = "plan-peer";
        let site = site.clone();
        let (plugin, capabilities) = (self.name().to_owned(), self.capabilities.clone());
        let count = peers.len();
        let answers = self
            .worker
            .run(CALL, move |worker| {
                let wit = Arguments::of(&site);
                let mut answers: Vec<Option<Result<Plan, CallError>>> = vec![None; peers.len()];
                for index in order(worker, &peers) {
                    let peer = &peers[index];
                    let answer = plan_peer(worker, &wit, peer).and_then(|plan| {
                        check::peer_plan(&plan, &capabilities, &links, &site.node, peer)
                            .map_err(Reason::Refused)?;
                        Ok(plan)
                    });
                    count_refusal(worker, &answer);
                    answers[index] = Some(answer.map_err(|reason| CallError {
                        plugin: plugin.clone(),
                        call: CALL,
                        peer: Some(describe(peer)),
                        reason,
                    }));
                }
                answers.into_iter().flatten().collect::<Vec<_>>()
            })
            .await;
        answers.unwrap_or_else(|error| vec![Err(error); count])
    }

    /// Makes one call about the node.
    async fn node_call<T: Send + 'static>(
        &self,
        call: &'static str,
        job: impl FnOnce(&mut Worker<BackendExports>) -> Result<T, Reason> + Send + 'static,
    ) -> Result<T, CallError> {
        let result = self
            .worker
            .run(call, move |worker| {
                let answer = job(worker);
                count_refusal(worker, &answer);
                answer
            })
            .await?;
        result.map_err(|reason| CallError {
            plugin: self.name().to_owned(),
            call,
            peer: None,
            reason,
        })
    }
}

/// A [`Site`] as calls take it, converted once for all peers.
pub(crate) struct Arguments {
    pub(crate) config: wit::NetworkConfig,
    pub(crate) node: wit::Node,
    pub(crate) lease: wit::Lease,
}

impl Arguments {
    pub(crate) fn of(site: &Site) -> Self {
        Self {
            config: to_wit::config(&site.config),
            node: to_wit::node(&site.node),
            lease: to_wit::lease(&site.lease),
        }
    }
}

/// Returns the order in which to ask about peers: those whose last call failed come last.
fn order(worker: &Worker<BackendExports>, peers: &[Lease]) -> Vec<usize> {
    let suspect = |index: &usize| worker.breaker().failed_before(Subject::Peer(peers[*index].key));
    let (last, mut first): (Vec<_>, Vec<_>) = (0..peers.len()).partition(suspect);
    first.extend(last);
    first
}

fn plan_peer(
    worker: &mut Worker<BackendExports>,
    wit: &Arguments,
    peer: &Lease,
) -> Result<Plan, Reason> {
    let lease = to_wit::lease(peer);
    let answer = worker.call(Subject::Peer(peer.key), |guest, store| {
        guest.backend.call_plan_peer(store, &wit.config, &wit.node, &wit.lease, &lease)
    })?;
    match answer {
        Ok(plan) => from_wit::plan(plan, worker.limits().peer_objects).map_err(Reason::Refused),
        Err(PeerError::OtherBackend(kind)) => Err(Reason::OtherBackend(plain(&kind))),
        Err(PeerError::Invalid(message)) => Err(Reason::Invalid(plain(&message))),
    }
}

fn count_refusal<T>(worker: &Worker<BackendExports>, answer: &Result<T, Reason>) {
    if matches!(answer, Err(Reason::Refused(_))) {
        worker.metrics().count_refusal();
    }
}

pub(crate) fn config_error(error: wit::ConfigError) -> Reason {
    Reason::Config { key: plain(&error.key), message: plain(&error.message) }
}

/// Exports of a backend for planning. [`PacketPlugin`](crate::PacketPlugin) uses those for packets.
pub(crate) struct BackendExports {
    backend: backend::Guest,
    transform: Option<transform::Guest>,
}

pub(crate) struct Prepared {
    component: InstancePre<HostState>,
    backend: backend::GuestIndices,
    transform: Option<transform::GuestIndices>,
}

impl Exports for BackendExports {
    type Prepared = Prepared;

    fn prepare(component: InstancePre<HostState>, world: World) -> wasmtime::Result<Prepared> {
        let backend = backend::GuestIndices::new(&component)?;
        let transform = match world {
            World::TransformPlugin => Some(transform::GuestIndices::new(&component)?),
            _ => None,
        };
        Ok(Prepared { component, backend, transform })
    }

    fn instantiate(prepared: &Prepared, store: &mut Store<HostState>) -> wasmtime::Result<Self> {
        let instance = prepared.component.instantiate(&mut *store)?;
        let backend = prepared.backend.load(&mut *store, &instance)?;
        let transform = match &prepared.transform {
            Some(transform) => Some(transform.load(&mut *store, &instance)?),
            None => None,
        };
        Ok(Self { backend, transform })
    }
}
