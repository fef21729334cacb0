//! The network config: the JSON object at `<prefix>/config`.
//!
//! The rules and defaults are flannel's (`pkg/subnet/config.go`), with one difference: without a
//! `Backend`, flannel's documentation says vxlan and its code says udp; Heddle follows the
//! documentation.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::address::{Family, number};

/// Backend used if the config names none.
pub const DEFAULT_BACKEND: &str = "vxlan";

/// Length limit of the network config in bytes.
pub const CONFIG_LIMIT: usize = 64 << 10;

/// The cluster's network: its address ranges and its backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// The overlay networks, one per enabled family, IPv4 first. Never empty.
    pub networks: Vec<OverlayNetwork>,
    /// True if traffic rules go through nftables instead of iptables (`EnableNFTables`).
    pub nftables: bool,
    /// The backend that connects the nodes.
    pub backend: BackendConfig,
}

/// The overlay network of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlayNetwork {
    /// The whole network.
    pub network: IpNet,
    /// The length of a node's subnet, in bits.
    pub subnet_length: u8,
    /// The first subnet that may be allocated to a node.
    pub subnet_min: IpAddr,
    /// The last subnet that may be allocated to a node.
    pub subnet_max: IpAddr,
}

/// The `Backend` object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendConfig {
    /// `Type`: the name of a plugin.
    pub kind: String,
    /// The whole object as JSON text, which is passed to the plugin.
    pub json: String,
}

/// An error in the network config.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The text is longer than [`CONFIG_LIMIT`].
    #[error("too long: {0} bytes, and the limit is {CONFIG_LIMIT}")]
    TooLong(usize),
    /// The text is not a JSON object.
    #[error("not a JSON object: {0}")]
    NotAnObject(String),
    /// A required key is missing.
    #[error("`{key}` is missing: {rule}")]
    Missing {
        /// The missing key.
        key: &'static str,
        /// The rule that requires it.
        rule: &'static str,
    },
    /// A key occurs twice.
    #[error("`{0}` is given more than once (keys are matched without regard to case)")]
    Repeated(String),
    /// A key has a value of the wrong type or form.
    #[error("`{key}` is {found}: expected {expected}")]
    Type {
        /// The key.
        key: &'static str,
        /// The value found, as JSON.
        found: String,
        /// The type or form that is accepted.
        expected: &'static str,
    },
    /// A key has a value that breaks a rule.
    #[error("`{key}` is {value}: {rule}")]
    Rule {
        /// The key.
        key: &'static str,
        /// The value found, or the default that was used in its place.
        value: String,
        /// The rule, with the values that it allows here.
        rule: String,
    },
}

fn broken(key: &'static str, value: impl Display, rule: impl Into<String>) -> ConfigError {
    ConfigError::Rule { key, value: value.to_string(), rule: rule.into() }
}

/// Names and bounds of one family's keys.
struct FamilyKeys {
    network: &'static str,
    subnet_length: &'static str,
    subnet_min: &'static str,
    subnet_max: &'static str,
    /// Default subnet length, in bits, for networks at least two bits shorter.
    default_length: u8,
    /// Prefix length limit of a network: longer networks have no room for subnets.
    longest_network: u8,
    /// Prefix length limit of a subnet.
    longest_subnet: u8,
    missing: &'static str,
}

const V4: FamilyKeys = FamilyKeys {
    network: "Network",
    subnet_length: "SubnetLen",
    subnet_min: "SubnetMin",
    subnet_max: "SubnetMax",
    default_length: 24,
    longest_network: 28,
    longest_subnet: 30,
    missing: "expected the overlay's IPv4 network, such as 10.244.0.0/16, or `EnableIPv4` false",
};

const V6: FamilyKeys = FamilyKeys {
    network: "IPv6Network",
    subnet_length: "IPv6SubnetLen",
    subnet_min: "IPv6SubnetMin",
    subnet_max: "IPv6SubnetMax",
    default_length: 64,
    longest_network: 124,
    longest_subnet: 126,
    missing: "`EnableIPv6` is true; expected the overlay's IPv6 network, such as fd00:10:244::/48",
};

const ENABLE_V4: &str = "EnableIPv4";
const ENABLE_V6: &str = "EnableIPv6";
const ENABLE_NFTABLES: &str = "EnableNFTables";
const BACKEND: &str = "Backend";

