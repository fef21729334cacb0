//! Decides which devices and addresses belong to the overlay itself, and so never lead to other
//! hosts.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Facts, Interface, Selection};
use crate::address::{Family, LinkName};
use crate::config::OverlayNetwork;
use crate::family::PerFamily;

/// The prefix of the alias of every Heddle daemon's devices. The name of the network follows, as in
/// `heddle /coreos.com/network`, and distinguishes the daemons of one host.
pub const ALIAS_PREFIX: &str = "heddle ";

/// The network config's part in the choice of the interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirements {
    /// The enabled families.
    families: Vec<Family>,
    networks: PerFamily<OverlayNetwork>,
}

/// The reason why a device or an address is not used between hosts, whatever flags and routes say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Overlaid {
    /// A Heddle daemon, or flannel, made the device.
    #[error("it is a device of an overlay")]
    Device,
    /// The address is one that the overlay gives to containers.
    #[error("its address {address} is inside the overlay network {network}")]
    Address {
        /// The address.
        address: IpAddr,
        /// The overlay network.
        network: IpNet,
    },
}

impl Requirements {
    /// Returns the requirements of a network config.
    pub fn of(networks: &PerFamily<OverlayNetwork>) -> Self {
        Self { families: networks.families(), networks: *networks }
    }

    /// Returns the requirements for these families while the overlay's networks are unknown.
    pub fn families_only(families: &[Family]) -> Self {
        Self { families: families.to_vec(), networks: PerFamily::NONE }
    }

    /// Returns the enabled families.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// Returns the facts without what is the overlay's, so that neither flags nor routes can select
    /// it.
    pub(crate) fn usable(&self, facts: &Facts) -> Facts {
        let kept = |name: &LinkName| {
            let mut found = facts.interfaces.iter();
            !found.any(|interface| interface.name == *name && is_device(interface))
        };
        let interfaces: Vec<_> = facts
            .interfaces
            .iter()
            .filter(|interface| !is_device(interface))
            .map(|interface| self.without_overlaid(interface, facts))
            .collect();
        let routes = |family| facts.default_routes(family).iter().copied().filter(kept).collect();
        let has = |link: LinkName, source: IpAddr| {
            let mut found = interfaces.iter().filter(|interface| interface.name == link);
            found.any(|interface| interface.addresses.iter().any(|own| own.addr() == source))
        };
        let route_to = facts.route_to.filter(|(link, _)| kept(link));
        Facts {
            default_routes_v4: routes(Family::V4),
            default_routes_v6: routes(Family::V6),
            // The kernel may send from a temporary address, or from one inside the overlay.
            route_to: route_to
                .map(|(link, source)| (link, source.filter(|source| has(link, *source)))),
            egress: facts.egress.iter().copied().filter(|(_, link)| kept(link)).collect(),
            interfaces,
        }
    }

    /// Returns the reason why an interface is not used in any of the families.
    pub(crate) fn overlaid(&self, interface: &Interface, facts: &Facts) -> Option<Overlaid> {
        if is_device(interface) {
            return Some(Overlaid::Device);
        }
        let usable = self.without_overlaid(interface, facts);
        let lacking = self.families.iter().find(|family| usable.address(**family).is_none())?;
        let address = interface.address(*lacking)?;
        self.overlay_of(address).map(|network| Overlaid::Address { address, network })
    }

    /// Returns the flag, the address and the overlay network, if a flag gives a public address
    /// inside the overlay which is not that of a usable interface.
    pub(crate) fn overlaid_flag(
        &self,
        selection: &Selection,
        facts: &Facts,
    ) -> Option<(&'static str, IpAddr, IpNet)> {
        let usable = self.usable(facts);
        let has = |address| {
            let mut own = usable.interfaces.iter().flat_map(|interface| &interface.addresses);
            own.any(|own| own.addr() == address)
        };
        let v4 = selection.public_ip.map(|address| ("--public-ip", IpAddr::V4(address)));
        let v6 = selection.public_ipv6.map(|address| ("--public-ipv6", IpAddr::V6(address)));
        v4.into_iter().chain(v6).find_map(|(flag, address)| {
            let network = self.overlay_of(address)?;
            (!has(address)).then_some((flag, address, network))
        })
    }

    /// Returns an interface without its addresses inside the overlay. The interface of a default
    /// route keeps them, behind all others: hosts whose own network lies inside `Network` reach each
    /// other there, and no bridge of containers has the default route.
    fn without_overlaid(&self, interface: &Interface, facts: &Facts) -> Interface {
        let is_overlaid = |own: &IpNet| self.overlay_of(own.addr()).is_some();
        let (mut inside, mut addresses): (Vec<_>, Vec<_>) =
            interface.addresses.iter().partition(|own| is_overlaid(own));
        let leads =
            |own: &IpNet| facts.default_routes(Family::of(own.addr())).contains(&interface.name);
        inside.retain(leads);
        addresses.append(&mut inside);
        Interface { addresses, ..interface.clone() }
    }

    /// Returns the overlay network that an address is in. Addresses outside the range that
    /// `SubnetMin` and `SubnetMax` leave to the nodes' subnets are the host's.
    fn overlay_of(&self, address: IpAddr) -> Option<IpNet> {
        let overlay = self.networks.get(Family::of(address))?;
        let set_aside = |(min, max): (IpAddr, IpAddr)| address < min || max < address;
        let is_set_aside = overlay.reserved_range().is_some_and(set_aside);
        (overlay.network.contains(&address) && !is_set_aside).then_some(overlay.network)
    }
}

/// Returns true if a Heddle daemon made the device, of this network or another one, or flannel did.
fn is_device(interface: &Interface) -> bool {
    let name = interface.name.as_str();
    let flannels = match interface.kind.as_str() {
        "vxlan" => name.starts_with("flannel.") || name.starts_with("flannel-v6."),
        "tun" => name.starts_with("flannel"),
        _ => false,
    };
    interface.alias.starts_with(ALIAS_PREFIX) || flannels
}

#[cfg(test)]
mod tests;
