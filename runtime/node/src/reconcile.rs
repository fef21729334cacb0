//! The reconcile loop, which applies the plan to the kernel and keeps it there.
//!
//! State flows one way: leases → plugin → desired state → difference → kernel. The loop is
//! level-triggered: events, of leases or of the kernel, say only when to compare. The actions
//! always follow from comparing desired with observed state.

mod applier;
mod context;
mod journal;
mod plan_retries;
mod planning;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use heddle_control::{Peer, PeerState};
use heddle_core::config::Superseded;
use heddle_core::desired::{Desired, Owner, Priority};
use heddle_core::host_network::HostNetwork;
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::object::{Metric, Object, ObjectKey, Route};
use heddle_core::pacing::Debounce;
use heddle_core::peers::{Footprint, Peers};
use heddle_core::split::SplitRoutes;
use heddle_kernel::{Event, KernelError};
use heddle_probe::News;
use heddle_store::{Update, Watch, WatchEvent};
use heddle_telemetry::Notes;
use tokio::sync::{Notify, mpsc, watch};

use crate::Fatal;
use crate::clock;
use crate::egress;
use crate::join::Overlay;
use crate::ports::{Dataplane, Events};
use crate::probing::{Probing, Reachability};
use crate::readiness::{self, Condition, Readiness};
use crate::underlay::Changes;

use applier::Applier;
use context::Context;
use plan_retries::PlanRetries;
pub(crate) use report::{Query, REASON_LIMIT, Report, seconds};

/// Delay from the first change of peers to the update of the prober's list of peers.
const PROBE_DEBOUNCE: Duration = Duration::from_millis(500);

/// Maximum number of times that a start waits for a suspended plugin before it continues without
/// its plans.
const SUSPENSIONS: usize = 3;

/// Keeps the kernel in the state that the plugin plans.
pub(crate) struct Reconciler {
    overlay: Overlay,
    peers: Peers,
    desired: Desired,
    applier: Applier,
    events: Box<dyn Events>,
    /// Peers without a new plan, with the reasons.
    plan_retries: PlanRetries,
    /// True if the plugin was suspended at the latest call about peers.
    suspended: bool,
    /// Time at which each peer's record was last seen to change.
    changed: BTreeMap<LeaseKey, SystemTime>,
    /// Prober of peers. None if probing is disabled.
    probing: Option<Probing>,
    /// Debounce of the lists of peers: the prober's, and that of their addresses.
    peer_list: Debounce,
    /// Rate limits and summaries for peers that stop answering or answer again.
    reachability: Reachability,
    /// Difference between the running network config and the stored one.
    superseded: Option<Superseded>,
    /// The store's addresses, which no route of the overlay may cover.
    store_addresses: watch::Receiver<BTreeSet<IpAddr>>,
    /// Withheld routes of the node's own plan. In their place, each peer's plan has a route to the
    /// peer's subnets.
    split: SplitRoutes,
    underlay_changed: Arc<Notify>,
    /// Public addresses of the peers, if the underlay's MTU depends on the routes to them.
    peer_addresses: watch::Sender<BTreeSet<IpAddr>>,
    queries: mpsc::Receiver<Query>,
    /// True if leases have priority over kernel events in this turn.
    leases_first: bool,
    notes: Notes,
}

/// A reason for the loop to act.
enum Wake {
    /// An event of the watch. None if the watch has ended.
    Leases(Option<WatchEvent>),
    Kernel(Vec<Event>),
    StoreAddresses(BTreeSet<IpAddr>),
    Probe(News),
    Query(Query),
    /// A retry, a resync, a grace period or a summary is due.
    Due,
}

