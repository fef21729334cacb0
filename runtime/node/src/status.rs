//! The daemon's answers on the control socket, assembled from what its parts know.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use heddle_control as wire;
use heddle_control::{Handler, Leases, Status, Unavailable};
use heddle_core::config::NetworkConfig;
use heddle_core::host_network::HostNetwork;
use heddle_core::lease::{Lease, LeaseKey, NODE_NAME_LIMIT};
use heddle_core::node::Underlay;
use heddle_core::peers::{Peers, Rejection};
use heddle_core::text::one_line;
use heddle_firewall::{Mode, Rules};
use heddle_kernel::Statistics;
use heddle_plugin::{Metrics, Source};
use heddle_probe::{Health, State};
use heddle_store::{LeaseStore, Page, Pulse, Record, Term};
use heddle_telemetry::History;
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock;
use crate::emit::Output;
use crate::join::{Identity, Membership};
use crate::packets::PacketCounters;
use crate::ports::FoundPlugin;
use crate::readiness::{Condition, Unmet};
use crate::reconcile::{PeerReport, PeerState, Question, Report};

/// Timeout of a question to the loop. The loop answers between two of its steps, and while a plugin
/// computes plans.
const PATIENCE: Duration = Duration::from_secs(5);

/// Maximum length of a reason that is passed on, in characters.
const REASON_LIMIT: usize = 500;

/// Maximum number of unusable records that are listed. The others are counted.
const USELESS: usize = 1000;

/// The state of the daemon that can be queried. More of it is filled in while the daemon starts.
pub struct NodeState {
    started: Instant,
    network: String,
    readiness: watch::Receiver<Unmet>,
    counters: PacketCounters,
    history: History,
    questions: mpsc::Sender<Question>,
    identity: OnceLock<Identity>,
    store: OnceLock<Arc<dyn LeaseStore>>,
    joined: OnceLock<Joined>,
    term: Mutex<Option<Term>>,
    watch: OnceLock<(Instant, Pulse)>,
}

/// The part of the state that is known once the node has joined, and does not change afterwards.
struct Joined {
    config: NetworkConfig,
    lease: Lease,
    mtu: u32,
    underlay: Underlay,
    /// The planned devices: name, kind and MTU.
    devices: Vec<wire::Device>,
    backend: (FoundPlugin, Arc<Metrics>),
    outputs: Vec<(FoundPlugin, Arc<Output>)>,
    rules: Rules,
}

