//! Choice of the interface that carries the overlay, and of the addresses published to other hosts.
//!
//! The rules are flannel's (`pkg/ipmatch/match.go`), as a function of what was found on the host.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use regex::Regex;

use crate::address::{Family, LinkName, MacAddress};
use crate::family::PerFamily;
use crate::node::{ExistingLink, Underlay};
use crate::text::list;

mod overlaid;
mod rules;
#[cfg(test)]
pub(crate) mod tests;
pub mod usability;

pub use overlaid::{ALIAS_PREFIX, Overlaid, Requirements};
pub(crate) use rules::{Rule, rules};

use usability::{Sorted, Unusable};

/// MTU in bytes that every Ethernet carries, for a host without any route to other hosts.
const ETHERNET_MTU: u32 = 1500;

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
    /// Alias (`ip link set … alias`); empty if it has none.
    pub alias: String,
    /// Addresses that can be published, with the networks of their neighbours; the better ones
    /// first.
    pub addresses: Vec<IpNet>,
    /// Addresses that cannot be published, with the reason.
    pub unusable: Vec<(IpNet, Unusable)>,
}

impl Interface {
    pub(crate) fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses_of(family).next()
    }

    fn addresses_of(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(IpNet::addr).filter(move |address| Family::of(*address) == family)
    }

    /// Takes the addresses that the kernel reports.
    #[must_use]
    pub fn with_addresses(self, sorted: Sorted) -> Self {
        let Sorted { usable: addresses, unusable } = sorted;
        Self { addresses, unusable, ..self }
    }

    /// Returns true if packets to other hosts leave by the interface itself. The addresses of the
    /// loopback and of dummy devices are reached through the host's other interfaces, by a routing
    /// protocol on the host.
    pub fn carries(&self) -> bool {
        !self.loopback && self.kind != "dummy"
    }

    /// Returns the interface with its tentative addresses among those that can be published.
    fn once_verified(mut self) -> Self {
        let is_tentative = |(_, reason): &(IpNet, Unusable)| *reason == Unusable::Tentative;
        let tentative = self.unusable.iter().filter(|found| is_tentative(found));
        self.addresses.extend(tentative.map(|(network, _)| *network));
        self
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
    /// The addresses in this node's own leases. Of several addresses of the interface, one of these
    /// is chosen, so that a new or reordered address does not readdress the node.
    pub published: Vec<IpAddr>,
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
    /// The devices by which packets to other hosts leave, of each family: the next hops of the best
    /// default route, and those of routes to known peers.
    pub egress: BTreeSet<(Family, LinkName)>,
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
        "interface {link} has no {family} address of global scope; the network config enables {family}{}",
        also(unusable)
    )]
    NoAddress {
        /// The interface.
        link: LinkName,
        /// The family of the missing address.
        family: Family,
        /// The addresses of the family that cannot be published.
        unusable: Vec<(IpAddr, Unusable)>,
    },
    /// The address to publish is not verified yet.
    #[error("interface {link}: {address} {}", Unusable::Tentative)]
    Tentative {
        /// The interface.
        link: LinkName,
        /// The address.
        address: IpAddr,
    },
    /// The flag or the route that decides selects the overlay itself.
    #[error("{by} selects {link}, but {overlaid}; name an interface that leads to other hosts")]
    Overlaid {
        /// The flag or the route that selects the interface.
        by: String,
        /// The interface.
        link: LinkName,
        /// The reason why it is not used.
        overlaid: Overlaid,
    },
    /// A flag gives a public address that belongs to the overlay.
    #[error(
        "{flag} {address}: inside the overlay network {network}, where other hosts cannot reach this one; give an address outside"
    )]
    PublicOverlaid {
        /// The flag.
        flag: &'static str,
        /// The address.
        address: IpAddr,
        /// The overlay network.
        network: IpNet,
    },
}

impl SelectionError {
    /// Returns true if a change of the host's links, addresses or routes, or of the network config,
    /// is likely to end the error, so that the daemon waits for it.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Tentative { .. } | Self::Overlaid { .. } | Self::PublicOverlaid { .. })
    }
}

/// Returns the end of a sentence that lists addresses and the reasons why they are not published.
fn also(unusable: &[(IpAddr, Unusable)]) -> String {
    let also = unusable.iter().map(|(address, reason)| format!("; {address} {reason}"));
    also.collect()
}

/// Chooses the interface, and the public address of each enabled family.
///
/// # Errors
///
/// [`SelectionError`], which names the flag, or the route or address that the host lacks.
pub fn select(
    requirements: &Requirements,
    selection: &Selection,
    facts: &Facts,
) -> Result<Underlay, SelectionError> {
    if let Some((flag, address, network)) = requirements.overlaid_flag(selection, facts) {
        return Err(SelectionError::PublicOverlaid { flag, address, network });
    }
    let families = requirements.families();
    let usable = requirements.usable(facts);
    select_from(families, selection, &usable).map_err(|error| {
        rules::overlaid(requirements, selection, facts)
            .or_else(|| tentative(families, selection, &usable))
            .unwrap_or(error)
    })
}

