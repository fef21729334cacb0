//! A scene: one node among models that a test scripts, for single behaviours instead of histories.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! use heddle_sim::scene::{Scene, key};
//!
//! let mut scene = Scene::started().await;
//! scene.plugins.with(|faults| faults.traps.insert(key(7), 2));
//! scene.add_peer(7);
//! scene.until("the peer has a route", |scene| scene.has_route(7)).await;
//! # }
//! ```

use std::sync::Arc;
use std::time::Duration;

use heddle_control::{Event, EventKind, Handler, Leases, Peer, Status};
use heddle_core::diff::ObjectChange;
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::object::{Address, Metric, Object, ObjectKey, Route, RouteAction};
use heddle_flags::Flags;
use heddle_node::ports::Ports;
use heddle_node::readiness::{Condition, Unmet};
use heddle_node::status::NodeState;
use heddle_node::{Identity, Node};
use ipnet::IpNet;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::kernel::{Maker, Mark, ModelKernel, UNDERLAY, name};
use crate::plugin::{DEVICE, Scripted, address};
use crate::store::Cluster;
use crate::trace::Trace;
use crate::world::plain;

/// The network config of a scene.
pub const CONFIG: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;

/// The subnet.env of an earlier run, which gives the node the subnet 10.244.1.0/24.
const SUBNET_ENV: &str = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n";

/// The time after which an expectation has failed.
const LIMIT: Duration = Duration::from_secs(600);

/// Interval at which an expectation is checked.
const STEP: Duration = Duration::from_millis(10);

/// One node, number 1, and the models that it acts on.
pub struct Scene {
    /// The store, without leases at first.
    pub store: Cluster,
    /// The node's kernel.
    pub kernel: ModelKernel,
    /// The node's plugins, files, traffic rules, prober and packet path.
    pub plugins: Scripted,
    arguments: Vec<&'static str>,
    run: Option<Run>,
}

/// A run of the node.
struct Run {
    running: JoinHandle<String>,
    readiness: watch::Receiver<Unmet>,
    warnings: watch::Receiver<Vec<String>>,
    state: Arc<NodeState>,
}

/// Returns the key of a node's lease: 10.244.NUMBER.0/24.
pub fn key(number: u8) -> LeaseKey {
    format!("10.244.{number}.0-24").parse().expect("a lease key")
}

/// Returns the key of the route to a node's subnet.
pub fn route(number: u8) -> ObjectKey {
    ObjectKey::Route(net(&format!("10.244.{number}.0/24")), Metric::Default)
}

/// Returns the key of the device.
pub fn device() -> ObjectKey {
    ObjectKey::Link(name(DEVICE))
}

/// Parses a network or an address with its prefix length.
pub fn net(text: &str) -> IpNet {
    text.parse().expect("an address and a prefix length")
}

/// Returns a route of another program.
pub fn foreign_route(destination: &str, link: &str, gateway: Option<u8>) -> Object {
    let action =
        RouteAction::Forward { link: name(link), gateway: gateway.map(address), onlink: false };
    Object::Route(Route { destination: net(destination), metric: Metric::Default, action })
}

impl Scene {
    /// Creates a healthy scene in which the node does not run yet.
    pub fn new() -> Self {
        fastrand::seed(1);
        let trace = Trace::new(false);
        let plugins = Scripted::new(1);
        plugins.with(|faults| faults.subnet_env = SUBNET_ENV.to_owned());
        Self {
            store: Cluster::new(CONFIG, trace.clone()),
            kernel: ModelKernel::new("n1".to_owned(), address(1), trace),
            plugins,
            arguments: vec!["heddled", "--ip-masq", "--subnet-lease-renew-margin=1"],
            run: None,
        }
    }

    /// Creates a scene with a node that is ready.
    pub async fn started() -> Self {
        let mut scene = Self::new();
        scene.start();
        scene.ready().await;
        scene
    }

    /// Creates a scene with a node that is ready, has these peers, and whose backend carries packets
    /// in user space.
    pub async fn with_tunnel(numbers: &[u8]) -> Self {
        let mut scene = Self::new();
        scene.plugins.with(|faults| faults.tunnel = true);
        numbers.iter().for_each(|number| scene.add_peer(*number));
        scene.start();
        scene.ready().await;
        scene
    }

    /// Creates a scene with a node that is ready and has these peers.
    pub async fn with_peers(numbers: &[u8]) -> Self {
        let mut scene = Self::started().await;
        for number in numbers {
            scene.add_peer(*number);
        }
        let numbers = numbers.to_vec();
        let routed = move |scene: &Self| numbers.iter().all(|number| scene.has_route(*number));
        scene.until("the peers have routes", routed).await;
        scene
    }

    /// Adds a flag for the next start.
    pub fn flag(&mut self, flag: &'static str) {
        self.arguments.push(flag);
    }

    /// Takes back the flag that was added last.
    pub fn unflag(&mut self) {
        self.arguments.pop();
    }

