//! The daemon's life: join, make the plan hold, write the files, and keep all of it until told to stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use heddle_core::patience::{InVain, Patience};
use heddle_flags::Flags;
use heddle_kernel::Kernel;
use heddle_plugin::{Catalogue, PluginError, View};
use heddle_store::{LeaseStore, Watch, WatchEvent, keep};
use tokio::sync::{Notify, mpsc};

use crate::Fatal;
use crate::control::Facts;
use crate::emit::emit;
use crate::health::PacketCounters;
use crate::join::{Identity, Membership, Obstacle, identity, join};
use crate::readiness::{Condition, Readiness};
use crate::reconcile::{Question, Reconciler};
use crate::rules;

/// Runs the node. Returns only with a reason to end.
///
/// # Errors
///
/// What only another start, or an operator, can put right.
pub(crate) async fn serve(
    flags: &Flags,
    readiness: &Readiness,
    counters: &PacketCounters,
    facts: &Facts,
    questions: mpsc::Receiver<Question>,
) -> Result<(), Fatal> {
    let identity = identity(flags)?;
    tracing::info!("node id {}", identity.id);
    let store = flags.lease.store.open(flags.lease.etcd_options())?;
    facts.learn(identity.clone(), store.clone());
    let kernel = Kernel::open()?;
    let member = until_joined(flags, &identity, &store, &kernel, readiness).await?;
    let rules = rules::rules(flags, &member.overlay.config, &member.overlay.lease);
    facts.join(&member, &rules);

    let Membership { overlay, own, outputs, .. } = member;
    if let Some(packets) = &overlay.packets {
        // Joined once, so there is but one path.
        counters.get_or_init(|| Box::new(packets.counters()));
    }
    let view = View {
        config: overlay.config.clone(),
        lease: overlay.lease.clone(),
        mtu: overlay.plan.mtu,
        ip_masq: flags.rules.ip_masq,
    };
    // Listening starts before looking, so that nothing falls between the two.
    let mut watch = store.watch();
    let own_lease_changed = Notify::new();
    let mut reconciler = Reconciler::new(kernel.clone(), overlay, questions).await?;
    let keeping = keep(store.as_ref(), own, flags.lease.renew_margin(), &own_lease_changed);
    let resync = Duration::from_secs(flags.rules.iptables_resync);
    let working = async {
        if first_plan(&mut watch, &mut reconciler, readiness).await? {
            own_lease_changed.notify_one();
        }
        let ruling = rules::follow(rules, &kernel, resync, readiness);
        let emitting = emit(&outputs, &view, readiness);
        let following = reconciler.follow(&mut watch, &own_lease_changed, readiness);
        tokio::try_join!(ruling, emitting, following).map(|_| ())
    };
    tokio::select! {
        ended = working => ended,
        lost = keeping => Err(lost.into()),
    }
}

async fn until_joined(
    flags: &Flags,
    identity: &Identity,
    store: &Arc<dyn LeaseStore>,
    kernel: &Kernel,
    readiness: &Readiness,
) -> Result<Membership, Fatal> {
    let files = &flags.files;
    let catalogue = Catalogue::new(files.plugin_dir.clone(), None, files.cache_dir.clone())?;
    let catalogue = Arc::new(catalogue.with_policy(files.plugin_policy.clone()));
    let mut patience = Patience::new();
    loop {
        let begun = Instant::now();
        let (condition, reason, in_vain) =
            match join(flags, identity, &catalogue, store, kernel).await {
                Ok(member) => {
                    readiness.met(Condition::Config);
                    readiness.met(Condition::Lease);
                    readiness.met(Condition::Packets);
                    return Ok(member);
                }
                Err(Obstacle::Config(reason)) => (Condition::Config, reason, InVain::Waiting),
                Err(Obstacle::Plugin(error)) => {
                    let compiling = matches!(error, PluginError::Compile { .. });
                    let in_vain = InVain::Plugin { compiling, took: begun.elapsed() };
                    (Condition::Config, error.to_string(), in_vain)
                }
                Err(Obstacle::Call { error, took, config }) => {
                    let in_vain = InVain::Answer { question: config, took };
                    (Condition::Config, error.to_string(), in_vain)
                }
                Err(Obstacle::Lease(reason)) => {
                    readiness.met(Condition::Config);
                    (Condition::Lease, reason, InVain::Waiting)
                }
                Err(Obstacle::Packets(error)) => {
                    readiness.met(Condition::Config);
                    readiness.met(Condition::Lease);
                    (Condition::Packets, error.to_string(), InVain::Waiting)
                }
                Err(Obstacle::Fatal(error)) => return Err(error),
            };
        // Asked for every second, said only when it is news.
        let news = readiness.unmet(condition, &reason);
        if news {
            tracing::error!("{condition}: {reason}");
        }
        tokio::time::sleep(patience.after(in_vain, news)).await;
    }
}

/// Puts the first plan into the kernel. Returns whether this node's own lease is concerned.
async fn first_plan(
    watch: &mut Watch,
    reconciler: &mut Reconciler,
    readiness: &Readiness,
) -> Result<bool, Fatal> {
    loop {
        match watch.next().await.ok_or("the watch of the leases has ended")? {
            WatchEvent::Update(update) => {
                readiness.met(Condition::Watch);
                return Ok(reconciler.start(update, readiness).await);
            }
            WatchEvent::Config(config) => reconciler.compare_config(config.as_deref()),
            WatchEvent::Stale { reason } => {
                readiness.unmet(Condition::Watch, reason);
            }
        }
    }
}