impl NodeState {
    /// Creates the state before the start. Questions are sent to the loop.
    pub(crate) fn new(
        network: String,
        readiness: watch::Receiver<Unmet>,
        counters: PacketCounters,
        history: History,
        questions: mpsc::Sender<Question>,
    ) -> Self {
        Self {
            started: clock::now(),
            network,
            readiness,
            counters,
            history,
            questions,
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
    pub(crate) fn join(&self, member: &Membership, rules: &Rules) {
        let overlay = &member.overlay;
        let devices = overlay.plan.plan.links().map(|link| wire::Device {
            name: link.name.to_string(),
            kind: link.kind.name().to_owned(),
            mtu: link.mtu,
            counters: None,
        });
        let emitters = member.found.emitters.iter().cloned();
        let _ = self.joined.set(Joined {
            config: overlay.config.clone(),
            lease: overlay.lease.clone(),
            mtu: overlay.plan.mtu,
            underlay: overlay.node.underlay.clone(),
            devices: devices.collect(),
            backend: (member.found.backend.clone(), overlay.backend.metrics().clone()),
            outputs: emitters.zip(member.outputs.iter().cloned()).collect(),
            rules: rules.clone(),
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
        self.ask(Question::Alive, limit).await.is_some()
    }

    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Question,
        limit: Duration,
    ) -> Option<T> {
        let (answer, waiting) = oneshot::channel();
        let asking = async {
            self.questions.send(question(answer)).await.ok()?;
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
            node: identity.map_or_else(Default::default, |identity| wire::Node {
                id: identity.id.to_string(),
                name: identity.name.clone(),
            }),
            packets: self.counters.get().and_then(|read| read()).map(|counters| {
                counters.iter().map(|(name, count)| (name.to_owned(), count)).collect()
            }),
            watch: self.watch.get().map(|(begun, pulse)| wire::Watch {
                lag: pulse
                    .last()
                    .map_or_else(
                        || clock::now().saturating_duration_since(*begun),
                        |at| at.elapsed(),
                    )
                    .as_secs(),
                stale: unmet.get(&Condition::Watch).cloned(),
            }),
            events: self.history.events(),
            ..Status::default()
        };
        let Some(joined) = self.joined.get() else { return Ok(status) };
        let report = self.ask(Question::Report, PATIENCE).await;
        match report {
            Some(report) => add_report(&mut status, report),
            None => {
                status.ready = false;
                let reason = format!("it has not answered within {} s", PATIENCE.as_secs());
                status.unmet.push(wire::Unmet { condition: "loop".to_owned(), reason });
            }
        }
        status.underlay = Some(underlay(&joined.underlay));
        status.lease = Some(wire::OwnLease {
            key: joined.lease.key.to_string(),
            subnets: joined.lease.key.subnets().into_iter().collect(),
            backend: joined.lease.backend_type.clone(),
            mtu: joined.mtu,
            ..term(*self.term.lock().unwrap_or_else(PoisonError::into_inner))
        });
        let (found, metrics) = &joined.backend;
        status.backend = Some(plugin(found, metrics));
        status.emitters = joined.outputs.iter().map(emitter).collect();
        status.rules = rules(&joined.rules, &unmet);
        status.devices = devices(&joined.devices);
        Ok(status)
    }

    async fn leases(&self) -> Result<Leases, Unavailable> {
        let store = self.store.get().ok_or_else(|| Unavailable("it starts".to_owned()))?;
        let joined = self.joined.get();
        let host = match joined {
            Some(_) => self.ask(Question::Host, PATIENCE).await.ok_or_else(|| {
                Unavailable(format!(
                    "the daemon's loop has not answered within {} s",
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
            let mut peers = Peers::new(joined.config.clone(), joined.lease.key);
            peers.protect(host);
            peers
        };
        Self {
            own: joined.map(|joined| joined.lease.key),
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
            let rejection = peers.and_then(|peers| peers.add_to_snapshot(&found.as_read()));
            let record = record(found, self.own, rejection);
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
fn term(term: Option<Term>) -> wire::OwnLease {
    let remaining = term.and_then(|term| term.ends).map(|ends| {
        let now = tokio::time::Instant::now();
        ends.saturating_duration_since(now).as_secs()
    });
    let age = term.map_or(0, |term| term.renewed.elapsed().as_secs());
    wire::OwnLease { remaining, age, ..wire::OwnLease::default() }
}

fn underlay(found: &Underlay) -> wire::Underlay {
    wire::Underlay {
        interface: found.link.to_string(),
        mtu: found.mtu,
        public_addresses: found.public_addresses.into_iter().collect(),
    }
}

fn unmet_conditions(unmet: &Unmet) -> Vec<wire::Unmet> {
    let conditions = unmet.iter().map(|(condition, reason)| wire::Unmet {
        condition: condition.to_string(),
        reason: reason.clone(),
    });
    conditions.collect()
}

fn add_report(status: &mut Status, report: Report) {
    let mut peers: BTreeMap<String, wire::Peer> =
        report.peers.into_iter().map(|found| (found.lease.key.to_string(), peer(found))).collect();
    for (key, rejection) in report.rejected {
        let conflict = rejection.conflict().map(|conflict| conflict.kind().to_owned());
        let reason = rejection.to_string();
        match peers.entry(key) {
            // The peer's last usable lease stays in use.
            Entry::Occupied(mut known) => {
                known.get_mut().reason = Some(format!("what is there now is not used: {reason}"));
            }
            Entry::Vacant(unknown) => {
                let key = one_line(unknown.key(), REASON_LIMIT);
                let (state, reason) = (wire::PeerState::NotUsed, Some(reason));
                unknown.insert(wire::Peer {
                    key,
                    state,
                    reason,
                    conflict,
                    ..wire::Peer::default()
                });
            }
        }
    }
    status.peers = peers.into_values().collect();
    status.unlisted = report.rejected_unnamed as u64;
    status.superseded = report.superseded;
    status.warnings = report.warnings;
    let changes = report.changes;
    status.changes = wire::Changes {
        put: changes.put,
        replaced: changes.replaced,
        removed: changes.removed,
        refused: changes.refused,
        repairs: report.repairs.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect(),
    };
}

fn peer(found: PeerReport) -> wire::Peer {
    let (state, reason) = match found.state {
        PeerState::InKernel if found.missing => {
            let reason = "the store has lost its lease, and its node has a while to write it again";
            (wire::PeerState::InKernel, Some(reason.to_owned()))
        }
        PeerState::InKernel if found.lease.is_name_cut() => {
            let reason =
                format!("its NodeName is longer than {NODE_NAME_LIMIT} characters and cut");
            (wire::PeerState::InKernel, Some(reason))
        }
        PeerState::InKernel => (wire::PeerState::InKernel, None),
        PeerState::Incomplete(reason) => (wire::PeerState::Incomplete, Some(reason)),
        PeerState::NoPlan(reason) => (wire::PeerState::NoPlan, Some(reason)),
    };
    let lease = found.lease;
    wire::Peer {
        key: lease.key.to_string(),
        public_addresses: lease.public_addresses().into_iter().collect(),
        node_id: lease.node_id.map(|id| id.to_string()),
        node_name: lease.node_name,
        backend: lease.backend_type,
        changed: seconds(found.changed),
        objects: found.objects as u64,
        state,
        reason: reason.map(|reason| one_line(&reason, REASON_LIMIT)),
        health: found.health.and_then(health),
        conflict: None,
    }
}

/// Returns the health of a probed peer. None as long as there are too few probes to tell.
fn health(found: Health) -> Option<wire::Health> {
    let reachable = match found.state {
        State::Unknown => return None,
        State::Reachable => true,
        State::Unreachable => false,
    };
    Some(wire::Health {
        reachable,
        rtt_micros: found
            .round_trip
            .map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        loss_percent: found.loss * 100.0,
        since: seconds(found.since),
    })
}

/// Returns the seconds since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn plugin(found: &FoundPlugin, metrics: &Metrics) -> wire::Plugin {
    wire::Plugin {
        name: found.manifest.name.clone(),
        version: found.manifest.version.to_string(),
        source: match &found.source {
            Source::File(path) => wire::Source::Path(path.clone()),
            Source::Embedded => wire::Source::BuiltIn,
        },
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
            Mode::Iptables => wire::Mode::Iptables,
            Mode::Nftables => wire::Mode::Nftables,
        },
        masquerade: asked.masquerade.is_some(),
        forward: asked.forward,
        problem: unmet.get(&Condition::Rules).cloned(),
    })
}

fn devices(planned: &[wire::Device]) -> Vec<wire::Device> {
    let statistics = heddle_kernel::statistics().unwrap_or_default();
    let count = |device: &wire::Device| {
        let name = device.name.parse().ok()?;
        statistics.get(&name).map(|found: &Statistics| wire::Counters {
            rx_packets: found.rx_packets,
            rx_bytes: found.rx_bytes,
            rx_errors: found.rx_errors,
            rx_dropped: found.rx_dropped,
            tx_packets: found.tx_packets,
            tx_bytes: found.tx_bytes,
            tx_errors: found.tx_errors,
            tx_dropped: found.tx_dropped,
        })
    };
    planned
        .iter()
        .map(|device| wire::Device { counters: count(device), ..device.clone() })
        .collect()
}

/// Describes a record of the store. `rejection` is the reason why it cannot be used, once the
/// network config is known.
fn record(found: &Record, own: Option<LeaseKey>, rejection: Option<Rejection>) -> wire::Record {
    let key = found.key.parse::<LeaseKey>();
    let lease = key.clone().ok().map(|key| found.as_read().lease(key));
    let problem = match (&key, &lease) {
        (Err(error), _) => Some(error.to_string()),
        (_, Some(Err(error))) => Some(error.to_string()),
        _ => rejection.map(|rejection| rejection.to_string()),
    };
    let lease = lease.and_then(Result::ok);
    wire::Record {
        key: one_line(&found.key, REASON_LIMIT),
        node_id: lease.as_ref().and_then(|lease| lease.node_id.as_ref().map(ToString::to_string)),
        node_name: lease.as_ref().and_then(|lease| lease.node_name.clone()),
        public_addresses: lease.iter().flat_map(Lease::public_addresses).collect(),
        backend: lease.as_ref().and_then(|lease| lease.backend_type.clone()),
        reservation: found.is_reservation(),
        own: own.is_some() && key.ok() == own,
        problem,
    }
}

#[cfg(test)]
mod tests;
