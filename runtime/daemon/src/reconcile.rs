//! The loop that makes the plan hold.
//!
//! State flows one way: leases → plugin → desired state → difference → kernel. Events, of leases or of the kernel, only
//! say when to look. What to do always follows from comparing what is desired with what was observed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use heddle_control::EventKind;
use heddle_core::config::Superseded;
use heddle_core::desired::{Desired, Owner, Standing};
use heddle_core::diff::{Change, Observed, agrees, diff, diff_keys, is_repair};
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::object::{Object, ObjectKey, Plan};
use heddle_core::peers::{self, Footprint, GRACE, Peers};
use heddle_core::retry::{Backoff, Schedule};
use heddle_core::text::one_line;
use heddle_kernel::{Event, Events, Kernel, KernelError};
use heddle_plugin::{CallError, Reason};
use heddle_probe::{Health, News, State};
use heddle_store::{Record, RecordChange, Update, Watch, WatchEvent};
use heddle_telemetry::Notes;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::Fatal;
use crate::join::Overlay;
use crate::probing::Probing;
use crate::readiness::{Condition, Readiness};

/// How often everything is compared even if nothing seems to have happened: for what the kernel tells nobody, such as
/// a changed setting.
const PERIOD: Duration = Duration::from_secs(30);

/// How soon it is tried again when the kernel could not be read.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The least time between two looks at everything, however much happens.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// A look may take this part of the time: after one that took 100 ms, the next is at least 400 ms later.
const LOOK_SHARE: u32 = 4;

/// How long after a change of peers it is told to those that ask them whether they answer.
const PROBE_PAUSE: Duration = Duration::from_millis(500);

/// How often one look compares and applies before it leaves the rest to the next.
const ROUNDS: usize = 4;

/// How often what the kernel refuses, or a plugin fails at, is tried again.
const RETRY: Backoff =
    Backoff { initial: Duration::from_millis(500), limit: Duration::from_secs(60) };

/// How often a start waits for a suspended plugin before it goes on without.
const PATIENCE: usize = 3;

/// The most objects of one kind of news that are logged one by one.
const LOG_LIMIT: usize = 5;

/// The longest key of somebody's making that is shown in full, in characters.
const KEY_LIMIT: usize = 120;

/// What others ask the loop. That it answers shows that it lives.
pub(crate) enum Question {
    /// Nothing more than that.
    Alive(oneshot::Sender<()>),
    /// What it knows of peers and kernel.
    Report(oneshot::Sender<Report>),
}

/// What the loop knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// In the order of their keys.
    pub(crate) peers: Vec<PeerReport>,
    /// Records that cannot be used, and why.
    pub(crate) rejected: Vec<(String, String)>,
    pub(crate) changes: Tally,
    /// Why another start would begin with another network config.
    pub(crate) superseded: Option<String>,
    /// How many of the changes were repairs, by kind of object.
    pub(crate) repairs: BTreeMap<&'static str, u64>,
}

/// A peer, and what became of its plan.
#[derive(Clone, Debug)]
pub(crate) struct PeerReport {
    pub(crate) lease: Lease,
    /// When its record was last seen to change.
    pub(crate) changed: SystemTime,
    pub(crate) objects: usize,
    pub(crate) state: PeerState,
    /// Whether it answers over the overlay, if it is asked.
    pub(crate) health: Option<Health>,
    /// Whether the store has lost its lease, and it is kept for a time.
    pub(crate) missing: bool,
}

/// What became of a peer's plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PeerState {
    /// It is in the kernel.
    InKernel,
    /// A part of it is not, and why.
    Incomplete(String),
    /// The plugin has none, and why. What was planned before may still be there.
    NoPlan(String),
}

/// What was done to the kernel, in objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) put: u64,
    pub(crate) replaced: u64,
    pub(crate) removed: u64,
    pub(crate) refused: u64,
}

impl Tally {
    fn count(&mut self, change: &Change) {
        match change {
            Change::Put(_) => self.put += 1,
            Change::Replace(_) => self.replaced += 1,
            Change::Remove(_) => self.removed += 1,
        }
    }
}

