//! Inputs and doubles for tests of single modules. `runtime/sim` has models for tests of a whole
//! node.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use heddle_core::address::LinkName;
use heddle_core::config::NetworkConfig;
use heddle_core::diff::{ObjectChange, Observation, Observed, Scope};
use heddle_core::host_network::{HostAddress, HostRouting};
use heddle_core::interface::{Facts, Interface};
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::link_counters::LinkCounters;
use heddle_core::node::{Node, Underlay};
use heddle_core::object::{Link, LinkKind, Metric, Object, Route, RouteAction, Sysctl};
use heddle_core::record::{Age, Record};
use heddle_core::site::Site;
use heddle_flags::Flags;
use heddle_kernel::{ApplyError, Failure, KernelError, Refusal};
use heddle_plugin::{Manifest, PluginSource};
use heddle_store::{Handle, LeaseStore, Page, Renewal, StoreError, Stored, Watch};
use ipnet::IpNet;

use crate::ports::{Dataplane, Events, FoundPlugin};

/// Parses the name of a device.
pub(crate) fn name(text: &str) -> LinkName {
    text.parse().unwrap()
}

/// Parses a network, or an address with its prefix length.
pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Returns the network config 10.244.0.0/16.
pub(crate) fn config() -> NetworkConfig {
    parsed(r#"{"Network":"10.244.0.0/16"}"#)
}

/// Parses a network config.
pub(crate) fn parsed(config: &str) -> NetworkConfig {
    NetworkConfig::parse(config.as_bytes()).unwrap()
}

/// Returns the key of a node's lease: 10.244.NUMBER.0/24.
pub(crate) fn key(number: u8) -> LeaseKey {
    format!("10.244.{number}.0-24").parse().unwrap()
}

/// Returns the lease of a node at 192.0.2.NUMBER.
pub(crate) fn lease(number: u8) -> Lease {
    lease_at(number, &format!("192.0.2.{number}"))
}

/// Returns the lease of a node at an address.
pub(crate) fn lease_at(number: u8, address: &str) -> Lease {
    let value = format!(r#"{{"PublicIP":"{address}"}}"#);
    Lease::from_value(key(number), value.as_bytes()).unwrap()
}

/// Returns a record of the store with any key and value.
pub(crate) fn stored(key: &str, value: &str) -> Stored {
    let (key, value) = (key.to_owned(), value.as_bytes().to_vec());
    Stored {
        record: Record { key, value, unread: None, age: Age::default() },
        handle: Handle { version: 1, lease_id: None },
    }
}

/// Returns the flags of a command line.
pub(crate) fn flags(arguments: &[&str]) -> Flags {
    let arguments = ["heddled"].iter().chain(arguments).map(OsString::from);
    let missing = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    Flags::read(arguments, |_| None, missing).unwrap()
}

/// Returns an interface that is up, with these addresses.
pub(crate) fn interface(link: &str, addresses: &[&str]) -> Interface {
    Interface {
        name: name(link),
        mtu: 1500,
        up: true,
        loopback: false,
        kind: String::new(),
        mac: None,
        local: None,
        alias: String::new(),
        unusable: vec![],
        addresses: addresses.iter().map(|address| net(address)).collect(),
    }
}

/// Returns facts about a host with these interfaces, the default route through the first.
pub(crate) fn facts(interfaces: Vec<Interface>) -> Facts {
    let first = interfaces.first().map(|first| first.name);
    Facts { interfaces, default_routes_v4: first.into_iter().collect(), ..Facts::default() }
}

/// Returns this node, at 192.0.2.1 on eth0.
pub(crate) fn node() -> Node {
    let underlay = Underlay {
        link: name("eth0"),
        mtu: 1500,
        addresses: vec![net("192.0.2.1/24")],
        public_addresses: [IpAddr::from([192, 0, 2, 1])].into(),
    };
    Node { id: "node-1".parse().unwrap(), underlay, links: Vec::new() }
}

/// Returns this node in a network, with a lease.
pub(crate) fn site(config: NetworkConfig, lease: Lease) -> Site {
    Site::new(config, node()).with_lease(lease)
}

/// Returns a route through a device.
pub(crate) fn route(destination: &str, link: &str) -> Route {
    let action = RouteAction::Forward { link: name(link), gateway: None, onlink: false };
    Route { destination: net(destination), metric: Metric::Default, action }
}

/// Returns a device of another kind than Heddle's.
pub(crate) fn device(link: &str) -> Object {
    let kind = LinkKind::Other("veth".to_owned());
    Object::Link(Link { name: name(link), mtu: 1500, mac: None, up: true, kind })
}

/// Returns a plugin as it is found inside the binary.
pub(crate) fn found(world: &str, name: &str) -> FoundPlugin {
    let text = format!(r#"{{"name":"{name}","version":"0.1.0","wit":"0.1.0","world":"{world}"}}"#);
    let manifest = Manifest::parse(text.as_bytes()).unwrap();
    FoundPlugin { manifest, source: PluginSource::Embedded, digest: "d1".to_owned() }
}

/// A kernel with scripted answers, which records what is asked of it. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScriptedKernel(Arc<Mutex<Script>>);

/// The answers and records of a [`ScriptedKernel`].
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) facts: Vec<Interface>,
    /// The devices by which packets to other hosts leave.
    pub(crate) ways: BTreeMap<IpAddr, LinkName>,
    pub(crate) observed: Observed,
    pub(crate) routing: HostRouting,
    pub(crate) own_routes: Vec<Route>,
    pub(crate) connected: BTreeSet<(IpNet, LinkName)>,
    /// True if nothing can be read.
    pub(crate) unreadable: bool,
    /// True if changes are refused.
    pub(crate) refuses: bool,
    /// The changes asked for.
    pub(crate) applied: Vec<ObjectChange>,
    /// The addresses whose connected routes were restored.
    pub(crate) restored: Vec<HostAddress>,
    /// The scopes that were observed.
    pub(crate) scopes: Vec<Scope>,
}

fn refusal() -> Refusal {
    std::io::Error::from_raw_os_error(16).into()
}

impl ScriptedKernel {
    /// Reads or changes the script.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Script) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    /// Adds an object to what is observed.
    pub(crate) fn add(&self, object: Object, ours: bool) {
        let observation = Observation { object, ours };
        let key = observation.object.key();
        self.with(|script| script.observed.objects.insert(key, observation));
    }

    /// Returns the objects whose removal was asked for.
    pub(crate) fn removed(&self) -> Vec<Object> {
        let removed = |change: &ObjectChange| match change {
            ObjectChange::Remove(object) => object.clone(),
            other => panic!("{other:?}"),
        };
        self.with(|script| script.applied.iter().map(removed).collect())
    }

    fn read<T>(&self, look: impl FnOnce(&mut Script) -> T) -> Result<T, KernelError> {
        self.with(|script| match script.unreadable {
            true => Err(KernelError::Refused { what: "the routes", refusal: refusal() }),
            false => Ok(look(script)),
        })
    }
}

#[async_trait]
impl Dataplane for ScriptedKernel {
    async fn facts(&self, _: Option<IpAddr>) -> Result<Facts, KernelError> {
        self.read(|script| facts(script.facts.clone()))
    }

    async fn egress(
        &self,
        _: IpAddr,
        destinations: Vec<IpAddr>,
    ) -> Result<BTreeSet<LinkName>, KernelError> {
        self.read(|script| {
            let link = |to: &IpAddr| script.ways.get(to).copied();
            destinations.iter().filter_map(link).collect()
        })
    }

    async fn observe(&self, scope: &Scope, _: &[Sysctl]) -> Result<Observed, KernelError> {
        self.read(|script| {
            script.scopes.push(scope.clone());
            script.observed.clone()
        })
    }

    async fn host_routing(&self, _: &Scope) -> Result<HostRouting, KernelError> {
        self.read(|script| script.routing.clone())
    }

    async fn own_routes(&self, _: &Scope) -> Result<Vec<Route>, KernelError> {
        self.read(|script| script.own_routes.clone())
    }

    async fn connected_networks(&self) -> Result<BTreeSet<(IpNet, LinkName)>, KernelError> {
        self.read(|script| script.connected.clone())
    }

    async fn restore_connected(
        &self,
        addresses: Vec<HostAddress>,
    ) -> Result<Vec<(HostAddress, Refusal)>, KernelError> {
        self.read(|script| {
            script.restored.extend(addresses.iter().cloned());
            let refused = addresses.into_iter().filter(|_| script.refuses);
            refused.map(|address| (address, refusal())).collect()
        })
    }

    async fn apply(&self, _: &Scope, changes: Vec<ObjectChange>) -> Vec<Failure> {
        self.with(|script| {
            script.applied.extend(changes.iter().cloned());
            let refused = changes.into_iter().filter(|_| script.refuses);
            let error = || ApplyError::Refused { refusal: refusal(), hint: None };
            refused.map(|change| Failure { change, error: error() }).collect()
        })
    }

    fn link_counters(&self) -> BTreeMap<LinkName, LinkCounters> {
        BTreeMap::new()
    }

    async fn subscribe(&self, _: &Scope) -> Result<Box<dyn Events>, KernelError> {
        unreachable!("no module that is tested alone subscribes to events")
    }
}

/// A store of which only the hosts and the list of records are known.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScriptedStore {
    pub(crate) hosts: Arc<Mutex<Vec<String>>>,
    pub(crate) records: Vec<Stored>,
}

