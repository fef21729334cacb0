//! Scenarios, and a plugin's results as text.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;
use std::{fs, iter};

use heddle_sdk::{
    Advertisements, Backend, ConfigError, Emitter, ExistingLink, Family, File, IpNet, Lease,
    LeaseFamily, MacAddress, NetworkConfig, Node, OverlayNetwork, PeerError, Plan, Setting,
    Underlay, View,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// A network config, this node, and others.
#[derive(Clone, Debug)]
pub struct Scenario {
    json: String,
    /// Network config of the cluster.
    pub config: NetworkConfig,
    /// This node.
    pub node: Node,
    subnets: Vec<IpNet>,
    /// Other nodes with the same plugin, and their subnets.
    nodes: Vec<(Vec<IpNet>, Node)>,
    /// Recorded leases, by their keys.
    leases: BTreeMap<String, Lease>,
    /// Additional input of emitters.
    mtu: u32,
    ip_masq: bool,
}

impl Scenario {
    /// Returns a scenario with three nodes on one Ethernet network in IPv4: alpha, which is this
    /// node, beta and gamma. `backend` is the object `Backend` of the network config.
    ///
    /// # Panics
    ///
    /// If `backend` is not JSON.
    pub fn v4(backend: &str) -> Self {
        Self::of(&[Family::V4], backend)
    }

    /// Returns the same scenario in IPv6.
    ///
    /// # Panics
    ///
    /// Like [`Scenario::v4`].
    pub fn v6(backend: &str) -> Self {
        Self::of(&[Family::V6], backend)
    }

    /// Returns the same scenario in both families.
    ///
    /// # Panics
    ///
    /// Like [`Scenario::v4`].
    pub fn dual(backend: &str) -> Self {
        Self::of(&[Family::V4, Family::V6], backend)
    }

    fn of(families: &[Family], backend: &str) -> Self {
        let backend: Value = serde_json::from_str(backend)
            .unwrap_or_else(|error| panic!("the backend is not JSON: {error}"));
        let mut config = json!({"Backend": backend});
        for family in families {
            match family {
                Family::V4 => config["Network"] = "10.244.0.0/16".into(),
                Family::V6 => {
                    config["EnableIPv6"] = true.into();
                    config["IPv6Network"] = "fd00:10:244::/48".into();
                }
            }
        }
        if !families.contains(&Family::V4) {
            config["EnableIPv4"] = false.into();
        }
        let node = |number: usize, id: &str| {
            let texts = |v4: String, v6: String| -> Vec<String> {
                let text = |family: &Family| match family {
                    Family::V4 => v4.clone(),
                    Family::V6 => v6.clone(),
                };
                families.iter().map(text).collect()
            };
            json!({
                "id": id,
                "subnets": texts(format!("10.244.{number}.0/24"), format!("fd00:10:244:{number}::/64")),
                "link": "eth0",
                "mtu": 1500,
                "addresses": texts(format!("192.168.0.{number}/24"), format!("fd00::{number}/64")),
            })
        };
        let scenario = json!({
            "config": config,
            "node": node(1, "alpha"),
            "nodes": [node(2, "beta"), node(3, "gamma")],
        });
        Self::parse(&scenario.to_string())
    }

    /// Reads a scenario from a file.
    ///
    /// # Panics
    ///
    /// If the file cannot be read, and like [`Scenario::parse`].
    pub fn read(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let text = fs::read_to_string(path);
        Self::parse(&text.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    /// Parses a scenario.
    ///
    /// ```
    /// let scenario = heddle_testkit::Scenario::parse(r#"{
    ///     "config": {"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}},
    ///     "node": {
    ///         "id": "alpha", "subnets": ["10.244.1.0/24"],
    ///         "link": "eth0", "mtu": 1500, "addresses": ["192.168.0.1/24"],
    ///         "public-addresses": ["203.0.113.1"],
    ///         "links": [{"name": "flannel.1", "kind": "vxlan", "mac": "3a:8b:71:f2:2e:de"}]
    ///     },
    ///     "nodes": [],
    ///     "leases": {
    ///         "10.244.9.0-24": {"PublicIP": "192.168.0.9", "BackendType": "vxlan",
    ///                           "BackendData": {"VNI": 1, "VtepMAC": "0e:00:00:00:00:09"}}
    ///     }
    /// }"#);
    /// assert_eq!(scenario.node.underlay.link, "eth0");
    /// ```
    ///
    /// `config` is the key `config` below the etcd prefix, `leases` are keys below `subnets` and
    /// their values. Other `nodes` have the form of `node`, and leases as the plugin advertises
    /// them. `public-addresses` default to the first of `addresses` in each family; `links` are
    /// devices that exist already. Additional input of emitters stands next to `config`: `mtu`,
    /// 1450 by default, and `ip-masq`.
    ///
    /// # Panics
    ///
    /// If the text is not such an object.
    pub fn parse(text: &str) -> Self {
        let raw: Raw = serde_json::from_str(text)
            .unwrap_or_else(|error| panic!("the scenario cannot be read: {error}"));
        let config = network_config(&raw.config);
        let families: Vec<_> = config.families().collect();
        let (subnets, node) = raw.node.node(&families);
        Self {
            json: text.to_owned(),
            node,
            subnets,
            nodes: raw.nodes.into_iter().map(|node| node.node(&families)).collect(),
            leases: raw.leases.into_iter().map(|(key, value)| recorded(key, &value)).collect(),
            config,
            mtu: raw.mtu,
            ip_masq: raw.ip_masq,
        }
    }

    /// Returns the scenario as JSON, as `heddle plugin plan` reads it.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Returns this node's lease, as a backend advertises it.
    ///
    /// # Errors
    ///
    /// The backend's error about the config.
    pub fn lease<B: Backend>(&self) -> Result<Lease, ConfigError> {
        let advertised = B::advertise(&self.config, &self.node)?;
        Ok(lease(&self.subnets, &self.node, advertised))
    }

    /// Returns the leases of all other nodes, by their keys.
    ///
    /// # Errors
    ///
    /// The backend's error about the config.
    pub fn peers<B: Backend>(&self) -> Result<BTreeMap<String, Lease>, ConfigError> {
        let mut peers = self.leases.clone();
        for (subnets, node) in &self.nodes {
            let advertised = B::advertise(&self.config, node)?;
            peers.insert(key(subnets), lease(subnets, node, advertised));
        }
        Ok(peers)
    }

    /// Calls a backend's functions, and formats the results as text: the advertisements, the plan
    /// of the node, and that of each peer; instead of a plan, the error after `!`.
    pub fn plan<B: Backend>(&self) -> String {
        let mut text = String::new();
        // An error is part of the text already.
        let _ = self.write_plan::<B>(&mut text);
        text
    }

    /// Calls an emitter on this node with these settings, names and values, and formats the files
    /// as text, or the error after `!`. The node's lease is for the config's backend.
    pub fn emit<E: Emitter>(&self, settings: &[(&str, &str)]) -> String {
        let backend: Value = serde_json::from_str(&self.config.backend).unwrap_or_default();
        let advertised = Advertisements {
            backend_type: backend["Type"].as_str().map(str::to_owned),
            backend_data: vec![None; self.config.networks.len()],
        };
        let view = View {
            config: self.config.clone(),
            lease: lease(&self.subnets, &self.node, advertised),
            mtu: self.mtu,
            ip_masq: self.ip_masq,
        };
        let setting = |(name, value): &(&str, &str)| Setting {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        let settings: Vec<_> = settings.iter().map(setting).collect();
        let mut text = String::new();
        match E::emit(&view, &settings) {
            Err(error) => {
                let _ = writeln!(text, "! {error}");
            }
            Ok(files) => {
                for File { path, mode, contents } in files {
                    let _ = writeln!(text, "file {path} mode {mode:o}");
                    for line in String::from_utf8_lossy(&contents).lines() {
                        let _ = writeln!(text, "  {line}");
                    }
                }
            }
        }
        text
    }

    fn write_plan<B: Backend>(&self, text: &mut String) -> Result<(), Said> {
        text.push_str("advertise\n");
        let advertised = said(text, B::advertise(&self.config, &self.node))?;
        for line in advertised.backend_type.iter().chain(advertised.backend_data.iter().flatten()) {
            let _ = writeln!(text, "  {line}");
        }
        let own = lease(&self.subnets, &self.node, advertised);
        text.push_str("node\n");
        let planned = said(text, B::plan_node(&self.config, &self.node, &own))?;
        let _ = writeln!(text, "  mtu {}", planned.mtu);
        indent(text, &planned.plan);
        for (key, peer) in said(text, self.peers::<B>())? {
            let _ = writeln!(text, "peer {key}");
            match B::plan_peer(&self.config, &self.node, &own, &peer) {
                Ok(plan) => indent(text, &plan),
                Err(PeerError::OtherBackend(kind)) => {
                    let _ = writeln!(text, "  ! the lease is for the backend {kind}");
                }
                Err(PeerError::Invalid(why)) => {
                    let _ = writeln!(text, "  ! the lease cannot be used: {why}");
                }
            }
        }
        Ok(())
    }
}

/// Ends the text early; the error is part of it already.
struct Said;

fn said<T>(text: &mut String, result: Result<T, ConfigError>) -> Result<T, Said> {
    result.map_err(|error| {
        let _ = writeln!(text, "  ! {error}");
        Said
    })
}

fn indent(text: &mut String, plan: &Plan) {
    for line in plan.to_string().lines() {
        let _ = writeln!(text, "  {line}");
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    config: Value,
    node: RawNode,
    #[serde(default)]
    nodes: Vec<RawNode>,
    #[serde(default)]
    leases: BTreeMap<String, Value>,
    #[serde(default = "usual_mtu")]
    mtu: u32,
    #[serde(default)]
    ip_masq: bool,
}

/// Returns the MTU of vxlan on an Ethernet network.
fn usual_mtu() -> u32 {
    1450
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawNode {
    id: String,
    subnets: Vec<IpNetText>,
    link: String,
    mtu: u32,
    addresses: Vec<IpNetText>,
    #[serde(default)]
    public_addresses: Vec<IpAddr>,
    #[serde(default)]
    links: Vec<RawLink>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLink {
    name: String,
    kind: String,
    mac: Option<String>,
}

/// A network parsed from text, without ipnet's serde feature, which plugins do not use.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct IpNetText(IpNet);

impl TryFrom<String> for IpNetText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self).map_err(|error| format!("{text}: {error}"))
    }
}

impl RawNode {
    fn node(self, families: &[Family]) -> (Vec<IpNet>, Node) {
        let addresses: Vec<_> = self.addresses.into_iter().map(|IpNetText(net)| net).collect();
        let first = |family: &Family| {
            let own = addresses.iter().map(IpNet::addr);
            own.into_iter().find(|address| Family::of(*address) == *family)
        };
        let public_addresses = match self.public_addresses {
            given if given.is_empty() => families.iter().filter_map(first).collect(),
            given => given,
        };
        let mac = |text: String| -> MacAddress {
            text.parse()
                .unwrap_or_else(|error| panic!("the scenario's MAC address {text}: {error}"))
        };
        let link = |link: RawLink| ExistingLink {
            name: link.name,
            kind: link.kind,
            mac: link.mac.map(mac),
        };
        let underlay = Underlay { link: self.link, mtu: self.mtu, addresses, public_addresses };
        let links = self.links.into_iter().map(link).collect();
        let node = Node { id: self.id, underlay, links };
        (self.subnets.into_iter().map(|IpNetText(net)| net).collect(), node)
    }
}

/// Returns the network config with defaults, for the keys that plugins get.
fn network_config(config: &Value) -> NetworkConfig {
    let flag = |key: &str, default| config[key].as_bool().unwrap_or(default);
    let network = |key: &str| -> IpNet {
        let text = config[key].as_str().unwrap_or_default();
        text.parse().unwrap_or_else(|error| panic!("the scenario's {key} {text:?}: {error}"))
    };
    let length = |key: &str, default| {
        config[key].as_u64().and_then(|length| u8::try_from(length).ok()).unwrap_or(default)
    };
    let mut networks = Vec::new();
    if flag("EnableIPv4", true) {
        let subnet_length = length("SubnetLen", 24);
        networks.push(OverlayNetwork { network: network("Network"), subnet_length });
    }
    if flag("EnableIPv6", false) {
        let subnet_length = length("IPv6SubnetLen", 64);
        networks.push(OverlayNetwork { network: network("IPv6Network"), subnet_length });
    }
    NetworkConfig { networks, backend: config["Backend"].to_string() }
}

fn lease(subnets: &[IpNet], node: &Node, advertised: Advertisements) -> Lease {
    let parts = subnets.iter().zip(&node.underlay.public_addresses).zip(advertised.backend_data);
    let families = parts.map(|((subnet, public), backend_data)| LeaseFamily {
        subnet: *subnet,
        public_address: *public,
        backend_data,
    });
    Lease { families: families.collect(), backend_type: advertised.backend_type }
}

/// Returns the key of a lease with these subnets.
fn key(subnets: &[IpNet]) -> String {
    let v4 = subnets.iter().find(|subnet| subnet.addr().is_ipv4());
    let v6 = subnets.iter().find(|subnet| subnet.addr().is_ipv6());
    let text = |subnet: &IpNet| format!("{}-{}", subnet.addr(), subnet.prefix_len());
    let v4 = v4.map_or_else(|| "0.0.0.0-0".to_owned(), text);
    iter::once(v4).chain(v6.map(text)).collect::<Vec<_>>().join("&")
}

/// Parses a lease in etcd's format.
fn recorded(key: String, value: &Value) -> (String, Lease) {
    let subnet = |text: &str| -> IpNet {
        let network = text.rsplit_once('-').map(|(address, length)| format!("{address}/{length}"));
        let network = network.and_then(|network| network.parse().ok());
        network.unwrap_or_else(|| panic!("`{key}` is no key of a lease"))
    };
    let data = |field: &str| Some(&value[field]).filter(|data| !data.is_null());
    let mut families = Vec::new();
    for text in key.split('&').filter(|text| *text != "0.0.0.0-0") {
        let subnet = subnet(text);
        let (address, backend_data) = match Family::of_network(subnet) {
            Family::V4 => ("PublicIP", "BackendData"),
            Family::V6 => ("PublicIPv6", "BackendV6Data"),
        };
        let public = value[address].as_str().and_then(|text| text.parse().ok());
        families.push(LeaseFamily {
            subnet,
            public_address: public.unwrap_or_else(|| panic!("lease `{key}` has no {address}")),
            backend_data: data(backend_data).map(ToString::to_string),
        });
    }
    let backend_type = value["BackendType"].as_str().map(str::to_owned);
    (key, Lease { families, backend_type })
}
