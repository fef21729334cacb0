//! Nodes with a common etcd.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use heddle_lab::{
    Container, Daemon, Etcd, Families, FdbEntry, Host, KernelState, KeyValue, Lab, Neighbour,
    PREFIX, Route, Signal, Store,
};
use ipnet::IpNet;
use serde_json::Value;

use crate::heddled;

/// `proto 72` in `ip route`: the protocol of Heddle's routes.
pub const PROTOCOL: &str = "72";

/// The overlay of one address family, as the tests configure it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// 10.244.0.0/16, a /24 for each node.
    V4,
    /// fd00:10:244::/48, a /64 for each node.
    V6,
}

impl Overlay {
    /// Returns the overlays of these families, IPv4 first.
    pub fn all(families: Families) -> &'static [Self] {
        match families {
            Families::V4 => &[Self::V4],
            Families::V6 => &[Self::V6],
            Families::Dual => &[Self::V4, Self::V6],
        }
    }

    /// Returns the overlay's whole network.
    pub fn network(self) -> &'static str {
        match self {
            Self::V4 => "10.244.0.0/16",
            Self::V6 => "fd00:10:244::/48",
        }
    }

    /// Returns the host's address in the overlay's family.
    pub fn address_of(self, host: &Host) -> IpAddr {
        match self {
            Self::V4 => host.v4().into(),
            Self::V6 => host.v6().into(),
        }
    }

    /// Returns the container's address in the overlay's family.
    pub fn address_in(self, container: &Container) -> IpAddr {
        let wanted = |address: &&IpAddr| address.is_ipv4() == (self == Self::V4);
        *container.addresses().iter().find(wanted).expect("the container has the family")
    }

    /// Returns the name of the VXLAN device for VNI 1.
    pub fn device(self) -> &'static str {
        match self {
            Self::V4 => "flannel.1",
            Self::V6 => "flannel-v6.1",
        }
    }
}

/// A lab with an etcd in it that holds a network config.
#[derive(Debug)]
pub struct Cluster {
    /// Dropped before the lab, which it belongs to.
    store: Store,
    lab: Lab,
}

impl Cluster {
    /// Creates a cluster with the vxlan backend and its defaults.
    pub fn new(families: Families) -> Self {
        Self::with_config(families, Some(&families.config()))
    }

    /// Creates a cluster with another backend and its defaults.
    pub fn with_backend(families: Families, backend: &str) -> Self {
        Self::with_config(families, Some(&families.config_with(backend)))
    }

    /// Creates a cluster with any network config, or without one.
    pub fn with_config(families: Families, config: Option<&str>) -> Self {
        let lab = Lab::new(families).unwrap();
        let etcd = Etcd::start(&lab).unwrap();
        let store = Store::Etcd(etcd);
        if let Some(config) = config {
            store.put_config(config).unwrap();
        }
        Self { store, lab }
    }

    /// Creates a cluster on an etcd of the lab that the caller has started.
    pub fn with_etcd(lab: Lab, etcd: Etcd) -> Self {
        let config = lab.families().config();
        Self::with_etcd_and_config(lab, etcd, &config)
    }

    /// Creates a cluster on the caller's etcd, with any network config.
    pub fn with_etcd_and_config(lab: Lab, etcd: Etcd, config: &str) -> Self {
        let store = Store::Etcd(etcd);
        store.put_config(config).unwrap();
        Self { store, lab }
    }

    /// Creates a cluster on the caller's etcd, as it is.
    pub fn with_etcd_as_it_is(lab: Lab, etcd: Etcd) -> Self {
        Self { store: Store::Etcd(etcd), lab }
    }

    /// Returns the cluster's lab.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Returns the cluster's store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the cluster's etcd.
    pub fn etcd(&self) -> &Etcd {
        match &self.store {
            Store::Etcd(etcd) => etcd,
            Store::Directory(_) => unreachable!("clusters are made with etcd"),
        }
    }