    /// Starts the node.
    pub fn start(&mut self) {
        let missing = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
        let arguments = self.arguments.iter().map(Into::into);
        let node = Node::new(Flags::read(arguments, |_| None, missing).expect("valid flags"));
        let readiness = node.readiness().subscribe();
        let (warnings, state) = (node.readiness().warnings(), node.state().clone());
        let plugins = Arc::new(self.plugins.clone());
        let ports = Ports {
            store: self.store.client(0),
            dataplane: Arc::new(self.kernel.clone()),
            plugins: plugins.clone(),
            host: plugins.clone(),
            files: plugins,
        };
        let identity =
            Identity { id: "node-1".parse().expect("a node id"), name: Some("n1".to_owned()) };
        let running = tokio::spawn(async move {
            match node.run(identity, ports).await {
                Ok(never) => match never {},
                Err(error) => error.to_string(),
            }
        });
        self.run = Some(Run { running, readiness, warnings, state });
    }

    /// Kills the node.
    pub async fn crash(&mut self) {
        if let Some(run) = self.run.take() {
            run.running.abort();
            let _ = run.running.await;
        }
    }

    /// Waits until the node ends by itself, and returns its reason.
    pub async fn end(&mut self) -> String {
        let run = self.run.take().expect("the node runs");
        let ended = tokio::time::timeout(LIMIT, run.running).await;
        ended.expect("the node ends").expect("the node does not panic")
    }

    fn run(&self) -> &Run {
        self.run.as_ref().expect("the node runs")
    }

    /// Lets time pass.
    pub async fn pass(&self, seconds: f64) {
        sleep(Duration::from_secs_f64(seconds)).await;
    }

    /// Waits until something holds, and returns the time that took.
    ///
    /// # Panics
    ///
    /// If it does not hold after ten minutes, or the node ends.
    pub async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Duration {
        let begun = Instant::now();
        while !holds(self) {
            let late = begun.elapsed() > LIMIT;
            assert!(!late, "it does not come to pass that {what}; unmet: {:?}", self.unmet());
            if let Some(run) = self.run.as_mut().filter(|run| run.running.is_finished()) {
                panic!("before {what}, the node ended: {:?}", (&mut run.running).await);
            }
            sleep(STEP).await;
        }
        begun.elapsed()
    }

    /// Waits until the node is ready.
    pub async fn ready(&mut self) -> Duration {
        self.until("the node is ready", Self::is_ready).await
    }

    /// Waits until a condition is unmet, and returns the reason.
    pub async fn unmet_by(&mut self, condition: Condition, part: &str) -> String {
        let named = |scene: &Self| scene.reason(condition).contains(part);
        self.until(&format!("{condition} is unmet because of '{part}'"), named).await;
        self.reason(condition)
    }

    /// Returns the unmet conditions with their reasons.
    pub fn unmet(&self) -> Unmet {
        self.run.as_ref().map(|run| run.readiness.borrow().clone()).unwrap_or_default()
    }

