//! The status as Prometheus metrics: OpenMetrics text, version 1.0.
//!
//! Nothing is counted here except time: each answer is computed from one [`Status`] and
//! [`Timings`]. `docs/metrics.md` has a line for each metric, which a test compares with these.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use heddle_control::{Peer, PeerCounts, PeerState, Plugin, Status};
use heddle_core::host_network::Conflict;
use heddle_core::text::one_line;
use heddle_packet::{Counter as PacketCounter, CounterKind};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

/// Maximum number of peers with series of their own. Beyond it, only the numbers of peers by state
/// are exported: one series per peer on each node would be quadratic in the number of nodes.
pub const PEERS_BY_NAME: usize = 200;

/// Length limit of untrusted label values, in characters.
const LABEL_LIMIT: usize = 120;

/// Durations of the daemon's work. Clones share the same histograms.
#[derive(Clone, Debug)]
pub struct Timings {
    plan: Histogram,
    apply: Histogram,
}

impl Default for Timings {
    fn default() -> Self {
        // From half a millisecond, each four times the one before, to 33 s.
        let buckets = || Histogram::new(exponential_buckets(0.0005, 4.0, 9));
        Self { plan: buckets(), apply: buckets() }
    }
}

impl Timings {
    /// Records the duration of a plugin's planning.
    pub fn planned(&self, took: Duration) {
        self.plan.observe(took.as_secs_f64());
    }

    /// Records the duration of changes to the kernel.
    pub fn applied(&self, took: Duration) {
        self.apply.observe(took.as_secs_f64());
    }
}

/// Returns all metrics as OpenMetrics text.
pub fn metrics(status: &Status, timings: &Timings) -> String {
    let mut all = Exposition(Registry::with_prefix("heddle"));
    node(&mut all, status);
    store(&mut all, status);
    work(&mut all, status, timings);
    plugins(&mut all, status);
    if let Some(packets) = &status.packets {
        packet_path(&mut all, packets);
    }
    peers(&mut all, &status.peers, status.unlisted);
    let mut text = String::new();
    encode(&mut text, &all.0).expect("a string takes everything");
    text
}

fn node(all: &mut Exposition, status: &Status) {
    let labels = vec![("version", status.version.clone()), ("network", short(&status.network))];
    all.0.register("build", "Version of the daemon and name of its network", Info::new(labels));
    all.seconds("uptime", "Time since the start of the daemon", status.uptime);
    all.one("ready", "1 if all conditions of readiness are met, else 0", truth(status.ready));
    let conditions = status.conditions.iter().map(|name| {
        let met = status.unmet.iter().all(|unmet| unmet.condition != *name);
        ([("condition", name.replace(' ', "_"))], truth(met))
    });
    all.gauges("condition_met", "1 if this condition of readiness is met, else 0", conditions);
}

fn store(all: &mut Exposition, status: &Status) {
    if let Some(lease) = &status.lease {
        if let Some(remaining) = lease.remaining {
            let help = "Time until this node's lease expires unless it is renewed; absent for a reservation";
            all.seconds("lease_remaining", help, remaining);
        }
        all.seconds(
            "lease_age",
            "Time since this node's lease was acquired or last renewed",
            lease.age,
        );
    }
    all.one(
        "config_superseded",
        "1 if the stored network config differs from the running one or is missing, else 0",
        truth(status.superseded.is_some()),
    );
    if let Some(watch) = &status.watch {
        all.seconds("watch_lag", "Time since the last message from the store", watch.lag);
        let stale = truth(watch.stale.is_some());
        all.one(
            "watch_stale",
            "1 if the watch delivers no lease changes at present, else 0",
            stale,
        );
    }
}

fn work(all: &mut Exposition, status: &Status, timings: &Timings) {
    let changes = &status.changes;
    let counted = [
        ("put", changes.put),
        ("replaced", changes.replaced),
        ("removed", changes.removed),
        ("refused", changes.refused),
    ];
    let counted = counted.map(|(change, count)| ([("change", change.to_owned())], count));
    all.counters(
        "kernel_changes",
        "Changes of kernel objects, including those that the kernel refused",
        counted,
    );
    let repairs = changes.repairs.iter().map(|(kind, count)| ([("kind", kind.clone())], *count));
    all.counters("drift_repairs", "Kernel changes that repaired drift, by kind of object", repairs);
    let help = "Time to plan a batch of peers";
    all.histogram("plan_duration", help, &timings.plan);
    let help = "Time to apply a batch of changes to the kernel";
    all.histogram("apply_duration", help, &timings.apply);
}

