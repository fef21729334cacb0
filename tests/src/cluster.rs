//! Nodes with one etcd.

use std::process::Command;

use heddle_lab::{Daemon, Etcd, Families, Host, KernelState, KeyValue, Lab, PREFIX, Signal, Store};
use serde_json::Value;

use crate::heddled;

/// The overlay of one address family, as the tests configure it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// 10.244.0.0/16, a /24 for each node.
    V4,
    /// fd00:10:244::/48, a /64 for each node.
    V6,
}

impl Overlay {
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

    /// A host with a daemon that has just been started with more flags.
    pub fn starting_node(&self, name: &str, flags: &[&str]) -> Node {
        let host = self.host(name);
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
        self.find_lease(node.host.name())
            .unwrap_or_else(|| panic!("{} has no lease", node.host.name()))
    }

    /// The lease with this node id.
    pub fn find_lease(&self, id: &str) -> Option<KeyValue> {
        let leases = self.etcd().list(&lease_key("")).unwrap();
        leases.into_iter().find(|lease| {
            let value: Value = serde_json::from_str(&lease.value).unwrap_or_default();
            value["NodeID"] == id
        })
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

    /// What its kernel holds on one device.
    pub fn objects(&self, device: &str) -> KernelState {
        self.host.kernel_state().unwrap().on(device)
    }
}
