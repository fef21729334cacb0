//! The kernel's side of the loop: compares desired with observed state, applies the difference, and
//! records the results.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use heddle_control::Changes;
use heddle_core::address::LinkName;
use heddle_core::desired::{Desired, Owner};
use heddle_core::diff::{
    ObjectChange, Observed, Scope, agrees, carries, diff, diff_keys, is_repair,
};
use heddle_core::host_network::{Claims, Conflict, Guard, HostNetwork, Vital};
use heddle_core::object::{Object, ObjectKey};
use heddle_core::pacing::{Backoff, RetryQueue};
use heddle_core::peers::Footprint;
use heddle_core::resync_timer::ResyncTimer;
use heddle_kernel::{Event, KernelError};
use heddle_telemetry::Notes;
use ipnet::IpNet;

use crate::clock;
use crate::ports::Dataplane;

use super::context::Context;
use super::journal;
use super::report::count;

/// Maximum number of times that one resync compares and applies. The next resync does the rest.
const ROUNDS: usize = 4;

/// Backoff of changes that the kernel refuses.
const RETRY: Backoff =
    Backoff { initial: Duration::from_millis(500), limit: Duration::from_secs(60) };

/// Applies the plan to the kernel.
pub(super) struct Applier {
    dataplane: Arc<dyn Dataplane>,
    scope: Scope,
    vital: Vital,
    /// Filter for objects that are withheld from the kernel, by the host's own network as last
    /// read.
    guard: Guard,
    /// The observed state of the last resync, with the changes applied since.
    observed: Observed,
    /// True once the kernel has been read.
    looked: bool,
    resync_timer: ResyncTimer,
    /// Reason why the last resync could not read the kernel.
    unreadable: Option<String>,
    /// Objects that the kernel refuses.
    refused: RetryQueue<ObjectKey>,
    /// Objects that the latest resync found withheld and left in the kernel. They are removed once
    /// the kernel has what the loop plans in their place.
    postponed: BTreeSet<ObjectKey>,
    made: Changes,
    notes: Notes,
}

impl Applier {
    /// Creates an applier that has not read the kernel yet.
    pub(super) fn new(
        dataplane: Arc<dyn Dataplane>,
        scope: Scope,
        vital: Vital,
        notes: Notes,
    ) -> Self {
        Self {
            dataplane,
            scope,
            vital,
            guard: Guard::default(),
            observed: Observed::default(),
            looked: false,
            resync_timer: ResyncTimer::new(clock::now()),
            unreadable: None,
            refused: RetryQueue::new(RETRY),
            postponed: BTreeSet::new(),
            made: Changes {
                repairs: ObjectKey::KINDS.map(|kind| (kind.to_owned(), 0)).into(),
                ..Changes::default()
            },
            notes,
        }
    }

    /// Reads the host's own network. Before that, no object is known that has to be withheld.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be read.
    pub(super) async fn survey(&mut self) -> Result<(), KernelError> {
        let routing = self.dataplane.host_routing(&self.scope).await?;
        let vital = self.vital.clone();
        self.guard.set_host(HostNetwork::new(&Claims::of(&self.scope), &routing, vital));
        Ok(())
    }