    /// Returns the cluster's etcd, to stop and start it.
    pub fn etcd_mut(&mut self) -> &mut Etcd {
        match &mut self.store {
            Store::Etcd(etcd) => etcd,
            Store::Directory(_) => unreachable!("clusters are made with etcd"),
        }
    }

    /// Creates a host without a daemon.
    pub fn host(&self, name: &str) -> Host {
        self.lab.host(name).unwrap()
    }

    /// Returns the command line for a host's daemon.
    pub fn heddled(&self, host: &Host) -> Command {
        host.heddled(&heddled(), &self.store)
    }

    /// Creates a host and its daemon, and waits until the daemon is ready.
    pub fn node(&self, name: &str) -> Node {
        let mut node = self.starting_node(name, &[]);
        node.daemon().wait_ready().unwrap();
        node
    }

    /// Creates hosts whose daemons start concurrently, and waits until all are ready.
    pub fn nodes<const N: usize>(&self, names: [&str; N]) -> [Node; N] {
        let mut nodes = names.map(|name| self.starting_node(name, &[]));
        for node in &mut nodes {
            node.daemon().wait_ready().unwrap();
        }
        nodes
    }

    /// Starts a daemon on an existing host, and waits until it is ready.
    pub fn node_on(&self, host: Host) -> Node {
        let mut node = self.starting_node_on(host, &[]);
        node.daemon().wait_ready().unwrap();
        node
    }

    /// Creates a host and starts its daemon with additional flags, without waiting.
    pub fn starting_node(&self, name: &str, flags: &[&str]) -> Node {
        self.starting_node_on(self.host(name), flags)
    }

    /// Starts a daemon on an existing host with additional flags, without waiting.
    pub fn starting_node_on(&self, host: Host, flags: &[&str]) -> Node {
        let mut command = self.heddled(&host);
        command.args(flags);
        let daemon = host.start(command).unwrap();
        Node { daemon: Some(daemon), host, flags: flags.iter().map(ToString::to_string).collect() }
    }

    /// Restarts a stopped node's daemon, and waits until it is ready.
    pub fn restart(&self, node: &mut Node) {
        assert!(node.daemon.is_none(), "heddled on {} still runs", node.host.name());
        let mut command = self.heddled(&node.host);
        command.args(&node.flags);
        node.daemon.insert(node.host.start(command).unwrap()).wait_ready().unwrap();
    }

    /// Restarts a stopped node's daemon with other additional flags, and waits until it is ready.
    pub fn restart_with(&self, node: &mut Node, flags: &[String]) {
        node.flags = flags.to_vec();
        self.restart(node);
    }

    /// Returns the node's lease in etcd.
    pub fn lease(&self, node: &Node) -> KeyValue {
        self.lease_of(&node.host).unwrap_or_else(|| panic!("{} has no lease", node.host.name()))
    }

    /// Returns the node's subnets, IPv4 first, from its lease's key.
    pub fn subnets(&self, node: &Node) -> Vec<IpNet> {
        let lease = self.lease(node);
        let (_, key) = lease.key.rsplit_once('/').unwrap();
        key.split('&')
            .filter(|subnet| *subnet != "0.0.0.0-0")
            .map(|subnet| {
                let (address, length) = subnet.rsplit_once('-').unwrap();
                format!("{address}/{length}").parse().unwrap()
            })
            .collect()
    }

    /// Returns the node's subnet in one family.
    pub fn subnet(&self, node: &Node, overlay: Overlay) -> IpNet {
        let wanted = |subnet: &IpNet| subnet.addr().is_ipv4() == (overlay == Overlay::V4);
        self.subnets(node).into_iter().find(wanted).unwrap()
    }

