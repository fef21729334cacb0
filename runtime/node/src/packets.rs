//! The packet path of backends that carry packets in user space: keeps its peers and its steering
//! plugin up to date.
//!
//! The path itself is `heddle-packet`'s, with threads of its own. A supervisor on one more thread
//! builds its inputs and hands them over as a unit: a table of the peers, and instances of the
//! plugin that were given the same peers. So neither a change of leases nor a restart of the plugin
//! delays packets, and neither packets nor the plugin delay the reconcile loop.

#![expect(
    clippy::disallowed_methods,
    reason = "the supervisor is a thread with the kernel's time, like the packet path; the simulation has a model of both"
)]

mod build_timer;
mod steering;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use async_trait::async_trait;
use heddle_core::config::NetworkConfig;
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::object::Object;
use heddle_core::site::Site;
use heddle_packet::{
    Counters, Destinations, Forwarding, OpenError, Path, Peer, Running, Settings, Table, Transform,
    Transforms,
};
use heddle_plugin::{NodePlan, PacketPlugin, Tunnel};
use ipnet::IpNet;
use tokio::sync::oneshot;

use crate::ports::PacketPath;

use build_timer::BuildTimer;

/// Number of addresses per steering call while the table is built.
const PROBES: usize = 1024;

/// Reader of the packet path's counters. Empty as long as there is no packet path.
pub type PacketCounters = Arc<OnceLock<Box<dyn Fn() -> Option<Counters> + Send + Sync>>>;

/// The packet path of this node. Dropping it stops the path and removes its device.
pub(crate) struct Packets {
    inbox: Sender<Message>,
    running: Arc<Running>,
}

enum Message {
    /// The plugin has a plan for this peer.
    Put(Box<Lease>),
    /// The plugin has no plan for this peer, or the peer is gone.
    Remove(LeaseKey),
    /// The path dropped an instance of the plugin.
    Failed(String),
    /// Reply once all earlier messages have taken effect.
    Flush(oneshot::Sender<()>),
    Stop,
}

impl Packets {
    /// Opens the device and the sockets, and starts to carry packets. No peer is known yet. Packets
    /// from peers may go to the node's own subnets, to those of peers and to the networks in
    /// `allowed`. The plugin's instances get the `site` that `plan` was made for.
    ///
    /// # Errors
    ///
    /// If the device or a socket cannot be opened.
    pub(crate) fn open(
        plugin: PacketPlugin,
        site: Arc<Site>,
        plan: &NodePlan,
        tunnel: &Tunnel,
        allowed: &[IpNet],
    ) -> Result<Self, OpenError> {
        let own = &peer(&site.config, &site.lease).subnets;
        let destinations = Destinations::new(own.iter().copied(), allowed);
        let path = Path::open(settings(plan, tunnel, destinations))?;
        let (inbox, messages) = mpsc::channel();
        let report = inbox.clone();
        // The supervisor may have ended before the path. Then the plugin is not restarted any more.
        let running = path.start(move |failure| {
            let _ = report.send(Message::Failed(failure.reason));
        })?;
        let running = Arc::new(running);
        // Builds an empty table at once, so that senders get ICMP errors as long as no peer is
        // known.
        let mut build_timer = BuildTimer::new(Instant::now());
        build_timer.changed(Instant::now());
        let forwarding = running.clone();
        let supervisor = Supervisor {
            plugin: Box::new(plugin),
            site,
            overhead: tunnel.overhead,
            sockets: tunnel.local.len(),
            hand_over: Box::new(move |next| forwarding.set(next)),
            peers: BTreeMap::new(),
            known: Vec::new(),
            build_timer,
            failing: None,
        };
        thread::Builder::new()
            .name("packet peers".into())
            .spawn(move || supervisor.run(&messages))
            .map_err(OpenError::Start)?;
        Ok(Self { inbox, running })
    }