    /// Takes the withheld objects that the latest resync left in the kernel.
    pub(super) fn take_postponed(&mut self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.postponed)
    }

    /// Returns true once the kernel has been read.
    pub(super) fn has_observed(&self) -> bool {
        self.looked
    }

    /// Sets the store's current addresses and requests a resync.
    pub(super) fn set_store_addresses(&mut self, addresses: BTreeSet<IpAddr>) {
        self.vital.store = addresses;
        self.request_resync();
    }

    /// Returns the guard, which decides which objects are withheld from the kernel.
    pub(super) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Sets the destinations that are withheld in addition to those of the host network, replacing
    /// the previous ones.
    pub(super) fn withhold(&mut self, destinations: BTreeMap<IpNet, Conflict>) {
        self.guard.set_others(destinations);
    }

    /// Returns the planned object under a key. None if it is withheld, or nothing is planned there.
    fn wanted<'a>(&self, desired: &'a Desired, key: &ObjectKey) -> Option<&'a Object> {
        desired.get(key).filter(|object| self.guard.withholds(object).is_none())
    }

    /// Returns the numbers of changes so far.
    pub(super) fn made(&self) -> &Changes {
        &self.made
    }

    /// Returns the reason why the plan is not in place: the kernel cannot be read, or refuses one
    /// of the node's own objects. A refused object of a peer's plan affects that peer alone. Those
    /// that packets do not need are left to [`warnings`](Self::warnings).
    pub(super) fn missing(&self, desired: &Desired) -> Option<&str> {
        let own = |key: &ObjectKey| desired.owner(key) == Some(Owner::Node) && !key.is_optional();
        let refused = || {
            let (_, failing) = self.refused.failing().iter().find(|(key, _)| own(key))?;
            Some(failing.reason.as_str())
        };
        self.unreadable.as_deref().or_else(refused)
    }

    /// Returns the reasons why settings that packets do not need are not in place.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> + '_ {
        let failing = self.refused.failing().iter().filter(|(key, _)| key.is_optional());
        failing.map(|(_, failing)| failing.reason.clone())
    }

    /// Returns the reason why an owner's plan is not completely in the kernel. None if it is.
    pub(super) fn lacks(&self, desired: &Desired, owner: Owner) -> Option<String> {
        let withheld = |key: &ObjectKey| self.guard.withholds(desired.get(key)?);
        if let Some(conflict) = desired.keys(owner).iter().find_map(withheld) {
            return Some(conflict.to_string());
        }
        let here = |key: &&ObjectKey| {
            key.is_optional() || agrees(desired.get(key), self.observed.objects.get(key))
        };
        let key = desired.keys(owner).iter().find(|key| !here(key))?;
        Some(match self.refused.failing().get(key) {
            Some(failing) => failing.reason.clone(),
            None => format!("{key} is not in the kernel yet"),
        })
    }

    /// Returns the time of the next resync or retry, if no event comes earlier.
    pub(super) fn next(&self) -> Instant {
        let look = self.resync_timer.due();
        self.refused.next().map_or(look, |retry| retry.min(look))
    }

    /// Returns true if a full resync is due.
    pub(super) fn is_resync_due(&self, now: Instant) -> bool {
        self.resync_timer.due() <= now
    }

    /// Returns true if a refused device is due for a retry. That needs a full resync, because
    /// everything on the device becomes due with it. Returns false while the kernel cannot be read:
    /// the resync would not get as far as the retry, and be due again at once.
    pub(super) fn is_device_due(&self, now: Instant) -> bool {
        self.unreadable.is_none()
            && self.refused.due(now).iter().any(|key| matches!(key, ObjectKey::Link(_)))
    }

    /// Returns the refused objects that are due for a retry.
    pub(super) fn due(&self, now: Instant) -> Vec<ObjectKey> {
        self.refused.due(now)
    }

    /// Clears refusals of these keys, because other objects may be planned under them now.
    pub(super) fn forget_refusals<'a>(&mut self, keys: impl IntoIterator<Item = &'a ObjectKey>) {
        for key in keys {
            self.refused.clear(key);
        }
    }

    /// Requests a resync if events show that observed and desired state may differ.
    pub(super) fn on_kernel_events(
        &mut self,
        desired: &Desired,
        underlay: LinkName,
        events: &[Event],
    ) {
        let now = clock::now();
        let foreign = |name: &LinkName| {
            self.observed.objects.get(&ObjectKey::Link(*name)).is_some_and(|seen| !seen.ours)
        };
        if events.iter().any(|event| match event {
            Event::LinkChanged(name) => *name == underlay || foreign(name),
            Event::Lost | Event::Seen(_) | Event::Gone(_) | Event::HostRoute { .. } => false,
        }) {
            // The kernel may have refused changes for lack of the underlay, or because of the
            // foreign device. Their retry is due with the earliest possible resync, so that nothing
            // is done about objects that are in order again.
            self.refused.hasten(self.resync_timer.earliest(now));
        }
        let suspicious = events.iter().any(|event| match event {
            Event::Seen(seen) => !agrees(self.wanted(desired, &seen.object.key()), Some(seen)),
            Event::Gone(key) => !agrees(self.wanted(desired, key), None),
            // The kernel also removes the routes on a device or an address, without a notification.
            Event::LinkChanged(name) => {
                *name == underlay
                    || self.scope.links.contains(name)
                    || self.observed.host.concerns(*name)
            }
            Event::HostRoute { route, there } => {
                self.observed.host.routes.contains(route) != *there
            }
            Event::Lost => true,
        });
        if suspicious {
            self.resync_timer.hasten(now);
        }
    }

    /// Makes a resync due as soon as the duty cycle permits.
    pub(super) fn request_resync(&mut self) {
        self.resync_timer.hasten(clock::now());
    }

    /// Applies the desired state of these keys. Objects in `kept` stay, even if no plan has them.
    pub(super) async fn apply_keys(
        &mut self,
        context: Context<'_>,
        touched: &BTreeSet<ObjectKey>,
        kept: &Footprint,
    ) {
        let desired = |key: &ObjectKey| self.wanted(context.desired, key);
        let mut changes = diff_keys(touched.iter().collect(), desired, &self.observed);
        changes.retain(|change| !is_kept(change, kept));
        let changing: BTreeSet<_> = changes.iter().map(|change| change.object().key()).collect();
        // The other keys are as desired, by whatever means.
        self.forget_refusals(touched.difference(&changing));
        self.apply(context, changes).await;
    }

    /// Resyncs: reads the whole state and applies the plan. Objects in `kept` stay, even if no plan
    /// has them.
    pub(super) async fn resync(&mut self, context: Context<'_>, kept: &Footprint) {
        let begun = clock::now();
        let looked = self.compare_and_apply(context, kept).await;
        self.resync_timer.ended(begun, clock::now(), looked.is_ok());
        self.unreadable = looked.err().map(|error| error.to_string());
    }

    async fn compare_and_apply(
        &mut self,
        context: Context<'_>,
        kept: &Footprint,
    ) -> Result<(), KernelError> {
        // Baseline of drift detection: the state as it was last known. The first resync after a
        // start has none.
        let mut before = None;
        for _ in 0..ROUNDS {
            let desired = context.desired.objects();
            let sysctls = desired.values().filter_map(|object| match object {
                Object::Sysctl(sysctl) => Some(sysctl.clone()),
                _ => None,
            });
            let sysctls: Vec<_> = sysctls.collect();
            let observed = self.dataplane.observe(&self.scope, &sysctls).await?;
            let known = std::mem::replace(&mut self.observed, observed);
            let looked = std::mem::replace(&mut self.looked, true);
            let before = before.get_or_insert_with(|| looked.then_some(known));
            let vital = self.vital.clone();
            let host = HostNetwork::new(&Claims::of(&self.scope), &self.observed.host, vital);
            self.guard.set_host(host);
            let desired = self.guard.permitted(desired);
            let mut changes = diff(&desired, &self.observed);
            // Before anything is concluded from what is left: a refusal of what is kept is void.
            changes.retain(|change| !is_kept(change, kept));
            let changing: BTreeSet<_> = changes.iter().map(|c| c.object().key()).collect();
            // Other refused objects are as desired by now, by whatever means.
            self.refused.retain(|key| changing.contains(key));
            changes.retain(|change| {
                let key = change.object().key();
                let is_postponed = matches!(change, ObjectChange::Remove(_))
                    && context.desired.get(&key).is_some();
                if is_postponed {
                    self.postponed.insert(key);
                }
                !is_postponed
            });
            let devices: BTreeSet<_> = self.observed.links().collect();
            let made = self.apply(context, changes).await;
            journal::record_changes(&made);
            if let Some(before) = before {
                self.count_repairs(context.desired, &made, before);
            }
            // A changed device may have lost the objects on it. Only then is another round needed.
            let altered = |change: &ObjectChange| match change.object() {
                Object::Link(link) => devices.contains(&link.name),
                _ => false,
            };
            if !made.iter().any(altered) {
                break;
            }
        }
        Ok(())
    }

    /// Applies changes, those of devices first. Returns those that succeeded.
    async fn apply(
        &mut self,
        context: Context<'_>,
        mut changes: Vec<ObjectChange>,
    ) -> Vec<ObjectChange> {
        // A start has three changes for each peer, so no second list of them is made.
        let is_device = |change: &mut ObjectChange| matches!(change.object(), Object::Link(_));
        let devices = changes.extract_if(.., is_device).collect();
        let made = self.attempt(context, devices).await;
        let unusable = |link| self.is_unusable(context, link);
        // Removals do not wait, because the object may do harm meanwhile.
        let waits = |change: &mut ObjectChange| {
            !matches!(change, ObjectChange::Remove(_))
                && change.object().link().is_some_and(unusable)
        };
        let waiting: Vec<_> = changes.extract_if(.., waits).collect();
        for change in waiting {
            // Once the device is there, a resync covers everything on it.
            self.refused.clear(&change.object().key());
        }
        let mut others = self.attempt(context, changes).await;
        others.splice(0..0, made);
        others
    }

    /// Returns true if objects on a device have to wait for the device.
    fn is_unusable(&self, context: Context<'_>, link: LinkName) -> bool {
        let key = ObjectKey::Link(link);
        let (desired, seen) = (context.desired.get(&key), self.observed.objects.get(&key));
        self.refused.failing().contains_key(&key) && !carries(desired, seen)
    }

    /// Attempts those changes whose backoff is over, and records the result of each. Returns those
    /// that succeeded.
    async fn attempt(
        &mut self,
        context: Context<'_>,
        mut changes: Vec<ObjectChange>,
    ) -> Vec<ObjectChange> {
        let now = clock::now();
        changes.retain(|change| !self.refused.waiting(&change.object().key(), now));
        if changes.is_empty() {
            return changes;
        }
        let foreign = |change: &ObjectChange| {
            let seen = self.observed.objects.get(&change.object().key())?;
            let is_route = matches!(seen.object, Object::Route(_));
            (is_route && !seen.ours && !matches!(change, ObjectChange::Remove(_)))
                .then(|| seen.object.clone())
        };
        let mut replaced: Vec<_> = changes.iter().filter_map(foreign).collect();
        let begun = clock::now();
        let failures = self.dataplane.apply(&self.scope, changes.clone()).await;
        self.notes.timings.applied(clock::now() - begun);
        let failed: BTreeSet<_> = failures.iter().map(|f| f.change.object().key()).collect();
        changes.retain(|change| !failed.contains(&change.object().key()));
        replaced.retain(|route| !failed.contains(&route.key()));
        journal::record_replaced(&replaced);
        for change in &changes {
            self.refused.clear(&change.object().key());
            self.observed.note(change);
            count(&mut self.made, change);
        }
        self.made.refused += failures.len() as u64;
        let mut reasons = Vec::new();
        for failure in failures {
            let key = failure.change.object().key();
            let reason = format!("{}: {failure}", context.plan_behind(&key));
            if self.refused.failed(key.clone(), reason.clone(), now) {
                reasons.push((key, reason));
            }
        }
        journal::record_refusals(&self.notes.history, &reasons);
        changes
    }

    /// Counts and reports the changes that repaired drift.
    fn count_repairs(&mut self, desired: &Desired, made: &[ObjectChange], before: &Observed) {
        let wanted = |change: &ObjectChange| self.wanted(desired, &change.object().key());
        let repair = |change: &&ObjectChange| is_repair(change, wanted(change), before);
        let repairs: Vec<_> = made.iter().filter(repair).collect();
        for change in &repairs {
            let kind = change.object().key().kind().to_owned();
            *self.made.repairs.entry(kind).or_default() += 1;
        }
        journal::record_repairs(&self.notes.history, &repairs);
    }
}

/// Returns true if a change would remove what is kept.
fn is_kept(change: &ObjectChange, kept: &Footprint) -> bool {
    matches!(change, ObjectChange::Remove(object) if kept.covers(object))
}
