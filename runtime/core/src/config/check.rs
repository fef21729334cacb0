//! Checks of the config's values, key by key.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::{ConfigError, Errors, broken};
use super::keys::{BACKEND, FamilyKeys};
use super::members::Members;
use super::{BackendConfig, DEFAULT_BACKEND, OverlayNetwork, subnet_at};

pub(super) fn backend(members: &Members) -> Result<BackendConfig, ConfigError> {
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
    let network = errors.note(network);
    let mut bound = |key| {
        let address = errors.note(members.get::<A>(key, keys.address_form))?;
        Some(address.map(Into::into))
    };
    let bounds = [bound(keys.subnet_min), bound(keys.subnet_max)];
    overlay(keys, members, network?.into().trunc(), bounds, errors)
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

fn on_boundary(address: IpAddr, length: u8) -> bool {
    IpNet::new(address, length).is_ok_and(|subnet| subnet.network() == address)
}