/// Keeps the kernel as the plugin plans it.
pub(crate) struct Reconciler {
    kernel: Kernel,
    events: Events,
    overlay: Overlay,
    peers: Peers,
    desired: Desired,
    /// The kernel as it was when last looked at, and what was changed since.
    observed: Observed,
    /// Whether it was ever looked at.
    looked: bool,
    /// Objects that the kernel refuses.
    refused: Schedule<ObjectKey>,
    /// Peers that the plugin fails at.
    failing: Schedule<LeaseKey>,
    /// Peers without a plan, and why: no failure, but worth telling.
    unplanned: BTreeMap<LeaseKey, String>,
    /// When each peer's record was last seen to change.
    changed: BTreeMap<LeaseKey, SystemTime>,
    tally: Tally,
    /// Asks peers whether they answer, if it should.
    probing: Option<Probing>,
    /// When to tell it of peers that came or went.
    probe_at: Option<Instant>,
    repairs: BTreeMap<&'static str, u64>,
    notes: Notes,
    underlay_changed: Arc<Notify>,
    questions: mpsc::Receiver<Question>,
    /// Whether the plugin was suspended when last asked about peers.
    suspended: bool,
    /// Why the kernel could not be read when last looked at.
    unreadable: Option<String>,
    /// Why another start would begin with another network config.
    superseded: Option<Superseded>,
    /// When to look at everything next.
    look_at: Instant,
    /// Not before this.
    not_before: Instant,
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
        let now = Instant::now();
        Ok(Self {
            events: kernel.subscribe(&overlay.scope).await?,
            kernel,
            peers: Peers::new(overlay.config.clone(), overlay.lease.key),
            overlay,
            desired,
            observed: Observed::default(),
            looked: false,
            refused: Schedule::new(RETRY),
            failing: Schedule::new(RETRY),
            unplanned: BTreeMap::new(),
            changed: BTreeMap::new(),
            tally: Tally::default(),
            probing,
            probe_at: None,
            repairs: ObjectKey::KINDS.map(|kind| (kind, 0)).into(),
            notes,
            underlay_changed: Arc::default(),
            questions,
            suspended: false,
            unreadable: None,
            superseded: None,
            look_at: now,
            not_before: now,
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
            let Some(due) = self.failing.next().filter(|_| self.suspended) else { break };
            tokio::time::sleep_until(due.into()).await;
            let peers = self.failing.due(Instant::now()).into_iter().collect();
            self.plan_peers(peers).await;
        }
        self.look(readiness).await;
        if let Some(packets) = &self.overlay.packets {
            packets.flush().await;
        }
        tracing::info!("{} peers, {} objects", self.peers.len(), self.desired.len());
        own
    }

    /// Why the plan does not hold: the kernel cannot be read, or refuses one of the node's own objects. What it refuses
    /// of a peer's concerns that peer alone.
    fn missing(&self) -> Option<String> {
        if self.unreadable.is_some() {
            return self.unreadable.clone();
        }
        let own = |key: &ObjectKey| self.desired.owner(key) == Some(Owner::Node);
        let mut refused = self.refused.failing().iter();
        refused.find(|(key, _)| own(key)).map(|(_, failing)| failing.reason.clone())
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
                        for key in &touched {
                            // What the kernel refused was another lease's.
                            self.refused.clear(key);
                        }
                        self.settle(touched).await;
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
        self.tell(&delta);
        if self.probing.is_some() && !(delta.changed.is_empty() && delta.removed.is_empty()) {
            // A thousand leases that come one by one are one change.
            self.probe_at.get_or_insert(Instant::now() + PROBE_PAUSE);
        }
        if !delta.missing.is_empty() {
            tracing::warn!(
                "the store has lost data: it lacks the leases of {} peers, which stay in the kernel until {} s after \
                 this node's own lease is there again, for their nodes to write them",
                delta.missing.len(),
                GRACE.as_secs(),
            );
        }
        let now = SystemTime::now();
        self.changed.extend(delta.changed.iter().map(|key| (*key, now)));
        let mut touched = BTreeSet::new();
        for key in delta.removed {
            self.changed.remove(&key);
            self.forget(key);
            self.stop_steering(key);
            touched.extend(self.desired.remove(Owner::Peer(key)));
        }
        touched.extend(self.plan_peers(delta.changed).await);
        touched
    }

