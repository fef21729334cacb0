//! The daemon's life: join, make the plan hold, write the files, and keep all of it until told to stop.

use std::sync::Arc;
use std::time::Duration;

use heddle_core::retry::Backoff;
use heddle_flags::Flags;
use heddle_kernel::Kernel;
use heddle_plugin::{Catalogue, Emitter, PluginError, Setting, View};
use heddle_store::{LeaseStore, Watch, WatchEvent, keep};
use tokio::sync::Notify;

use crate::Fatal;
use crate::files;
use crate::health::PacketCounters;
use crate::join::{Identity, Membership, Obstacle, identity, join};
use crate::readiness::{Condition, Readiness};
use crate::reconcile::Reconciler;

/// How often a network config that cannot be used is read again.
const CONFIG_RETRY: Duration = Duration::from_secs(1);

/// How often a plugin is looked for again: as often as the config, but less and less often if it has to be compiled.
const COMPILE_BACKOFF: Backoff = Backoff { initial: CONFIG_RETRY, limit: Duration::from_secs(60) };

/// How often files that cannot be written are tried again.
const EMIT_BACKOFF: Backoff =
    Backoff { initial: Duration::from_millis(200), limit: Duration::from_secs(30) };

/// Runs the node. Returns only with a reason to end.
///
/// # Errors
///
/// What only another start, or an operator, can put right.
pub(crate) async fn serve(
    flags: &Flags,
    readiness: &Readiness,
    counters: &PacketCounters,
) -> Result<(), Fatal> {
    warn_about_missing(flags);
    let identity = identity(flags)?;
    tracing::info!("node id {}", identity.id);
    let store = flags.lease.store.open(flags.lease.etcd_options())?;
    let kernel = Kernel::open()?;
    let member = until_joined(flags, &identity, &store, &kernel, readiness).await?;

    let Membership { overlay, own, emitter } = member;
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
    let mut reconciler = Reconciler::new(kernel, overlay).await?;
    let keeping = keep(store.as_ref(), own, flags.lease.renew_margin(), &own_lease_changed);
    let working = async {
        if first_plan(&mut watch, &mut reconciler, readiness).await? {
            own_lease_changed.notify_one();
        }
        let emitting = emit(flags, &emitter, &view, readiness);
        let following = reconciler.follow(&mut watch, &own_lease_changed, readiness);
        tokio::try_join!(emitting, following).map(|_| ())
    };
    tokio::select! {
        ended = working => ended,
        lost = keeping => Err(lost.into()),
    }
}

/// Says what was asked for and is not done.
fn warn_about_missing(flags: &Flags) {
    let rules = &flags.rules;
    let asked = [
        ("--ip-masq", rules.ip_masq),
        ("--ip-masq-fully-random-disable", rules.ip_masq_fully_random_disable),
        ("--ip-blackhole-route", rules.ip_blackhole_route),
    ];
    if rules.iptables_forward_rules {
        tracing::info!(
            "this version programs no traffic rules: where the policy of FORWARD is DROP, \
             accept the overlay's network there"
        );
    }
    for (flag, _) in asked.iter().filter(|(_, asked)| *asked) {
        tracing::warn!("{flag}: this version programs no traffic rules yet");
    }
    if rules.ip_masq {
        tracing::warn!(
            "--ip-masq: subnet.env tells Docker not to masquerade, so containers reach nothing outside \
             the overlay unless you masquerade what leaves it"
        );
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
    let catalogue = Arc::new(catalogue);
    let mut compiled_in_vain = 0;
    loop {
        let (condition, reason, pause) =
            match join(flags, identity, &catalogue, store, kernel).await {
                Ok(member) => {
                    readiness.met(Condition::Config);
                    readiness.met(Condition::Lease);
                    readiness.met(Condition::Packets);
                    return Ok(member);
                }
                Err(Obstacle::Config(reason)) => (Condition::Config, reason, CONFIG_RETRY),
                Err(Obstacle::Plugin(error)) => {
                    compiled_in_vain += u32::from(matches!(error, PluginError::Compile { .. }));
                    let pause = COMPILE_BACKOFF.delay(compiled_in_vain);
                    (Condition::Config, error.to_string(), pause)
                }
                Err(Obstacle::Lease(reason)) => {
                    readiness.met(Condition::Config);
                    (Condition::Lease, reason, CONFIG_RETRY)
                }
                Err(Obstacle::Packets(error)) => {
                    readiness.met(Condition::Config);
                    readiness.met(Condition::Lease);
                    (Condition::Packets, error.to_string(), CONFIG_RETRY)
                }
                Err(Obstacle::Fatal(error)) => return Err(error),
            };
        // Asked for every second, said only when it is news.
        if readiness.unmet(condition, &reason) {
            tracing::error!("{condition}: {reason}");
        }
        tokio::time::sleep(pause).await;
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
            WatchEvent::Stale { reason } => {
                readiness.unmet(Condition::Watch, reason);
            }
        }
    }
}

/// Has the emitters' files written once the plan holds, for as long as it takes.
async fn emit(
    flags: &Flags,
    emitter: &Emitter,
    view: &View,
    readiness: &Readiness,
) -> Result<(), Fatal> {
    let path = flags.files.subnet_file.display().to_string();
    let settings = [Setting { name: "path".to_owned(), value: path }];
    let mut conditions = readiness.subscribe();
    conditions.wait_for(|unmet| !unmet.contains_key(&Condition::Kernel)).await?;
    let mut failures = 0;
    while let Err(reason) = emit_once(emitter, view, &settings).await {
        if readiness.unmet(Condition::Emitters, &reason) {
            tracing::error!("{reason}");
        }
        failures += 1;
        tokio::time::sleep(EMIT_BACKOFF.delay(failures)).await;
    }
    readiness.met(Condition::Emitters);
    Ok(())
}

async fn emit_once(emitter: &Emitter, view: &View, settings: &[Setting]) -> Result<(), String> {
    let files = emitter.emit(view, settings).await.map_err(|error| error.to_string())?;
    for file in files {
        let written = files::write(&file.path, &file.contents, file.mode);
        if written.map_err(|error| error.to_string())? {
            tracing::info!("wrote {}", file.path.display());
        }
    }
    Ok(())
}