impl Reconciler {
    /// Takes the node's plan and subscribes to kernel events. Changes nothing yet.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be read, or its events cannot be subscribed to.
    pub(crate) async fn new(
        dataplane: Arc<dyn Dataplane>,
        overlay: Overlay,
        probing: Option<Probing>,
        store_addresses: watch::Receiver<BTreeSet<IpAddr>>,
        queries: mpsc::Receiver<Query>,
        notes: Notes,
    ) -> Result<Self, KernelError> {
        let mut desired = Desired::default();
        desired.set(Owner::Node, &Priority::default(), overlay.planned.plan.plan.clone());
        let events = dataplane.subscribe(&overlay.scope).await?;
        let (scope, vital) = (overlay.scope.clone(), overlay.vital.clone());
        let mut applier = Applier::new(dataplane, scope, vital, notes.clone());
        applier.survey().await?;
        journal::record_host(&notes.history, &HostNetwork::default(), applier.guard().host());
        let site = &overlay.planned.site;
        let mut peers =
            Peers::new(site.config.clone(), site.lease.key).recognizing(overlay.recognition());
        peers.protect(applier.guard().host().clone());
        Ok(Self {
            events,
            applier,
            peers,
            overlay,
            desired,
            plan_retries: PlanRetries::new(),
            suspended: false,
            changed: BTreeMap::new(),
            probing,
            peer_list: Debounce::new(PROBE_DEBOUNCE),
            reachability: Reachability::new(),
            superseded: None,
            store_addresses,
            split: SplitRoutes::default(),
            underlay_changed: Arc::default(),
            peer_addresses: watch::Sender::default(),
            queries,
            leases_first: false,
            notes,
        })
    }

    /// Returns the changes on which a check of the underlay depends.
    pub(crate) fn underlay_changes(&self) -> Changes {
        let (underlay, peers) = (self.underlay_changed.clone(), self.peer_addresses.subscribe());
        Changes { underlay, peers }
    }

    /// Takes the first snapshot, page by page. With the last page it applies the plan as far as
    /// that is possible at once; [`follow`](Self::follow) does the rest. Returns true if this
    /// node's own lease is affected, and None before the last page.
    pub(crate) async fn start(&mut self, update: Update, readiness: &Readiness) -> Option<bool> {
        let Some((_, own)) = self.plan_update(update).await else {
            let read = self.peers.snapshot_len().unwrap_or_default();
            readiness.unmet(Condition::Watch, readiness::reading(read));
            return None;
        };
        self.split_routes().await;
        for _ in 0..SUSPENSIONS {
            let Some(due) = self.plan_retries.next().filter(|_| self.suspended) else { break };
            tokio::time::sleep_until(due.into()).await;
            self.plan_peers(self.plan_retries.due(clock::now())).await;
        }
        self.resync(readiness).await;
        if let Some(packets) = &self.overlay.packets {
            packets.flush().await;
        }
        tracing::info!(
            peers = self.peers.len(),
            objects = self.desired.len(),
            "kernel: first plan applied"
        );
        Some(own)
    }

    /// Drops the pages of a snapshot that will not be completed.
    pub(crate) fn abandon_snapshot(&mut self) {
        self.peers.abandon_snapshot();
    }

    /// Answers queries while the first snapshot is read, which may take long. Never returns.
    pub(crate) async fn answer_queries(&mut self) {
        while let Some(query) = self.queries.recv().await {
            self.answer(query);
        }
        std::future::pending::<()>().await;
    }

    /// Follows leases and kernel until the watch ends.
    ///
    /// # Errors
    ///
    /// If the watch ends.
    pub(crate) async fn follow(
        &mut self,
        watch: &mut Watch,
        own_lease_changed: &Notify,
        readiness: &Readiness,
    ) -> Result<(), Fatal> {
        loop {
            match self.next_wake(watch).await {
                Wake::Leases(event) => {
                    let event = event.ok_or("the watch of the leases has ended")?;
                    self.follow_leases(event, own_lease_changed, readiness).await;
                }
                Wake::StoreAddresses(addresses) => self.applier.set_store_addresses(addresses),
                Wake::Kernel(events) => self.on_kernel_events(&events),
                Wake::Probe(news) => self.report_reachability(news),
                Wake::Query(query) => self.answer(query),
                Wake::Due => self.do_due_work(readiness).await,
            }
        }
    }