    /// Says of a peer that it answers over the overlay, or no longer does.
    fn say_who_answers(&self, News { address, state }: News) {
        let asked = |peer: &&Lease| {
            self.probing.as_ref().is_some_and(|probing| probing.is_of(address, peer))
        };
        let Some(peer) = self.peers.leases().find(asked) else { return };
        let (key, owner) = (peer.key, peer.owner());
        let peer = format!("peer {key} of {owner}");
        let history = &self.notes.history;
        match state {
            State::Unreachable => {
                let text = format!("{peer} does not answer at {address} over the overlay");
                tracing::warn!("{text}");
                history.note(EventKind::PeerSilent, text);
            }
            State::Reachable | State::Unknown => {
                let text = format!("{peer} answers at {address} over the overlay");
                tracing::info!("{text}");
                history.note(EventKind::PeerAnswers, text);
            }
        }
    }

    /// Tells the log and the history what an update is about.
    fn tell(&self, delta: &peers::Delta) {
        let history = &self.notes.history;
        for (key, rejection) in delta.rejected.iter().take(LOG_LIMIT) {
            let text = format!("lease {} is not used: {rejection}", one_line(key, KEY_LIMIT));
            tracing::warn!("{text}");
            history.note(EventKind::Record, text);
        }
        say_of_many("leases are not used", delta.rejected.len());
        if delta.changed.len() + delta.removed.len() > LOG_LIMIT {
            let (changed, removed) = (delta.changed.len(), delta.removed.len());
            let text = format!("{changed} peers are new or changed, {removed} are gone");
            tracing::info!("{text}");
            history.note(EventKind::PeerChanged, text);
            return;
        }
        for key in &delta.changed {
            if let Some(peer) = self.peers.get(*key) {
                let text = format!("peer {key}: {}", peer.owner());
                tracing::info!("{text}");
                let known = self.changed.contains_key(key);
                let kind = if known { EventKind::PeerChanged } else { EventKind::PeerJoined };
                history.note(kind, text);
            }
        }
        for key in &delta.removed {
            let text = format!("peer {key} is gone");
            tracing::info!("{text}");
            history.note(EventKind::PeerLeft, text);
        }
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
        let mut suspended = false;
        for (key, plan) in keys.into_iter().zip(plans) {
            let owner = Owner::Peer(key);
            match plan {
                Ok(plan) => {
                    self.forget(key);
                    if let (Some(packets), Some(lease)) =
                        (&self.overlay.packets, self.peers.get(key))
                    {
                        packets.put(lease.clone());
                    }
                    touched.extend(self.desired.set(owner, &self.peers.standing(key), plan));
                    let conflicts = self.desired.conflicts(owner);
                    complaints
                        .extend(conflicts.map(|(object, other)| self.dispute(object, key, other)));
                }
                Err(error) => {
                    let reason = error.to_string();
                    suspended |= matches!(error.reason, Reason::Suspended { .. });
                    let news = match error.reason {
                        Reason::OtherBackend(_) => {
                            self.stop_steering(key);
                            touched.extend(self.desired.remove(owner));
                            self.note_unplanned(key, &reason)
                        }
                        // What was planned before stays. The same lease would get the same answer.
                        Reason::Invalid(_) | Reason::Refused(_) => {
                            self.note_unplanned(key, &reason)
                        }
                        _ => self.failing.failed(key, reason.clone(), Instant::now()),
                    };
                    if news {
                        complaints.push(reason);
                    }
                }
            }
        }
        for complaint in complaints.iter().take(LOG_LIMIT) {
            tracing::warn!("{complaint}");
            self.notes.history.note(EventKind::Plugin, complaint);
        }
        say_of_many("peers are without a new plan", complaints.len());
        self.suspended = suspended;
        touched
    }

