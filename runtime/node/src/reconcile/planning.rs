//! From changes of leases to plans: asks the plugin, and puts its answers into the desired state.

use std::collections::BTreeSet;

use heddle_core::desired::Owner;
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::object::{ObjectKey, Plan};
use heddle_core::peers;
use heddle_plugin::{CallError, Reason};
use heddle_store::Update;

use super::context::Context;
use super::report::Query;
use super::{Reconciler, journal};
use crate::clock;

impl Reconciler {
    /// Plans an update of leases. Returns the keys under which the desired state may have changed,
    /// and true if this node's own lease is affected. Returns None for the pages of a snapshot
    /// before its last: nothing changes until then.
    pub(super) async fn plan_update(
        &mut self,
        update: Update,
    ) -> Option<(BTreeSet<ObjectKey>, bool)> {
        let delta = match update {
            Update::Snapshot(page) => {
                if page.first {
                    self.peers.begin_snapshot();
                }
                for found in &page.records {
                    self.peers.add_to_snapshot(&found.record);
                }
                if !page.last {
                    return None;
                }
                self.peers.end_snapshot(clock::now())
            }
            Update::Changes(changes) => self.peers.update(changes, clock::now()),
        };
        let own = delta.own;
        Some((self.plan_delta(delta).await, own))
    }

    /// Plans changes of peers. Returns the keys under which the desired state may have changed.
    pub(super) async fn plan_delta(&mut self, delta: peers::Delta) -> BTreeSet<ObjectKey> {
        let known = |key: &LeaseKey| self.changed.contains_key(key);
        journal::record_leases(&self.notes.history, &delta, &self.peers, known);
        let site = &self.overlay.planned.site;
        journal::record_namesakes(&self.notes.history, &delta, &self.peers, site, known);
        let is_listed = self.probing.is_some() || !self.overlay.carries;
        if is_listed && !(delta.changed.is_empty() && delta.removed.is_empty()) {
            // A thousand leases that come one by one cause one update.
            self.peer_list.on_event(clock::now());
        }
        let now = clock::wall_clock();
        self.changed.extend(delta.changed.iter().map(|key| (*key, now)));
        let mut touched = BTreeSet::new();
        for key in delta.removed {
            self.changed.remove(&key);
            if self.plan_retries.is_failing(key) {
                // What was kept for it is in no plan: only a resync finds it.
                self.applier.request_resync();
            }
            self.plan_retries.forget(key);
            self.stop_steering(key);
            touched.extend(self.desired.remove(Owner::Peer(key)));
        }
        touched.extend(self.plan_peers(delta.changed).await);
        touched
    }

    /// Asks the plugin for these peers' plans. Returns the keys under which the desired state may
    /// have changed.
    pub(super) async fn plan_peers(&mut self, keys: BTreeSet<LeaseKey>) -> BTreeSet<ObjectKey> {
        let known = |key: &LeaseKey| self.peers.get(*key).cloned();
        let (keys, leases): (Vec<_>, Vec<_>) =
            keys.into_iter().filter_map(|key| Some((key, known(&key)?))).unzip();
        let mut touched = BTreeSet::new();
        if leases.is_empty() {
            return touched;
        }
        let begun = clock::now();
        let plans = self.ask_for_plans(leases).await;
        self.notes.timings.planned(clock::now() - begun);
        let mut complaints = Vec::new();
        self.suspended = false;
        for (key, plan) in keys.into_iter().zip(plans) {
            let owner = Owner::Peer(key);
            match plan {
                Ok(mut plan) => {
                    self.split.complete(&mut plan, key);
                    self.plan_retries.forget(key);
                    self.steer(key);
                    touched.extend(self.desired.set(owner, &self.peers.priority(key), plan));
                    let context = Context::new(
                        &self.desired,
                        &self.peers,
                        self.overlay.planned.planner.as_ref(),
                    );
                    let conflicts = self.desired.conflicts(owner);
                    complaints.extend(
                        conflicts.map(|(object, other)| (key, context.dispute(object, key, other))),
                    );
                }
                Err(error) => {
                    let reason = error.to_string();
                    self.suspended |= matches!(error.reason, Reason::Suspended { .. });
                    let news = match error.reason {
                        Reason::OtherBackend(_) => {
                            self.stop_steering(key);
                            touched.extend(self.desired.remove(owner));
                            self.plan_retries.answered(key, &reason)
                        }
                        // The previous plan stays. The plugin would give the same answer for the
                        // same lease, so there is no retry.
                        Reason::Invalid(_) | Reason::Refused(_) => {
                            self.plan_retries.answered(key, &reason)
                        }
                        _ => self.plan_retries.failed(key, &reason, clock::now()),
                    };
                    if news {
                        complaints.push((key, reason));
                    }
                }
            }
        }
        journal::record_plans(&self.notes.history, &complaints);
        touched
    }

    /// Asks the plugin for plans, which may take a second for each peer. Queries are answered
    /// meanwhile, as long as the plugin makes progress: if its number of calls has not changed
    /// since the previous liveness check, the check gets no answer.
    async fn ask_for_plans(&mut self, leases: Vec<Lease>) -> Vec<Result<Plan, CallError>> {
        let calls = || self.overlay.planned.planner.metrics().calls();
        let mut before = None;
        let mut planning = std::pin::pin!(self.overlay.planned.plan_peers(leases));
        loop {
            tokio::select! {
                biased;
                plans = &mut planning => return plans,
                Some(query) = self.queries.recv() => {
                    let now = Some(calls());
                    let stuck = matches!(query, Query::Alive(_))
                        && std::mem::replace(&mut before, now) == now;
                    if !stuck {
                        self.answer(query);
                    }
                }
            }
        }
    }

    /// Steers packets to this peer, if this daemon carries packets.
    fn steer(&self, key: LeaseKey) {
        if let (Some(packets), Some(lease)) = (&self.overlay.packets, self.peers.get(key)) {
            packets.put(lease.clone());
        }
    }

    /// Stops steering packets to this peer.
    fn stop_steering(&self, key: LeaseKey) {
        if let Some(packets) = &self.overlay.packets {
            packets.remove(key);
        }
    }
}
