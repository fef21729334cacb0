//! Choice of the interface that carries the overlay, and of the addresses published to other hosts.
//!
//! The rules are flannel's (`pkg/ipmatch/match.go`), as a function of what was found on the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use regex::Regex;

use crate::address::{Family, LinkName, MacAddress};
use crate::family::PerFamily;
use crate::node::{ExistingLink, Underlay};
use crate::text::list;

/// A network interface as found on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name of the interface.
    pub name: LinkName,
    /// MTU in bytes.
    pub mtu: u32,
    /// True if the interface is administratively up.
    pub up: bool,
    /// True for the loopback interface.
    pub loopback: bool,
    /// The kernel's name of the link kind; empty for hardware.
    pub kind: String,
    /// Ethernet address, if the interface has one.
    pub mac: Option<MacAddress>,
    /// Source address of a VXLAN device that we may adopt.
    pub local: Option<IpAddr>,
    /// Usable addresses of global scope with their prefix lengths, in the kernel's order.
    pub addresses: Vec<IpNet>,
}

impl Interface {
    pub(crate) fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses_of(family).next()
    }

    fn addresses_of(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(IpNet::addr).filter(move |address| Family::of(*address) == family)
    }
}

/// The operator's flags for the choice of the interface.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// `--iface`: names or addresses. The first one whose interface has an address of every family
    /// wins.
    pub names: Vec<String>,
    /// `--iface-regex`: tried after the names in the same way; matched against addresses first,
    /// then against names.
    pub patterns: Vec<Regex>,
    /// `--iface-can-reach`: selects the interface through which this address is reached.
    pub can_reach: Option<IpAddr>,
    /// `--public-ip`: the address that peers use, if it is not the interface's.
    pub public_ip: Option<Ipv4Addr>,
    /// `--public-ipv6`: the IPv6 address that peers use, if it is not the interface's.
    pub public_ipv6: Option<Ipv6Addr>,
}

impl Selection {
    /// Returns the public addresses that the flags give.
    fn public_addresses(&self) -> PerFamily<IpAddr> {
        let v4 = self.public_ip.map(IpAddr::V4);
        PerFamily { v4, v6: self.public_ipv6.map(IpAddr::V6) }
    }
}

/// The facts about the host that the choice depends on.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// All interfaces of the host.
    pub interfaces: Vec<Interface>,
    /// Devices of the IPv4 default routes, lowest metric first.
    pub default_routes_v4: Vec<LinkName>,
    /// Devices of the IPv6 default routes, lowest metric first.
    pub default_routes_v6: Vec<LinkName>,
    /// The device towards [`Selection::can_reach`] and the source address that the kernel would
    /// use.
    pub route_to: Option<(LinkName, Option<IpAddr>)>,
}

impl Facts {
    /// Returns the devices of a family's default routes, lowest metric first.
    pub(crate) fn default_routes(&self, family: Family) -> &[LinkName] {
        match family {
            Family::V4 => &self.default_routes_v4,
            Family::V6 => &self.default_routes_v6,
        }
    }
}

/// The reason why no interface could be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// No interface matched `--iface` or `--iface-regex`.
    #[error("no interface matches {wanted}; there are {available}")]
    NoMatch {
        /// The flags that were tried.
        wanted: String,
        /// The interfaces and their addresses.
        available: String,
    },
    /// The host has no route to the address of `--iface-can-reach`.
    #[error("--iface-can-reach {0}: no route to this address")]
    Unreachable(IpAddr),
    /// The host has no default route of this family.
    #[error("no {0} default route selects an interface; name one with --iface")]
    NoDefaultRoute(Family),
    /// The default routes of the two families leave through different interfaces.
    #[error(
        "the IPv4 default route is on {v4} and the IPv6 one on {v6}: both must be on the same interface, or name one with --iface"
    )]
    DefaultRoutesDiffer {
        /// The device of the IPv4 default route.
        v4: LinkName,
        /// The device of the IPv6 default route.
        v6: LinkName,
    },
    /// The chosen interface lacks an address.
    #[error(
        "interface {link} has no {family} address of global scope; the network config enables {family}"
    )]
    NoAddress {
        /// The interface.
        link: LinkName,
        /// The family of the missing address.
        family: Family,
    },
}

/// Chooses the interface, and the public address of each of `families`.
///
/// # Errors
///
/// [`SelectionError`], which names the flag, or the route or address that the host lacks.
pub fn select(
    families: &[Family],
    selection: &Selection,
    facts: &Facts,
) -> Result<Underlay, SelectionError> {
    let choice = choose(families, selection, facts)?;
    let mut public_addresses = Vec::with_capacity(families.len());
    let public = selection.public_addresses();
    for &family in families {
        // Even behind NAT the interface needs an address of its own to send from.
        let own = choice
            .own_address(family)
            .ok_or(SelectionError::NoAddress { link: choice.interface.name, family })?;
        public_addresses.push(*public.get(family).unwrap_or(&own));
    }
    Ok(Underlay {
        link: choice.interface.name,
        mtu: choice.interface.mtu,
        addresses: choice.interface.addresses.clone(),
        public_addresses: public_addresses.into_iter().collect(),
    })
}

#[derive(Clone, Copy)]
pub(crate) struct Choice<'a> {
    pub(crate) interface: &'a Interface,
    /// The address that the interface was chosen by.
    address: Option<IpAddr>,
}

