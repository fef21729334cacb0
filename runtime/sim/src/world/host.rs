//! A host, its daemon, what happens to it, and what has to hold on it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use heddle_core::config::NetworkConfig;
use heddle_core::desired::{Desired, Owner, Priority};
use heddle_core::diff::{ObjectChange, Scope, diff};
use heddle_core::host_network::{Claims, Guard, HostNetwork, Vital};
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::node::{Node as NodeFacts, Underlay};
use heddle_core::object::{Address, Link, LinkKind, Metric, Object, ObjectKey, Route, RouteAction};
use heddle_core::peers::Peers;
use heddle_core::record::Record;
use heddle_files::Found;
use heddle_flags::Flags;
use heddle_node::ports::Ports;
use heddle_node::readiness::Unmet;
use heddle_node::{Identity, Node};
use ipnet::IpNet;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{NOTICE, pick};
use crate::kernel::{Maker, Mark, ModelKernel, State, UNDERLAY, name};
use crate::plugin::{
    DEVICE, EMITTED, FILE, Faults, Scripted, address, node_plan, peer_plan, regular,
};
use crate::store::Cluster;
use crate::trace::Trace;

/// The longest pause before a daemon that crashed starts again.
const RESTART: Duration = Duration::from_secs(30);

/// The time in which a change of a file is found that nobody reported.
const FILES_RESYNC: Duration = Duration::from_secs(30);

/// A host, and the daemon on it if it runs.
pub(super) struct Host {
    pub(super) number: u8,
    pub(super) kernel: ModelKernel,
    pub(super) plugins: Scripted,
    pub(super) daemon: Option<Daemon>,
    /// Time at which the daemon is started again.
    pub(super) restart_at: Option<Instant>,
    /// The time since which the store is out of reach.
    pub(super) cut_off: Option<Instant>,
    /// The time since which the lease is not as the daemon published it, although the daemon could put that right.
    pub(super) lease_lost: Option<Instant>,
    /// Conditions that were not met when last looked at.
    pub(super) unmet: Unmet,
}

pub(super) struct Daemon {
    pub(super) running: JoinHandle<Result<(), String>>,
    pub(super) readiness: watch::Receiver<Unmet>,
}

impl Host {
    pub(super) fn node(&self) -> usize {
        usize::from(self.number) - 1
    }

    pub(super) fn name(&self) -> String {
        format!("n{}", self.number)
    }

    fn id(&self) -> String {
        format!("node-{}", self.number)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.daemon.as_ref().is_some_and(|daemon| daemon.readiness.borrow().is_empty())
    }

    pub(super) fn own_key(&self, store: &Cluster) -> Option<String> {
        self.own_lease(store).map(|lease| lease.key.to_string())
    }

    pub(super) fn own_lease(&self, store: &Cluster) -> Option<Lease> {
        let id = self.id();
        store.find_map(|key, value| {
            // Only few records are parsed: this is asked at every step.
            if !String::from_utf8_lossy(value).contains(&id) {
                return None;
            }
            let lease = Lease::from_value(key.parse().ok()?, value).ok()?;
            lease.node_id.as_ref().is_some_and(|found| found.to_string() == id).then_some(lease)
        })
    }

    /// Starts the daemon if it is due, and takes note of its end.
    pub(super) async fn tend(&mut self, store: &Cluster, trace: &Trace) -> Result<(), String> {
        if let Some(daemon) = &mut self.daemon
            && daemon.running.is_finished()
        {
            let ended = (&mut daemon.running).await;
            let reason = match ended {
                Ok(Ok(())) => return Err(format!("{} ended without a reason", self.name())),
                Ok(Err(reason)) => reason,
                Err(panic) => return Err(format!("{} panicked: {}", self.name(), message(panic))),
            };
            trace.note(&self.name(), &format!("ended: {reason}"));
            self.daemon = None;
            self.restart_at = Some(Instant::now() + Duration::from_secs(2));
        }
        if self.restart_at.is_some_and(|at| at <= Instant::now()) {
            trace.note(&self.name(), "starts");
            self.restart_at = None;
            self.daemon = Some(self.start(store));
        }
        Ok(())
    }