/// All known keys.
const KEYS: [&str; 12] = [
    ENABLE_V4,
    ENABLE_V6,
    V4.network,
    V4.subnet_length,
    V4.subnet_min,
    V4.subnet_max,
    V6.network,
    V6.subnet_length,
    V6.subnet_min,
    V6.subnet_max,
    ENABLE_NFTABLES,
    BACKEND,
];

/// Errors in the order in which they were found.
#[derive(Default)]
struct Errors(Vec<ConfigError>);

impl Errors {
    fn add(&mut self, error: ConfigError) {
        self.0.push(error);
    }

    /// Returns the value, or records the error and returns None.
    fn note<T>(&mut self, result: Result<T, ConfigError>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }
}

/// The config's members. Lookups ignore case, as Go's `encoding/json` does.
struct Members(Map<String, Value>);

fn members(text: &[u8]) -> Result<Members, ConfigError> {
    if text.len() > CONFIG_LIMIT {
        return Err(ConfigError::TooLong(text.len()));
    }
    match serde_json::from_slice(text) {
        Ok(Value::Object(members)) => Ok(Members(members)),
        Ok(other) => Err(ConfigError::NotAnObject(format!("found {}", kind(&other)))),
        Err(error) => Err(ConfigError::NotAnObject(error.to_string())),
    }
}

impl Members {
    fn get<T: DeserializeOwned>(
        &self,
        key: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.find(key)? else {
            return Ok(None);
        };
        serde_json::from_value(value.clone()).map(Some).map_err(|_| ConfigError::Type {
            key,
            found: value.to_string(),
            expected,
        })
    }

    fn find(&self, key: &str) -> Result<Option<&Value>, ConfigError> {
        let mut found = self.0.iter().filter(|(name, _)| name.eq_ignore_ascii_case(key));
        let first = found.next();
        if let Some((name, _)) = found.next() {
            return Err(ConfigError::Repeated(name.clone()));
        }
        Ok(first.map(|(_, value)| value).filter(|value| !value.is_null()))
    }
}

/// The difference between the config that a node runs with and the one in the store: a restarted
/// node would start differently, or not at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Superseded {
    /// The store no longer has a network config.
    #[error(
        "deleted from the store; this node keeps the running config, but cannot restart without one"
    )]
    Gone,
    /// The network config in the store is invalid.
    #[error("{0}; this node keeps the running config, but cannot restart with the stored one")]
    Unusable(ConfigError),
    /// The network config in the store differs in these keys.
    #[error(
        "{} changed in the store; this node keeps the running config until it restarts",
        .0.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
    )]
    Changed(Vec<&'static str>),
}

impl NetworkConfig {
    /// Compares the running config with the value now in the store. Returns None if they mean the
    /// same.
    pub fn superseded_by(&self, now: Option<&[u8]>) -> Option<Superseded> {
        let now = match now.map(Self::parse) {
            None => return Some(Superseded::Gone),
            Some(Err(error)) => return Some(Superseded::Unusable(error)),
            Some(Ok(now)) => now,
        };
        let network = |config: &Self, family| config.network(family).copied();
        let json = |config: &Self| serde_json::from_str::<Value>(&config.backend.json).ok();
        let differs = [
            ("Network", network(self, Family::V4) != network(&now, Family::V4)),
            ("IPv6Network", network(self, Family::V6) != network(&now, Family::V6)),
            (ENABLE_NFTABLES, self.nftables != now.nftables),
            ("Backend", self.backend.kind != now.backend.kind || json(self) != json(&now)),
        ];
        let keys: Vec<_> =
            differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect();
        (!keys.is_empty()).then_some(Superseded::Changed(keys))
    }

    /// Parses the value of `<prefix>/config`.
    ///
    /// # Errors
    ///
    /// The first [`ConfigError`] that [`check`](Self::check) finds.
    pub fn parse(text: &[u8]) -> Result<Self, ConfigError> {
        Self::check(text).map_err(|mut errors| errors.remove(0))
    }

