//! The loop that makes the plan hold.
//!
//! State flows one way: leases → plugin → desired state → difference → kernel. Events, of leases or of the kernel, only
//! say when to look. What to do always follows from comparing what is desired with what was observed.

mod applier;
mod intent;
mod news;
mod report;
mod unplanned;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use heddle_core::config::Superseded;
use heddle_core::desired::{Desired, Owner, Standing};
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::object::{ObjectKey, Plan};
use heddle_core::peers::{self, Footprint, Peers};
use heddle_kernel::{Event, Events, Kernel, KernelError};
use heddle_plugin::{CallError, Reason};
use heddle_probe::News;
use heddle_store::{Record, RecordChange, Update, Watch, WatchEvent};
use heddle_telemetry::Notes;
use tokio::sync::{Notify, mpsc};

use crate::Fatal;
use crate::join::Overlay;
use crate::probing::{Probing, Reachability};
use crate::readiness::{Condition, Readiness};

use applier::Applier;
use intent::Intent;
pub(crate) use report::{PeerReport, PeerState, Question, Report};
use unplanned::Unplanned;

/// How long after a change of peers it is told to those that ask them whether they answer.
const PROBE_PAUSE: Duration = Duration::from_millis(500);

/// How often a start waits for a suspended plugin before it goes on without.
const PATIENCE: usize = 3;

/// Keeps the kernel as the plugin plans it.
pub(crate) struct Reconciler {
    overlay: Overlay,
    peers: Peers,
    desired: Desired,
    applier: Applier,
    events: Events,
    /// Peers without a new plan, and why.
    unplanned: Unplanned,
    /// Whether the plugin was suspended when last asked about peers.
    suspended: bool,
    /// When each peer's record was last seen to change.
    changed: BTreeMap<LeaseKey, SystemTime>,
    /// Asks peers whether they answer, if it should.
    probing: Option<Probing>,
    /// When to tell it of peers that came or went.
    probe_at: Option<Instant>,
    /// Which peers have turned silent or back are named one by one.
    reachability: Reachability,
    /// Why another start would begin with another network config.
    superseded: Option<Superseded>,
    underlay_changed: Arc<Notify>,
    questions: mpsc::Receiver<Question>,
    notes: Notes,
}

impl Reconciler {
    /// Takes the node's plan, and listens to the kernel from now on. Changes nothing yet.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be listened to.
    pub(crate) async fn new(
        kernel: Kernel,
        overlay: Overlay,
        probing: Option<Probing>,
        questions: mpsc::Receiver<Question>,
        notes: Notes,
    ) -> Result<Self, KernelError> {
        let mut desired = Desired::default();
        desired.set(Owner::Node, &Standing::default(), overlay.plan.plan.clone());
        Ok(Self {
            events: kernel.subscribe(&overlay.scope).await?,
            applier: Applier::new(kernel, overlay.scope.clone(), notes.clone()),
            peers: Peers::new(overlay.config.clone(), overlay.lease.key),
            overlay,
            desired,
            unplanned: Unplanned::new(),
            suspended: false,
            changed: BTreeMap::new(),
            probing,
            probe_at: None,
            reachability: Reachability::new(),
            superseded: None,
            underlay_changed: Arc::default(),
            questions,
            notes,
        })
    }

    /// Woken when something may have happened to the underlay.
    pub(crate) fn underlay_changed(&self) -> Arc<Notify> {
        self.underlay_changed.clone()
    }

    /// Takes the first snapshot, and makes the plan hold as far as it can be had at once. [`follow`](Self::follow) does
    /// the rest. Returns whether this node's own lease is concerned.
    pub(crate) async fn start(&mut self, update: Update, readiness: &Readiness) -> bool {
        let (_, own) = self.plan(update).await;
        for _ in 0..PATIENCE {
            let Some(due) = self.unplanned.next().filter(|_| self.suspended) else { break };
            tokio::time::sleep_until(due.into()).await;
            self.plan_peers(self.unplanned.due(Instant::now())).await;
        }
        self.look(readiness).await;
        if let Some(packets) = &self.overlay.packets {
            packets.flush().await;
        }
        tracing::info!("{} peers, {} objects", self.peers.len(), self.desired.len());
        own
    }

