//! The nodes, what happens to them, and what has to hold.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic;
use std::sync::{Arc, Once};
use std::time::Duration;

use heddle_core::config::{NetworkConfig, OverlayNetwork};
use heddle_core::desired::{Desired, Owner, Standing};
use heddle_core::diff::{Change, Scope, diff};
use heddle_core::host_network::{Claims, Guard, HostNetwork, Vital};
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::node::{Node as NodeFacts, Underlay};
use heddle_core::object::{Address, Link, LinkKind, Metric, Object, ObjectKey, Route, RouteAction};
use heddle_core::peers::{GRACE, Peers};
use heddle_flags::Flags;
use heddle_node::ports::Ports;
use heddle_node::readiness::Unmet;
use heddle_node::{Identity, Node};
use heddle_plugin::Reason;
use ipnet::IpNet;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::kernel::{Maker, Mark, ModelKernel, State, UNDERLAY, name};
use crate::plugin::{DEVICE, Faults, Scripted, address, node_plan, peer_plan};
use crate::store::Cluster;
use crate::trace::Trace;

/// The network config of all nodes.
const CONFIG: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;

/// The time in which everything has to be as it should be once nothing happens any more: the longest retry interval, twice.
const RECOVERY: Duration = Duration::from_secs(240);

/// The longest pause before a daemon that crashed starts again.
const RESTART: Duration = Duration::from_secs(30);

/// The time in which drift is repaired: the promise of one second, and the duty cycle of resyncs.
const REPAIR: Duration = Duration::from_secs(3);

/// The time for which nothing may change after that.
const QUIET: Duration = Duration::from_secs(70);

/// The time in which a lasting fault has to show in readiness.
const NOTICE: Duration = Duration::from_secs(8);

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// A hash of the history, and the number of its lines.
    pub digest: (u64, u64),
    /// The expectation that did not hold. None if all held.
    pub failure: Option<String>,
    /// The simulated time.
    pub simulated: Duration,
}

thread_local! {
    /// The latest panic on this thread. tokio swallows those of tasks that nobody waits for.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Records panics from now on.
fn record_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANIC.with_borrow_mut(|panic| *panic = Some(info.to_string()));
            report(info);
        }));
    });
}

/// Runs one seed. Prints the history if `print` is true.
pub fn run(seed: u64, print: bool) -> Outcome {
    record_panics();
    PANIC.take();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing");
    fastrand::seed(seed);
    runtime.block_on(async {
        let trace = Trace::new(print);
        let mut world = World::new(trace.clone());
        let failure = world.play().await.err();
        let failure = failure.or_else(|| PANIC.take().map(|panic| format!("a panic: {panic}")));
        if let Some(failure) = &failure {
            trace.note("world", failure);
        }
        Outcome { digest: trace.digest(), failure, simulated: trace.elapsed() }
    })
}

/// A host, and the daemon on it if it runs.
struct Host {
    number: u8,
    kernel: ModelKernel,
    plugins: Scripted,
    daemon: Option<Daemon>,
    /// Time at which the daemon is started again.
    restart_at: Option<Instant>,
    /// The time since which the store is out of reach.
    cut_off: Option<Instant>,
    /// The time since which the lease is not as the daemon published it, although the daemon could put that right.
    lease_lost: Option<Instant>,
    /// Conditions that were not met when last looked at.
    unmet: Unmet,
}

struct Daemon {
    running: JoinHandle<Result<(), String>>,
    readiness: watch::Receiver<Unmet>,
}

struct World {
    trace: Trace,
    store: Cluster,
    hosts: Vec<Host>,
    config: NetworkConfig,
    /// Leases without a daemon: other nodes', and records that somebody wrote.
    written: BTreeSet<String>,
    /// Routes that have to stay until something else happens: the host, and the route.
    kept: Vec<(usize, ObjectKey)>,
}