    fn start(&self, store: &Cluster) -> Daemon {
        let arguments = ["heddled", "--ip-masq", "--subnet-lease-renew-margin=1"];
        let flags = Flags::read(
            arguments.map(Into::into),
            |_| None,
            |_| Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
        );
        let node = Node::new(flags.expect("flags that the daemon has"));
        let readiness = node.readiness().subscribe();
        let plugins = Arc::new(self.plugins.clone());
        let ports = Ports {
            store: store.client(self.node()),
            dataplane: Arc::new(self.kernel.clone()),
            plugins: plugins.clone(),
            host: plugins.clone(),
            files: plugins,
        };
        let id = self.id().parse().expect("an id of letters and digits");
        let identity = Identity { id, name: Some(self.name()) };
        let running = tokio::spawn(async move {
            match node.run(identity, ports).await {
                Ok(never) => match never {},
                Err(error) => Err(error.to_string()),
            }
        });
        Daemon { running, readiness }
    }

    /// Makes one thing happen to this host.
    #[expect(clippy::too_many_lines, reason = "one arm for each fault")]
    pub(super) fn suffer(&mut self, number: u8, until: Instant, trace: &Trace, store: &Cluster) {
        let device = name(DEVICE);
        match number {
            11 | 12 => {
                trace.note(&self.name(), "crashes");
                if let Some(daemon) = self.daemon.take() {
                    daemon.running.abort();
                    let longest = u64::try_from(RESTART.as_millis()).unwrap_or(u64::MAX);
                    let pause = Duration::from_millis(fastrand::u64(..longest));
                    self.restart_at = Some(Instant::now() + pause);
                }
                if number == 12 {
                    trace.note(&self.name(), "the plugin is suspended when it starts again");
                    self.plugins.with(|faults| faults.suspended_until = Some(until + RESTART));
                }
            }
            13 => {
                let count = fastrand::u32(1..8);
                trace.note(&self.name(), &format!("the kernel refuses {count} changes"));
                self.kernel.with(|state| state.refusals = count);
            }
            14 => {
                trace.note(&self.name(), "the kernel cannot be read");
                self.kernel.with(|state| state.unreadable_until = Some(until));
            }
            15 => {
                let deaf = self.kernel.with(|state| !state.deaf);
                trace.note(&self.name(), &format!("events are lost: {deaf}"));
                self.kernel.set_deaf(deaf);
            }
            16 => self.kernel.disturb("a planned object is removed", |state| {
                let ours = state.entries.iter().filter(|(_, (_, maker))| *maker == Maker::Heddle);
                let keys: Vec<_> = ours.map(|(key, _)| key.clone()).collect();
                let Some(key) = pick(&keys) else { return Vec::new() };
                state.remove(key);
                vec![key.clone()]
            }),
            17 => self.kernel.disturb("the device is deleted", |state| {
                state.delete(device);
                if fastrand::bool() {
                    state.devices.insert(device, (plain(DEVICE), Mark::Foreign));
                }
                vec![Object::Link(plain(DEVICE)).key()]
            }),
            18 => self.kernel.disturb("the device is changed", |state| {
                if let Some((link, _)) = state.devices.get_mut(&device) {
                    link.mtu = 1280;
                }
                vec![Object::Link(plain(DEVICE)).key()]
            }),
            19 => self.kernel.disturb("objects of another program appear", |state| {
                let (link, gateway) = (name(UNDERLAY), Some(address(250)));
                let beside = Object::Route(Route {
                    destination: "10.99.0.0/16".parse().expect("a network"),
                    metric: Metric::Default,
                    action: RouteAction::Forward { link, gateway, onlink: false },
                });
                let number = fastrand::u8(100..112);
                let network = format!("10.244.{number}.9/32").parse().expect("an address");
                let stray = Object::Address(Address { link: device, network });
                // To exactly a subnet that may be leased: what flannel leaves, or drift.
                let subnet = format!("10.244.{number}.0/24").parse().expect("a network");
                let exact = Object::Route(Route {
                    destination: subnet,
                    metric: Metric::Default,
                    action: RouteAction::Forward { link, gateway, onlink: false },
                });
                let objects = [beside, stray, exact].into_iter();
                // The address has no place without the device.
                let made = objects.filter(|object| state.put(object, Maker::Other).is_ok());
                made.map(|object| object.key()).collect()
            }),
            20 => self.kernel.disturb("a network of the host's comes or goes", |state| {
                let link = name("lan0");
                if state.devices.contains_key(&link) {
                    state.delete(link);
                    return vec![Object::Link(plain("lan0")).key()];
                }
                state.devices.insert(link, (plain("lan0"), Mark::Foreign));
                let number = fastrand::u8(100..112);
                let network = format!("10.244.{number}.1/24").parse().expect("an address");
                let address = Address { link, network };
                let _ = state.put(&Object::Address(address), Maker::Other);
                vec![Object::Link(plain("lan0")).key()]
            }),
            21 => {
                let keys: Vec<_> = store.records().into_iter().map(|record| record.key).collect();
                if let Some(key) = pick(&keys).and_then(|key| key.parse::<LeaseKey>().ok()) {
                    let count = fastrand::u32(1..6);
                    trace.note(&self.name(), &format!("the plugin traps {count} times at {key}"));
                    self.plugins.with(|faults| faults.traps.insert(key, count));
                }
            }
            22 => {
                let (what, fault): (_, fn(&mut Faults) -> &mut Option<Instant>) =
                    match fastrand::u8(..3) {
                        0 => ("the plugin is suspended", |faults| &mut faults.suspended_until),
                        1 => ("the traffic rules fail", |faults| &mut faults.firewall_until),
                        _ => ("the files cannot be written", |faults| &mut faults.files_until),
                    };
                trace.note(&self.name(), what);
                self.plugins.with(|faults| *fault(faults) = Some(until));
                self.plugins.flush_rules();
            }
            // More often would be a contest, in which the daemon gives way.
            25 if self
                .plugins
                .with(|faults| faults.files_disturbed)
                .is_some_and(|(at, _)| at.elapsed() < FILES_RESYNC + NOTICE) => {}
            25 => {
                let (what, found) = match fastrand::u8(..4) {
                    0 => ("deleted", Found::Missing),
                    1 => ("edited", regular("FLANNEL_MTU=1500\n")),
                    2 => ("truncated", regular("")),
                    _ => {
                        let contents = Some(EMITTED.into());
                        ("made unreadable", Found::Regular { mode: 0, contents })
                    }
                };
                trace.note(&self.name(), &format!("the emitter's file is {what}"));
                self.plugins.disturb_file(FILE, found);
            }
            26 => {
                let deaf = self.plugins.with(|faults| {
                    faults.files_deaf = !faults.files_deaf;
                    faults.files_deaf
                });
                trace.note(&self.name(), &format!("changes of files are not noticed: {deaf}"));
            }
            24 => {
                trace.note(&self.name(), "the traffic rules are flushed");
                self.plugins.flush_rules();
            }
            _ => {
                let down = self.kernel.with(|state| !state.underlay_down);
                self.kernel.disturb(&format!("the underlay is down: {down}"), |state| {
                    state.underlay_down = down;
                    vec![Object::Link(plain(UNDERLAY)).key()]
                });
            }
        }
    }