    /// Follows leases and kernel for as long as there is a watch.
    ///
    /// # Errors
    ///
    /// When the watch ends.
    pub(crate) async fn follow(
        &mut self,
        watch: &mut Watch,
        own_lease_changed: &Notify,
        readiness: &Readiness,
    ) -> Result<(), Fatal> {
        loop {
            let wake_at = self.wake_at();
            tokio::select! {
                event = watch.next() => match event.ok_or("the watch of the leases has ended")? {
                    WatchEvent::Update(update) => {
                        readiness.met(Condition::Watch);
                        let (touched, own) = self.plan(update).await;
                        if own {
                            own_lease_changed.notify_one();
                        }
                        // What the kernel refused was another lease's.
                        self.applier.forget_refusals(&touched);
                        self.settle(&touched).await;
                    }
                    WatchEvent::Config(config) => self.compare_config(config.as_deref()),
                    WatchEvent::Stale { reason } => {
                        readiness.unmet(Condition::Watch, reason);
                    }
                    WatchEvent::SetBack { reason } => {
                        tracing::warn!("{reason}");
                        self.peers.distrust(Instant::now());
                    }
                },
                events = self.events.next_batch() => self.judge(&events),
                news = probed(&mut self.probing) => self.say_who_answers(news),
                Some(question) = self.questions.recv() => self.answer(question),
                () = tokio::time::sleep_until(wake_at.into()) => self.catch_up(readiness).await,
            }
        }
    }

    /// When there is something to do even if nothing happens.
    fn wake_at(&self) -> Instant {
        let others =
            [self.unplanned.next(), self.peers.due(), self.probe_at, self.reachability.due()];
        others.into_iter().flatten().fold(self.applier.next(), Instant::min)
    }

    /// Does what is due.
    async fn catch_up(&mut self, readiness: &Readiness) {
        let now = Instant::now();
        let mut touched = self.plan_peers(self.unplanned.due(now)).await;
        if self.applier.is_look_due(now) || self.applier.is_device_due(now) {
            // Everything that is due is seen to there, by what the kernel holds by now.
            self.look(readiness).await;
            return;
        }
        touched.extend(self.applier.due(now));
        if self.peers.due().is_some_and(|due| due <= now) {
            let delta = self.peers.update([], now);
            touched.extend(self.take(delta).await);
        }
        self.settle(&touched).await;
        self.publish(readiness);
        self.sum_up_who_answers(now);
        if self.probe_at.is_some_and(|at| at <= now)
            && let Some(probing) = &self.probing
        {
            self.probe_at = None;
            probing.watch(self.peers.leases());
        }
    }

    /// Decides what kernel events are a reason for.
    fn judge(&mut self, events: &[Event]) {
        let underlay = self.overlay.node.underlay.link;
        if events.iter().any(|event| match event {
            Event::LinkChanged(name) => *name == underlay,
            Event::Lost => true,
            Event::Seen(_) | Event::Gone(_) => false,
        }) {
            self.underlay_changed.notify_one();
        }
        self.applier.judge(&self.desired, underlay, events);
    }

    /// Compares the network config in the store with the one that this node has joined with. What follows from another is
    /// for a restart: when, is for an operator to say.
    pub(crate) fn compare_config(&mut self, config: Option<&[u8]>) {
        let superseded = self.overlay.config.superseded_by(config);
        match &superseded {
            Some(reason) if self.superseded.as_ref() != Some(reason) => {
                tracing::warn!("network config: {reason}");
            }
            None if self.superseded.is_some() => {
                tracing::info!("network config: it is the one again that this node started with");
            }
            _ => {}
        }
        self.superseded = superseded;
    }

    /// Plans what an update of leases is about. Returns the keys under which something may have changed, and whether
    /// this node's own lease is concerned.
    async fn plan(&mut self, update: Update) -> (BTreeSet<ObjectKey>, bool) {
        let delta = match &update {
            Update::Snapshot(records) => {
                self.peers.reset(records.iter().map(Record::as_read), Instant::now())
            }
            Update::Changes(changes) => {
                let changes = changes.iter().map(|change| match change {
                    RecordChange::Put(record) => peers::Change::Put(record.as_read()),
                    RecordChange::Delete(key) => peers::Change::Delete(key),
                });
                self.peers.update(changes, Instant::now())
            }
        };
        let own = delta.own;
        (self.take(delta).await, own)
    }