fn plugins(all: &mut Exposition, status: &Status) {
    // Two emitters may be the same plugin with different settings.
    let emitters = status.emitters.iter().enumerate();
    let emitters =
        emitters.map(|(place, emitter)| (format!("emitter-{}", place + 1), &emitter.plugin));
    let backend = status.backend.iter().map(|plugin| ("backend".to_owned(), plugin));
    let plugins: Vec<_> = backend.chain(emitters).collect();
    let counted = |count: fn(&Plugin) -> u64| {
        plugins.iter().map(move |(role, plugin)| {
            ([("plugin", short(&plugin.name)), ("role", role.clone())], count(plugin))
        })
    };
    all.counters("plugin_calls", "Plugin calls, including failed ones", counted(|p| p.calls));
    let help = "Plugin calls that trapped, timed out or exceeded the memory limit";
    all.counters("plugin_failures", help, counted(|p| p.failures));
    all.counters("plugin_refusals", "Plugin answers that heddled refused", counted(|p| p.refusals));
    let time = Family::<_, Counter<f64, AtomicU64>>::default();
    for (role, plugin) in &plugins {
        let labels = [("plugin", short(&plugin.name)), ("role", role.clone())];
        time.get_or_create(&labels).inc_by(plugin.seconds);
    }
    all.0.register_with_unit("plugin_call", "Time spent in plugin calls", Unit::Seconds, time);
}

/// Adds the counters of the daemon's own packet path.
fn packet_path(all: &mut Exposition, counters: &BTreeMap<String, u64>) {
    let of_kind = |kind| {
        let is_of_kind = move |counter: PacketCounter| counter.kind() == kind;
        counters.iter().filter(move |(name, _)| PacketCounter::named(name).is_some_and(is_of_kind))
    };
    let traffic = |suffix: &'static str| {
        of_kind(CounterKind::Traffic).filter_map(move |(name, count)| {
            Some(([("direction", name.strip_suffix(suffix)?.to_owned())], *count))
        })
    };
    let labelled = |kind, label: &'static str| {
        of_kind(kind).map(move |(name, count)| ([(label, name.clone())], *count))
    };
    all.counters("packets", "Packets carried by the daemon's packet path", traffic("_packets"));
    let help = "Bytes in the packets carried by the daemon's packet path";
    all.counters_in(Unit::Bytes, "packets", help, traffic("_bytes"));
    let help = "Packets dropped by the daemon's packet path";
    all.counters("packets_dropped", help, labelled(CounterKind::Drop, "reason"));
    let help = "Other events in the packet path, such as fragmentation and ICMP errors";
    all.counters("packet_events", help, labelled(CounterKind::Event, "event"));
}

fn peers(all: &mut Exposition, peers: &[Peer], unlisted: u64) {
    let states =
        [PeerState::InKernel, PeerState::Incomplete, PeerState::NoPlan, PeerState::NotUsed];
    let count = |state| {
        let listed = peers.iter().filter(|peer| peer.state == state).count() as u64;
        listed + if state == PeerState::NotUsed { unlisted } else { 0 }
    };
    let counted = states.map(|state| ([("state", state.name().to_owned())], count(state) as f64));
    all.gauges("peers", "Records of other nodes by state", counted);
    let rejected = count(PeerState::NotUsed);
    all.one("records_rejected", "Records of other nodes that are rejected", rejected as f64);
    let conflicts = Conflict::KINDS.map(|kind| {
        let count = peers.iter().filter(|peer| peer.conflict.as_deref() == Some(kind)).count();
        ([("reason", kind.to_owned())], count as f64)
    });
    let help = "Leases that are not programmed because they conflict with the host network";
    all.gauges("lease_conflicts", help, conflicts);
    reachability(all, peers);
    if peers.len() <= PEERS_BY_NAME {
        single_peers(all, peers);
    }
}

