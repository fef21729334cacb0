//! The daemon's life: join, make the plan hold, write the files, and keep all of it until told to stop.

use std::sync::Arc;
use std::time::Duration;

use heddle_core::retry::Backoff;
use heddle_kernel::Kernel;
use heddle_plugin::{Emitter, Setting, View};
use heddle_store::{LeaseStore, StoreConfig, Watch, WatchEvent, keep};
use tokio::sync::Notify;

use crate::Fatal;
use crate::files;
use crate::flags::Flags;
use crate::join::{Identity, Membership, Obstacle, identity, join};
use crate::readiness::{Condition, Readiness};
use crate::reconcile::Reconciler;

/// How often a network config that cannot be used is read again.
const CONFIG_RETRY: Duration = Duration::from_secs(1);

/// How often files that cannot be written are tried again.
const EMIT_BACKOFF: Backoff =
    Backoff { initial: Duration::from_millis(200), limit: Duration::from_secs(30) };

/// Runs the node. Returns only with a reason to end.
///
/// # Errors
///
/// What only another start, or an operator, can put right.
pub(crate) async fn serve(flags: &Flags, readiness: &Readiness) -> Result<(), Fatal> {
    warn_about_missing(flags);
    let identity = identity(flags)?;
    tracing::info!("node id {}", identity.id);
    let store = flags.lease.store.open(flags.lease.etcd_options())?;
    let kernel = Kernel::open()?;
    let member = until_joined(flags, &identity, &store, &kernel, readiness).await?;

    let Membership { overlay, own, emitter } = member;
    let view = View {
        config: overlay.config.clone(),
        lease: overlay.lease.clone(),
        mtu: overlay.plan.mtu,
        ip_masq: flags.rules.ip_masq,
    };
    // Listening starts before looking, so that nothing falls between the two.
    let mut watch = store.watch();
    let own_lease_changed = Notify::new();
    let mut reconciler = Reconciler::new(kernel, overlay, network_label(flags)).await?;
    let keeping = keep(store.as_ref(), own, flags.lease.renew_margin(), &own_lease_changed);
    let working = async {
        first_plan(&mut watch, &mut reconciler, readiness).await?;
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
}

/// What marks this daemon's devices.
fn network_label(flags: &Flags) -> String {
    match flags.lease.store {
        StoreConfig::Etcd => format!("heddle {}", flags.lease.network_name()),
        StoreConfig::Directory(_) => format!("heddle dir:{}", flags.lease.network_name()),
    }
}

async fn until_joined(
    flags: &Flags,
    identity: &Identity,
    store: &Arc<dyn LeaseStore>,
    kernel: &Kernel,
    readiness: &Readiness,
) -> Result<Membership, Fatal> {
    loop {
        let (condition, reason) = match join(flags, identity, store, kernel).await {
            Ok(member) => {
                readiness.met(Condition::Config);
                readiness.met(Condition::Lease);
                return Ok(member);
            }
            Err(Obstacle::Config(reason)) => (Condition::Config, reason),
            Err(Obstacle::Lease(reason)) => {
                readiness.met(Condition::Config);
                (Condition::Lease, reason)
            }
            Err(Obstacle::Fatal(error)) => return Err(error),
        };
        // Asked for every second, said only when it is news.
        if readiness.unmet(condition, &reason) {
            tracing::error!("{condition}: {reason}");
        }
        tokio::time::sleep(CONFIG_RETRY).await;
    }
}

/// Puts the first complete plan into the kernel.
async fn first_plan(
    watch: &mut Watch,
    reconciler: &mut Reconciler,
    readiness: &Readiness,
) -> Result<(), Fatal> {
    loop {
        match watch.next().await.ok_or("the watch of the leases has ended")? {
            WatchEvent::Update(update) => {
                readiness.met(Condition::Watch);
                reconciler.start(update, readiness).await;
                return Ok(());
            }
            WatchEvent::Stale { reason } => {
                readiness.unmet(Condition::Watch, reason);
            }
        }
    }
}

/// Has the emitters' files written, for as long as it takes.
async fn emit(
    flags: &Flags,
    emitter: &Emitter,
    view: &View,
    readiness: &Readiness,
) -> Result<(), Fatal> {
    let path = flags.files.subnet_file.display().to_string();
    let settings = [Setting { name: "path".to_owned(), value: path }];
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
