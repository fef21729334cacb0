//! The node's life: it joins, applies the plan, writes the files, and keeps all of that until it
//! is stopped.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use heddle_core::join_backoff::{Failure, JoinBackoff};
use heddle_flags::Flags;
use heddle_plugin::View;
use heddle_store::{
    LeaseStore, OwnLease, Reach, StoreError, Term, Watch, WatchEvent, keep, release,
};
use heddle_telemetry::Notes;
use tokio::sync::{Notify, mpsc};

use crate::Fatal;
use crate::clock;
use crate::emit::emit;
use crate::host_network::{clear_leftovers, follow_store};
use crate::join::{Halt, Identity, Membership, Overlay, Warned, alias, join, unmet_by_call};
use crate::missing_config::MissingConfig;
use crate::packets::PacketCounters;
use crate::ports::Ports;
use crate::probing::Probing;
use crate::readiness::{self, Condition, Readiness};
use crate::reconcile::{Query, Reconciler};
use crate::rules;
use crate::status::NodeState;
use crate::underlay::{self, Moved};

/// Timeout for releasing the lease at the end. The store may have become unreachable together with
/// the address.
const GIVE_UP_LIMIT: Duration = Duration::from_secs(15);

/// Capacity of the queue of queries to the loop. Further callers wait.
const QUERIES: usize = 8;

/// A node that has not started yet. Its readiness, counters, status and history can already be
/// observed.
pub struct Node {
    flags: Flags,
    readiness: Readiness,
    counters: PacketCounters,
    state: Arc<NodeState>,
    queries: mpsc::Receiver<Query>,
    notes: Notes,
}

impl Node {
    /// Creates a node without reading or changing anything. No condition holds yet.
    pub fn new(flags: Flags) -> Self {
        let readiness = Readiness::new();
        let counters = PacketCounters::default();
        let notes = Notes::default();
        let (ask, queries) = mpsc::channel(QUERIES);
        let network = flags.lease.network_name();
        let history = notes.history.clone();
        let unmet = readiness.subscribe();
        let state = NodeState::new(network, unmet, counters.clone(), history, ask);
        Self { flags, readiness, counters, state: Arc::new(state), queries, notes }
    }

    /// Returns the node's readiness.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Returns the counters of the packet path.
    pub fn counters(&self) -> &PacketCounters {
        &self.counters
    }

    /// Returns the node's state, which answers on the control socket.
    pub fn state(&self) -> &Arc<NodeState> {
        &self.state
    }

    /// Returns the node's history and timings.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Runs the node. Returns only if it has to end.
    ///
    /// # Errors
    ///
    /// The reason why the node ends, which only a restart or an operator can fix.
    pub async fn run(self, identity: Identity, ports: Ports) -> Result<Infallible, Fatal> {
        let Self { flags, readiness, counters, state, queries, notes } = self;
        readiness::chronicle(readiness.subscribe(), notes.history.clone());
        state.learn(identity.clone(), ports.store.clone());
        let observers = Observers { readiness: &readiness, counters: &counters, state: &state };
        serve(&flags, &identity, &ports, observers, queries, notes).await
    }
}

/// The parts that observe the node's progress.
#[derive(Clone, Copy)]
struct Observers<'a> {
    readiness: &'a Readiness,
    counters: &'a PacketCounters,
    state: &'a NodeState,
}

async fn serve(
    flags: &Flags,
    identity: &Identity,
    ports: &Ports,
    observers: Observers<'_>,
    queries: mpsc::Receiver<Query>,
    notes: Notes,
) -> Result<Infallible, Fatal> {
    let Observers { readiness, counters, state } = observers;
    let Ports { store, dataplane, host, .. } = ports;
    let (member, reach) = until_joined(flags, identity, ports, readiness).await?;
    let rules = rules::wanted(flags, &member.overlay.planned.site);
    state.join(&member, &rules, dataplane.clone());

    let Membership { overlay, own, outputs, .. } = member;
    if let Some(packets) = &overlay.packets {
        // The node joins once, so there is only one path.
        counters.get_or_init(|| packets.counters());
    }
    let (view, site) = (view(&overlay, flags), overlay.planned.site.clone());
    // Starts to watch before the first read, so that no change is missed between the two.
    let mut watch = store.watch();
    state.follow(watch.pulse());
    let own_lease_changed = Notify::new();
    let probing = Probing::start(host.as_ref(), flags.control.probe_interval, &overlay)?;
    let store_addresses = follow_store(store.clone(), reach);
    let history = notes.history.clone();
    let mut reconciler =
        Reconciler::new(dataplane.clone(), overlay, probing, store_addresses, queries, notes)
            .await?;
    let margin = flags.lease.renew_margin();
    let held = own.clone();
    let told = |term: Result<Term, &StoreError>| match term {
        Ok(term) => {
            state.hold(term);
            readiness.met(Condition::Lease);
        }
        Err(error) => {
            readiness.unmet(Condition::Lease, format!("keeping {}: {error}", held.key()));
        }
    };
    let keeping = keep(store.as_ref(), own, margin, &own_lease_changed, told);
    let resync = Duration::from_secs(flags.rules.iptables_resync);
    let working = async {
        if first_plan(&mut watch, &mut reconciler, readiness).await? {
            own_lease_changed.notify_one();
        }
        let changes = reconciler.underlay_changes();
        let looking = underlay::follow(flags, &site, dataplane.as_ref(), changes, readiness);
        let ruling = rules::follow(host.ruleset(rules), resync, readiness, &history);
        let ruling = async { Ok(ruling.await) };
        let emitting = emit(ports.files.as_ref(), &outputs, &view, readiness, &history);
        let following = reconciler.follow(&mut watch, &own_lease_changed, readiness);
        let looking = async { looking.await.map_err(Fatal::from) };
        tokio::try_join!(ruling, looking, emitting, following).map(|(never, ..)| never)
    };
    let ended = tokio::select! {
        biased;
        // First, so that a loop that is always busy keeps no renewal waiting.
        lost = keeping => Err(lost.into()),
        ended = working => ended,
    };
    // The renewal of the lease has ended, so nothing re-creates it after the release.
    if let Err(error) = &ended
        && error.downcast_ref::<Moved>().is_some_and(|moved| moved.readdressed)
    {
        give_up(store.as_ref(), &held).await;
    }
    ended
}

