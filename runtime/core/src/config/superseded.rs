//! The difference between the running config and the one in the store.

use serde_json::Value;

use super::NetworkConfig;
use super::error::ConfigErrors;
use super::keys::ENABLE_NFTABLES;
use crate::text::list;

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
        "{} changed in the store; this node keeps the running config until it restarts",
        list(.0.iter().map(|key| format!("`{key}`")))
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
        let json = |config: &Self| serde_json::from_str::<Value>(&config.backend.json).ok();
        let differs = [
            ("Network", self.networks.v4 != now.networks.v4),
            ("IPv6Network", self.networks.v6 != now.networks.v6),
            (ENABLE_NFTABLES, self.nftables != now.nftables),
            ("Backend", self.backend.kind != now.backend.kind || json(self) != json(&now)),
        ];
        let keys: Vec<_> =
            differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect();
        (!keys.is_empty()).then_some(Superseded::Changed(keys))
    }
}