    /// What is planned for a peer and, otherwise, for another or for the node: whose is it?
    fn dispute(&self, object: &ObjectKey, peer: LeaseKey, other: Owner) -> String {
        let plugin = self.overlay.backend.name();
        let name = |key: LeaseKey| {
            let owner = self.peers.get(key).map_or_else(String::new, Lease::owner);
            format!("{key} of {owner}")
        };
        let peer = name(peer);
        let plans = format!("plugin {plugin} plans {object} for peer {peer}");
        match (other, self.desired.owner(object)) {
            (Owner::Peer(other), Some(Owner::Peer(has))) => {
                let (other, has) = (name(other), name(has));
                format!(
                    "{plans} and otherwise for peer {other}: {has} has it, whose record says so or was there first"
                )
            }
            (Owner::Peer(_) | Owner::Node, _) => {
                format!("{plans}, which is this node's and stays so")
            }
        }
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

    fn note_unplanned(&mut self, key: LeaseKey, reason: &str) -> bool {
        self.failing.clear(&key);
        self.unplanned.insert(key, reason.to_owned()).is_none_or(|before| before != reason)
    }

    /// Sends this peer no packets, where this daemon carries them.
    fn stop_steering(&self, key: LeaseKey) {
        if let Some(packets) = &self.overlay.packets {
            packets.remove(key);
        }
    }

    /// Forgets what was wrong with a peer.
    fn forget(&mut self, key: LeaseKey) {
        self.failing.clear(&key);
        self.unplanned.remove(&key);
    }

    /// Makes what is desired under these keys hold.
    async fn settle(&mut self, touched: BTreeSet<ObjectKey>) {
        let changes =
            diff_keys(touched.iter().collect(), |key| self.desired.get(key), &self.observed);
        let changing: BTreeSet<_> = changes.iter().map(|change| change.object().key()).collect();
        for key in touched.difference(&changing) {
            // As it should be, by whatever means.
            self.refused.clear(key);
        }
        self.apply(changes).await;
    }

    /// Applies changes, those of devices first, and returns those that were made. What is on a device that is refused
    /// waits for it: somebody else's device may stand there.
    async fn apply(&mut self, changes: Vec<Change>) -> Vec<Change> {
        let (devices, others): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|change| matches!(change.object(), Object::Link(_)));
        let mut made = self.attempt(devices).await;
        let refused = |link| self.refused.failing().contains_key(&ObjectKey::Link(link));
        let (waiting, possible): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|change| change.object().link().is_some_and(refused));
        for change in waiting {
            // Once the device is there, everything on it is looked at.
            self.refused.clear(&change.object().key());
        }
        made.append(&mut self.attempt(possible).await);
        made
    }

    /// Attempts those of these changes that are not waiting for another time, takes note of what comes of each, and
    /// returns those that were made.
    async fn attempt(&mut self, mut changes: Vec<Change>) -> Vec<Change> {
        let now = Instant::now();
        changes.retain(|change| !self.refused.waiting(&change.object().key(), now));
        if changes.is_empty() {
            return changes;
        }
        let begun = Instant::now();
        let failures = self.kernel.apply(&self.overlay.scope, changes.clone()).await;
        self.notes.timings.applied(begun.elapsed());
        let failed: BTreeSet<_> = failures.iter().map(|f| f.change.object().key()).collect();
        changes.retain(|change| !failed.contains(&change.object().key()));
        for change in &changes {
            self.refused.clear(&change.object().key());
            self.observed.note(change);
            self.tally.count(change);
        }
        self.tally.refused += failures.len() as u64;
        let mut news = Vec::new();
        for failure in failures {
            let key = failure.change.object().key();
            let plugin = self.overlay.backend.name();
            let reason = match self.peer_behind(&key) {
                Some(peer) => {
                    let (key, owner) = (peer.key, peer.owner());
                    format!("plugin {plugin}, the plan for peer {key} of {owner}: {failure}")
                }
                None => format!("plugin {plugin}, the plan for this node: {failure}"),
            };
            if self.refused.failed(key, reason.clone(), now) {
                news.push(reason);
            }
        }
        for reason in news.iter().take(LOG_LIMIT) {
            tracing::error!("{reason}");
            self.notes.history.note(EventKind::Refused, reason);
        }
        say_of_many("changes of the kernel failed", news.len());
        changes
    }

    /// The peer that an object is for; none if it is the node's own, or nobody's any more.
    fn peer_behind(&self, object: &ObjectKey) -> Option<&Lease> {
        match self.desired.owner(object)? {
            Owner::Node => None,
            Owner::Peer(key) => self.peers.get(key),
        }
    }

    /// Looks at everything and makes the plan hold.
    async fn look(&mut self, readiness: &Readiness) {
        let begun = Instant::now();
        let looked = self.look_and_apply().await;
        let ended = Instant::now();
        self.not_before = ended + LOOK_PAUSE.max((ended - begun) * LOOK_SHARE);
        self.look_at = ended + if looked.is_ok() { PERIOD } else { LOOK_AGAIN };
        self.unreadable = looked.err().map(|error| error.to_string());
        self.publish(readiness);
    }

    /// Says whether the plan holds.
    fn publish(&self, readiness: &Readiness) {
        match self.missing() {
            None => readiness.met(Condition::Kernel),
            Some(reason) => {
                if readiness.unmet(Condition::Kernel, &reason) {
                    tracing::error!("the plan does not hold: {reason}");
                }
            }
        }
    }

    async fn look_and_apply(&mut self) -> Result<(), KernelError> {
        // As it should still be, but for what others did. What a start finds is nobody's doing.
        let mut before = None;
        for _ in 0..ROUNDS {
            let desired = self.desired.objects();
            let sysctls = desired.values().filter_map(|object| match object {
                Object::Sysctl(sysctl) => Some(sysctl.clone()),
                _ => None,
            });
            let sysctls: Vec<_> = sysctls.collect();
            let observed = self.kernel.observe(&self.overlay.scope, &sysctls).await?;
            let known = std::mem::replace(&mut self.observed, observed);
            let looked = std::mem::replace(&mut self.looked, true);
            let before = before.get_or_insert_with(|| looked.then_some(known));
            let mut changes = diff(&desired, &self.observed);
            let changing: BTreeSet<_> = changes.iter().map(|c| c.object().key()).collect();
            // Whatever else was refused is as it should be, by whatever means.
            self.refused.retain(|key| changing.contains(key));
            let kept = self.kept();
            changes.retain(|change| !matches!(change, Change::Remove(o) if kept.covers(o)));
            let devices: BTreeSet<_> = self.observed.links().collect();
            let made = self.apply(changes).await;
            say_what_changed(&made);
            if let Some(before) = before {
                self.note_repairs(&made, before);
            }
            // A device that was changed may have lost what was on it: only then is there more to see.
            let altered = |change: &Change| match change.object() {
                Object::Link(link) => devices.contains(&link.name),
                _ => false,
            };
            if !made.iter().any(altered) {
                break;
            }
        }
        Ok(())
    }

    /// Counts and tells which changes put right what somebody else had changed.
    fn note_repairs(&mut self, made: &[Change], before: &Observed) {
        let repair =
            |change: &&Change| is_repair(change, self.desired.get(&change.object().key()), before);
        let repairs: Vec<_> = made.iter().filter(repair).collect();
        for change in &repairs {
            *self.repairs.entry(change.object().key().kind()).or_default() += 1;
        }
        let history = &self.notes.history;
        for change in repairs.iter().take(LOG_LIMIT) {
            history.note(
                EventKind::Drift,
                match change {
                    Change::Put(object) => format!("{object} is back as planned"),
                    Change::Replace(object) => format!("{object} is made anew, as planned"),
                    Change::Remove(object) => format!("{object} is removed: it is in no plan"),
                },
            );
        }
        if repairs.len() > LOG_LIMIT {
            history.note(EventKind::Drift, format!("{} more repairs", repairs.len() - LOG_LIMIT));
        }
    }

    /// What is left alone until there is a plan to compare it with: what an earlier daemon made for peers that the plugin
    /// now fails at.
    fn kept(&self) -> Footprint {
        let planned = |key: &LeaseKey| self.desired.contains(Owner::Peer(*key));
        let unknown = self.failing.failing().keys().filter(|key| !planned(key));
        Footprint::of(unknown.filter_map(|key| self.peers.get(*key)))
    }

    /// Decides whether events are a reason to look.
    fn judge(&mut self, events: &[Event]) {
        let underlay = self.overlay.node.underlay.link;
        if events.iter().any(|event| matches!(event, Event::LinkChanged(name) if *name == underlay))
        {
            // What the kernel refused may have failed for want of it.
            // It is tried once that is known, so that nothing is done about what is in order again.
            self.refused.hasten(self.not_before.max(Instant::now()));
        }
        if events.iter().any(|event| match event {
            Event::LinkChanged(name) => *name == underlay,
            Event::Lost => true,
            Event::Seen(_) | Event::Gone(_) => false,
        }) {
            self.underlay_changed.notify_one();
        }
        let suspicious = events.iter().any(|event| match event {
            Event::Seen(seen) => !agrees(self.desired.get(&seen.object.key()), Some(seen)),
            Event::Gone(key) => !agrees(self.desired.get(key), None),
            // The kernel drops routes with a device or an address, and says nothing.
            Event::LinkChanged(name) => {
                *name == underlay || self.overlay.scope.links.contains(name)
            }
            Event::Lost => true,
        });
        if suspicious {
            self.look_at = self.look_at.min(Instant::now());
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
            changes: self.tally,
            superseded: self.superseded.as_ref().map(ToString::to_string),
            repairs: self.repairs.clone(),
        }
    }

    fn state_of(&self, key: LeaseKey) -> PeerState {
        if let Some(reason) = self.unplanned.get(&key) {
            return PeerState::NoPlan(reason.clone());
        }
        if let Some(failing) = self.failing.failing().get(&key) {
            return PeerState::NoPlan(failing.reason.clone());
        }
        let planned = self.desired.keys(Owner::Peer(key));
        let missing = planned
            .iter()
            .find(|key| !agrees(self.desired.get(key), self.observed.objects.get(key)));
        match missing {
            None => PeerState::InKernel,
            Some(key) => PeerState::Incomplete(match self.refused.failing().get(key) {
                Some(failing) => failing.reason.clone(),
                None => format!("{key} is not in the kernel yet"),
            }),
        }
    }

    /// When there is something to do even if nothing happens.
    fn wake_at(&self) -> Instant {
        let retries = [self.refused.next(), self.failing.next(), self.peers.due()];
        let look_at = self.look_at.max(self.not_before);
        retries.into_iter().chain([self.probe_at]).flatten().fold(look_at, Instant::min)
    }

    /// Does what is due.
    async fn catch_up(&mut self, readiness: &Readiness) {
        let now = Instant::now();
        let peers: BTreeSet<_> = self.failing.due(now).into_iter().collect();
        let mut touched = self.plan_peers(peers).await;
        if self.look_at.max(self.not_before) <= now {
            // Everything that is due is seen to there, by what the kernel holds by now.
            self.look(readiness).await;
            return;
        }
        touched.extend(self.refused.due(now));
        if self.peers.due().is_some_and(|due| due <= now) {
            let delta = self.peers.update([], now);
            touched.extend(self.take(delta).await);
        }
        self.settle(touched).await;
        self.publish(readiness);
        if self.probe_at.is_some_and(|at| at <= now)
            && let Some(probing) = &self.probing
        {
            self.probe_at = None;
            probing.watch(self.peers.leases());
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

fn say_of_many(what: &str, count: usize) {
    if count > LOG_LIMIT {
        tracing::warn!("{count} {what}, of which the first {LOG_LIMIT} are named");
    }
}

fn say_what_changed(changes: &[Change]) {
    for change in changes.iter().take(LOG_LIMIT) {
        match change {
            Change::Put(object) => tracing::info!("put {object}"),
            Change::Replace(object) => tracing::info!("replace {object}"),
            Change::Remove(object) => tracing::info!("remove {object}"),
        }
    }
    if changes.len() > LOG_LIMIT {
        tracing::info!("{} more changes", changes.len() - LOG_LIMIT);
    }
}
