//! Nodes with one etcd.

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

/// `proto 72` in `ip route`: routes of Heddle's.
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
    /// The overlays of these families, IPv4 first.
    pub fn all(families: Families) -> &'static [Self] {
        match families {
            Families::V4 => &[Self::V4],
            Families::V6 => &[Self::V6],
            Families::Dual => &[Self::V4, Self::V6],
        }
    }

    /// Its whole network.
    pub fn network(self) -> &'static str {
        match self {
            Self::V4 => "10.244.0.0/16",
            Self::V6 => "fd00:10:244::/48",
        }
    }

    /// A host's address of the same family.
    pub fn address_of(self, host: &Host) -> IpAddr {
        match self {
            Self::V4 => host.v4().into(),
            Self::V6 => host.v6().into(),
        }
    }

    /// A container's address.
    pub fn address_in(self, container: &Container) -> IpAddr {
        let wanted = |address: &&IpAddr| address.is_ipv4() == (self == Self::V4);
        *container.addresses().iter().find(wanted).expect("the container has the family")
    }

    /// The name of its VXLAN device for VNI 1.
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
    /// Dropped before the lab, which it is a part of.
    store: Store,
    lab: Lab,
}

impl Cluster {
    /// vxlan with nothing but defaults.
    pub fn new(families: Families) -> Self {
        Self::with_config(families, Some(&families.config()))
    }

    /// Another backend with nothing but defaults.
    pub fn with_backend(families: Families, backend: &str) -> Self {
        Self::with_config(families, Some(&families.config_with(backend)))
    }

    /// With another network config, or none at all.
    pub fn with_config(families: Families, config: Option<&str>) -> Self {
        let lab = Lab::new(families).unwrap();
        let etcd = Etcd::start(&lab).unwrap();
        let store = Store::Etcd(etcd);
        if let Some(config) = config {
            store.put_config(config).unwrap();
        }
        Self { store, lab }
    }

    /// With an etcd of the lab that was started otherwise.
    pub fn with_etcd(lab: Lab, etcd: Etcd) -> Self {
        let config = lab.families().config();
        Self::with_etcd_and_config(lab, etcd, &config)
    }

    /// The same with another network config.
    pub fn with_etcd_and_config(lab: Lab, etcd: Etcd, config: &str) -> Self {
        let store = Store::Etcd(etcd);
        store.put_config(config).unwrap();
        Self { store, lab }
    }

    /// The lab it is in.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Its store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Its etcd.
    pub fn etcd(&self) -> &Etcd {
        match &self.store {
            Store::Etcd(etcd) => etcd,
            Store::Directory(_) => unreachable!("clusters are made with etcd"),
        }
    }

    /// Its etcd, to stop and start it.
    pub fn etcd_mut(&mut self) -> &mut Etcd {
        match &mut self.store {
            Store::Etcd(etcd) => etcd,
            Store::Directory(_) => unreachable!("clusters are made with etcd"),
        }
    }

    /// A host without a daemon.
    pub fn host(&self, name: &str) -> Host {
        self.lab.host(name).unwrap()
    }

    /// The command line for a host's daemon.
    pub fn heddled(&self, host: &Host) -> Command {
        host.heddled(&heddled(), &self.store)
    }

    /// A host with a daemon that is ready.
    pub fn node(&self, name: &str) -> Node {
        let mut node = self.starting_node(name, &[]);
        node.daemon().wait_ready().unwrap();
        node
    }

    /// Hosts with daemons that were started at once and are ready.
    pub fn nodes<const N: usize>(&self, names: [&str; N]) -> [Node; N] {
        let mut nodes = names.map(|name| self.starting_node(name, &[]));
        for node in &mut nodes {
            node.daemon().wait_ready().unwrap();
        }
        nodes
    }

    /// A node on a host that was made before.
    pub fn node_on(&self, host: Host) -> Node {
        let mut node = self.starting_node_on(host, &[]);
        node.daemon().wait_ready().unwrap();
        node
    }

    /// A host with a daemon that has just been started with more flags.
    pub fn starting_node(&self, name: &str, flags: &[&str]) -> Node {
        self.starting_node_on(self.host(name), flags)
    }

    /// The same on a host that is there already.
    pub fn starting_node_on(&self, host: Host, flags: &[&str]) -> Node {
        let mut command = self.heddled(&host);
        command.args(flags);
        let daemon = host.start(command).unwrap();
        Node { daemon: Some(daemon), host, flags: flags.iter().map(ToString::to_string).collect() }
    }