impl World {
    fn new(trace: Trace) -> Self {
        let store = Cluster::new(CONFIG, trace.clone());
        let hosts = (1..=fastrand::u8(1..=3)).map(|number| Host {
            number,
            kernel: ModelKernel::new(format!("n{number}"), address(number), trace.clone()),
            plugins: Scripted::new(number),
            daemon: None,
            restart_at: Some(Instant::now()),
            cut_off: None,
            lease_lost: None,
            unmet: Unmet::new(),
        });
        let hosts = hosts.collect();
        let config = NetworkConfig::parse(CONFIG.as_bytes()).expect("the config is right");
        Self { trace, store, hosts, config, written: BTreeSet::new(), kept: Vec::new() }
    }

    /// Plays a history to its end.
    async fn play(&mut self) -> Result<(), String> {
        for _ in 0..fastrand::usize(5..40) {
            self.happen();
            let pause = match fastrand::u8(..4) {
                0 => Duration::from_millis(fastrand::u64(..20)),
                1 => Duration::from_millis(fastrand::u64(..1000)),
                _ => Duration::from_millis(fastrand::u64(..15_000)),
            };
            self.pass(pause).await?;
        }
        self.heal();
        // Peers whose leases the store has lost are kept for a time, and their plans still come and go.
        self.pass(GRACE + NOTICE).await?;
        let deadline = Instant::now() + RECOVERY;
        loop {
            self.pass(Duration::from_secs(1)).await?;
            match self.unsettled() {
                None => break,
                Some(reason) if Instant::now() > deadline => {
                    return Err(format!("not as it should be after {RECOVERY:?}: {reason}"));
                }
                Some(_) => {}
            }
        }
        self.drift().await?;
        let made = self.made();
        self.pass(QUIET).await?;
        if let Some(reason) = self.unsettled() {
            return Err(format!("not as it should be any more: {reason}"));
        }
        if made != self.made() {
            return Err("the kernel was changed although nothing happened".to_owned());
        }
        Ok(())
    }

    /// Has other programs change what the daemons made. Each change has to be repaired at once.
    async fn drift(&mut self) -> Result<(), String> {
        for _ in 0..3 {
            let index = fastrand::usize(..self.hosts.len());
            let number = [16, 16, 18, 20, 24][fastrand::usize(..5)];
            self.hosts[index].suffer(number, Instant::now(), &self.trace, &self.store);
            self.pass(REPAIR).await?;
            if let Some(reason) = self.unsettled() {
                return Err(format!("drift is not repaired after {REPAIR:?}: {reason}"));
            }
        }
        Ok(())
    }

    fn made(&self) -> Vec<u64> {
        self.hosts.iter().map(|host| host.kernel.with(|state| state.made)).collect()
    }

    /// Lets time pass, starts daemons that are due, and checks what always has to hold.
    async fn pass(&mut self, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        loop {
            for host in &mut self.hosts {
                host.tend(&self.store, &self.trace).await?;
                host.check(&self.config, &self.store)?;
            }
            for (index, key) in &self.kept {
                let host = &self.hosts[*index];
                if !host.kernel.with(|state| state.entries.contains_key(key)) {
                    return Err(format!("n{}: {key} is gone with the store's data", host.number));
                }
            }
            self.store.expire();
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            sleep(left.min(Duration::from_secs(1))).await;
        }
    }

    /// Makes one thing happen.
    fn happen(&mut self) {
        self.kept.clear();
        let index = fastrand::usize(..self.hosts.len());
        let seconds = Duration::from_secs(fastrand::u64(1..60));
        let until = Instant::now() + seconds;
        match fastrand::u8(..25) {
            0..=4 => self.write_lease(),
            5 | 6 => self.delete_lease(),
            7 => {
                let down = !self.store.is_down(index);
                self.trace.note(&format!("n{}", index + 1), &format!("store down: {down}"));
                self.store.set_down(index, down);
                self.hosts[index].cut_off = down.then(Instant::now);
            }
            8 => self.store.compact(),
            9 => {
                let keys = self.store.records().into_iter().map(|record| record.key);
                let lost = keys.filter(|_| fastrand::bool()).collect();
                self.kept = self.routes_of_members();
                self.store.lose(&lost);
            }
            10 => {
                if let Some(key) = self.hosts[index].own_key(&self.store) {
                    if fastrand::bool() {
                        self.store.delete(&key);
                    } else {
                        self.store.alter(&key);
                    }
                }
            }
            number => {
                if number == 12 {
                    // Whoever starts again and gets no plans leaves what is there for its peers.
                    let node = self.hosts[index].node();
                    self.kept = self.routes_of_members();
                    self.kept.retain(|(host, _)| *host == node);
                }
                self.hosts[index].suffer(number, until, &self.trace, &self.store);
            }
        }
    }