    /// Returns the expected content of a node's `subnet.env`.
    pub fn subnet_env(&self, node: &Node, mtu: u32) -> String {
        let mut text = String::new();
        for subnet in self.subnets(node) {
            let (overlay, key) = match subnet {
                IpNet::V4(_) => (Overlay::V4, ""),
                IpNet::V6(_) => (Overlay::V6, "IPV6_"),
            };
            let first = match subnet.network() {
                IpAddr::V4(address) => IpAddr::V4((u32::from(address) + 1).into()),
                IpAddr::V6(address) => IpAddr::V6((u128::from(address) + 1).into()),
            };
            text += &format!("FLANNEL_{key}NETWORK={}\n", overlay.network());
            text += &format!("FLANNEL_{key}SUBNET={first}/{}\n", subnet.prefix_len());
        }
        text + &format!("FLANNEL_MTU={mtu}\nFLANNEL_IPMASQ=false\n")
    }

    /// Returns the lease of the node on this host.
    pub fn lease_of(&self, host: &Host) -> Option<KeyValue> {
        self.find_lease(host.name())
    }

    /// Deletes the lease of the node on this host.
    pub fn delete_lease_of(&self, host: &Host) {
        let lease = self.lease_of(host).unwrap_or_else(|| panic!("{} has no lease", host.name()));
        self.etcd().delete(&lease.key).unwrap();
    }

    /// Returns the lease with this node id.
    pub fn find_lease(&self, id: &str) -> Option<KeyValue> {
        let leases = self.etcd().list(&lease_key("")).unwrap();
        leases.into_iter().find(|lease| {
            let value: Value = serde_json::from_str(&lease.value).unwrap_or_default();
            value["NodeID"] == id
        })
    }

    /// Returns the objects that a host's kernel should have on `flannel.1` for the leases currently
    /// in etcd: a route, a neighbour and an FDB entry for each vxlan lease except the host's own.
    /// IPv4 only.
    pub fn planned(&self, host: &Host) -> KernelState {
        let mut planned = KernelState::default();
        for (key, value) in self.etcd().leases().unwrap() {
            let value: Value = serde_json::from_str(&value).unwrap_or_default();
            let mac = value["BackendData"]["VtepMAC"].as_str();
            let (Some(public), Some(mac)) = (value["PublicIP"].as_str(), mac) else { continue };
            let Some((first, length)) = key.split_once('-') else { continue };
            if public == host.v4().to_string() {
                continue;
            }
            let device = || "flannel.1".to_owned();
            planned.routes.insert(Route {
                dst: format!("{first}/{length}"),
                gateway: Some(first.to_owned()),
                dev: Some(device()),
                kind: None,
                protocol: Some(PROTOCOL.to_owned()),
                flags: vec!["onlink".into()],
                metric: None,
            });
            planned.neighbours.insert(Neighbour {
                dst: first.to_owned(),
                dev: device(),
                lladdr: Some(mac.to_owned()),
                state: vec!["PERMANENT".into()],
            });
            planned.fdb.insert(FdbEntry {
                mac: mac.to_owned(),
                ifname: device(),
                dst: Some(public.to_owned()),
                flags: vec!["self".into()],
                state: "permanent".into(),
            });
        }
        planned
    }

    /// Writes a lease.
    pub fn put_lease(&self, key: &str, value: &str) {
        self.etcd().put(&lease_key(key), value).unwrap();
    }

    /// Removes a lease.
    pub fn delete_lease(&self, key: &str) {
        self.etcd().delete(&lease_key(key)).unwrap();
    }
}

/// Returns the full key of a lease in etcd.
fn lease_key(key: &str) -> String {
    format!("{PREFIX}/subnets/{key}")
}

/// A host of the cluster and its daemon.
#[derive(Debug)]
pub struct Node {
    daemon: Option<Daemon>,
    /// The host.
    pub host: Host,
    flags: Vec<String>,
}