    /// Waits for the next reason to act. Leases and kernel events take turns in having priority, so
    /// that neither starves the other. The order is fixed otherwise, so that simulations can be
    /// replayed.
    async fn next_wake(&mut self, watch: &mut Watch) -> Wake {
        self.leases_first = !self.leases_first;
        let due = tokio::time::sleep_until(self.wake_at().into());
        let rare = async {
            tokio::select! {
                biased;
                Ok(()) = self.store_addresses.changed() => {
                    Wake::StoreAddresses(self.store_addresses.borrow_and_update().clone())
                }
                news = probed(&mut self.probing) => Wake::Probe(news),
            }
        };
        let (leases, kernel) = (watch.next(), self.events.next_batch());
        if self.leases_first {
            tokio::select! {
                biased;
                Some(query) = self.queries.recv() => Wake::Query(query),
                () = due => Wake::Due,
                wake = rare => wake,
                event = leases => Wake::Leases(event),
                events = kernel => Wake::Kernel(events),
            }
        } else {
            tokio::select! {
                biased;
                Some(query) = self.queries.recv() => Wake::Query(query),
                () = due => Wake::Due,
                wake = rare => wake,
                events = kernel => Wake::Kernel(events),
                event = leases => Wake::Leases(event),
            }
        }
    }

    async fn follow_leases(
        &mut self,
        event: WatchEvent,
        own_lease_changed: &Notify,
        readiness: &Readiness,
    ) {
        match event {
            WatchEvent::Update(update) => {
                if update.is_complete() {
                    readiness.met(Condition::Watch);
                }
                let Some((touched, own)) = self.plan_update(update).await else { return };
                if own {
                    own_lease_changed.notify_one();
                }
                // The kernel's refusals were about objects of the previous lease.
                self.applier.forget_refusals(&touched);
                self.apply_keys(&touched).await;
                self.split_routes().await;
            }
            WatchEvent::Config(config) => self.compare_config(config.as_deref()),
            WatchEvent::Stale { reason } => {
                self.abandon_snapshot();
                readiness.unmet(Condition::Watch, reason);
            }
            WatchEvent::SetBack { reason } => {
                tracing::warn!("store: {reason}");
                self.peers.distrust(clock::now());
            }
        }
    }

    /// Returns the time of the next due work, if no event comes earlier.
    fn wake_at(&self) -> Instant {
        let others = [
            self.plan_retries.next(),
            self.peers.due(),
            self.peer_list.due(),
            self.reachability.due(),
        ];
        others.into_iter().flatten().fold(self.applier.next(), Instant::min)
    }

    /// Does the work that is due.
    async fn do_due_work(&mut self, readiness: &Readiness) {
        let now = clock::now();
        let mut touched = self.plan_peers(self.plan_retries.due(now)).await;
        if self.applier.is_resync_due(now) || self.applier.is_device_due(now) {
            // The resync covers everything that is due, by the kernel's current state.
            self.resync(readiness).await;
            return;
        }
        let refused = self.applier.due(now);
        if !refused.is_empty() {
            // The peers behind these may be there again, and wait for their plans.
            let context =
                Context::new(&self.desired, &self.peers, self.overlay.planned.planner.as_ref());
            self.applier.apply_keys(context, &refused.into_iter().collect(), &self.kept()).await;
        }
        if self.peers.due().is_some_and(|due| due <= now) {
            let delta = self.peers.update([], now);
            touched.extend(self.plan_delta(delta).await);
        }
        self.apply_keys(&touched).await;
        self.publish(readiness);
        self.summarise_reachability(now);
        if self.peer_list.take(now) {
            if let Some(probing) = &self.probing {
                probing.watch(self.peers.leases());
            }
            if !self.overlay.carries {
                self.peer_addresses.send_replace(egress::addresses(self.peers.leases()));
                self.underlay_changed.notify_one();
            }
        }
    }

    /// Wakes the underlay check if events concern the underlay, and lets the applier decide on a
    /// resync.
    fn on_kernel_events(&mut self, events: &[Event]) {
        let underlay = self.overlay.planned.site.node.underlay.link;
        if events.iter().any(|event| match event {
            // Packets may leave by any device of the host.
            Event::LinkChanged(name) => *name == underlay || !self.overlay.carries,
            Event::Lost => true,
            Event::Seen(_) | Event::Gone(_) | Event::HostRoute { .. } => false,
        }) {
            self.underlay_changed.notify_one();
        }
        self.applier.on_kernel_events(&self.desired, underlay, events);
    }

