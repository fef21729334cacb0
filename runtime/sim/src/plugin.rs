//! A scripted backend that plans as `vxlan` does, an emitter, files and traffic rules, with their faults.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use heddle_core::address::{LinkName, MacAddress};
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::node::Node;
use heddle_core::object::{
    Address, FdbEntry, Link, LinkKind, Metric, Neighbour, Object, Plan, Route, RouteAction, Sysctl,
    Vxlan,
};
use heddle_core::site::{NoLease, Site};
use heddle_files::{Found, Print, ReadError, Written};
use heddle_firewall::Rules;
use heddle_node::ports::{
    Emitter, FileError, Files, FoundPlugin, Host, PacketOpener, PacketPath, Planner, Plugins,
    Prober, Removal, Ruleset, StartError, Started,
};
use heddle_packet::{Counters, OpenError};
use heddle_plugin::{
    Advertisements, CallError, File, Manifest, Metrics, NodePlan, PluginSource, Reason, Setting,
    Tunnel, View,
};
use heddle_probe::{Health, News, ProbeError};
use ipnet::IpNet;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep};

use crate::kernel::name;

/// The device that the backend plans.
pub const DEVICE: &str = "flannel.1";

/// The TUN device that the backend plans if it carries packets itself.
pub const TUNNEL: &str = "flannel0";

/// The faults of a node's plugins and of its firewall.
#[derive(Default)]
pub struct Faults {
    /// Returns the reason why the plugins cannot be started. None if they can.
    pub start: Option<fn() -> StartError>,
    /// The number of times that the plugins were to be started.
    pub starts: u32,
    /// The reason why the plugin has nothing to advertise.
    pub advertise: Option<Reason>,
    /// The reason why the plugin has no plan for the node.
    pub plan_node: Option<Reason>,
    /// The settings of the device in the plan for the node.
    pub sysctls: Vec<Sysctl>,
    /// The reasons why the plugin has no plan for a peer.
    pub no_plan: BTreeMap<LeaseKey, Reason>,
    /// The time that each call about peers takes longer.
    pub planning: Duration,
    /// The peers of each call about peers.
    pub asked: Vec<Vec<LeaseKey>>,
    /// The number of times that the packet path cannot be opened from now on.
    pub open_failures: u32,
    /// True if the backend carries packets itself.
    pub tunnel: bool,
    /// The peers that the packet path steers to. None before it is open.
    pub steered: Option<BTreeMap<LeaseKey, Lease>>,
    /// The number of calls of an emitter that trap from now on.
    pub emitter_traps: u32,
    /// The number of times that files were written.
    pub writes: u32,
    /// The subnet.env of an earlier run.
    pub subnet_env: String,
    /// The traffic rules that the node asks for.
    pub rules: Option<Rules>,
    /// The number of checks of the traffic rules.
    pub rule_checks: u32,
    /// The addresses that are probed.
    pub probed: BTreeSet<IpAddr>,
    /// The health of probed addresses.
    pub health: BTreeMap<IpAddr, Health>,
    /// Reports changes of reachability to the node.
    pub news: Option<mpsc::Sender<News>>,
    /// The number of calls about a peer that trap from now on.
    pub traps: BTreeMap<LeaseKey, u32>,
    /// The time until which the plugin is suspended.
    pub suspended_until: Option<Instant>,
    /// The time until which the rules cannot be made to hold.
    pub firewall_until: Option<Instant>,
    /// The time until which the files cannot be written.
    pub files_until: Option<Instant>,
    /// True if the rules hold.
    pub rules_hold: bool,
    /// The files of the node's host.
    pub disk: BTreeMap<PathBuf, Found>,
    /// The daemon's record of the files that it wrote.
    pub record: Vec<Written>,
    /// True if changes of files are not noticed.
    pub files_deaf: bool,
    /// Time at which another program last changed an emitted file, and whether that was noticed.
    pub files_disturbed: Option<(Instant, bool)>,
}

impl Faults {
    fn file(&self, path: &Path) -> Found {
        self.disk.get(path).cloned().unwrap_or(Found::Missing)
    }

    fn put_file(&mut self, path: PathBuf, found: Found) {
        match found {
            Found::Missing => drop(self.disk.remove(&path)),
            found => drop(self.disk.insert(path, found)),
        }
    }
}

/// The plugins of a node. Clones are the same.
#[derive(Clone)]
pub struct Scripted {
    faults: Arc<Mutex<Faults>>,
    rules_changed: Arc<Notify>,
    files_changed: Arc<Notify>,
    metrics: Arc<Metrics>,
    number: u8,
}

impl Scripted {
    /// Returns plugins without faults. `number` is the node's.
    pub fn new(number: u8) -> Self {
        Self {
            faults: Arc::default(),
            rules_changed: Arc::default(),
            files_changed: Arc::default(),
            metrics: Arc::default(),
            number,
        }
    }