    /// Plans what has become of peers. Returns the keys under which something may have changed.
    async fn take(&mut self, delta: peers::Delta) -> BTreeSet<ObjectKey> {
        let known = |key: &LeaseKey| self.changed.contains_key(key);
        news::of_leases(&self.notes.history, &delta, &self.peers, known);
        if self.probing.is_some() && !(delta.changed.is_empty() && delta.removed.is_empty()) {
            // A thousand leases that come one by one are one change.
            self.probe_at.get_or_insert(Instant::now() + PROBE_PAUSE);
        }
        let now = SystemTime::now();
        self.changed.extend(delta.changed.iter().map(|key| (*key, now)));
        let mut touched = BTreeSet::new();
        for key in delta.removed {
            self.changed.remove(&key);
            self.unplanned.forget(key);
            self.stop_steering(key);
            touched.extend(self.desired.remove(Owner::Peer(key)));
        }
        touched.extend(self.plan_peers(delta.changed).await);
        touched
    }

    /// Asks the plugin for these peers' plans. Returns the keys under which something may have changed.
    async fn plan_peers(&mut self, keys: BTreeSet<LeaseKey>) -> BTreeSet<ObjectKey> {
        let known = |key: &LeaseKey| self.peers.get(*key).cloned();
        let (keys, leases): (Vec<_>, Vec<_>) =
            keys.into_iter().filter_map(|key| Some((key, known(&key)?))).unzip();
        let mut touched = BTreeSet::new();
        if leases.is_empty() {
            return touched;
        }
        let begun = Instant::now();
        let plans = self.ask_for_plans(leases).await;
        self.notes.timings.planned(begun.elapsed());
        let mut complaints = Vec::new();
        self.suspended = false;
        for (key, plan) in keys.into_iter().zip(plans) {
            let owner = Owner::Peer(key);
            match plan {
                Ok(plan) => {
                    self.unplanned.forget(key);
                    self.steer(key);
                    touched.extend(self.desired.set(owner, &self.peers.standing(key), plan));
                    let intent = Intent::new(&self.desired, &self.peers, &self.overlay.backend);
                    let conflicts = self.desired.conflicts(owner);
                    complaints.extend(
                        conflicts.map(|(object, other)| (key, intent.dispute(object, key, other))),
                    );
                }
                Err(error) => {
                    let reason = error.to_string();
                    self.suspended |= matches!(error.reason, Reason::Suspended { .. });
                    let news = match error.reason {
                        Reason::OtherBackend(_) => {
                            self.stop_steering(key);
                            touched.extend(self.desired.remove(owner));
                            self.unplanned.answered(key, &reason)
                        }
                        // What was planned before stays. The same lease would get the same answer.
                        Reason::Invalid(_) | Reason::Refused(_) => {
                            self.unplanned.answered(key, &reason)
                        }
                        _ => self.unplanned.failed(key, &reason, Instant::now()),
                    };
                    if news {
                        complaints.push((key, reason));
                    }
                }
            }
        }
        news::of_plans(&self.notes.history, &complaints);
        touched
    }

    /// Asks the plugin, which may take a second for each peer. Meanwhile questions are answered, for as long as it gets on.
    async fn ask_for_plans(&mut self, leases: Vec<Lease>) -> Vec<Result<Plan, CallError>> {
        let calls = || self.overlay.backend.metrics().calls();
        let mut before = None;
        let mut planning = std::pin::pin!(self.overlay.plan_peers(leases));
        loop {
            tokio::select! {
                plans = &mut planning => return plans,
                Some(question) = self.questions.recv() => {
                    let now = Some(calls());
                    let stuck = matches!(question, Question::Alive(_))
                        && std::mem::replace(&mut before, now) == now;
                    if !stuck {
                        self.answer(question);
                    }
                }
            }
        }
    }

    /// Sends this peer packets, where this daemon carries them.
    fn steer(&self, key: LeaseKey) {
        if let (Some(packets), Some(lease)) = (&self.overlay.packets, self.peers.get(key)) {
            packets.put(lease.clone());
        }
    }