    /// Compares the network config in the store with the one that this node runs with. Another
    /// config takes effect only with a restart, whose time is an operator's decision.
    pub(crate) fn compare_config(&mut self, config: Option<&[u8]>) {
        let superseded = self.overlay.planned.site.config.superseded_by(config);
        match &superseded {
            Some(reason) if self.superseded.as_ref() != Some(reason) => {
                tracing::warn!("network config: {reason}");
            }
            None if self.superseded.is_some() => {
                tracing::info!("network config: matches the running one again");
            }
            _ => {}
        }
        self.superseded = superseded;
    }

    /// Applies the desired state of these keys.
    async fn apply_keys(&mut self, touched: &BTreeSet<ObjectKey>) {
        let context =
            Context::new(&self.desired, &self.peers, self.overlay.planned.planner.as_ref());
        self.applier.apply_keys(context, touched, &Footprint::default()).await;
    }

    /// Returns what is kept for peers whose calls fail and that have no plan yet: objects of an
    /// earlier daemon, or of an earlier lease, stay until there is a plan to compare them with.
    fn kept(&self) -> Footprint {
        let planned = |key: &LeaseKey| self.desired.contains(Owner::Peer(*key));
        let unknown = self.plan_retries.failing().filter(|key| !planned(key));
        Footprint::of(unknown.filter_map(|key| self.peers.get(key)))
    }

    /// Resyncs: compares the whole state and applies the plan.
    async fn resync(&mut self, readiness: &Readiness) {
        let context =
            Context::new(&self.desired, &self.peers, self.overlay.planned.planner.as_ref());
        self.applier.resync(context, &self.kept()).await;
        self.protect_host().await;
        self.publish(readiness);
    }

    /// Withdraws routes that conflict with the host network as of this resync, and plans those that
    /// no longer do.
    async fn protect_host(&mut self) {
        if self.peers.host() != self.applier.guard().host() {
            let host = self.applier.guard().host().clone();
            journal::record_host(&self.notes.history, self.peers.host(), &host);
            let delta = self.peers.protect(host);
            let touched = self.plan_delta(delta).await;
            self.apply_keys(&touched).await;
        }
        self.split_routes().await;
        let postponed = self.applier.take_postponed();
        self.apply_keys(&postponed).await;
    }

    /// Withholds routes of the node's own plan that conflict with the host network or with a peer's
    /// address, and plans a route to each peer's subnets in their place. Backends in user space
    /// plan one route for the whole overlay, which may conflict where the routes to the subnets do
    /// not.
    ///
    /// A withheld route stays withheld until the daemon ends, so that a flapping conflict does not
    /// replace all routes again and again. The kernel has the peers' routes before the withheld one
    /// is removed.
    async fn split_routes(&mut self) {
        let host = self.applier.guard().host();
        let conflict = |route: &Route| {
            let destination = route.destination;
            host.conflict_of_whole(destination).or_else(|| self.peers.covered(destination))
        };
        let own = self.overlay.planned.plan.plan.objects.iter().filter_map(|object| match object {
            Object::Route(route) if route.metric == Metric::Default => Some(*route),
            _ => None,
        });
        let whole = own.filter(|route| !self.split.contains(route.destination));
        let found: Vec<_> = whole.filter_map(|route| Some((route, conflict(&route)?))).collect();
        if found.is_empty() {
            return;
        }
        let mut withheld: BTreeSet<_> = BTreeSet::new();
        for (route, conflict) in found {
            tracing::warn!(
                "kernel: route {} withheld until the next start, because {conflict}; programming a route to each peer's \
                 subnet instead",
                route.destination
            );
            withheld.insert(Object::Route(route).key());
            self.split.insert(route, conflict);
        }
        let keys: Vec<_> = self.peers.leases().map(|lease| lease.key).collect();
        let mut touched = BTreeSet::new();
        for key in keys {
            let owner = Owner::Peer(key);
            if self.desired.contains(owner) {
                let mut plan = self.desired.plan(owner);
                self.split.complete(&mut plan, key);
                touched.extend(self.desired.set(owner, &self.peers.priority(key), plan));
            }
        }
        // Before the first resync there is nothing to compare with, and no route to keep.
        let looked = self.applier.has_observed();
        if looked {
            self.apply_keys(&touched).await;
        }
        self.applier.withhold(self.split.conflicts());
        if looked {
            self.apply_keys(&withheld).await;
        }
    }