    /// Reads or changes the faults.
    pub fn with<T>(&self, look: impl FnOnce(&mut Faults) -> T) -> T {
        look(&mut self.faults.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts something in the place of a file, or deletes the file, as another program may.
    pub fn disturb_file(&self, path: &str, found: Found) {
        let deaf = self.with(|faults| {
            faults.files_disturbed = Some((Instant::now(), !faults.files_deaf));
            faults.put_file(path.into(), found);
            faults.files_deaf
        });
        if !deaf {
            self.files_changed.notify_one();
        }
    }

    /// Returns what is at a path.
    pub fn file(&self, path: &str) -> Found {
        self.with(|faults| faults.file(Path::new(path)))
    }

    /// Removes the traffic rules, as another program may.
    pub fn flush_rules(&self) {
        self.with(|faults| faults.rules_hold = false);
        self.rules_changed.notify_one();
    }
}

/// The contents of the file that the emitter wants.
pub const EMITTED: &str =
    "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\n";

/// The path of the file that the emitter wants, unless a setting names another one.
pub const FILE: &str = "/run/flannel/subnet.env";

/// Returns a regular file with these contents.
pub fn regular(contents: &str) -> Found {
    Found::Regular { mode: 0o644, contents: Some(contents.into()) }
}

fn active(until: Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() < until)
}

/// Returns the MAC address that a node advertises.
fn mac(number: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, number])
}

/// Returns the node's own plan.
pub fn node_plan(node: &Node, lease: &Lease, number: u8) -> Plan {
    let link = name(DEVICE);
    let underlay = &node.underlay;
    let kind = LinkKind::Vxlan(Vxlan {
        vni: 1,
        local: *underlay.public_addresses.first().expect("a node has an address"),
        underlay: underlay.link,
        port: 8472,
        learning: false,
        gbp: false,
    });
    let device =
        Link { name: link, mtu: underlay.mtu - 50, mac: Some(mac(number)), up: true, kind };
    let address = |subnet: IpNet| {
        let network = IpNet::from(subnet.network());
        Object::Address(Address { link, network })
    };
    let addresses = lease.key.subnets().map(address);
    Plan { objects: [Object::Link(device)].into_iter().chain(addresses).collect() }
}

/// Returns the plan for a peer, as a function of its lease alone.
///
/// # Errors
///
/// The reason why the plugin has none.
pub fn peer_plan(peer: &Lease) -> Result<Plan, Reason> {
    match peer.backend_type.as_deref() {
        Some("vxlan") => {}
        other => return Err(Reason::OtherBackend(other.unwrap_or("none").to_owned())),
    }
    let link = name(DEVICE);
    let mut objects = Vec::new();
    for family in &peer.families {
        let data = family.backend_data.as_deref().unwrap_or("null");
        let data: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
        let mac = data["VtepMAC"].as_str().and_then(|text| text.parse().ok());
        let mac = mac.ok_or_else(|| Reason::Invalid("there is no VtepMAC".to_owned()))?;
        let gateway = family.subnet.network();
        objects.push(Object::FdbEntry(FdbEntry { link, mac, destination: family.public_address }));
        objects.push(Object::Neighbour(Neighbour { link, address: gateway, mac }));
        objects.push(Object::Route(Route {
            destination: family.subnet,
            metric: Metric::Default,
            action: RouteAction::Forward { link, gateway: Some(gateway), onlink: true },
        }));
    }
    Ok(Plan { objects })
}

/// Returns the node's plan of a backend that carries packets itself: a TUN device, and one route to
/// the whole overlay.
fn tunnel_plan(node: &Node, mtu: u32) -> NodePlan {
    let link = name(TUNNEL);
    let device = Link { name: link, mtu, mac: None, up: true, kind: LinkKind::Tun };
    let whole = Route {
        destination: "10.244.0.0/16".parse().expect("a network"),
        metric: Metric::Default,
        action: RouteAction::Forward { link, gateway: None, onlink: false },
    };
    let plan = Plan { objects: vec![Object::Link(device), Object::Route(whole)] };
    let local = node.underlay.public_addresses.into_iter().collect();
    NodePlan { plan, tunnel: Some(Tunnel { link, local, port: 8285, overhead: 0 }), mtu }
}

fn failed_call(call: &'static str, peer: Option<LeaseKey>, reason: Reason) -> CallError {
    let peer = peer.map(|key| key.to_string());
    CallError { plugin: "vxlan".to_owned(), call, peer, reason }
}

fn found(world: &str, name: &str) -> FoundPlugin {
    let text = format!(
        r#"{{"name":"{name}","version":"0.1.0","wit":"0.1.0","world":"{world}","keys":["VNI","Port"]}}"#
    );
    let manifest = Manifest::parse(text.as_bytes()).expect("a manifest like any other");
    FoundPlugin { manifest, source: PluginSource::Embedded, digest: String::new() }
}