impl Node {
    /// Returns the node's daemon.
    pub fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("the daemon runs")
    }

    /// Stops the daemon with a signal and returns its exit code; None if the signal killed it.
    pub fn stop(&mut self, signal: Signal) -> Option<i32> {
        let daemon = self.daemon.take().expect("the daemon runs");
        daemon.stop(signal).unwrap().code()
    }

    /// Waits until the daemon has exited by itself, and returns its exit code and its log.
    pub fn ended(&mut self, limit: Duration) -> (Option<i32>, String) {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        let status = daemon.wait_exit(limit).unwrap();
        (status.code(), daemon.log())
    }

    /// Sends the daemon a signal. A daemon paused with `Signal::STOP` does not see changes of its
    /// kernel immediately.
    pub fn signal(&self, signal: Signal) {
        self.daemon.as_ref().expect("the daemon runs").signal(signal).unwrap();
    }

    /// Runs `ip` on the host.
    pub fn ip(&self, arguments: &str) -> String {
        self.host.namespace().ip(arguments).unwrap()
    }

    /// Runs `bridge` on the host.
    pub fn bridge(&self, arguments: &str) -> String {
        self.host.namespace().bridge(arguments).unwrap()
    }

    /// Returns a device as reported by `ip -d -j address show`; null if it does not exist.
    pub fn link(&self, device: &str) -> Value {
        let links: Vec<Value> = self.host.namespace().json("ip", "-d -j address show").unwrap();
        let named = |link: &Value| link["ifname"] == device;
        links.into_iter().find(named).unwrap_or_default()
    }

    /// Returns the number of packets that one of the node's devices has counted in a direction,
    /// `tx` or `rx`; a super-packet counts once.
    ///
    /// # Panics
    ///
    /// If the device does not exist.
    pub fn packets(&self, device: &str, direction: &str) -> u64 {
        let command = format!("-s -j link show {device}");
        let links: Value = self.host.namespace().json("ip", &command).unwrap();
        links[0]["stats64"][direction]["packets"].as_u64().expect("a number of packets")
    }

    /// Returns the names of the node's devices, except the loopback, the underlay and those of
    /// containers.
    pub fn devices(&self) -> Vec<String> {
        let links: Vec<Value> = self.host.namespace().json("ip", "-j link show").unwrap();
        let name = |link: &Value| link["ifname"].as_str().unwrap().to_owned();
        let known = ["lo", "eth0", "docker0"];
        links
            .iter()
            .map(name)
            .filter(|name| !known.contains(&name.as_str()) && !name.starts_with("veth"))
            .collect()
    }

    /// Returns the exact expected value of the node's lease: names, case and order of the fields
    /// are flannel's; NodeID and NodeName are Heddle's.
    pub fn lease_value(
        &self,
        overlays: &[Overlay],
        backend_type: Option<&str>,
        backend_data: impl Fn(Overlay) -> Option<String>,
    ) -> String {
        let public = |overlay: Overlay, none: &str| match overlays.contains(&overlay) {
            true => format!("\"{}\"", overlay.address_of(&self.host)),
            false => none.to_owned(),
        };
        let mut fields = vec![
            ("PublicIP", public(Overlay::V4, "\"0.0.0.0\"")),
            ("PublicIPv6", public(Overlay::V6, "null")),
        ];
        fields.extend(backend_type.map(|kind| ("BackendType", format!("\"{kind}\""))));
        for &overlay in overlays {
            let field = if overlay == Overlay::V4 { "BackendData" } else { "BackendV6Data" };
            fields.extend(backend_data(overlay).map(|data| (field, data)));
        }
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        fields.push(("NodeID", format!("\"{}\"", self.host.name())));
        fields.push(("NodeName", format!("\"{}\"", hostname.trim())));
        let fields: Vec<_> =
            fields.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", fields.join(","))
    }

    /// Returns Heddle's routes: those with `proto 72`.
    pub fn routes(&self) -> Vec<Route> {
        let mut state = self.host.kernel_state().unwrap();
        state.routes.retain(|route| route.protocol.as_deref() == Some(PROTOCOL));
        state.routes.into_iter().collect()
    }

    /// Returns the packet path's counters.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let daemon = self.daemon.as_ref().expect("the daemon runs");
        let (status, body) = daemon.health("/packets").unwrap();
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error} in {body}"))
    }

    /// Returns the kernel objects on one device.
    pub fn objects(&self, device: &str) -> KernelState {
        self.host.kernel_state().unwrap().on(device)
    }
}