fn select_from(
    families: &[Family],
    selection: &Selection,
    facts: &Facts,
) -> Result<Underlay, SelectionError> {
    let choice = choose(families, selection, facts)?;
    let interface = choice.interface;
    let mut public_addresses = Vec::with_capacity(families.len());
    let public = selection.public_addresses();
    for &family in families {
        // Even behind NAT the interface needs an address of its own to send from.
        let own = choice.own_address(family, &selection.published).ok_or_else(|| {
            let of_family = |(network, _): &&(IpNet, _)| Family::of(network.addr()) == family;
            let unusable = interface.unusable.iter().filter(of_family);
            let unusable = unusable.map(|(network, reason)| (network.addr(), *reason)).collect();
            SelectionError::NoAddress { link: interface.name, family, unusable }
        })?;
        public_addresses.push(*public.get(family).unwrap_or(&own));
    }
    Ok(Underlay {
        link: interface.name,
        mtu: path_mtu(interface, families, facts),
        addresses: interface.addresses.clone(),
        public_addresses: public_addresses.into_iter().collect(),
    })
}

/// Returns the error of a choice that would succeed if duplicate address detection had ended.
fn tentative(families: &[Family], selection: &Selection, facts: &Facts) -> Option<SelectionError> {
    let interfaces = facts.interfaces.iter().cloned().map(Interface::once_verified).collect();
    let verified = Facts { interfaces, ..facts.clone() };
    let choice = choose(families, selection, &verified).ok()?;
    let needed: Option<Vec<_>> =
        families.iter().map(|family| choice.own_address(*family, &selection.published)).collect();
    let unusable = &choice.interface.unusable;
    let is_tentative = |address: &IpAddr| unusable.iter().any(|(own, _)| own.addr() == *address);
    let address = needed?.into_iter().find(is_tentative)?;
    Some(SelectionError::Tentative { link: choice.interface.name, address })
}

/// Returns the largest packet in bytes that leaves the host towards its peers unfragmented.
fn path_mtu(interface: &Interface, families: &[Family], facts: &Facts) -> u32 {
    let narrowest = narrowest(interface, families, facts);
    narrowest.map_or(ETHERNET_MTU.min(interface.mtu), |(_, mtu)| mtu)
}

/// Returns the device by which packets to other hosts leave, and its MTU in bytes; of several, the
/// one with the smallest. `None` if there is no route to other hosts.
///
/// An interface that carries no packets itself has an MTU that says nothing about them: that of the
/// loopback device is 65536.
pub(crate) fn narrowest(
    interface: &Interface,
    families: &[Family],
    facts: &Facts,
) -> Option<(LinkName, u32)> {
    if interface.carries() {
        return Some((interface.name, interface.mtu));
    }
    let egress = facts.egress.iter().filter(|(family, _)| families.contains(family));
    let carrying = egress.filter_map(|(_, link)| {
        let mut found = facts.interfaces.iter();
        found.find(|found| found.name == *link && found.carries())
    });
    carrying.map(|found| (found.name, found.mtu)).min_by_key(|(_, mtu)| *mtu)
}

/// Returns true if the interface has several addresses of a family, and neither a flag nor a route
/// says which of them to publish.
pub fn is_ambiguous(requirements: &Requirements, selection: &Selection, facts: &Facts) -> bool {
    let (families, usable) = (requirements.families(), requirements.usable(facts));
    let Ok(choice) = choose(families, selection, &usable) else { return false };
    let public = selection.public_addresses();
    families.iter().any(|family| {
        let is_given = public.get(*family).is_some()
            || choice.address.is_some_and(|address| Family::of(address) == *family);
        !is_given && choice.interface.addresses_of(*family).count() > 1
    })
}

#[derive(Clone, Copy)]
pub(crate) struct Choice<'a> {
    pub(crate) interface: &'a Interface,
    /// The address that the interface was chosen by.
    address: Option<IpAddr>,
}

impl Choice<'_> {
    /// Returns the interface's address of `family`: the one it was chosen by, or else one of
    /// `preferred`, or else the first.
    fn own_address(&self, family: Family, preferred: &[IpAddr]) -> Option<IpAddr> {
        let chosen_by = self.address.filter(|address| Family::of(*address) == family);
        let known = || self.interface.addresses_of(family).find(|own| preferred.contains(own));
        chosen_by.or_else(known).or_else(|| self.interface.address(family))
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
        let complete = |choice: &&Choice| {
            families.iter().all(|family| choice.own_address(*family, &[]).is_some())
        };
        // If all of them lack an address, the error names the first.
        let chosen = matching.iter().find(complete).or(matching.first());
        return chosen.copied().ok_or_else(|| no_match(selection, facts));
    }
    if let Some(target) = selection.can_reach {
        // The kernel reaches the host's own addresses through the loopback device.
        if let Some(own) = by_name(&target.to_string(), facts) {
            return Ok(own);
        }
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
    SelectionError::NoMatch {
        wanted: list(rules(selection).iter().map(Rule::flag)),
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