#[async_trait]
impl Plugins for Scripted {
    async fn start(&self, _: &str, emitters: &[String]) -> Result<Started, StartError> {
        sleep(Duration::from_millis(5)).await;
        let error = self.with(|faults| {
            faults.starts += 1;
            faults.start
        });
        if let Some(error) = error {
            return Err(error());
        }
        let tunnel = self.with(|faults| faults.tunnel);
        let emitter = |name: &String| {
            let emitter: Arc<dyn Emitter> = Arc::new(self.clone());
            (found("emitter-plugin", name), emitter)
        };
        Ok(Started {
            backend_found: found("backend-plugin", "vxlan"),
            backend: Arc::new(self.clone()),
            packets: tunnel.then(|| Box::new(self.clone()) as Box<dyn PacketOpener>),
            emitters: emitters.iter().map(emitter).collect(),
        })
    }
}

#[async_trait]
impl Planner for Scripted {
    fn name(&self) -> &str {
        "vxlan"
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    async fn advertise(&self, site: &Site<NoLease>) -> Result<Advertisements, CallError> {
        if let Some(reason) = self.with(|faults| faults.advertise.clone()) {
            return Err(failed_call("advertise", None, reason));
        }
        let data = format!(r#"{{"VtepMAC":"{}"}}"#, mac(self.number));
        Ok(Advertisements {
            backend_type: Some("vxlan".to_owned()),
            backend_data: site.config.networks.map(|_| data.clone()),
        })
    }

    async fn plan_node(&self, site: &Arc<Site>) -> Result<NodePlan, CallError> {
        if let Some(reason) = self.with(|faults| faults.plan_node.clone()) {
            return Err(failed_call("plan-node", None, reason));
        }
        let mtu = site.node.underlay.mtu - 50;
        if self.with(|faults| faults.tunnel) {
            return Ok(tunnel_plan(&site.node, mtu));
        }
        let mut plan = node_plan(&site.node, &site.lease, self.number);
        plan.objects
            .extend(self.with(|faults| faults.sysctls.clone()).into_iter().map(Object::Sysctl));
        Ok(NodePlan { plan, tunnel: None, mtu })
    }

    async fn plan_peers(
        &self,
        _: &Arc<Site>,
        _: Vec<LinkName>,
        peers: Vec<Lease>,
    ) -> Vec<Result<Plan, CallError>> {
        let longer = self.with(|faults| {
            faults.asked.push(peers.iter().map(|peer| peer.key).collect());
            faults.planning
        });
        sleep(longer + Duration::from_millis(fastrand::u64(0..4))).await;
        let answer = |peer: &Lease| {
            let failed = self.with(|faults| {
                if let Some(until) = faults.suspended_until.filter(|until| Instant::now() < *until)
                {
                    let rest = until - Instant::now();
                    return Some(Reason::Suspended { rest, failures: 3 });
                }
                if let Some(reason) = faults.no_plan.get(&peer.key) {
                    return Some(reason.clone());
                }
                let left = faults.traps.get_mut(&peer.key)?;
                *left = left.checked_sub(1)?;
                Some(Reason::Trapped("unreachable".to_owned()))
            });
            let plan = || match self.with(|faults| faults.tunnel) {
                true => Ok(Plan::default()),
                false => peer_plan(peer),
            };
            let plan = failed.map_or_else(plan, Err);
            plan.map_err(|reason| failed_call("plan-peer", Some(peer.key), reason))
        };
        peers.iter().map(answer).collect()
    }
}

#[async_trait]
impl Emitter for Scripted {
    fn name(&self) -> &str {
        "subnet-env"
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    async fn emit(&self, _: &View, settings: &[Setting]) -> Result<Vec<File>, CallError> {
        let trapped = self.with(|faults| {
            let left = faults.emitter_traps.checked_sub(1);
            faults.emitter_traps = left.unwrap_or_default();
            left.is_some()
        });
        if trapped {
            let reason = Reason::Trapped("unreachable".to_owned());
            return Err(CallError {
                plugin: "subnet-env".to_owned(),
                ..failed_call("emit", None, reason)
            });
        }
        let path = settings.iter().find(|setting| setting.name == "path");
        let path = path.map_or(FILE, |setting| setting.value.as_str()).into();
        Ok(vec![File { path, contents: EMITTED.into(), mode: 0o644 }])
    }
}

#[async_trait]
impl Files for Scripted {
    fn subnet_env(&self) -> String {
        self.with(|faults| faults.subnet_env.clone())
    }

    async fn look(&self, path: &Path, _: u64) -> Result<Found, ReadError> {
        Ok(self.with(|faults| faults.file(path)))
    }

    async fn replace(&self, files: Vec<File>, _: &[Setting]) -> Result<Vec<PathBuf>, FileError> {
        self.with(|faults| {
            for file in &files {
                let error = match faults.file(&file.path) {
                    _ if active(faults.files_until) => std::io::Error::from_raw_os_error(28),
                    Found::Other(kind) if kind != "a symbolic link" => {
                        std::io::Error::other("it exists and is not a regular file")
                    }
                    _ => continue,
                };
                return Err(FileError::new("write", file.path.clone(), error));
            }
            faults.writes += 1;
            for File { path, contents, mode } in &files {
                let found = Found::Regular { mode: *mode, contents: Some(contents.clone()) };
                faults.put_file(path.clone(), found);
            }
            self.files_changed.notify_one();
            Ok(files.into_iter().map(|file| file.path).collect())
        })
    }

    async fn remove(
        &self,
        path: &Path,
        prints: &[Print],
        _: &[PathBuf],
    ) -> Result<Removal, FileError> {
        self.with(|faults| {
            let found = faults.file(path);
            if found == Found::Missing {
                return Ok(Removal::Missing);
            }
            if prints.iter().all(|print| found.difference(print).is_some()) {
                return Ok(Removal::Foreign);
            }
            faults.put_file(path.to_owned(), Found::Missing);
            Ok(Removal::Removed)
        })
    }

    async fn recorded(&self) -> Vec<Written> {
        self.with(|faults| faults.record.clone())
    }

    async fn record(&self, written: &[Written]) -> Result<(), FileError> {
        self.with(|faults| faults.record = written.to_vec());
        Ok(())
    }

    async fn watch(&self, _: &[PathBuf]) {}

    async fn changed(&self) {
        self.files_changed.notified().await;
    }
}

impl Host for Scripted {
    fn ruleset(&self, rules: Rules) -> Box<dyn Ruleset> {
        self.with(|faults| faults.rules = Some(rules));
        Box::new(self.clone())
    }

    fn prober(&self, _: Duration) -> Result<(Box<dyn Prober>, mpsc::Receiver<News>), ProbeError> {
        let (sender, news) = mpsc::channel(16);
        self.with(|faults| faults.news = Some(sender));
        Ok((Box::new(self.clone()), news))
    }
}

impl Prober for Scripted {
    fn watch(&self, addresses: BTreeSet<IpAddr>) {
        self.with(|faults| faults.probed = addresses);
    }

    fn health(&self, address: IpAddr) -> Option<Health> {
        self.with(|faults| faults.health.get(&address).copied())
    }
}

impl PacketOpener for Scripted {
    fn open(
        self: Box<Self>,
        _: Arc<Site>,
        _: &NodePlan,
        tunnel: &Tunnel,
        _: &[IpNet],
    ) -> Result<Box<dyn PacketPath>, OpenError> {
        let fails = self.with(|faults| {
            let left = faults.open_failures.checked_sub(1);
            faults.open_failures = left.unwrap_or_default();
            faults.steered = left.is_none().then(BTreeMap::new);
            left.is_some()
        });
        if fails { Err(OpenError::DeviceExists(tunnel.link)) } else { Ok(self) }
    }
}

#[async_trait]
impl PacketPath for Scripted {
    fn put(&self, lease: Lease) {
        self.with(|faults| faults.steered.get_or_insert_default().insert(lease.key, lease));
    }

    fn remove(&self, key: LeaseKey) {
        self.with(|faults| faults.steered.get_or_insert_default().remove(&key));
    }

    async fn flush(&self) {}

    fn counters(&self) -> Box<dyn Fn() -> Option<Counters> + Send + Sync> {
        let plugins = self.clone();
        Box::new(move || {
            let peers = plugins.with(|faults| faults.steered.as_ref().map(BTreeMap::len));
            Some(Counters { sent_packets: peers? as u64, ..Counters::default() })
        })
    }
}

#[async_trait]
impl Ruleset for Scripted {
    fn deaf(&self) -> Option<&str> {
        None
    }

    async fn ensure(&mut self) -> Result<Vec<String>, String> {
        sleep(Duration::from_millis(20)).await;
        self.with(|faults| {
            faults.rule_checks += 1;
            if active(faults.firewall_until) {
                faults.rules_hold = false;
                return Err("iptables-restore failed".to_owned());
            }
            let held = std::mem::replace(&mut faults.rules_hold, true);
            Ok(if held { Vec::new() } else { vec!["rules restored".to_owned()] })
        })
    }

    async fn changed(&mut self) {
        self.rules_changed.notified().await;
    }
}

/// Returns the address of a node's host.
pub fn address(number: u8) -> IpAddr {
    IpAddr::from([192, 168, 0, number])
}
