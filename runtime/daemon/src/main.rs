//! `heddled`, the node daemon: wires the store, the plugins and the kernel together.
//!
//! | module | job |
//! | --- | --- |
//! | `logging` | one line an event, for terminals and journald, and not too many of them |
//! | `privileges` | what the daemon may do, and no more |
//! | `files` | subnet.env's writer, and this node's identity |
//! | `join` | from flags to membership: config, plugins, interface, subnet, packet path |
//! | `serve` | the daemon's life: join, plan, write the files, keep the lease |
//! | `reconcile` | the loop: leases in, kernel state out |
//! | `host_network` | what the overlay must leave to the host, and what earlier versions took from it |
//! | `underlay` | whether the interface is still what it was at the start |
//! | `packets` | the packet path of backends in user space: its peers, and the plugin that steers it |
//! | `probing` | asking peers over the overlay whether they answer |
//! | `rules` | when traffic rules are looked at |
//! | `signals` | signals that nobody means to end the daemon with |
//! | `emit` | the files for other programs |
//! | `readiness`, `notify` | whether this node is ready, told to systemd |
//! | `control` | what `heddle status` and the status page are told |
//! | `web` | the HTTP servers: health port, status page and control socket |

mod control;
mod emit;
mod files;
mod former;
mod host_network;
mod join;
mod logging;
mod notify;
mod packets;
mod privileges;
mod probing;
mod readiness;
mod reconcile;
mod rules;
mod serve;
mod signals;
mod underlay;
mod web;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use heddle_flags::Flags;
use heddle_telemetry::Notes;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::control::Facts;
use crate::logging::{Log, SetVerbosity};
use crate::packets::PacketCounters;
use crate::readiness::Readiness;

/// How many questions wait for the loop. Whoever asks one more waits.
const QUESTIONS: usize = 8;

fn main() -> ExitCode {
    // First of all, because they may come at any time.
    let signals = signals::Unused::handle();
    let flags = match Flags::of_process(std::env::args_os()) {
        Ok(flags) => flags,
        Err(error) => error.exit(),
    };
    let log = logging::start(flags.health.verbosity);
    end_on_panic();
    let ended = run(flags, &log, signals);
    log.limit.report();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Says what becomes of the network.
fn say_goodbye(signal: &str, counters: &PacketCounters) {
    match counters.get() {
        None => tracing::info!("{signal}: the network stays as it is"),
        Some(_) => tracing::info!("{signal}: the packet path ends, and its device goes"),
    }
}

/// Ends the whole process where a thread panics. The others would go on, ready by their own account, without the packets
/// or the peers that were that thread's business; systemd starts a process that has ended again.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

/// Why the daemon ends by itself.
type Fatal = Box<dyn std::error::Error + Send + Sync>;

/// Runs until SIGTERM or SIGINT. The kernel state stays as it is: the network outlives the daemon, unless it is the daemon
/// that carries its packets.
fn run(flags: Flags, log: &Log, signals: io::Result<signals::Unused>) -> Result<(), Fatal> {
    if flags.kubernetes.kube_subnet_mgr {
        return Err("--kube-subnet-mgr: leases from the Kubernetes API are not supported yet; \
                    leave the flag out to use etcd, or give --store dir:PATH"
            .into());
    }
    if !privileges::has_net_admin() {
        return Err("heddled changes network devices and routes: run it as root, \
                    or give it CAP_NET_ADMIN"
            .into());
    }
    privileges::give_up()?;
    signals.and_then(signals::Unused::log).map_err(|error| format!("no signals: {error}"))?;
    // The loop waits nearly always, for the kernel, for plugins or for etcd, which all have threads of their own.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(log.limit.clone().report_regularly());
        let readiness = Readiness::new();
        let counters = PacketCounters::default();
        let notes = Notes::default();
        notify::follow(readiness.subscribe());
        readiness::chronicle(readiness.subscribe(), notes.history.clone());
        let (ask, questions) = mpsc::channel(QUESTIONS);
        let network = flags.lease.network_name();
        let history = notes.history.clone();
        let facts = Facts::new(network, readiness.subscribe(), counters.clone(), history, ask);
        let facts = Arc::new(facts);
        web::serve(&flags, &readiness, &counters, facts.clone(), notes.timings.clone()).await?;
        notify::watchdog(facts.clone());
        tracing::info!(
            "heddled {} starts, network {}",
            env!("CARGO_PKG_VERSION"),
            flags.lease.network_name()
        );
        let reloading = async {
            let mut current = flags.clone();
            while hangup.recv().await.is_some() {
                current = reload(current, &facts, &log.set_verbosity).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = serve::serve(&flags, &readiness, &counters, &facts, questions, notes) => ended?,
            () = reloading => {}
            _ = terminate.recv() => say_goodbye("SIGTERM", &counters),
            _ = interrupt.recv() => say_goodbye("SIGINT", &counters),
        }
        notify::stopping().await;
        Ok(())
    });
    // Not dropped, which would wait for a program of iptables that hangs, or for a compiler.
    runtime.shutdown_background();
    ended
}

/// SIGHUP: reads the flags again, and what can change while the daemon runs changes: the verbosity, and the files behind
/// the connection to etcd. Returns the flags as they are now. What cannot be used leaves everything as it is.
async fn reload(mut current: Flags, facts: &Facts, set_verbosity: &SetVerbosity) -> Flags {
    let flags = match Flags::of_process(std::env::args_os()) {
        Ok(flags) => flags,
        Err(error) => {
            tracing::error!("SIGHUP: nothing is changed: {}", error.to_string().trim());
            return current;
        }
    };
    let verbosity = flags.health.verbosity;
    set_verbosity(verbosity);
    tracing::info!("SIGHUP: --v={verbosity}");
    current.health.verbosity = verbosity;
    if format!("{flags:?}") != format!("{current:?}") {
        tracing::warn!(
            "SIGHUP: other flags than --v have changed, and take effect with the next start"
        );
    }
    if let Some(store) = facts.store() {
        match store.reload().await {
            Ok(()) => tracing::info!("SIGHUP: the store is reached with the files as they are now"),
            Err(error) => {
                tracing::error!("SIGHUP: the connection to the store stays as it is: {error}");
            }
        }
    }
    flags
}