    /// Parses the value of `<prefix>/config` without stopping at the first error.
    ///
    /// # Errors
    ///
    /// Every [`ConfigError`] found, each naming the key and the rule. At least one.
    pub fn check(text: &[u8]) -> Result<Self, Vec<ConfigError>> {
        let members = members(text).map_err(|error| vec![error])?;
        let mut errors = Errors::default();
        let flag = |key, default| -> Result<bool, ConfigError> {
            Ok(members.get(key, "true or false")?.unwrap_or(default))
        };
        let v4 = errors.note(flag(ENABLE_V4, true));
        let v6 = errors.note(flag(ENABLE_V6, false));
        if (v4, v6) == (Some(false), Some(false)) {
            errors.add(broken(ENABLE_V4, false, "`EnableIPv4` or `EnableIPv6` must be true"));
        }
        let mut networks = Vec::with_capacity(2);
        if v4.unwrap_or(true) {
            networks.extend(overlay_v4(&members, &mut errors));
        }
        if v6.unwrap_or(false) {
            networks.extend(overlay_v6(&members, &mut errors));
        }
        let nftables = errors.note(flag(ENABLE_NFTABLES, false));
        let backend = errors.note(backend(&members));
        match (nftables, backend) {
            (Some(nftables), Some(backend)) if errors.0.is_empty() => {
                Ok(Self { networks, nftables, backend })
            }
            _ => Err(errors.0),
        }
    }

    /// Returns the unknown members of the value of `<prefix>/config`, which are ignored. Members of
    /// `Backend` are not checked: its plugin interprets them. Empty if the text is not a JSON
    /// object.
    pub fn unknown_keys(text: &[u8]) -> Vec<String> {
        let members = members(text).map(|members| members.0).unwrap_or_default();
        let known = |name: &String| KEYS.iter().any(|key| name.eq_ignore_ascii_case(key));
        members.into_iter().map(|(name, _)| name).filter(|name| !known(name)).collect()
    }

    /// Returns the overlay network of one family, if that family is enabled.
    pub fn network(&self, family: Family) -> Option<&OverlayNetwork> {
        self.networks.iter().find(|overlay| Family::of_network(overlay.network) == family)
    }
}

impl OverlayNetwork {
    /// Returns true if a node may have this subnet: it has the right length and lies between the
    /// first and the last.
    pub fn fits(&self, subnet: IpNet) -> bool {
        subnet.prefix_len() == self.subnet_length
            && self.network.contains(&subnet)
            && (self.subnet_min..=self.subnet_max).contains(&subnet.network())
    }

    /// Returns the first and the last address that nodes may have, if `SubnetMin` or `SubnetMax`
    /// restricts them to a part of the network.
    pub fn reserved_range(&self) -> Option<(IpAddr, IpAddr)> {
        let bits = Family::of_network(self.network).bits();
        let size = 1_u128 << (bits - self.subnet_length);
        let (first, last) = (number(self.network.network()), number(self.network.broadcast()));
        let (min, max) = (number(self.subnet_min), number(self.subnet_max));
        let is_usual = min <= first.saturating_add(size) && max >= last - (size - 1);
        let end = IpNet::new(self.subnet_max, self.subnet_length).ok()?.broadcast();
        (!is_usual).then_some((self.subnet_min, end))
    }
}

fn backend(members: &Members) -> Result<BackendConfig, ConfigError> {
    let default = || Map::from_iter([("Type".to_owned(), Value::from(DEFAULT_BACKEND))]);
    let object: Map<String, Value> =
        members.get(BACKEND, "an object with a `Type`")?.unwrap_or_else(default);
    let json = serde_json::to_string(&object).expect("JSON that was read can be written");
    let kind: String = Members(object)
        .get("Type", "the name of a backend")
        .map_err(|error| match error {
            ConfigError::Type { found, expected, .. } => {
                ConfigError::Type { key: "Backend.Type", found, expected }
            }
            other => other,
        })?
        .filter(|kind: &String| !kind.is_empty())
        .ok_or(ConfigError::Missing {
            key: "Backend.Type",
            rule: "expected the name of a backend, such as vxlan",
        })?;
    Ok(BackendConfig { kind, json })
}