    /// Returns the routes between hosts whose daemons are ready.
    fn routes_of_members(&self) -> Vec<(usize, ObjectKey)> {
        let members = || self.hosts.iter().filter(|host| host.is_ready());
        let mut routes = Vec::new();
        for host in members() {
            let others = members().filter(|other| other.number != host.number);
            let leases = others.filter_map(|other| other.own_lease(&self.store));
            // One that somebody has altered is planned otherwise.
            let leases = leases.filter(|lease| lease.backend_type.as_deref() == Some("vxlan"));
            for subnet in leases.flat_map(|lease| lease.key.subnets()) {
                let key = ObjectKey::Route(subnet, Metric::Default);
                if host.kernel.with(|state| state.entries.contains_key(&key)) {
                    routes.push((host.node(), key));
                }
            }
        }
        routes
    }

    fn write_lease(&mut self) {
        let number = fastrand::u8(100..112);
        let key = format!("10.244.{number}.0-24");
        let mac = fastrand::u8(..);
        let at = fastrand::u8(100..120);
        let value = match fastrand::u8(..10) {
            0 => "nonsense".to_owned(),
            1 => format!(r#"{{"PublicIP":"192.168.0.{at}","BackendType":"host-gw"}}"#),
            2 => format!(r#"{{"PublicIP":"192.168.0.{at}","BackendType":"vxlan"}}"#),
            3 => r#"{"PublicIP":"127.0.0.1","BackendType":"vxlan"}"#.to_owned(),
            _ => format!(
                r#"{{"PublicIP":"192.168.0.{at}","BackendType":"vxlan","BackendData":{{"VtepMAC":"02:00:00:01:00:{mac:02x}"}}}}"#
            ),
        };
        self.store.put(&key, value.as_bytes());
        self.written.insert(key);
    }

    fn delete_lease(&mut self) {
        let count = self.written.len();
        if count > 0 {
            let key = self.written.iter().nth(fastrand::usize(..count)).cloned();
            let key = key.expect("it is one of them");
            self.store.delete(&key);
            self.written.remove(&key);
        }
    }

    /// Ends all faults.
    fn heal(&mut self) {
        self.trace.note("world", "everything is healthy from now on");
        self.kept.clear();
        // Of a record that it cannot use, a node that runs keeps what was planned before, and one that has started since
        // knows nothing: both are right.
        for record in self.store.records() {
            let Ok(key) = record.key.parse::<LeaseKey>() else { continue };
            let lease = Lease::from_value(key, &record.value);
            if lease.is_err()
                || lease.is_ok_and(|lease| matches!(peer_plan(&lease), Err(Reason::Invalid(_))))
            {
                self.store.delete(&record.key);
            }
        }
        for (index, host) in self.hosts.iter_mut().enumerate() {
            self.store.set_down(index, false);
            host.cut_off = None;
            host.heal();
        }
    }

    /// Returns what is not as it should be. None if everything is.
    fn unsettled(&self) -> Option<String> {
        self.hosts.iter().find_map(|host| {
            let reason = host.unsettled(&self.config, &self.store)?;
            Some(format!("n{}: {reason}", host.number))
        })
    }
}

impl Host {
    fn node(&self) -> usize {
        usize::from(self.number) - 1
    }

    fn name(&self) -> String {
        format!("n{}", self.number)
    }

    fn id(&self) -> String {
        format!("node-{}", self.number)
    }

    fn is_ready(&self) -> bool {
        self.daemon.as_ref().is_some_and(|daemon| daemon.readiness.borrow().is_empty())
    }

    fn own_key(&self, store: &Cluster) -> Option<String> {
        self.own_lease(store).map(|lease| lease.key.to_string())
    }

    fn own_lease(&self, store: &Cluster) -> Option<Lease> {
        let leases = store
            .records()
            .into_iter()
            .filter_map(|record| Lease::from_value(record.key.parse().ok()?, &record.value).ok());
        let id = self.id();
        leases
            .into_iter()
            .find(|lease| lease.node_id.as_ref().is_some_and(|found| found.to_string() == id))
    }

    /// Starts the daemon if it is due, and takes note of its end.
    async fn tend(&mut self, store: &Cluster, trace: &Trace) -> Result<(), String> {
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
        self.plugins.with(|faults| faults.written = false);
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
    fn suffer(&mut self, number: u8, until: Instant, trace: &Trace, store: &Cluster) {
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

    fn heal(&mut self) {
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
        });
    }

    /// Checks what has to hold at every moment.
    fn check(&mut self, config: &NetworkConfig, store: &Cluster) -> Result<(), String> {
        if let Some(violation) = self.kernel.with(|state| state.violations.first().cloned()) {
            return Err(format!("{}: {violation}", self.name()));
        }
        let lease = self.own_lease(store);
        let is_kept = lease.is_some_and(|lease| lease.backend_type.as_deref() == Some("vxlan"));
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
        if ready && !self.plugins.with(|faults| faults.written) {
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
        if let Some(lease) = self.own_lease(store) {
            let missing = self.missing(config, &lease, &[]);
            let own = missing.iter().find(|change| !matches!(change, Change::Remove(_)));
            if let Some(change) = own {
                return Err(format!("{}: ready without {}", self.name(), change.object()));
            }
        }
        Ok(())
    }

    /// Returns what is not as it should be. None if everything is.
    fn unsettled(&self, config: &NetworkConfig, store: &Cluster) -> Option<String> {
        let Some(daemon) = &self.daemon else { return Some("there is no daemon".to_owned()) };
        if let Some((condition, reason)) = daemon.readiness.borrow().iter().next() {
            return Some(format!("{condition}: {reason}"));
        }
        let Some(lease) = self.own_lease(store) else { return Some("it has no lease".to_owned()) };
        if !self.plugins.with(|faults| faults.rules_hold) {
            return Some("the traffic rules do not hold".to_owned());
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
        records: &[heddle_store::Record],
    ) -> Vec<Change> {
        let underlay = Underlay {
            link: name(UNDERLAY),
            mtu: 1500,
            addresses: Vec::new(),
            public_addresses: [address(self.number)].into(),
        };
        let id = self.id().parse().expect("an id of letters and digits");
        let node = NodeFacts { id, underlay, links: Vec::new() };
        let scope = Scope {
            networks: config.networks.iter().map(|overlay| overlay.network).collect(),
            granted: Vec::new(),
            reserved: config.networks.iter().filter_map(OverlayNetwork::reserved_range).collect(),
            own: own.key.subnets().into_iter().collect(),
            links: [name(DEVICE)].into(),
            alias: "heddle".to_owned(),
        };
        let vital = Vital { store: BTreeSet::new(), own: [address(self.number)].into() };
        let routing = self.kernel.routing(&scope);
        let host = HostNetwork::new(&Claims::of(&scope), &routing, vital);
        let mut peers = Peers::new(config.clone(), own.key);
        peers.protect(host.clone());
        peers.begin_snapshot();
        for record in records {
            peers.add_to_snapshot(&record.as_read());
        }
        peers.end_snapshot(std::time::Instant::now());
        let mut desired = Desired::default();
        desired.set(Owner::Node, &Standing::default(), node_plan(&node, own, self.number));
        for peer in peers.leases() {
            if let Ok(plan) = peer_plan(peer) {
                desired.set(Owner::Peer(peer.key), &peers.standing(peer.key), plan);
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
) -> impl Fn(&heddle_store::Record) -> Option<LeaseKey> + 'a {
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

fn pick<T>(items: &[T]) -> Option<&T> {
    (!items.is_empty()).then(|| &items[fastrand::usize(..items.len())])
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