    pub(super) fn heal(&mut self) {
        self.kernel.with(|state| {
            state.refusals = 0;
            state.unreadable_until = None;
        });
        self.kernel.set_deaf(false);
        let device = name(DEVICE);
        let is_foreign = |state: &mut State| {
            state.devices.get(&device).is_some_and(|(_, mark)| *mark == Mark::Foreign)
        };
        if self.kernel.with(is_foreign) {
            self.kernel.disturb("the device of another program goes", |state| {
                state.delete(device);
                vec![Object::Link(plain(DEVICE)).key()]
            });
        }
        if self.kernel.with(|state| state.underlay_down) {
            self.kernel.disturb("the underlay is up", |state| {
                state.underlay_down = false;
                vec![Object::Link(plain(UNDERLAY)).key()]
            });
        }
        self.plugins.with(|faults| {
            faults.traps.clear();
            faults.suspended_until = None;
            faults.firewall_until = None;
            faults.files_until = None;
            faults.files_deaf = false;
        });
    }

    /// Checks what has to hold at every moment.
    pub(super) fn check(&mut self, config: &NetworkConfig, store: &Cluster) -> Result<(), String> {
        if let Some(violation) = self.kernel.with(|state| state.violations.first().cloned()) {
            return Err(format!("{}: {violation}", self.name()));
        }
        let lease = self.own_lease(store);
        let is_kept =
            lease.as_ref().is_some_and(|lease| lease.backend_type.as_deref() == Some("vxlan"));
        if is_kept || !self.is_ready() || self.cut_off.is_some() {
            self.lease_lost = None;
        } else if self.lease_lost.get_or_insert_with(Instant::now).elapsed() > NOTICE {
            return Err(format!("{}: ready for {NOTICE:?} without its lease", self.name()));
        }
        let Some(daemon) = &self.daemon else { return Ok(()) };
        let unmet = daemon.readiness.borrow().clone();
        if unmet != self.unmet {
            self.kernel.trace(&format!("not met: {unmet:?}"));
            self.unmet.clone_from(&unmet);
        }
        let long_ago = |since: Instant| since.elapsed() > NOTICE;
        let ready = unmet.is_empty();
        if ready && self.cut_off.is_some_and(long_ago) && store.is_down(self.node()) {
            return Err(format!("{}: ready although the store is out of reach", self.name()));
        }
        let disturbed = self.plugins.with(|faults| faults.files_disturbed);
        let overdue = disturbed.is_none_or(|(at, is_noticed)| {
            at.elapsed() > if is_noticed { NOTICE } else { FILES_RESYNC + NOTICE }
        });
        if ready && overdue && !self.has_files() {
            return Err(format!("{}: ready without its files", self.name()));
        }
        let calm = self.kernel.with(|state| {
            let readable =
                state.unreadable_until.is_none_or(|until| until + NOTICE < Instant::now());
            readable && !state.deaf && state.disturbed.is_none_or(|at| at.elapsed() > NOTICE)
        });
        if !ready || !calm {
            return Ok(());
        }
        // Whatever is missing of the node's own plan has to show.
        if let Some(lease) = lease {
            let missing = self.missing(config, &lease, &[]);
            let own = missing.iter().find(|change| !matches!(change, ObjectChange::Remove(_)));
            if let Some(change) = own {
                return Err(format!("{}: ready without {}", self.name(), change.object()));
            }
        }
        Ok(())
    }