#[async_trait]
impl LeaseStore for ScriptedStore {
    async fn network_config(&self) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(None)
    }

    async fn scan(&self, visit: &mut (dyn FnMut(Page) + Send)) -> Result<(), StoreError> {
        visit(Page { records: self.records.clone(), first: true, last: true });
        Ok(())
    }

    async fn find_key(
        &self,
        wanted: &(dyn for<'k> Fn(&'k str) -> bool + Sync),
    ) -> Result<Option<String>, StoreError> {
        Ok(self.records.iter().map(|stored| stored.record.key.clone()).find(|key| wanted(key)))
    }

    async fn get(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        Ok(self.records.iter().find(|stored| stored.key() == key).cloned())
    }

    async fn create(&self, _: &str, _: &[u8]) -> Result<Option<Stored>, StoreError> {
        Ok(None)
    }

    async fn replace(&self, _: &Stored, _: &[u8]) -> Result<Option<Stored>, StoreError> {
        Ok(None)
    }

    async fn rename(&self, _: &Stored, _: &str, _: &[u8]) -> Result<Option<Stored>, StoreError> {
        Ok(None)
    }

    async fn delete(&self, _: &Stored) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn renew(&self, _: &Stored) -> Result<Renewal, StoreError> {
        Ok(Renewal::Permanent)
    }

    fn hosts(&self) -> Vec<String> {
        self.hosts.lock().unwrap().clone()
    }

    fn watch(&self) -> Watch {
        Watch::spawn(|_, _| std::future::pending())
    }

    async fn reload(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
