//! Checks of the config's values, key by key.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::{ConfigError, Errors, broken};
use super::keys::{BACKEND, FamilyKeys};
use super::members::Members;
use super::ranges;
use super::{BackendConfig, DEFAULT_BACKEND, OverlayNetwork, subnet_at};

pub(super) fn backend(members: &Members) -> Result<BackendConfig, ConfigError> {
    let default = || Map::from_iter([("Type".to_owned(), Value::from(DEFAULT_BACKEND))]);
    let object: Map<String, Value> =
        members.get(BACKEND, "an object with a `Type`")?.unwrap_or_else(default);
    let mut members = Members(object);
    let kind: String = members
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
        })?
        // As in flannel (`GetBackend` in `pkg/backend/manager.go`).
        .to_ascii_lowercase();
    for (_, value) in members.0.iter_mut().filter(|(name, _)| name.eq_ignore_ascii_case("Type")) {
        *value = Value::from(kind.as_str());
    }
    let json = serde_json::to_string(&members.0).expect("JSON that was read can be written");
    Ok(BackendConfig { kind, json })
}

/// Returns a flag, or its default if it is absent. The flag of an unreadable value is what it
/// probably means, so that the other keys are checked accordingly.
pub(super) fn flag(
    key: &'static str,
    default: bool,
    members: &Members,
    errors: &mut Errors,
) -> bool {
    match members.get(key, "true or false") {
        Ok(flag) => flag.unwrap_or(default),
        Err(error) => {
            let probably = match &error {
                ConfigError::Type { found, .. } => {
                    let found = found.trim_matches('"').to_ascii_lowercase();
                    !["false", "no", "off", "0", ""].contains(&found.as_str())
                }
                _ => default,
            };
            errors.add(error);
            probably
        }
    }
}

/// Returns one family's overlay network, from its members. `N` and `A` are its networks and
/// addresses.
pub(super) fn read_overlay<N, A>(
    keys: &FamilyKeys,
    members: &Members,
    errors: &mut Errors,
) -> Option<OverlayNetwork>
where
    N: DeserializeOwned + Into<IpNet>,
    A: DeserializeOwned + Into<IpAddr>,
{
    let network = members.get::<N>(keys.network, keys.network_form).and_then(|network| {
        network.ok_or(ConfigError::Missing { key: keys.network, rule: keys.missing })
    });
    let network = errors.note(network).map(|network| network.into().trunc());
    for error in network.iter().flat_map(|network| unusable(keys, *network)) {
        errors.add(error);
    }
    let length = errors.note(subnet_length(keys, members, network)).flatten();
    let place = Place { keys, network, length };
    let mut bound = |key| {
        let address = errors.note(members.get::<A>(key, keys.address_form))?.map(Into::into);
        errors.note(address.map_or(Ok(()), |address| place.check(key, address)))?;
        Some(address)
    };
    let (min, max) = (bound(keys.subnet_min), bound(keys.subnet_max));
    let [subnet_min, subnet_max] = errors.note(place.range(min?, max?))??;
    Some(OverlayNetwork { network: network?, subnet_length: length?, subnet_min, subnet_max })
}

/// Returns the errors of a network that do not depend on other keys.
fn unusable(keys: &FamilyKeys, network: IpNet) -> Vec<ConfigError> {
    let longest = keys.longest_network;
    let too_small = || format!("too small to be split: expected /{longest} or larger");
    let special = ranges::unusable(network).map(|range| {
        format!("lies in {range}: expected a range that can be routed, such as {}", keys.example)
    });
    let small = (network.prefix_len() > longest).then(too_small);
    let rules = small.into_iter().chain(special);
    rules.map(|rule| broken(keys.network, network, rule)).collect()
}

/// Returns the length of a node's subnet. None if it depends on a network that cannot be used.
fn subnet_length(
    keys: &FamilyKeys,
    members: &Members,
    network: Option<IpNet>,
) -> Result<Option<u8>, ConfigError> {
    let network = network.filter(|network| network.prefix_len() <= keys.longest_network);
    // Two more bits give four subnets, three of which can be allocated.
    let shortest = network.map_or(0, |network| network.prefix_len()) + 2;
    match members.get::<i64>(keys.subnet_length, "a whole number")? {
        // flannel treats 0 as absent.
        None | Some(0) => Ok(network.map(|_| keys.default_length.max(shortest))),
        Some(given) => {
            let length = u8::try_from(given).ok();
            let length = length.filter(|length| (shortest..=keys.longest_subnet).contains(length));
            length.map(Some).ok_or_else(|| {
                let mut rule = format!("must be {shortest} to {}", keys.longest_subnet);
                if let Some(network) = network {
                    rule += &format!(" for `{}` {network}", keys.network);
                }
                broken(keys.subnet_length, given, rule)
            })
        }
    }
}

/// The place of a family's subnets, as far as it is known.
struct Place<'a> {
    keys: &'a FamilyKeys,
    network: Option<IpNet>,
    length: Option<u8>,
}

impl Place<'_> {
    /// Checks the address of a first or last subnet by itself.
    fn check(&self, key: &'static str, address: IpAddr) -> Result<(), ConfigError> {
        let mut rules = Vec::new();
        if let Some(network) = self.network.filter(|network| !network.contains(&address)) {
            rules.push(format!("must lie in `{}` {network}", self.keys.network));
        }
        // The first address of any subnet is also that of a smallest one.
        if !on_boundary(address, self.length.unwrap_or(self.keys.longest_subnet)) {
            rules.push(match self.length {
                Some(length) => format!("must be the first address of a /{length}"),
                None => "must be the first address of a subnet".to_owned(),
            });
        }
        if rules.is_empty() { Ok(()) } else { Err(broken(key, address, rules.join(", and "))) }
    }

    /// Returns the first and the last subnet, from those that the config gives. None if a default
    /// depends on keys that cannot be used.
    fn range(
        &self,
        min: Option<IpAddr>,
        max: Option<IpAddr>,
    ) -> Result<Option<[IpAddr; 2]>, ConfigError> {
        let FamilyKeys { subnet_min, subnet_max, .. } = self.keys;
        let default = self.default_range();
        let first = min.or(default.map(|[first, _]| first));
        let last = max.or(default.map(|[_, last]| last));
        match (first, last) {
            (Some(first), Some(last)) if first <= last => Ok(Some([first, last])),
            (Some(first), Some(last)) if min.is_some() => {
                let rule = format!("must not come after `{subnet_max}` {last}");
                Err(broken(subnet_min, first, rule))
            }
            (Some(first), Some(last)) => {
                let rule = format!("must not come before the first subnet, {first}");
                Err(broken(subnet_max, last, rule))
            }
            _ => Ok(None),
        }
    }

    /// Returns the first and the last subnet that are allocated by default.
    fn default_range(&self) -> Option<[IpAddr; 2]> {
        let (network, length) = (self.network?, self.length?);
        let prefix = network.prefix_len();
        let last = (1u128 << length.checked_sub(prefix)?) - 1;
        // The first subnet is never allocated: its first address is the network address itself.
        Some([1, last].map(|index| subnet_at(network, length, index)))
    }
}

fn on_boundary(address: IpAddr, length: u8) -> bool {
    IpNet::new(address, length).is_ok_and(|subnet| subnet.network() == address)
}