    fn has_files(&self) -> bool {
        self.plugins.file(FILE) == regular(EMITTED)
    }

    /// Returns what is not as it should be. None if everything is.
    pub(super) fn unsettled(&self, config: &NetworkConfig, store: &Cluster) -> Option<String> {
        let Some(daemon) = &self.daemon else { return Some("there is no daemon".to_owned()) };
        if let Some((condition, reason)) = daemon.readiness.borrow().iter().next() {
            return Some(format!("{condition}: {reason}"));
        }
        let Some(lease) = self.own_lease(store) else { return Some("it has no lease".to_owned()) };
        if !self.plugins.with(|faults| faults.rules_hold) {
            return Some("the traffic rules do not hold".to_owned());
        }
        if !self.has_files() {
            return Some(format!("{FILE} is not as emitted"));
        }
        let records = store.records();
        // Without the daemon's own rules: whatever is leased has a route, unless the host is there.
        if let Some(key) = records.iter().filter_map(unrouted_by(&self.kernel, &lease)).next() {
            return Some(format!("there is no route to {key}"));
        }
        let changes = self.missing(config, &lease, &records);
        changes.first().map(|change| format!("{change:?} is still to be made"))
    }

    /// Returns the changes that would make the kernel what it should be for these records.
    fn missing(
        &self,
        config: &NetworkConfig,
        own: &Lease,
        records: &[Record],
    ) -> Vec<ObjectChange> {
        let underlay = Underlay {
            link: name(UNDERLAY),
            mtu: 1500,
            addresses: Vec::new(),
            public_addresses: [address(self.number)].into(),
        };
        let id = self.id().parse().expect("an id of letters and digits");
        let node = NodeFacts { id, underlay, links: Vec::new() };
        let scope = Scope {
            own: own.key.subnets().into_iter().collect(),
            links: [name(DEVICE)].into(),
            alias: "heddle".to_owned(),
            ..Scope::of(config)
        };
        let vital = Vital { store: BTreeSet::new(), own: [address(self.number)].into() };
        let routing = self.kernel.routing(&scope);
        let host = HostNetwork::new(&Claims::of(&scope), &routing, vital);
        let mut peers = Peers::new(config.clone(), own.key);
        peers.protect(host.clone());
        peers.begin_snapshot();
        for record in records {
            peers.add_to_snapshot(record);
        }
        peers.end_snapshot(std::time::Instant::now());
        let mut desired = Desired::default();
        desired.set(Owner::Node, &Priority::default(), node_plan(&node, own, self.number));
        for peer in peers.leases() {
            if let Ok(plan) = peer_plan(peer) {
                desired.set(Owner::Peer(peer.key), &peers.priority(peer.key), plan);
            }
        }
        let mut guard = Guard::default();
        guard.set_host(host);
        let observed = self.kernel.with(|state| state.observe(&scope));
        diff(&guard.permitted(desired.objects()), &observed)
    }
}

