//! The difference between the running config and the one in the store.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::error::ConfigErrors;
use super::keys::ENABLE_NFTABLES;
use super::{NetworkConfig, OverlayNetwork};
use crate::text::{list, one_line};

/// Longest value that a difference shows, in characters.
const LONGEST: usize = 60;

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
    Unusable(ConfigErrors),
    /// The network config in the store differs in these keys.
    #[error(
        "changed in the store: {}; this node keeps the running config until it restarts",
        list(.0)
    )]
    Changed(Vec<KeyChange>),
}

/// A key whose value differs. A value is None where the config has no such key, and no default for
/// it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChange {
    /// The key, as an operator writes it: `Backend.VNI`.
    pub key: String,
    /// Running value.
    pub from: Option<String>,
    /// Value in the store.
    pub to: Option<String>,
}

impl KeyChange {
    fn new(key: &str, from: Option<String>, to: Option<String>) -> Self {
        Self { key: key.to_owned(), from, to }
    }
}

/// Writes `` `SubnetLen` from 24 to 25 ``.
impl fmt::Display for KeyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.key)?;
        let short = |value: &str| one_line(value, LONGEST);
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => write!(f, " from {} to {}", short(from), short(to)),
            (None, Some(to)) => write!(f, " added ({})", short(to)),
            (Some(from), None) => write!(f, " removed ({})", short(from)),
            (None, None) => Ok(()),
        }
    }
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
        let mut changes = Vec::new();
        for (family, from, to) in
            [("", self.networks.v4, now.networks.v4), ("IPv6", self.networks.v6, now.networks.v6)]
        {
            changes.extend(of_network(family, from, to));
        }
        if self.nftables != now.nftables {
            let text = |on: bool| Some(on.to_string());
            changes.push(KeyChange::new(ENABLE_NFTABLES, text(self.nftables), text(now.nftables)));
        }
        changes.extend(self.of_backend(&now));
        (!changes.is_empty()).then_some(Superseded::Changed(changes))
    }

    fn of_backend(&self, now: &Self) -> Vec<KeyChange> {
        let (from, to) = (&self.backend, &now.backend);
        if from.kind != to.kind {
            let kinds = (Some(from.kind.clone()), Some(to.kind.clone()));
            return vec![KeyChange::new("Backend.Type", kinds.0, kinds.1)];
        }
        let keys =
            |json: &str| serde_json::from_str::<Map<String, Value>>(json).unwrap_or_default();
        let (from, to) = (keys(&from.json), keys(&to.json));
        let named: BTreeSet<_> = from.keys().chain(to.keys()).collect();
        let differing = named.into_iter().filter(|key| {
            // Spelled in another way, the type is the same.
            from.get(*key) != to.get(*key) && !key.eq_ignore_ascii_case("Type")
        });
        let text = |value: Option<&Value>| value.map(ToString::to_string);
        let change = |key: &String| {
            KeyChange::new(&format!("Backend.{key}"), text(from.get(key)), text(to.get(key)))
        };
        differing.map(change).collect()
    }
}

/// Returns the changes of one family's network. `family` precedes the names of its keys.
fn of_network(
    family: &str,
    from: Option<OverlayNetwork>,
    to: Option<OverlayNetwork>,
) -> Vec<KeyChange> {
    let network = |it: Option<OverlayNetwork>| it.map(|it| it.network);
    let key = |name: &str| format!("{family}{name}");
    let text = |it: Option<IpNet>| it.map(|it| it.to_string());
    let (Some(before), Some(after)) = (from, to) else {
        let (before, after) = (network(from), network(to));
        return match before == after {
            true => vec![],
            false => vec![KeyChange::new(&key("Network"), text(before), text(after))],
        };
    };
    if before.network != after.network {
        // The other values follow from it, unless the config sets them.
        let networks = (text(Some(before.network)), text(Some(after.network)));
        return vec![KeyChange::new(&key("Network"), networks.0, networks.1)];
    }
    if before.subnet_length != after.subnet_length {
        let text = |it: OverlayNetwork| Some(it.subnet_length.to_string());
        return vec![KeyChange::new(&key("SubnetLen"), text(before), text(after))];
    }
    let bounds = [
        ("SubnetMin", before.subnet_min, after.subnet_min),
        ("SubnetMax", before.subnet_max, after.subnet_max),
    ];
    let bounds = bounds.into_iter().filter(|(_, from, to)| from != to);
    let bound = |(name, from, to): (&str, IpAddr, IpAddr)| {
        KeyChange::new(&key(name), Some(from.to_string()), Some(to.to_string()))
    };
    bounds.map(bound).collect()
}