    /// Starts the daemon of a node again, and waits until it is ready.
    pub fn restart(&self, node: &mut Node) {
        assert!(node.daemon.is_none(), "heddled on {} still runs", node.host.name());
        let mut command = self.heddled(&node.host);
        command.args(&node.flags);
        node.daemon.insert(node.host.start(command).unwrap()).wait_ready().unwrap();
    }

    /// The lease that a node has in etcd.
    pub fn lease(&self, node: &Node) -> KeyValue {
        self.lease_of(&node.host).unwrap_or_else(|| panic!("{} has no lease", node.host.name()))
    }

    /// The node's subnets, IPv4 first, from its lease's key.
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

    /// The node's subnet in one family.
    pub fn subnet(&self, node: &Node, overlay: Overlay) -> IpNet {
        let wanted = |subnet: &IpNet| subnet.addr().is_ipv4() == (overlay == Overlay::V4);
        self.subnets(node).into_iter().find(wanted).unwrap()
    }

    /// What a node's `subnet.env` should contain.
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

    /// The lease of the node on this host.
    pub fn lease_of(&self, host: &Host) -> Option<KeyValue> {
        self.find_lease(host.name())
    }

    /// Deletes the lease of the node on this host.
    pub fn delete_lease_of(&self, host: &Host) {
        let lease = self.lease_of(host).unwrap_or_else(|| panic!("{} has no lease", host.name()));
        self.etcd().delete(&lease.key).unwrap();
    }

    /// The lease with this node id.
    pub fn find_lease(&self, id: &str) -> Option<KeyValue> {
        let leases = self.etcd().list(&lease_key("")).unwrap();
        leases.into_iter().find(|lease| {
            let value: Value = serde_json::from_str(&lease.value).unwrap_or_default();
            value["NodeID"] == id
        })
    }

    /// What a host's kernel should hold on `flannel.1`, by the leases in etcd as they are now: a route, a neighbour and an
    /// FDB entry for each of vxlan's but the host's own. IPv4 alone.
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

/// The whole key of a lease in etcd.
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
    /// Its daemon.
    pub fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("the daemon runs")
    }

    /// Ends its daemon with a signal and returns its exit code, if it was not the signal that ended it.
    pub fn stop(&mut self, signal: Signal) -> Option<i32> {
        let daemon = self.daemon.take().expect("the daemon runs");
        daemon.stop(signal).unwrap().code()
    }

    /// Waits until its daemon has ended by itself, and returns its exit code and its log.
    pub fn ended(&mut self, limit: Duration) -> (Option<i32>, String) {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        let status = daemon.wait_exit(limit).unwrap();
        (status.code(), daemon.log())
    }

    /// Sends its daemon a signal: held with `Signal::STOP`, it does not see at once what is done to its kernel.
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

    /// A device as `ip -d -j address show` has it; null if there is none.
    pub fn link(&self, device: &str) -> Value {
        let links: Vec<Value> = self.host.namespace().json("ip", "-d -j address show").unwrap();
        let named = |link: &Value| link["ifname"] == device;
        links.into_iter().find(named).unwrap_or_default()
    }

    /// How many packets one of its devices has had in a direction, `tx` or `rx`; a super-packet counts once.
    ///
    /// # Panics
    ///
    /// Where there is no such device.
    pub fn packets(&self, device: &str, direction: &str) -> u64 {
        let command = format!("-s -j link show {device}");
        let links: Value = self.host.namespace().json("ip", &command).unwrap();
        links[0]["stats64"][direction]["packets"].as_u64().expect("a number of packets")
    }

    /// Its devices' names, but for the loopback's, the underlay's and those of containers.
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

    /// What its lease should say, to the letter: names, case and order of the fields are flannel's, NodeID and NodeName
    /// ours.
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

    /// The routes of Heddle's: `proto 72`.
    pub fn routes(&self) -> Vec<Route> {
        let mut state = self.host.kernel_state().unwrap();
        state.routes.retain(|route| route.protocol.as_deref() == Some(PROTOCOL));
        state.routes.into_iter().collect()
    }

    /// How many packets its packet path has seen of each kind.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let daemon = self.daemon.as_ref().expect("the daemon runs");
        let (status, body) = daemon.health("/packets").unwrap();
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error} in {body}"))
    }

    /// What its kernel holds on one device.
    pub fn objects(&self, device: &str) -> KernelState {
        self.host.kernel_state().unwrap().on(device)
    }
}
