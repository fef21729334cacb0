//! The daemon's answers on the control socket, assembled from what its parts know.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use heddle_control as wire;
use heddle_control::{Handler, Leases, Status, Unavailable};
use heddle_core::address::LinkName;
use heddle_core::allocation::Recognition;
use heddle_core::host_network::HostNetwork;
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::link_counters::LinkCounters;
use heddle_core::node::Underlay;
use heddle_core::peers::{Peers, Rejection};
use heddle_core::site::Site;
use heddle_core::text::one_line;
use heddle_firewall::{Mode, Rules};
use heddle_plugin::Metrics;
use heddle_store::{LeaseStore, Page, Pulse, Stored, Term};
use heddle_telemetry::History;
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock;
use crate::emit::Output;
use crate::join::{Identity, Membership};
use crate::packets::PacketCounters;
use crate::ports::{Dataplane, FoundPlugin};
use crate::readiness::{Condition, Unmet};
use crate::reconcile::{Query, REASON_LIMIT, Report, seconds};

/// Timeout of a query to the loop. The loop answers between two of its steps, and while a plugin
/// computes plans.
const PATIENCE: Duration = Duration::from_secs(5);

/// Maximum number of unusable records that are listed. The others are counted.
const USELESS: usize = 1000;

/// The state of the daemon that can be queried. More of it is filled in while the daemon starts.
pub struct NodeState {
    started: Instant,
    network: String,
    readiness: watch::Receiver<Unmet>,
    counters: PacketCounters,
    history: History,
    queries: mpsc::Sender<Query>,
    identity: OnceLock<Identity>,
    store: OnceLock<Arc<dyn LeaseStore>>,
    joined: OnceLock<Joined>,
    term: Mutex<Option<Term>>,
    watch: OnceLock<(Instant, Pulse)>,
}

/// The part of the state that is known once the node has joined, and does not change afterwards.
struct Joined {
    site: Arc<Site>,
    recognition: Recognition,
    mtu: u32,
    /// The planned devices: name, kind and MTU.
    devices: Vec<wire::Device>,
    backend: (FoundPlugin, Arc<Metrics>),
    outputs: Vec<(FoundPlugin, Arc<Output>)>,
    rules: Rules,
    dataplane: Arc<dyn Dataplane>,
}

impl NodeState {
    /// Creates the state before the start. Queries are sent to the loop.
    pub(crate) fn new(
        network: String,
        readiness: watch::Receiver<Unmet>,
        counters: PacketCounters,
        history: History,
        queries: mpsc::Sender<Query>,
    ) -> Self {
        Self {
            started: clock::now(),
            network,
            readiness,
            counters,
            history,
            queries,
            identity: OnceLock::new(),
            store: OnceLock::new(),
            joined: OnceLock::new(),
            term: Mutex::new(None),
            watch: OnceLock::new(),
        }
    }

    /// Records the node's identity and its lease store.
    pub(crate) fn learn(&self, identity: Identity, store: Arc<dyn LeaseStore>) {
        let _ = self.identity.set(identity);
        let _ = self.store.set(store);
    }

    /// Records the membership. The node joins once; later calls have no effect.
    pub(crate) fn join(&self, member: &Membership, rules: &Rules, dataplane: Arc<dyn Dataplane>) {
        let overlay = &member.overlay;
        let devices = overlay.planned.plan.plan.links().map(|link| wire::Device {
            name: link.name.to_string(),
            kind: link.kind.name().to_owned(),
            mtu: link.mtu,
            counters: None,
        });
        let emitters = member.found.emitters.iter().cloned();
        let _ = self.joined.set(Joined {
            site: overlay.planned.site.clone(),
            recognition: overlay.recognition(),
            mtu: overlay.planned.plan.mtu,
            devices: devices.collect(),
            backend: (member.found.backend.clone(), overlay.planned.planner.metrics().clone()),
            outputs: emitters.zip(member.outputs.iter().cloned()).collect(),
            rules: rules.clone(),
            dataplane,
        });
    }

    /// Records how long the node's own lease lasts, as far as it is known.
    pub(crate) fn hold(&self, term: Term) {
        *self.term.lock().unwrap_or_else(PoisonError::into_inner) = Some(term);
    }

    /// Records that the node follows the store from now on.
    pub(crate) fn follow(&self, pulse: Pulse) {
        let _ = self.watch.set((clock::now(), pulse));
    }

    /// Returns the store, once it is open.
    pub fn store(&self) -> Option<&Arc<dyn LeaseStore>> {
        self.store.get()
    }

    /// Returns true if the loop answers within `limit`. For the watchdog.
    pub async fn alive(&self, limit: Duration) -> bool {
        self.ask(Query::Alive, limit).await.is_some()
    }