    fn say(&self, message: Message) {
        // The supervisor ends only on `Stop`, which `drop` sends.
        let _ = self.inbox.send(message);
    }
}

#[async_trait]
impl PacketPath for Packets {
    fn put(&self, lease: Lease) {
        self.say(Message::Put(Box::new(lease)));
    }

    fn remove(&self, key: LeaseKey) {
        self.say(Message::Remove(key));
    }

    async fn flush(&self) {
        let (done, waiting) = oneshot::channel();
        self.say(Message::Flush(done));
        // If the supervisor has ended, there is nothing to wait for.
        let _ = waiting.await;
    }

    fn counters(&self) -> Box<dyn Fn() -> Option<Counters> + Send + Sync> {
        let running = Arc::downgrade(&self.running);
        Box::new(move || Some(running.upgrade()?.counters()))
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        self.say(Message::Stop);
    }
}

/// Returns the path's settings, derived from the node's plan.
fn settings(plan: &NodePlan, tunnel: &Tunnel, destinations: Destinations) -> Settings {
    let objects = &plan.plan.objects;
    let address = |object: &Object| match object {
        Object::Address(address) if address.link == tunnel.link => Some(address.network.addr()),
        _ => None,
    };
    let device = plan.plan.links().find(|link| link.name == tunnel.link);
    Settings {
        device: tunnel.link,
        sockets: tunnel.local.iter().map(|local| SocketAddr::new(*local, tunnel.port)).collect(),
        port: tunnel.port,
        addresses: objects.iter().filter_map(address).collect(),
        mtu: device.map_or(plan.mtu, |link| link.mtu),
        destinations,
    }
}

/// A plugin that makes instances for the packet path.
trait Instances: Send {
    /// Returns the plugin's name.
    fn name(&self) -> &str;

    /// Returns true if the plugin transforms packets. Otherwise it only steers them.
    fn transforms(&self) -> bool;

    /// Returns an instance that knows these peers.
    ///
    /// # Errors
    ///
    /// The reason why there is none.
    fn instance(&self, site: &Site, peers: &[Lease]) -> Result<Box<dyn Transform>, String>;
}

/// Supplies the path with a table and working plugin instances.
struct Supervisor {
    plugin: Box<dyn Instances>,
    site: Arc<Site>,
    /// Maximum number of bytes that the plugin adds to a packet.
    overhead: u32,
    /// Number of sockets that the path receives from. Each has a plugin instance of its own if
    /// payloads are transformed.
    sockets: usize,
    /// Hands a table and instances over to the path.
    hand_over: Box<dyn Fn(Forwarding) + Send>,
    peers: BTreeMap<LeaseKey, Lease>,
    /// The peers that the plugin's instances know, in their order.
    known: Vec<Lease>,
    build_timer: BuildTimer,
    /// Reason of the latest failure to start the plugin. None after a success.
    failing: Option<String>,
}