fn overlay_v4(members: &Members, errors: &mut Errors) -> Option<OverlayNetwork> {
    let network = members
        .get::<Ipv4Net>(V4.network, "an IPv4 network as text, such as \"10.244.0.0/16\"")
        .and_then(|network| {
            network.ok_or(ConfigError::Missing { key: V4.network, rule: V4.missing })
        });
    let network = errors.note(network);
    let mut bound = |key| {
        let address = errors.note(members.get::<Ipv4Addr>(key, "an IPv4 address as text"))?;
        Some(address.map(IpAddr::V4))
    };
    let bounds = [bound(V4.subnet_min), bound(V4.subnet_max)];
    overlay(&V4, members, network?.trunc().into(), bounds, errors)
}

fn overlay_v6(members: &Members, errors: &mut Errors) -> Option<OverlayNetwork> {
    let network = members
        .get::<Ipv6Net>(V6.network, "an IPv6 network as text, such as \"fd00:10:244::/48\"")
        .and_then(|network| {
            network.ok_or(ConfigError::Missing { key: V6.network, rule: V6.missing })
        });
    let network = errors.note(network);
    let mut bound = |key| {
        let address = errors.note(members.get::<Ipv6Addr>(key, "an IPv6 address as text"))?;
        Some(address.map(IpAddr::V6))
    };
    let bounds = [bound(V6.subnet_min), bound(V6.subnet_max)];
    overlay(&V6, members, network?.trunc().into(), bounds, errors)
}

/// Builds one family's overlay network. Each bound is an address, absent, or (the outer None)
/// unreadable and already reported.
fn overlay(
    keys: &FamilyKeys,
    members: &Members,
    network: IpNet,
    [min, max]: [Option<Option<IpAddr>>; 2],
    errors: &mut Errors,
) -> Option<OverlayNetwork> {
    let prefix = network.prefix_len();
    let subnet_length = errors.note(subnet_length(keys, members, network))?;
    // The first subnet is never allocated: its first address is the network address itself.
    let first = subnet_at(network, subnet_length, 1);
    let last = subnet_at(network, subnet_length, (1u128 << (subnet_length - prefix)) - 1);
    let bound = |key, given: Option<IpAddr>, default| match given {
        None => Ok(default),
        Some(address) if !network.contains(&address) => {
            Err(broken(key, address, format!("must lie in `{}` {network}", keys.network)))
        }
        Some(address) if !on_boundary(address, subnet_length) => {
            Err(broken(key, address, format!("must be the first address of a /{subnet_length}")))
        }
        Some(address) => Ok(address),
    };
    let subnet_min = min.and_then(|min| errors.note(bound(keys.subnet_min, min, first)));
    let subnet_max = max.and_then(|max| errors.note(bound(keys.subnet_max, max, last)));
    let (subnet_min, subnet_max) = (subnet_min?, subnet_max?);
    if subnet_min > subnet_max {
        let rule = format!("must not come after `{}` {subnet_max}", keys.subnet_max);
        errors.add(broken(keys.subnet_min, subnet_min, rule));
    }
    Some(OverlayNetwork { network, subnet_length, subnet_min, subnet_max })
}

fn subnet_length(keys: &FamilyKeys, members: &Members, network: IpNet) -> Result<u8, ConfigError> {
    let prefix = network.prefix_len();
    // Two more bits give four subnets, three of which can be allocated.
    let shortest = prefix + 2;
    if prefix > keys.longest_network {
        let rule = format!("too small to be split: expected /{} or larger", keys.longest_network);
        return Err(broken(keys.network, network, rule));
    }
    match members.get::<i64>(keys.subnet_length, "a whole number")? {
        // flannel treats 0 as absent.
        None | Some(0) => Ok(keys.default_length.max(shortest)),
        Some(given) => u8::try_from(given)
            .ok()
            .filter(|length| (shortest..=keys.longest_subnet).contains(length))
            .ok_or_else(|| {
                let (longest, name) = (keys.longest_subnet, keys.network);
                let rule = format!("must be {shortest} to {longest} for `{name}` {network}");
                broken(keys.subnet_length, given, rule)
            }),
    }
}

/// Returns the first address of the `index`th subnet of a network.
pub(crate) fn subnet_at(network: IpNet, length: u8, index: u128) -> IpAddr {
    match network {
        IpNet::V4(network) => {
            let offset = u32::try_from(index << (32 - length)).unwrap_or(u32::MAX);
            Ipv4Addr::from(u32::from(network.network()).saturating_add(offset)).into()
        }
        IpNet::V6(network) => {
            let offset = index << (128 - length);
            Ipv6Addr::from(u128::from(network.network()).saturating_add(offset)).into()
        }
    }
}