    async fn ask<T>(
        &self,
        query: impl FnOnce(oneshot::Sender<T>) -> Query,
        limit: Duration,
    ) -> Option<T> {
        let (answer, waiting) = oneshot::channel();
        let asking = async {
            self.queries.send(query(answer)).await.ok()?;
            waiting.await.ok()
        };
        tokio::time::timeout(limit, asking).await.ok()?
    }
}

impl Handler for NodeState {
    async fn status(&self) -> Result<Status, Unavailable> {
        let unmet = self.readiness.borrow().clone();
        let identity = self.identity.get();
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            network: self.network.clone(),
            ready: unmet.is_empty(),
            unmet: unmet_conditions(&unmet),
            conditions: Condition::ALL.map(|condition| condition.to_string()).into(),
            time: seconds(clock::wall_clock()),
            uptime: clock::now().saturating_duration_since(self.started).as_secs(),
            node: identity.map_or_else(Default::default, |identity| wire::NodeIdentity {
                id: identity.id.to_string(),
                name: identity.name.clone(),
            }),
            packets: self.counters.get().and_then(|read| read()).map(|counters| {
                counters.iter().map(|(name, count)| (name.to_owned(), count)).collect()
            }),
            watch: self.watch.get().map(|(begun, pulse)| wire::WatchStatus {
                lag: clock::now()
                    .saturating_duration_since(
                        pulse.last().map_or(*begun, tokio::time::Instant::into_std),
                    )
                    .as_secs(),
                stale: unmet.get(&Condition::Watch).cloned(),
            }),
            events: self.history.events(),
            ..Status::default()
        };
        let Some(joined) = self.joined.get() else { return Ok(status) };
        let report = self.ask(Query::Report, PATIENCE).await;
        match report {
            Some(report) => add_report(&mut status, report),
            None => {
                status.ready = false;
                let reason = format!("no answer within {} s", PATIENCE.as_secs());
                status.unmet.push(wire::UnmetCondition { condition: "loop".to_owned(), reason });
            }
        }
        let own = *self.term.lock().unwrap_or_else(PoisonError::into_inner);
        add_membership(&mut status, joined, own, &unmet);
        Ok(status)
    }

    async fn leases(&self) -> Result<Leases, Unavailable> {
        let store = self.store.get().ok_or_else(|| Unavailable("it starts".to_owned()))?;
        let joined = self.joined.get();
        let host = match joined {
            Some(_) => self.ask(Query::Host, PATIENCE).await.ok_or_else(|| {
                Unavailable(format!(
                    "no answer from the daemon's loop within {} s",
                    PATIENCE.as_secs()
                ))
            })?,
            None => HostNetwork::default(),
        };
        let mut listing = Listing::new(joined, host);
        let scanned = store.scan(&mut |page| listing.add(&page)).await;
        scanned.map_err(|error| Unavailable(error.to_string()))?;
        Ok(Leases {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            network: self.network.clone(),
            ..listing.finish()
        })
    }
}

/// The answer about leases, collected while the store is read.
struct Listing {
    own: Option<LeaseKey>,
    /// The rules by which the daemon judges records. None as long as the network config is unknown.
    peers: Option<Peers>,
    leases: Leases,
    /// Number of records that are unusable by themselves. Conflicts with other peers and with the
    /// host are not counted.
    useless: usize,
}

impl Listing {
    fn new(joined: Option<&Joined>, host: HostNetwork) -> Self {
        let peers = |joined: &Joined| {
            let mut peers = Peers::new(joined.site.config.clone(), joined.site.lease.key)
                .recognizing(joined.recognition.clone());
            peers.protect(host);
            peers
        };
        Self {
            own: joined.map(|joined| joined.site.lease.key),
            peers: joined.map(peers),
            leases: Leases::default(),
            useless: 0,
        }
    }

    fn add(&mut self, page: &Page) {
        if page.first {
            (self.leases, self.useless) = (Leases::default(), 0);
            self.peers.iter_mut().for_each(Peers::begin_snapshot);
        }
        for found in &page.records {
            let peers = self.peers.as_mut();
            let rejection = peers.and_then(|peers| peers.add_to_snapshot(&found.record));
            let record = lease_record(found, self.own, rejection);
            self.useless += usize::from(record.problem.is_some());
            match record.problem.is_some() && self.useless > USELESS {
                true => self.leases.unlisted += 1,
                false => self.leases.records.push(record),
            }
        }
    }

    fn finish(mut self) -> Leases {
        if let Some(peers) = &mut self.peers {
            peers.end_snapshot(clock::now());
            for record in self.leases.records.iter_mut().filter(|found| found.problem.is_none()) {
                record.problem = peers.rejection(&record.key).map(ToString::to_string);
            }
        }
        self.leases
    }
}

/// Returns the remaining time and the age of a lease. Both are unknown as long as nobody renews it.
fn term(term: Option<Term>) -> wire::OwnLeaseStatus {
    let remaining = term.and_then(|term| term.ends).map(|ends| {
        let now = tokio::time::Instant::now();
        ends.saturating_duration_since(now).as_secs()
    });
    let age = term.map_or(0, |term| term.renewed.elapsed().as_secs());
    wire::OwnLeaseStatus { remaining, age, ..wire::OwnLeaseStatus::default() }
}