    /// Sends this peer no packets any more.
    fn stop_steering(&self, key: LeaseKey) {
        if let Some(packets) = &self.overlay.packets {
            packets.remove(key);
        }
    }

    /// Makes what is desired under these keys hold.
    async fn settle(&mut self, touched: &BTreeSet<ObjectKey>) {
        let intent = Intent::new(&self.desired, &self.peers, &self.overlay.backend);
        self.applier.settle(intent, touched).await;
    }

    /// Looks at everything and makes the plan hold.
    async fn look(&mut self, readiness: &Readiness) {
        // What an earlier daemon made for peers that the plugin now fails at, until there is a plan to compare it with.
        let planned = |key: &LeaseKey| self.desired.contains(Owner::Peer(*key));
        let unknown = self.unplanned.failing().filter(|key| !planned(key));
        let kept = Footprint::of(unknown.filter_map(|key| self.peers.get(key)));
        let intent = Intent::new(&self.desired, &self.peers, &self.overlay.backend);
        self.applier.look(intent, &kept).await;
        self.publish(readiness);
    }

    /// Says whether the plan holds.
    fn publish(&self, readiness: &Readiness) {
        match self.applier.missing(&self.desired) {
            None => readiness.met(Condition::Kernel),
            Some(reason) => {
                if readiness.unmet(Condition::Kernel, reason) {
                    tracing::error!("the plan does not hold: {reason}");
                }
            }
        }
    }

    /// Says of a peer that it answers over the overlay, or no longer does.
    fn say_who_answers(&mut self, news: News) {
        if !self.reachability.admit(news, Instant::now()) {
            return;
        }
        let asked = |peer: &&Lease| {
            self.probing.as_ref().is_some_and(|probing| probing.is_of(news.address, peer))
        };
        if let Some(peer) = self.peers.leases().find(asked) {
            let name = format!("peer {} of {}", peer.key, peer.owner());
            news::of_probing(&self.notes.history, &name, news);
        }
    }

    /// Says how many peers do not answer, if some have turned silent or back that were not named.
    fn sum_up_who_answers(&mut self, now: Instant) {
        if self.reachability.take(now)
            && let Some(probing) = &self.probing
        {
            let unreachable = self.peers.leases().filter(|peer| probing.is_unreachable(peer));
            news::of_many_probed(&self.notes.history, unreachable.count(), self.peers.len());
        }
    }

    /// Answers. Whoever asked may have gone.
    fn answer(&self, question: Question) {
        match question {
            Question::Alive(answer) => drop(answer.send(())),
            Question::Report(answer) => drop(answer.send(self.report())),
        }
    }

    fn report(&self) -> Report {
        let peer = |lease: &Lease| PeerReport {
            lease: lease.clone(),
            changed: self.changed.get(&lease.key).copied().unwrap_or(SystemTime::UNIX_EPOCH),
            objects: self.desired.keys(Owner::Peer(lease.key)).len(),
            state: self.state_of(lease.key),
            health: self.probing.as_ref().and_then(|probing| probing.health(lease)),
            missing: self.peers.is_missing(lease.key),
        };
        let rejected = self.peers.rejected();
        Report {
            peers: self.peers.leases().map(peer).collect(),
            rejected: rejected.map(|(key, why)| (key.to_owned(), why.to_string())).collect(),
            changes: self.applier.tally(),
            superseded: self.superseded.as_ref().map(ToString::to_string),
            repairs: self.applier.repairs().clone(),
        }
    }

    fn state_of(&self, key: LeaseKey) -> PeerState {
        if let Some(reason) = self.unplanned.reason(key) {
            return PeerState::NoPlan(reason.to_owned());
        }
        match self.applier.lacks(&self.desired, Owner::Peer(key)) {
            None => PeerState::InKernel,
            Some(reason) => PeerState::Incomplete(reason),
        }
    }
}

/// News of a peer that is asked whether it answers; never any if none is.
async fn probed(probing: &mut Option<Probing>) -> News {
    match probing {
        Some(probing) => probing.news().await,
        None => std::future::pending().await,
    }
}
