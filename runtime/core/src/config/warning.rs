//! Parts of a network config that have no effect, or not the intended one.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::check::{flag, read_overlay};
use super::error::Errors;
use super::keys::{ENABLE_V4, ENABLE_V6, FamilyKeys, KEYS, V4, V6};
use super::members::{Members, members};
use super::{BackendConfig, NetworkConfig, OverlayNetwork, ranges};
use crate::spelling::closest;
use crate::text::list;

/// A part of a network config that has no effect, or not the intended one. The config is used
/// nonetheless, because flannel uses it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigWarning {
    /// A key that does not exist.
    #[error("`{key}` is not a known key; ignored{}", hint(.meant.as_deref()))]
    UnknownKey {
        /// The key.
        key: String,
        /// The key that was probably meant.
        meant: Option<String>,
    },
    /// A key that the backend does not have.
    #[error("`Backend.{key}` is not a known key of {backend}; ignored{}", hint(.meant.as_deref()))]
    UnknownBackendKey {
        /// The key.
        key: String,
        /// The backend.
        backend: String,
        /// The key that was probably meant.
        meant: Option<String>,
    },
    /// Keys of a family that is not enabled.
    #[error(
        "{} {} no effect, because `{flag}` is not true; set `{flag}` to true, or remove {}",
        list(.keys.iter().map(|key| format!("`{key}`"))),
        if .keys.len() == 1 { "has" } else { "have" },
        if .keys.len() == 1 { "the key" } else { "the keys" },
    )]
    NotEnabled {
        /// The keys.
        keys: Vec<&'static str>,
        /// The key that enables the family.
        flag: &'static str,
    },
    /// A network with bits after its prefix.
    #[error("`{key}` is {given}, which has bits after the prefix; {network} is used")]
    HostBits {
        /// The key.
        key: &'static str,
        /// The network as it was given.
        given: IpNet,
        /// The network that is used.
        network: IpNet,
    },
    /// A network that nodes may get subnets of special ranges from.
    #[error(
        "`{key}` is {network}, and nodes may get subnets in {ranges}, where connections may fail; \
         choose another range, or exclude these with `{min}` and `{max}`"
    )]
    SpecialRange {
        /// The key.
        key: &'static str,
        /// The network.
        network: IpNet,
        /// The ranges with their meanings.
        ranges: String,
        /// The key of the first subnet.
        min: &'static str,
        /// The key of the last subnet.
        max: &'static str,
    },
}

fn hint(meant: Option<&str>) -> String {
    meant.map(|meant| format!(" (did you mean `{meant}`?)")).unwrap_or_default()
}

impl NetworkConfig {
    /// Returns the warnings about the value of `<prefix>/config`, whether it has errors or not,
    /// except those about the keys of its backend
    /// ([`unknown_keys`](BackendConfig::unknown_keys)). None if the text is not a JSON object.
    pub fn warnings(text: &[u8]) -> Vec<ConfigWarning> {
        let Ok(members) = members(text) else { return Vec::new() };
        let unknown = members.0.keys().filter(|name| !is_known(name, KEYS));
        let unknown = unknown.map(|name| ConfigWarning::UnknownKey {
            key: name.clone(),
            meant: closest(name, KEYS).map(str::to_owned),
        });
        let mut warnings: Vec<_> = unknown.collect();
        let mut ignored = Errors::default();
        let mut enabled = |key, default| flag(key, default, &members, &mut ignored);
        match enabled(ENABLE_V4, true) {
            true => warnings.extend(of_network::<Ipv4Net, Ipv4Addr>(&V4, &members)),
            false => warnings.extend(not_enabled(&V4, ENABLE_V4, &members)),
        }
        match enabled(ENABLE_V6, false) {
            true => warnings.extend(of_network::<Ipv6Net, Ipv6Addr>(&V6, &members)),
            false => warnings.extend(not_enabled(&V6, ENABLE_V6, &members)),
        }
        warnings
    }
}

impl BackendConfig {
    /// Returns a warning for each member that is not one of the backend's keys.
    pub fn unknown_keys(&self, known: &[String]) -> Vec<ConfigWarning> {
        let members: Map<String, Value> = serde_json::from_str(&self.json).unwrap_or_default();
        let known = || known.iter().map(String::as_str).chain(["Type"]);
        let unknown = members.keys().filter(|name| !is_known(name, known()));
        let warning = |name: &String| ConfigWarning::UnknownBackendKey {
            key: name.clone(),
            backend: self.kind.clone(),
            meant: closest(name, known()).map(str::to_owned),
        };
        unknown.map(warning).collect()
    }
}

fn is_known<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> bool {
    known.into_iter().any(|key| name.eq_ignore_ascii_case(key))
}

fn not_enabled(keys: &FamilyKeys, flag: &'static str, members: &Members) -> Option<ConfigWarning> {
    let given = [keys.network, keys.subnet_length, keys.subnet_min, keys.subnet_max];
    let given = given.into_iter().filter(|key| !matches!(members.get::<Value>(key, ""), Ok(None)));
    let keys: Vec<_> = given.collect();
    (!keys.is_empty()).then_some(ConfigWarning::NotEnabled { keys, flag })
}

/// Returns the warnings about one family's network.
fn of_network<N, A>(keys: &FamilyKeys, members: &Members) -> Vec<ConfigWarning>
where
    N: DeserializeOwned + Into<IpNet>,
    A: DeserializeOwned + Into<std::net::IpAddr>,
{
    let key = keys.network;
    let Ok(Some(given)) = members.get::<N>(key, "") else { return Vec::new() };
    let given: IpNet = given.into();
    let network = given.trunc();
    let host_bits = ConfigWarning::HostBits { key, given, network };
    let mut warnings: Vec<_> = (given != network).then_some(host_bits).into_iter().collect();
    // A network with errors has no subnets to warn of.
    let mut errors = Errors::default();
    let overlay = read_overlay::<N, A>(keys, members, &mut errors);
    let overlay = overlay.filter(|_| errors.0.is_empty());
    let ranges = overlay.map_or_else(Vec::new, |overlay| ranges::overlapping(&allocated(&overlay)));
    if !ranges.is_empty() {
        let (ranges, min, max) = (list(ranges), keys.subnet_min, keys.subnet_max);
        warnings.push(ConfigWarning::SpecialRange { key, network, ranges, min, max });
    }
    warnings
}

/// Returns the networks that the subnets from the first to the last form together.
fn allocated(overlay: &OverlayNetwork) -> Vec<IpNet> {
    let OverlayNetwork { subnet_length, subnet_min, subnet_max, .. } = *overlay;
    let last = IpNet::new(subnet_max, subnet_length).map(|last| last.broadcast());
    match (subnet_min, last) {
        (std::net::IpAddr::V4(min), Ok(std::net::IpAddr::V4(max))) => {
            Ipv4Subnets::new(min, max, 0).map(IpNet::V4).collect()
        }
        (std::net::IpAddr::V6(min), Ok(std::net::IpAddr::V6(max))) => {
            Ipv6Subnets::new(min, max, 0).map(IpNet::V6).collect()
        }
        _ => Vec::new(),
    }
}