fn on_boundary(address: IpAddr, length: u8) -> bool {
    IpNet::new(address, length).is_ok_and(|subnet| subnet.network() == address)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<NetworkConfig, ConfigError> {
        NetworkConfig::parse(text.as_bytes())
    }

    /// Returns the error for IPv4 or IPv6 keys that are added to an otherwise valid config.
    fn error(members: &str) -> String {
        parse(&format!("{{{members}}}")).unwrap_err().to_string()
    }

    fn v4(text: &str) -> OverlayNetwork {
        *parse(text).unwrap().network(Family::V4).unwrap()
    }

    fn overlay(network: &str, subnet_length: u8, min: &str, max: &str) -> OverlayNetwork {
        OverlayNetwork {
            network: network.parse().unwrap(),
            subnet_length,
            subnet_min: min.parse().unwrap(),
            subnet_max: max.parse().unwrap(),
        }
    }

    #[test]
    fn reserved_range_is_set_only_by_subnet_min_or_max() {
        let range = |text: &str| {
            let config = NetworkConfig::parse(text.as_bytes()).unwrap();
            config.networks[0].reserved_range().map(|(min, max)| format!("{min}-{max}"))
        };
        assert_eq!(range(r#"{"Network":"10.1.0.0/16"}"#), None);
        assert_eq!(
            range(r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48"}"#),
            None
        );
        assert_eq!(
            range(r#"{"Network":"10.1.0.0/16","SubnetMin":"10.1.128.0"}"#).as_deref(),
            Some("10.1.128.0-10.1.255.255")
        );
        assert_eq!(
            range(r#"{"Network":"10.0.0.0/8","SubnetMin":"10.1.128.0","SubnetMax":"10.1.200.0"}"#)
                .as_deref(),
            Some("10.1.128.0-10.1.200.255")
        );
    }

    #[test]
    fn config_beyond_limit_is_rejected_unparsed() {
        let config = |length| {
            let text = r#"{"Network":"10.244.0.0/16"}"#;
            format!("{text}{}", " ".repeat(length - text.len()))
        };
        assert!(NetworkConfig::parse(config(CONFIG_LIMIT).as_bytes()).is_ok());
        assert_eq!(
            NetworkConfig::parse(config(CONFIG_LIMIT + 1).as_bytes()).unwrap_err().to_string(),
            "too long: 65537 bytes, and the limit is 65536"
        );
    }

    #[test]
    fn config_with_same_meaning_supersedes_nothing() {
        let started =
            parse(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","VNI":1}}"#).unwrap();
        let now =
            |text: &str| started.superseded_by(Some(text.as_bytes())).map(|it| it.to_string());
        let same = r#"{ "backend": {"VNI":1, "Type":"vxlan"}, "Network": "10.244.0.0/16", "SubnetLen": 24 }"#;
        assert_eq!(now(same), None);
        let changed = now(r#"{"Network":"10.245.0.0/16","Backend":{"Type":"vxlan","VNI":2}}"#);
        assert!(changed.unwrap().starts_with("`Network`, `Backend` changed in the store; "));
        let changed = now(
            r#"{"Network":"10.244.0.0/16","SubnetLen":25,"EnableNFTables":true,"Backend":{"Type":"vxlan","VNI":1}}"#,
        );
        assert!(changed.unwrap().starts_with("`Network`, `EnableNFTables` changed in the store; "));
        let unusable = now(r#"{"Network":"10.244.0.0/40"}"#).unwrap();
        assert!(unusable.contains("`Network`") && unusable.contains("cannot restart"));
        assert_eq!(started.superseded_by(None), Some(Superseded::Gone));
    }

    #[test]
    fn config_with_only_a_network_gets_defaults() {
        let config = parse(r#"{"Network":"10.244.0.0/16"}"#).unwrap();
        let backend = BackendConfig { kind: "vxlan".into(), json: r#"{"Type":"vxlan"}"#.into() };
        assert_eq!(
            config,
            NetworkConfig {
                networks: vec![overlay("10.244.0.0/16", 24, "10.244.1.0", "10.244.255.0")],
                nftables: false,
                backend,
            }
        );
    }

    #[test]
    fn config_check_reports_all_errors() {
        let config = r#"{"EnableIPv4":1,"Network":"10.244.0.0/16","SubnetLen":99,"EnableIPv6":true,
            "IPv6Network":"fd00::/48","IPv6SubnetMin":"fd01::","IPv6SubnetMax":7,
            "EnableNFTables":"no","Backend":{"Port":1}}"#;
        let errors = NetworkConfig::check(config.as_bytes()).unwrap_err();
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        let keys = [
            "EnableIPv4",
            "SubnetLen",
            "IPv6SubnetMax",
            "IPv6SubnetMin",
            "EnableNFTables",
            "Backend.Type",
        ];
        assert_eq!(errors.len(), keys.len(), "{errors:#?}");
        for (error, key) in errors.iter().zip(keys) {
            assert!(error.starts_with(&format!("`{key}` is ")), "{key}: {error}");
        }
    }

    #[test]
    fn unknown_keys_are_listed() {
        let unknown = |text: &str| NetworkConfig::unknown_keys(text.as_bytes());
        let config = r#"{"network":"10.244.0.0/16","Subnetlen":24,"SubnetLength":24,"vni":1,"BACKEND":{"X":1}}"#;
        assert_eq!(unknown(config), ["SubnetLength", "vni"]);
        assert!(unknown("[").is_empty() && unknown("[1]").is_empty());
    }

    #[test]
    fn small_networks_have_four_subnets() {
        assert_eq!(v4(r#"{"Network":"10.1.0.0/22"}"#).subnet_length, 24);
        assert_eq!(
            v4(r#"{"Network":"10.1.0.0/23"}"#),
            overlay("10.1.0.0/23", 25, "10.1.0.128", "10.1.1.128")
        );
        assert_eq!(
            v4(r#"{"Network":"10.1.0.16/28"}"#),
            overlay("10.1.0.16/28", 30, "10.1.0.20", "10.1.0.28")
        );
    }

    #[test]
    fn largest_networks_are_accepted() {
        let config = parse(
            r#"{"Network":"0.0.0.0/0","EnableIPv6":true,"IPv6Network":"::/0","IPv6SubnetLen":126}"#,
        )
        .unwrap();
        assert_eq!(config.networks[0], overlay("0.0.0.0/0", 24, "0.0.1.0", "255.255.255.0"));
        assert_eq!(
            config.networks[1].subnet_max.to_string(),
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc"
        );
    }

    #[test]
    fn ipv6_network_follows_ipv4_rules() {
        let config =
            parse(r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"2001:cafe:42::/56"}"#)
                .unwrap();
        assert_eq!(
            config.networks,
            [overlay("2001:cafe:42::/56", 64, "2001:cafe:42:1::", "2001:cafe:42:ff::")]
        );
        assert_eq!(
            parse(r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/63"}"#)
                .unwrap()
                .networks[0]
                .subnet_length,
            65
        );
    }

    #[test]
    fn dual_stack_lists_ipv4_first() {
        let config =
            parse(r#"{"EnableIPv6":true,"IPv6Network":"fd00::/48","Network":"10.244.0.0/16"}"#)
                .unwrap();
        let families: Vec<_> =
            config.networks.iter().map(|overlay| Family::of_network(overlay.network)).collect();
        assert_eq!(families, [Family::V4, Family::V6]);
    }

    #[test]
    fn keys_ignore_case_and_unknown_keys_are_skipped() {
        let config = parse(
            r#"{"network":"10.244.0.0/16","SUBNETLEN":25,"enableNfTables":true,"backend":{"type":"host-gw","x":1},"Future":{}}"#,
        )
        .unwrap();
        assert_eq!(config.networks[0].subnet_length, 25);
        assert!(config.nftables);
        assert_eq!(config.backend.kind, "host-gw");
        assert_eq!(config.backend.json, r#"{"type":"host-gw","x":1}"#);
    }

    #[test]
    fn network_host_bits_are_truncated() {
        assert_eq!(v4(r#"{"Network":"10.244.3.4/16"}"#).network, "10.244.0.0/16".parse().unwrap());
    }

    #[test]
    fn subnets_fit_by_length_and_range() {
        let overlay =
            v4(r#"{"Network":"10.244.0.0/16","SubnetMin":"10.244.8.0","SubnetMax":"10.244.9.0"}"#);
        let fits = |subnet: &str| overlay.fits(subnet.parse().unwrap());
        assert!(fits("10.244.8.0/24") && fits("10.244.9.0/24"));
        assert!(!fits("10.244.7.0/24") && !fits("10.244.10.0/24"));
        assert!(!fits("10.244.8.0/25") && !fits("10.1.8.0/24") && !fits("fd00::/24"));
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of configs and errors")]
    fn errors_name_the_key_and_the_rule() {
        for (members, message) in [
            (
                "",
                "`Network` is missing: expected the overlay's IPv4 network, such as 10.244.0.0/16, or `EnableIPv4` false",
            ),
            (
                r#""Network":"10.244.0.0""#,
                "`Network` is \"10.244.0.0\": expected an IPv4 network as text, such as \"10.244.0.0/16\"",
            ),
            (
                r#""Network":"10.244.0.0/29""#,
                "`Network` is 10.244.0.0/29: too small to be split: expected /28 or larger",
            ),
            (
                r#""Network":"10.244.0.0/16","SubnetLen":17"#,
                "`SubnetLen` is 17: must be 18 to 30 for `Network` 10.244.0.0/16",
            ),
            (
                r#""Network":"10.244.0.0/16","SubnetLen":31"#,
                "`SubnetLen` is 31: must be 18 to 30 for `Network` 10.244.0.0/16",
            ),
            (
                r#""Network":"10.244.0.0/16","SubnetLen":"24""#,
                "`SubnetLen` is \"24\": expected a whole number",
            ),
            (
                r#""Network":"10.244.0.0/16","SubnetMin":"10.1.0.0""#,
                "`SubnetMin` is 10.1.0.0: must lie in `Network` 10.244.0.0/16",
            ),
            (
                r#""Network":"10.244.0.0/16","SubnetMax":"10.244.9.1""#,
                "`SubnetMax` is 10.244.9.1: must be the first address of a /24",
            ),
            (
                r#""Network":"10.244.0.0/16","SubnetMin":"10.244.9.0","SubnetMax":"10.244.8.0""#,
                "`SubnetMin` is 10.244.9.0: must not come after `SubnetMax` 10.244.8.0",
            ),
            (
                r#""EnableIPv4":false"#,
                "`EnableIPv4` is false: `EnableIPv4` or `EnableIPv6` must be true",
            ),
            (
                r#""EnableIPv4":false,"EnableIPv6":true"#,
                "`IPv6Network` is missing: `EnableIPv6` is true; expected the overlay's IPv6 network, such as fd00:10:244::/48",
            ),
            (
                r#""EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/125""#,
                "`IPv6Network` is fd00::/125: too small to be split: expected /124 or larger",
            ),
            (
                r#""EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/64","IPv6SubnetLen":127"#,
                "`IPv6SubnetLen` is 127: must be 66 to 126 for `IPv6Network` fd00::/64",
            ),
            (
                r#""EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48","IPv6SubnetMin":"fe00::""#,
                "`IPv6SubnetMin` is fe00::: must lie in `IPv6Network` fd00::/48",
            ),
            (
                r#""Network":"10.244.0.0/16","network":"10.0.0.0/8""#,
                "`network` is given more than once (keys are matched without regard to case)",
            ),
            (
                r#""Network":"10.244.0.0/16","EnableIPv6":"yes""#,
                "`EnableIPv6` is \"yes\": expected true or false",
            ),
            (
                r#""Network":"10.244.0.0/16","Backend":"vxlan""#,
                "`Backend` is \"vxlan\": expected an object with a `Type`",
            ),
            (
                r#""Network":"10.244.0.0/16","Backend":{}"#,
                "`Backend.Type` is missing: expected the name of a backend, such as vxlan",
            ),
            (
                r#""Network":"10.244.0.0/16","Backend":{"Type":1}"#,
                "`Backend.Type` is 1: expected the name of a backend",
            ),
        ] {
            assert_eq!(error(members), message, "{members}");
        }
    }

    #[test]
    fn config_not_an_object_is_rejected() {
        assert_eq!(parse("[]").unwrap_err().to_string(), "not a JSON object: found a list");
        assert!(parse("{").unwrap_err().to_string().starts_with("not a JSON object: EOF"));
    }
}