    /// Returns true if the node runs and all conditions hold.
    pub fn is_ready(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.readiness.borrow().is_empty())
    }

    /// Returns the reason why a condition does not hold. Empty if it does.
    pub fn reason(&self, condition: Condition) -> String {
        self.unmet().remove(&condition).unwrap_or_default()
    }

    /// Returns the warnings that do not affect readiness.
    pub fn warnings(&self) -> Vec<String> {
        self.run().warnings.borrow().clone()
    }

    /// Subscribes to the unmet conditions.
    pub fn readiness(&self) -> watch::Receiver<Unmet> {
        self.run().readiness.clone()
    }

    /// Returns the node's answer about its status.
    pub async fn status(&self) -> Status {
        self.run().state.status().await.expect("the status is always available")
    }

    /// Returns the node's answer about leases.
    ///
    /// # Errors
    ///
    /// The reason why there is none.
    pub async fn leases(&self) -> Result<Leases, String> {
        self.run().state.leases().await.map_err(|error| error.to_string())
    }

    /// Returns true if the node's loop answers within some seconds.
    pub async fn is_alive(&self, seconds: u64) -> bool {
        self.run().state.alive(Duration::from_secs(seconds)).await
    }

    /// Returns a peer in the node's status.
    pub async fn peer(&self, number: u8) -> Option<Peer> {
        let key = key(number).to_string();
        self.status().await.peers.into_iter().find(|peer| peer.key == key)
    }

    /// Returns the events of a kind in the node's history.
    pub async fn events(&self, kind: EventKind) -> Vec<Event> {
        let mut events = self.status().await.events;
        events.retain(|event| event.kind == kind);
        events
    }

    /// Writes the lease of another node: 10.244.NUMBER.0/24 at 192.168.0.NUMBER.
    pub fn add_peer(&self, number: u8) {
        self.write(number, &format!("192.168.0.{number}"), number);
    }

    /// Writes a lease of another node with this address and Ethernet address.
    pub fn write(&self, number: u8, address: &str, mac: u8) {
        let value = format!(
            r#"{{"PublicIP":"{address}","BackendType":"vxlan","BackendData":{{"VtepMAC":"02:00:00:00:01:{mac:02x}"}}}}"#
        );
        self.store.put(&key(number).to_string(), value.as_bytes());
    }

    /// Writes a record with any value.
    pub fn write_value(&self, number: u8, value: &str) {
        self.store.put(&key(number).to_string(), value.as_bytes());
    }

    /// Deletes the lease of another node.
    pub fn delete_peer(&self, number: u8) {
        self.store.delete(&key(number).to_string());
    }

    /// Returns the lease under a key, if there is a valid one.
    pub fn lease(&self, number: u8) -> Option<Lease> {
        let text = key(number).to_string();
        let record = self.store.records().into_iter().find(|record| record.key == text)?;
        Lease::from_value(key(number), &record.value).ok()
    }

    /// Returns the kernel's object under a key.
    pub fn object(&self, key: &ObjectKey) -> Option<Object> {
        self.kernel.with(|state| state.entries.get(key).map(|(object, _)| object.clone()))
    }

    /// Returns true if the kernel has the planned route to a node's subnet.
    pub fn has_route(&self, number: u8) -> bool {
        let found = self.kernel.with(|state| state.entries.get(&route(number)).cloned());
        found.is_some_and(|(_, maker)| maker == Maker::Heddle)
    }

    /// Returns the number of objects for a node in the kernel: route, neighbour and FDB entry.
    pub fn objects(&self, number: u8) -> usize {
        self.kernel.with(|state| {
            let of_peer = |object: &Object| match object {
                Object::FdbEntry(entry) => entry.destination == address(number),
                Object::Neighbour(neighbour) => {
                    neighbour.address == net(&format!("10.244.{number}.0/24")).addr()
                }
                other => other.key() == route(number),
            };
            state.entries.values().filter(|(object, _)| of_peer(object)).count()
        })
    }

    /// Returns true if the kernel has the planned device.
    pub fn has_device(&self) -> bool {
        self.kernel.with(|state| {
            state.devices.get(&name(DEVICE)).is_some_and(|(_, mark)| *mark == Mark::Ours)
        })
    }

    /// Has another program remove an object.
    pub fn remove(&self, key: &ObjectKey) {
        self.kernel.disturb("another program removes an object", |state| {
            match key {
                ObjectKey::Link(name) => state.delete(*name),
                key => state.remove(key),
            }
            vec![key.clone()]
        });
    }

    /// Has another program add an object.
    pub fn add(&self, object: &Object) {
        self.kernel.disturb("another program adds an object", |state| {
            state.put(object, Maker::Other).expect("there is a place for it");
            vec![object.key()]
        });
    }

    /// Has another program add a device.
    pub fn add_device(&self, device: &str) {
        self.kernel.disturb("another program adds a device", |state| {
            state.devices.insert(name(device), (plain(device), Mark::Foreign));
            vec![ObjectKey::Link(name(device))]
        });
    }

    /// Gives the host a network on the device `lan0`.
    pub fn add_network(&self, network: &str) {
        self.kernel.disturb("the host gets a network", |state| {
            let link = name("lan0");
            state.devices.insert(link, (plain("lan0"), Mark::Foreign));
            let address = Object::Address(Address { link, network: net(network) });
            state.put(&address, Maker::Other).expect("there is a place for it");
            vec![ObjectKey::Link(link)]
        });
    }

    /// Sets the underlay's address, or removes it.
    pub fn set_address(&self, number: Option<u8>) {
        self.kernel.disturb("the underlay's address changes", |state| {
            state.address = number.map(address);
            vec![ObjectKey::Link(name(UNDERLAY))]
        });
    }

    /// Sets the underlay's further addresses, in the kernel's order.
    pub fn set_more_addresses(&self, addresses: &[&str]) {
        self.kernel.disturb("the underlay's further addresses change", |state| {
            state.more_addresses = addresses.iter().map(|text| net(text)).collect();
            vec![ObjectKey::Link(name(UNDERLAY))]
        });
    }

    /// Sets the underlay up or down.
    pub fn set_underlay(&self, up: bool) {
        self.kernel.disturb("the underlay goes up or down", |state| {
            state.underlay_down = !up;
            vec![ObjectKey::Link(name(UNDERLAY))]
        });
    }

    /// Makes the kernel unreadable for some seconds.
    pub fn blind(&self, seconds: u64) {
        let until = Instant::now() + Duration::from_secs(seconds);
        self.kernel.with(|state| state.unreadable_until = Some(until));
    }

    /// Returns the number of changes that were made for the node.
    pub fn made(&self) -> u64 {
        self.kernel.with(|state| state.made)
    }

    /// Records the changes that the node asks the kernel for, from now on.
    pub fn record(&self) {
        self.kernel.with(|state| state.asked = Some(Vec::new()));
    }

    /// Returns the recorded changes.
    pub fn asked(&self) -> Vec<ObjectChange> {
        self.kernel.with(|state| state.asked.clone().unwrap_or_default())
    }

    /// Returns the number of recorded attempts to change an object.
    pub fn attempts(&self, key: &ObjectKey) -> usize {
        self.asked().iter().filter(|change| change.object().key() == *key).count()
    }
}

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}