/// Returns a check of a record: whether it is another node's lease for this backend, and the kernel
/// has no route to its subnet. Subnets that overlap the network of `lan0` are left out.
fn unrouted_by<'a>(
    kernel: &'a ModelKernel,
    own: &'a Lease,
) -> impl Fn(&Record) -> Option<LeaseKey> + 'a {
    move |record| {
        let key: LeaseKey = record.key.parse().ok()?;
        let lease = Lease::from_value(key, &record.value).ok()?;
        let is_wanted = key != own.key && peer_plan(&lease).is_ok();
        let lacks = |subnet: IpNet| {
            let route = ObjectKey::Route(subnet, Metric::Default);
            kernel.with(|state| {
                let of_host = state.entries.values().any(|(object, _)| {
                    matches!(object, Object::Address(address)
                        if address.link == name("lan0") && address.network.contains(&subnet))
                });
                let routed = state.entries.get(&route);
                !of_host && routed.is_none_or(|(_, maker)| *maker != Maker::Heddle)
            })
        };
        (is_wanted && key.subnets().into_iter().any(lacks)).then_some(key)
    }
}

/// Returns a device of another program.
pub(crate) fn plain(device: &str) -> Link {
    let kind = LinkKind::Other("veth".to_owned());
    Link { name: name(device), mtu: 1500, mac: None, up: true, kind }
}

fn message(error: tokio::task::JoinError) -> String {
    if error.is_cancelled() {
        return "it was cancelled".to_owned();
    }
    let panic = error.into_panic();
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "without a message".to_owned())
}