/// Exports the numbers of peers with faults, in clusters of any size.
fn reachability(all: &mut Exposition, peers: &[Peer]) {
    let probed: Vec<_> = peers.iter().filter_map(|peer| peer.health).collect();
    all.one("peers_probed", "Peers that are probed", probed.len() as f64);
    if !probed.is_empty() {
        let silent = probed.iter().filter(|health| !health.reachable).count();
        all.one("peers_unreachable", "Peers that do not answer probes", silent as f64);
    }
    let faulty = PeerCounts::of(peers).faulty();
    all.one("peers_faulty", "Peers with a fault, each counted once", faulty as f64);
}

/// Exports series for each peer.
fn single_peers(all: &mut Exposition, peers: &[Peer]) {
    let info = peers.iter().map(|peer| {
        let address = peer.public_addresses.first().map(ToString::to_string);
        let labels = [
            ("peer", short(&peer.key)),
            ("node", short(peer.node_name.as_deref().unwrap_or_default())),
            ("public_address", address.unwrap_or_default()),
            ("backend", short(peer.backend.as_deref().unwrap_or_default())),
            ("state", peer.state.name().to_owned()),
        ];
        (labels, 1.0)
    });
    let help = "Record of another node, always 1; absent with more than 200 records";
    all.gauges("peer_info", help, info);
    let conflict = |peer: &Peer| {
        let reason = ("reason", peer.conflict.clone()?);
        Some(([("peer", short(&peer.key)), reason], 1.0))
    };
    let help =
        "Lease that conflicts with the host network, always 1; absent with more than 200 records";
    all.gauges("lease_conflict_info", help, peers.iter().filter_map(conflict));
    let health = |peer: &Peer| Some(([("peer", short(&peer.key))], peer.health?));
    let asked: Vec<_> = peers.iter().filter_map(health).collect();
    let reachable = asked.iter().map(|(peer, health)| (peer.clone(), truth(health.reachable)));
    all.gauges("peer_reachable", "1 if the peer answers probes, else 0", reachable);
    let trips = asked.iter().filter_map(|(peer, health)| {
        Some((peer.clone(), Duration::from_micros(health.rtt_micros?).as_secs_f64()))
    });
    all.gauges_in(Unit::Seconds, "peer_rtt", "Round-trip time of probes to the peer", trips);
    let loss = asked.iter().map(|(peer, health)| (peer.clone(), health.loss_percent / 100.0));
    all.gauges_in(
        Unit::Other("ratio".to_owned()),
        "peer_loss",
        "Share of probes to the peer without a reply, 0 to 1",
        loss,
    );
}

fn truth(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn short(text: &str) -> String {
    one_line(text, LABEL_LIMIT)
}

type Labels<const N: usize> = [(&'static str, String); N];

/// The metrics to be exported.
struct Exposition(Registry);

impl Exposition {
    fn add(&mut self, unit: Option<Unit>, name: &str, help: &str, metric: impl Metric) {
        match unit {
            Some(unit) => self.0.register_with_unit(name, help, unit, metric),
            None => self.0.register(name, help, metric),
        }
    }

    fn one(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        self.add(None, name, help, gauge);
    }

    fn seconds(&mut self, name: &str, help: &str, value: u64) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value as f64);
        self.add(Some(Unit::Seconds), name, help, gauge);
    }

    fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<N>, f64)>,
    ) {
        self.add(None, name, help, gauges(series));
    }

    fn gauges_in<const N: usize>(
        &mut self,
        unit: Unit,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<N>, f64)>,
    ) {
        self.add(Some(unit), name, help, gauges(series));
    }

    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<N>, u64)>,
    ) {
        self.add(None, name, help, counters(series));
    }

    fn counters_in<const N: usize>(
        &mut self,
        unit: Unit,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<N>, u64)>,
    ) {
        self.add(Some(unit), name, help, counters(series));
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.add(Some(Unit::Seconds), name, help, histogram.clone());
    }
}

fn gauges<const N: usize>(
    series: impl IntoIterator<Item = (Labels<N>, f64)>,
) -> Family<Labels<N>, Gauge<f64, AtomicU64>> {
    let family = Family::<_, Gauge<f64, AtomicU64>>::default();
    for (labels, value) in series {
        family.get_or_create(&labels).set(value);
    }
    family
}

fn counters<const N: usize>(
    series: impl IntoIterator<Item = (Labels<N>, u64)>,
) -> Family<Labels<N>, Counter> {
    let family = Family::<_, Counter>::default();
    for (labels, value) in series {
        family.get_or_create(&labels).inc_by(value);
    }
    family
}

#[cfg(test)]
mod tests;
