//! The process around the node, in the phases of its start. Each phase is a type that holds only
//! what the phase before has established.

use std::io;
use std::sync::Arc;

use heddle_flags::Flags;
use heddle_kernel::Kernel;
use heddle_node::adapters::{CataloguePlugins, ThisHost};
use heddle_node::ports::Ports;
use heddle_node::{Fatal, HostFiles, Node, PacketCounters, identity};
use heddle_plugin::Catalogue;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::control::Listening;
use crate::logging::Log;
use crate::reload::Reload;
use crate::{notify, privileges, signals, sole, web};

/// A process with exactly the privileges that a node needs.
pub(crate) struct Confined {
    flags: Flags,
}

impl Confined {
    /// Checks the flags and drops all privileges that a node does not need. Must be called while
    /// there is only one thread.
    ///
    /// # Errors
    ///
    /// The reason why no node can run here.
    pub(crate) fn new(flags: Flags, signals: io::Result<signals::Unused>) -> Result<Self, Fatal> {
        if !privileges::has_net_admin() {
            return Err("heddled changes network devices and routes: run it as root, \
                        or give it CAP_NET_ADMIN"
                .into());
        }
        privileges::give_up()?;
        signals
            .and_then(signals::Unused::log)
            .map_err(|error| format!("signals: cannot install handlers: {error}"))?;
        Ok(Self { flags })
    }

    /// Runs a node until SIGTERM or SIGINT. The kernel state stays as it is, so the network
    /// outlives the daemon, unless the daemon itself carries the packets.
    ///
    /// # Errors
    ///
    /// The reason why the node ended by itself.
    pub(crate) fn run(self, log: &Log) -> Result<(), Fatal> {
        // Two threads suffice: the loop mostly waits for the kernel, plugins or etcd, which have
        // their own threads.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let ended = runtime.block_on(async {
            tokio::spawn(log.limit.clone().report_regularly());
            let served = Served::new(self.flags).await?;
            served.run(log).await
        });
        // Dropping the runtime would wait for a hanging iptables process, or for a compiler.
        runtime.shutdown_background();
        ended
    }
}

/// A node that can be queried already but has not started yet.
struct Served {
    flags: Flags,
    node: Node,
    signals: Signals,
    /// Kept until the end, which removes the control socket.
    control: Listening,
}

impl Served {
    /// Starts to answer queries: HTTP servers, the control socket and systemd.
    async fn new(flags: Flags) -> Result<Self, Fatal> {
        let signals = Signals::listen()?;
        let node = Node::new(flags.clone());
        notify::follow(node.readiness().subscribe());
        let control = web::serve(&flags, &node).await?;
        notify::watchdog(node.state().clone());
        Ok(Self { flags, node, signals, control })
    }

    async fn run(self, log: &Log) -> Result<(), Fatal> {
        let Self { flags, node, signals, control } = self;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            network = flags.lease.network_name(),
            "heddled: starting"
        );
        for flag in flags.ignored() {
            tracing::warn!("--{flag}: has no effect in heddled; ignored");
        }
        let (state, counters) = (node.state().clone(), node.counters().clone());
        let Signals { hangup, mut end } = signals;
        let reload = Reload::new(hangup, flags.clone(), &state, &log.set_verbosity);
        let running = async {
            let _sole = sole::lock(&flags.state_directory(), &flags.lease.network_name())?;
            let identity = identity(&flags)?;
            tracing::info!(id = %identity.id, "node: identity determined");
            node.run(identity, ports(&flags)?).await
        };
        tokio::select! {
            ended = running => match ended? {},
            () = reload.follow() => {}
            signal = end.next() => say_goodbye(signal, &counters),
        }
        notify::stopping().await;
        drop(control);
        Ok(())
    }
}

/// Opens the real store, kernel, plugin catalogue, host and files for the node.
fn ports(flags: &Flags) -> Result<Ports, Fatal> {
    let store = flags.lease.store.open(flags.lease.etcd_options())?;
    let host = ThisHost::new(Kernel::open()?);
    let files = &flags.files;
    let catalogue = Catalogue::new(files.plugin_dir.clone(), None, files.cache_dir.clone())?;
    let catalogue = catalogue.with_policy(files.plugin_policy.clone());
    Ok(Ports {
        store,
        dataplane: Arc::new(host.clone()),
        plugins: Arc::new(CataloguePlugins::new(catalogue)),
        host: Arc::new(host),
        files: Arc::new(HostFiles::new(flags)),
    })
}

/// The signals with a meaning, handled from before the flags could change.
struct Signals {
    hangup: Signal,
    end: End,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let hangup = signal(SignalKind::hangup())?;
        Ok(Self { hangup, end: End { terminate, interrupt } })
    }
}

/// The signals that end the daemon.
struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl End {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Logs the signal and its consequence for the network.
fn say_goodbye(signal: &str, counters: &PacketCounters) {
    match counters.get() {
        None => tracing::info!("{signal}: exiting; kernel state stays in place"),
        Some(_) => {
            tracing::info!(
                "{signal}: exiting; the packet path stops and its TUN device is removed"
            );
        }
    }
}