/// Returns the part of the overlay that emitters see.
fn view(overlay: &Overlay, flags: &Flags) -> View {
    View {
        site: overlay.planned.site.clone(),
        mtu: overlay.planned.plan.mtu,
        ip_masq: flags.rules.ip_masq,
    }
}

/// Releases a lease whose addresses are no longer this node's. The next start finds the subnet free
/// and takes it again, with the current addresses.
async fn give_up(store: &dyn LeaseStore, held: &OwnLease) {
    let key = held.key();
    match tokio::time::timeout(GIVE_UP_LIMIT, release(store, held)).await {
        Ok(Ok(true)) => tracing::info!("lease {key}: released; the next start can take it again"),
        Ok(Ok(false)) => {}
        Ok(Err(error)) => {
            tracing::warn!(%error, "lease {key}: cannot be released; leaving it to expire");
        }
        Err(_) => tracing::warn!(
            "lease {key}: cannot be released, because the store does not answer; leaving it to expire"
        ),
    }
}

async fn until_joined(
    flags: &Flags,
    identity: &Identity,
    ports: &Ports,
    readiness: &Readiness,
) -> Result<(Membership, Reach), Fatal> {
    let Ports { store, dataplane, .. } = ports;
    let (mut backoff, mut reach) = (JoinBackoff::new(), Reach::default());
    let mut warned = Warned::default();
    let remembered = ports.files.subnet_env();
    let mut missing_config = MissingConfig::new(store.clone());
    loop {
        let begun = clock::now();
        // Without the store, nobody could learn that the leases behind these routes are gone.
        reach.look(store.as_ref()).await;
        let addresses = reach.addresses();
        let cleared =
            clear_leftovers(dataplane.as_ref(), &alias(flags), &addresses, &remembered).await;
        if let Err(error) = cleared {
            tracing::error!(%error, "kernel: cannot clear routes of an earlier run; continuing");
        }
        let joined = join(flags, identity, ports, &reach, readiness, &mut warned).await;
        let (condition, reason, failure) = match joined {
            Ok(member) => {
                readiness.met_before(Condition::Kernel);
                return Ok((member, reach));
            }
            Err(Halt::NoConfig(obstacle)) => {
                (Condition::Config, missing_config.explain(&obstacle), Failure::Waiting)
            }
            Err(Halt::Wait { condition, reason }) => (condition, reason, Failure::Waiting),
            Err(Halt::Plugin { condition, reason, compiling }) => {
                let failure = Failure::Plugin { compiling, took: clock::now() - begun };
                (condition, reason, failure)
            }
            Err(Halt::Call { error, took, config }) => {
                let failure = Failure::Answer { question: config, took };
                (unmet_by_call(&error), error.to_string(), failure)
            }
            Err(Halt::Fatal(error)) => return Err(error),
        };
        // Plugins are started together, before anything that comes after them.
        readiness.met_before(match condition {
            Condition::Emitters => Condition::Plugins,
            other => other,
        });
        // Retried every second, but logged only when the reason is new.
        let is_new = readiness.unmet(condition, &reason);
        if is_new {
            tracing::error!("{condition}: {reason}");
        }
        let waiting = tokio::time::sleep(backoff.after(failure, is_new));
        tokio::select! {
            biased;
            () = missing_config.look_elsewhere() => {}
            () = waiting => {}
        }
    }
}

/// Applies the first complete plan. Returns true if this node's own lease is affected.
async fn first_plan(
    watch: &mut Watch,
    reconciler: &mut Reconciler,
    readiness: &Readiness,
) -> Result<bool, Fatal> {
    loop {
        let event = tokio::select! {
            biased;
            () = reconciler.answer_queries() => continue,
            event = watch.next() => event,
        };
        match event.ok_or("the watch of the leases has ended")? {
            WatchEvent::Update(update) => {
                if update.is_complete() {
                    readiness.met(Condition::Watch);
                }
                if let Some(own) = reconciler.start(update, readiness).await {
                    return Ok(own);
                }
            }
            WatchEvent::Config(config) => reconciler.compare_config(config.as_deref()),
            WatchEvent::Stale { reason } => {
                reconciler.abandon_snapshot();
                readiness.unmet(Condition::Watch, reason);
            }
            // No lease is known yet that could be missing.
            WatchEvent::SetBack { .. } => {}
        }
    }
}
