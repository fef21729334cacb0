//! Scenarios for calls of a plugin.

use std::collections::BTreeMap;
use std::net::IpAddr;

use heddle_core::address::{Family, LinkName, MacAddress};
use heddle_core::config::NetworkConfig;
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::node::{ExistingLink, Node, NodeId, Underlay};
use heddle_core::site::{NoLease, Site};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// A network config, this node, and others.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The network config.
    pub config: NetworkConfig,
    /// This node and its subnets.
    pub node: (LeaseKey, Node),
    /// Other nodes with the same plugin.
    pub nodes: Vec<(LeaseKey, Node)>,
    /// Recorded leases.
    pub leases: Vec<Lease>,
    /// MTU for containers' interfaces, in bytes, which emitters get. 1450 by default.
    pub mtu: u32,
    /// True if the daemon masquerades, which emitters get. False by default.
    pub ip_masq: bool,
}

/// Error for a text that is not a scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the scenario cannot be used: {0}")]
pub struct InvalidScenario(String);

impl Scenario {
    /// Parses a scenario: a JSON object with the network config (`config`), this node (`node`),
    /// other nodes with the same plugin (`nodes`), and leases by their keys (`leases`), in the
    /// formats that etcd has. Emitters also get `mtu` and `ip-masq`.
    ///
    /// # Errors
    ///
    /// If the text is not such an object; the error names the key and the expected value.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidScenario> {
        let raw: Raw<'_> = serde_json::from_slice(text).map_err(invalid)?;
        let config = NetworkConfig::parse(raw.config.get().as_bytes());
        let config = config.map_err(|error| InvalidScenario(format!("`config`: {error}")))?;
        let families = config.networks.families();
        let lease = |(key, value): (String, &RawValue)| {
            let key = key.parse::<LeaseKey>().map_err(invalid)?;
            let read = Lease::from_value(key, value.get().as_bytes());
            read.map_err(|error| InvalidScenario(format!("lease `{key}`: {error}")))
        };
        Ok(Self {
            node: raw.node.node(&families)?,
            nodes: raw
                .nodes
                .into_iter()
                .map(|node| node.node(&families))
                .collect::<Result<_, _>>()?,
            leases: raw.leases.into_iter().map(lease).collect::<Result<_, _>>()?,
            mtu: raw.mtu,
            ip_masq: raw.ip_masq,
            config,
        })
    }

    /// Returns the site of one of the nodes.
    pub(crate) fn site(&self, node: &Node) -> Site<NoLease> {
        Site::new(self.config.clone(), node.clone())
    }

    /// Returns a scenario with four nodes on one Ethernet network, with the same plugin.
    pub(crate) fn ordinary(families: &[Family], backend: &Value) -> Result<Self, InvalidScenario> {
        let mut config = json!({ "Backend": backend });
        config["EnableIPv4"] = families.contains(&Family::V4).into();
        config["EnableIPv6"] = families.contains(&Family::V6).into();
        config["Network"] = "10.0.0.0/8".into();
        config["IPv6Network"] = "fd00:10:244::/48".into();
        let node = |number: usize| {
            let each = |v4: String, v6: String| -> Vec<String> {
                let text = |family: &Family| match family {
                    Family::V4 => v4.clone(),
                    Family::V6 => v6.clone(),
                };
                families.iter().map(text).collect()
            };
            let v6 = format!("fd00:10:244:{number}::/64");
            json!({
                "id": format!("node-{number}"),
                "subnets": each(format!("10.244.{number}.0/24"), v6),
                "link": "eth0",
                "mtu": 1500,
                "addresses": each(format!("192.168.0.{number}/24"), format!("fd00::{number}/64")),
            })
        };
        let nodes: Vec<_> = (2..=4).map(node).collect();
        let scenario = json!({ "config": config, "node": node(1), "nodes": nodes });
        Self::parse(scenario.to_string().as_bytes())
    }
}

fn invalid(error: impl ToString) -> InvalidScenario {
    InvalidScenario(error.to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw<'a> {
    #[serde(borrow)]
    config: &'a RawValue,
    node: RawNode,
    #[serde(default)]
    nodes: Vec<RawNode>,
    #[serde(borrow, default)]
    leases: BTreeMap<String, &'a RawValue>,
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
    id: NodeId,
    subnets: Vec<IpNet>,
    link: String,
    mtu: u32,
    addresses: Vec<IpNet>,
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
    mac: Option<MacAddress>,
}

impl RawNode {
    fn node(self, families: &[Family]) -> Result<(LeaseKey, Node), InvalidScenario> {
        let key = LeaseKey::new(self.subnets.iter().copied().collect())
            .ok_or_else(|| InvalidScenario(format!("node `{}` has no subnets", self.id)))?;
        let first = |family: &Family| {
            let own = self.addresses.iter().map(IpNet::addr);
            own.into_iter().find(|address| Family::of(*address) == *family).ok_or_else(|| {
                InvalidScenario(format!("node `{}` has no address of {family}", self.id))
            })
        };
        let public_addresses = match self.public_addresses {
            given if given.is_empty() => families.iter().map(first).collect::<Result<_, _>>()?,
            given => given.into_iter().collect(),
        };
        let name = |text: &str| text.parse::<LinkName>().map_err(invalid);
        let link = |link: &RawLink| {
            Ok(ExistingLink { name: name(&link.name)?, kind: link.kind.clone(), mac: link.mac })
        };
        let underlay = Underlay {
            link: name(&self.link)?,
            mtu: self.mtu,
            addresses: self.addresses.clone(),
            public_addresses,
        };
        let links = self.links.iter().map(link).collect::<Result<_, _>>()?;
        Ok((key, Node { id: self.id.clone(), underlay, links }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Scenario::parse(text.as_bytes()).unwrap_err().to_string()
    }

    const NODE: &str = r#"{"id":"a","subnets":["10.244.1.0/24"],"link":"eth0","mtu":1500,"addresses":["192.168.0.1/24"]}"#;

    #[test]
    fn invalid_scenario_names_the_key() {
        let with = |config: &str, more: &str| {
            error(&format!(r#"{{"config":{config},"node":{NODE}{more}}}"#))
        };
        let config = r#"{"Network":"10.244.0.0/16"}"#;
        for (error, expected) in [
            (error("7"), "invalid type: integer `7`"),
            (error("{}"), "missing field `config`"),
            (with("{}", ""), "`config`: "),
            (with(config, r#","leases":{"x":{}}"#), "`x` is not a lease key"),
            (
                with(config, r#","leases":{"10.244.2.0-24":{"PublicIP":1}}"#),
                "lease `10.244.2.0-24`: ",
            ),
            (with(config, r#","peers":[]"#), "unknown field `peers`"),
        ] {
            assert!(error.starts_with("the scenario cannot be used: "), "{error}");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn ordinary_scenario_has_four_nodes_in_each_family() {
        for families in [&[Family::V4][..], &[Family::V6], &[Family::V4, Family::V6]] {
            let scenario = Scenario::ordinary(families, &json!({"Type": "x"})).unwrap();
            assert_eq!(scenario.config.networks.len(), families.len());
            assert_eq!(scenario.nodes.len(), 3);
            assert_eq!(scenario.node.1.underlay.public_addresses.len(), families.len());
            assert_eq!(scenario.config.backend.kind, "x");
        }
    }
}