impl Choice<'_> {
    /// Returns the interface's address of `family`, preferably the one it was chosen by.
    fn own_address(&self, family: Family) -> Option<IpAddr> {
        let chosen_by = self.address.filter(|address| Family::of(*address) == family);
        chosen_by.or_else(|| self.interface.address(family))
    }
}

pub(crate) fn choose<'a>(
    families: &[Family],
    selection: &Selection,
    facts: &'a Facts,
) -> Result<Choice<'a>, SelectionError> {
    let named = |name: LinkName| facts.interfaces.iter().find(|found| found.name == name);
    if !selection.names.is_empty() || !selection.patterns.is_empty() {
        let by_name = selection.names.iter().filter_map(|wanted| by_name(wanted, facts));
        let by_pattern =
            selection.patterns.iter().filter_map(|pattern| by_pattern(pattern, families, facts));
        let matching: Vec<_> = by_name.chain(by_pattern).collect();
        let complete =
            |choice: &&Choice| families.iter().all(|family| choice.own_address(*family).is_some());
        // If all of them lack an address, the error names the first.
        let chosen = matching.iter().find(complete).or(matching.first());
        return chosen.copied().ok_or_else(|| no_match(selection, facts));
    }
    if let Some(target) = selection.can_reach {
        return facts
            .route_to
            .and_then(|(link, source)| Some(Choice { interface: named(link)?, address: source }))
            .ok_or(SelectionError::Unreachable(target));
    }
    // A public address of the host's own identifies the interface. Behind NAT there is no such
    // address.
    let public = selection.public_addresses();
    let known = public.iter().find_map(|own| by_name(&own.to_string(), facts));
    if let Some(choice) = known {
        return Ok(choice);
    }
    let default = |family| {
        let routes = facts.default_routes(family);
        routes.first().copied().ok_or(SelectionError::NoDefaultRoute(family))
    };
    let mut chosen = None;
    for &family in families {
        let link = default(family)?;
        match chosen {
            Some(v4) if v4 != link => {
                return Err(SelectionError::DefaultRoutesDiffer { v4, v6: link });
            }
            _ => chosen = Some(link),
        }
    }
    let missing = SelectionError::NoDefaultRoute(families.first().copied().unwrap_or(Family::V4));
    let interface = chosen.and_then(named).ok_or(missing)?;
    Ok(Choice { interface, address: None })
}

pub(crate) fn by_name<'a>(wanted: &str, facts: &'a Facts) -> Option<Choice<'a>> {
    let mut interfaces = facts.interfaces.iter();
    match wanted.parse::<IpAddr>() {
        Ok(address) => interfaces
            .find(|interface| interface.addresses.iter().any(|own| own.addr() == address))
            .map(|interface| Choice { interface, address: Some(address) }),
        Err(_) => interfaces
            .find(|interface| interface.name.as_str() == wanted)
            .map(|interface| Choice { interface, address: None }),
    }
}

pub(crate) fn by_pattern<'a>(
    pattern: &Regex,
    families: &[Family],
    facts: &'a Facts,
) -> Option<Choice<'a>> {
    let matching = |interface: &Interface, family| {
        interface.addresses_of(family).find(|address| pattern.is_match(&address.to_string()))
    };
    let by_address = facts.interfaces.iter().find_map(|interface| {
        // All families have to match; the address of the first one counts as the one chosen by.
        let addresses: Option<Vec<_>> =
            families.iter().map(|family| matching(interface, *family)).collect();
        Some(Choice { interface, address: addresses?.first().copied() })
    });
    by_address.or_else(|| {
        let by_name = |interface: &&Interface| pattern.is_match(interface.name.as_str());
        facts.interfaces.iter().find(by_name).map(|interface| Choice { interface, address: None })
    })
}

fn no_match(selection: &Selection, facts: &Facts) -> SelectionError {
    let names = selection.names.iter().map(|name| format!("--iface {name}"));
    let patterns = selection.patterns.iter().map(|pattern| format!("--iface-regex {pattern}"));
    SelectionError::NoMatch {
        wanted: list(names.chain(patterns)),
        available: list(facts.interfaces.iter().map(|interface| {
            let addresses = list(interface.addresses.iter().map(IpNet::addr));
            format!(
                "{} ({})",
                interface.name,
                if addresses.is_empty() { "no address" } else { &addresses }
            )
        })),
    }
}

/// Returns the devices that a backend may recognize as its own: only those of plannable kinds,
/// since a busy host has thousands of others.
///
/// Skips VXLAN devices whose local address this host no longer has. Peers cannot reach them, and
/// their MAC must not be reused: an older lease of this host may publish it beside the host's new
/// lease.
pub fn existing_links(interfaces: &[Interface]) -> Vec<ExistingLink> {
    let plannable = |kind: &str| matches!(kind, "vxlan" | "tun");
    let own = |address| {
        let mut addresses = interfaces.iter().flat_map(|found| &found.addresses);
        addresses.any(|own| own.addr() == address)
    };
    let found =
        interfaces.iter().filter(|found| plannable(&found.kind) && found.local.is_none_or(own));
    let link = |found: &Interface| ExistingLink {
        name: found.name,
        kind: found.kind.clone(),
        mac: found.mac,
    };
    found.map(link).collect()
}

#[cfg(test)]
pub(crate) mod tests;