fn underlay(found: &Underlay) -> wire::UnderlayStatus {
    wire::UnderlayStatus {
        interface: found.link.to_string(),
        mtu: found.mtu,
        public_addresses: found.public_addresses.into_iter().collect(),
    }
}

fn unmet_conditions(unmet: &Unmet) -> Vec<wire::UnmetCondition> {
    let conditions = unmet.iter().map(|(condition, reason)| wire::UnmetCondition {
        condition: condition.to_string(),
        reason: reason.clone(),
    });
    conditions.collect()
}

fn add_report(status: &mut Status, report: Report) {
    let Report { peers, unlisted, warnings, changes, superseded } = report;
    *status = Status { peers, unlisted, warnings, changes, superseded, ..std::mem::take(status) };
}

fn add_membership(status: &mut Status, joined: &Joined, own: Option<Term>, unmet: &Unmet) {
    let Site { node, lease, .. } = joined.site.as_ref();
    status.underlay = Some(underlay(&node.underlay));
    status.lease = Some(wire::OwnLeaseStatus {
        key: lease.key.to_string(),
        subnets: lease.key.subnets().into_iter().collect(),
        backend: lease.backend_type.clone(),
        mtu: joined.mtu,
        ..term(own)
    });
    let (found, metrics) = &joined.backend;
    status.backend = Some(plugin(found, metrics));
    status.emitters = joined.outputs.iter().map(emitter).collect();
    let repaired = joined.outputs.iter().map(|(_, output)| output.repairs()).sum();
    status.changes.repairs.insert("file".to_owned(), repaired);
    status.rules = rules(&joined.rules, unmet);
    status.devices = devices(&joined.devices, &joined.dataplane.link_counters());
}

fn plugin(found: &FoundPlugin, metrics: &Metrics) -> wire::Plugin {
    wire::Plugin {
        name: found.manifest.name.clone(),
        version: found.manifest.version.to_string(),
        source: found.source.clone(),
        digest: found.digest.clone(),
        calls: metrics.calls(),
        failures: metrics.failures(),
        refusals: metrics.refusals(),
        seconds: metrics.time().as_secs_f64(),
    }
}

fn emitter((found, output): &(FoundPlugin, Arc<Output>)) -> wire::Emitter {
    let outcome = output.outcome();
    wire::Emitter {
        plugin: plugin(found, output.emitter.metrics()),
        files: outcome.files,
        problem: outcome.problem,
    }
}

/// Returns the state of the traffic rules. None if the daemon is configured to have none.
fn rules(asked: &Rules, unmet: &Unmet) -> Option<wire::TrafficRules> {
    (asked.masquerade.is_some() || asked.forward).then(|| wire::TrafficRules {
        mode: match asked.mode {
            Mode::Iptables => wire::RulesMode::Iptables,
            Mode::Nftables => wire::RulesMode::Nftables,
        },
        masquerade: asked.masquerade.is_some(),
        forward: asked.forward,
        problem: unmet.get(&Condition::Rules).cloned(),
    })
}

/// Returns the planned devices with their counters. A device that does not exist has none.
fn devices(
    planned: &[wire::Device],
    counters: &BTreeMap<LinkName, LinkCounters>,
) -> Vec<wire::Device> {
    let count = |device: &wire::Device| {
        let name: LinkName = device.name.parse().ok()?;
        counters.get(&name).copied()
    };
    planned
        .iter()
        .map(|device| wire::Device { counters: count(device), ..device.clone() })
        .collect()
}

/// Describes a record of the store. `rejection` is the reason why it cannot be used, once the
/// network config is known.
fn lease_record(
    stored: &Stored,
    own: Option<LeaseKey>,
    rejection: Option<Rejection>,
) -> wire::LeaseRecord {
    let record = &stored.record;
    let key = record.key.parse::<LeaseKey>();
    let lease = key.clone().ok().map(|key| record.lease(key));
    let problem = match (&key, &lease) {
        (Err(error), _) => Some(error.to_string()),
        (_, Some(Err(error))) => Some(error.to_string()),
        _ => rejection.map(|rejection| rejection.to_string()),
    };
    let lease = lease.and_then(Result::ok);
    wire::LeaseRecord {
        key: one_line(&record.key, REASON_LIMIT),
        node_id: lease.as_ref().and_then(|lease| lease.node_id.as_ref().map(ToString::to_string)),
        node_name: lease.as_ref().and_then(|lease| lease.node_name.clone()),
        public_addresses: lease.iter().flat_map(Lease::public_addresses).collect(),
        backend: lease.as_ref().and_then(|lease| lease.backend_type.clone()),
        reservation: stored.is_reservation(),
        own: own.is_some() && key.ok() == own,
        problem,
    }
}

#[cfg(test)]
mod tests;
