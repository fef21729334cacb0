//! The nodes, what happens to them, and what has to hold.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic;
use std::sync::Once;
use std::time::Duration;

use heddle_core::config::NetworkConfig;
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::object::{Metric, ObjectKey};
use heddle_core::peers::GRACE;
use heddle_node::readiness::Unmet;
use heddle_plugin::Reason;
use tokio::time::{Instant, sleep};

use crate::kernel::ModelKernel;
use crate::plugin::{Scripted, address, peer_plan};
use crate::store::Cluster;
use crate::trace::Trace;

mod host;

use host::Host;
pub(crate) use host::plain;

/// The network config of all nodes.
const CONFIG: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;

/// The time in which everything has to be as it should be once nothing happens any more: the longest retry interval, twice.
const RECOVERY: Duration = Duration::from_secs(240);

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
            let number = [16, 16, 18, 20, 24, 25][fastrand::usize(..6)];
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
        match fastrand::u8(..27) {
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

fn pick<T>(items: &[T]) -> Option<&T> {
    (!items.is_empty()).then(|| &items[fastrand::usize(..items.len())])
}