    /// Returns the warnings about the host network, and about settings that packets do not need.
    fn warnings(&self) -> Vec<String> {
        self.peers.host().warnings().into_iter().chain(self.applier.warnings()).collect()
    }

    /// Publishes whether the plan is in the kernel, and the warnings.
    fn publish(&self, readiness: &Readiness) {
        readiness.warn(self.warnings());
        match self.applier.missing(&self.desired) {
            None => readiness.met(Condition::Kernel),
            Some(reason) => {
                if readiness.unmet(Condition::Kernel, reason) {
                    tracing::error!(error = %reason, "kernel: plan not applied; retrying");
                }
            }
        }
    }

    /// Reports that a peer answers over the overlay or stopped answering, within the rate limit.
    fn report_reachability(&mut self, news: News) {
        let asked = |peer: &&Lease| {
            self.probing.as_ref().is_some_and(|probing| probing.is_of(news.address, peer))
        };
        if let Some(peer) = self.peers.leases().find(asked)
            && self.reachability.admit(news, clock::now())
        {
            let name = format!("peer {} of {}", peer.key, peer.owner());
            journal::record_probing(&self.notes.history, &name, news);
        }
    }

    /// Reports the number of unreachable peers, if some changed that were not named.
    fn summarise_reachability(&mut self, now: Instant) {
        if self.reachability.take(now)
            && let Some(probing) = &self.probing
        {
            let unreachable = self.peers.leases().filter(|peer| probing.is_unreachable(peer));
            journal::record_many_probed(&self.notes.history, unreachable.count(), self.peers.len());
        }
    }

    /// Answers a query. The caller may have given up.
    fn answer(&self, query: Query) {
        match query {
            Query::Alive(answer) => drop(answer.send(())),
            Query::Report(answer) => drop(answer.send(self.report())),
            Query::Host(answer) => drop(answer.send(self.peers.host().clone())),
        }
    }

    fn report(&self) -> Report {
        let peer = |lease: &Lease| (lease.key.to_string(), self.peer(lease));
        let mut peers: BTreeMap<_, _> = self.peers.leases().map(peer).collect();
        for (key, rejection) in self.peers.rejected() {
            report::add_rejected(&mut peers, key, rejection);
        }
        Report {
            peers: peers.into_values().collect(),
            unlisted: self.peers.rejected_unnamed() as u64,
            warnings: self.warnings(),
            changes: self.applier.made().clone(),
            superseded: self.superseded.as_ref().map(ToString::to_string),
        }
    }

    fn peer(&self, lease: &Lease) -> Peer {
        let key = lease.key;
        let changed = self.changed.get(&key).copied().unwrap_or(SystemTime::UNIX_EPOCH);
        let health = self.probing.as_ref().and_then(|probing| probing.health(lease));
        Peer {
            changed: seconds(changed),
            objects: self.desired.keys(Owner::Peer(key)).len() as u64,
            health: health.and_then(report::health),
            ..report::peer(lease, self.fault_of(key), self.peers.is_missing(key))
        }
    }

    /// Returns the reason why a peer's plan is not in the kernel. None if it is.
    fn fault_of(&self, key: LeaseKey) -> Option<(PeerState, String)> {
        if let Some(reason) = self.plan_retries.reason(key) {
            return Some((PeerState::NoPlan, reason.to_owned()));
        }
        let reason = self.applier.lacks(&self.desired, Owner::Peer(key))?;
        Some((PeerState::Incomplete, reason))
    }
}

/// Waits for the next change of reachability of a probed address. Never returns without a prober.
async fn probed(probing: &mut Option<Probing>) -> News {
    match probing {
        Some(probing) => probing.news().await,
        None => std::future::pending().await,
    }
}