impl Supervisor {
    fn run(mut self, messages: &Receiver<Message>) {
        let mut waiting: Vec<oneshot::Sender<()>> = Vec::new();
        let mut in_force = false;
        loop {
            let message = match self.build_timer.wait(Instant::now()) {
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(rest) => messages.recv_timeout(rest),
            };
            match message {
                Ok(Message::Put(lease)) => {
                    self.peers.insert(lease.key, *lease);
                    self.build_timer.changed(Instant::now());
                    in_force = false;
                }
                Ok(Message::Remove(key)) => {
                    if self.peers.remove(&key).is_some() {
                        self.build_timer.changed(Instant::now());
                        in_force = false;
                    }
                }
                Ok(Message::Failed(reason)) => {
                    tracing::error!(
                        error = %reason,
                        "plugin {}: failed in the packet path; restarting it",
                        self.plugin.name()
                    );
                    self.build_timer.failed(Instant::now());
                }
                Ok(Message::Flush(done)) => waiting.push(done),
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    self.build();
                    in_force = true;
                }
            }
            if in_force {
                for done in waiting.drain(..) {
                    // The waiting caller may have given up.
                    let _ = done.send(());
                }
            }
        }
    }

    /// Builds a table and plugin instances and hands them to the path.
    fn build(&mut self) {
        let began = Instant::now();
        let leases: Vec<Lease> = self.peers.values().cloned().collect();
        let failed = match self.steered(&leases) {
            Ok(forwarding) => {
                self.known = leases;
                (self.hand_over)(forwarding);
                None
            }
            Err(reason) => {
                // A working instance stays in use. The table follows the peers, whether or not the
                // instance works.
                let others = !self.plugin.transforms();
                let config = &self.site.config;
                let peers = without_plugin(config, &self.known, &self.peers, others);
                let table = Arc::new(Table::new(peers));
                (self.hand_over)(Forwarding { table, steering: None, transform: None });
                Some(reason)
            }
        };
        let ended = Instant::now();
        self.build_timer.built(began, ended, failed.is_none());
        if failed != self.failing {
            let name = self.plugin.name();
            if let Some(reason) = &failed {
                tracing::error!(error = %reason, "plugin {name}: cannot be started for the packet path; retrying");
            } else {
                tracing::info!("plugin {name}: recovered; it steers packets again");
            }
        }
        self.failing = failed;
    }

    /// Returns plugin instances that know these peers, and a table with the plugin's own answers.
    fn steered(&self, peers: &[Lease]) -> Result<Forwarding, String> {
        let config = &self.site.config;
        let table = Table::new(peers.iter().map(|lease| peer(config, lease)).collect());
        let instance = || self.plugin.instance(&self.site, peers);
        let mut out = instance()?;
        let probes = table.probes();
        let (mut answers, mut some) = (Vec::with_capacity(probes.len()), Vec::new());
        for probes in probes.chunks(PROBES) {
            some.clear();
            out.steer(probes, &mut some)?;
            answers.append(&mut some);
        }
        let table = table.with_answers(&answers).map_err(|error| error.to_string())?;
        let table = Arc::new(table);
        if !self.plugin.transforms() {
            return Ok(Forwarding { table, steering: Some(out), transform: None });
        }
        let inbound = (0..self.sockets).map(|_| instance()).collect::<Result<_, _>>()?;
        let transform = Transforms { overhead: self.overhead, out, inbound };
        Ok(Forwarding { table, steering: None, transform: Some(transform) })
    }
}

/// Returns the peers in the plugin instances' numbering. Peers that are gone or have another lease
/// keep their place, but without endpoints and subnets. If `others` is true, peers that the
/// instances do not know follow, which works only where a table steers instead of the plugin.
fn without_plugin(
    config: &NetworkConfig,
    known: &[Lease],
    now: &BTreeMap<LeaseKey, Lease>,
    others: bool,
) -> Vec<Peer> {
    let is_known = |lease: &&Lease| {
        // `known` is sorted by key, because it was copied from a map.
        let found = known.binary_search_by_key(&lease.key, |known| known.key);
        found.is_ok_and(|place| known[place] == **lease)
    };
    let places = known.iter().map(|lease| match now.get(&lease.key) {
        Some(same) if same == lease => peer(config, lease),
        _ => Peer { endpoints: Vec::new(), subnets: Vec::new() },
    });
    let new = now.values().filter(|lease| others && !is_known(lease));
    places.chain(new.map(|lease| peer(config, lease))).collect()
}

/// Returns the endpoints and subnets of a peer. Skips address families that are switched off here:
/// nobody has checked that their subnet is part of an overlay.
fn peer(config: &NetworkConfig, lease: &Lease) -> Peer {
    let mut peer = Peer { endpoints: Vec::new(), subnets: Vec::new() };
    for (_, part) in config.networks.as_ref().zip(lease.families.as_ref()) {
        peer.endpoints.push(part.public_address);
        peer.subnets.push(part.subnet);
    }
    peer
}

#[cfg(test)]
mod tests;
