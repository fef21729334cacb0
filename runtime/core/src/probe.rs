//! Addresses at which peers are probed for reachability through the overlay.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::{Family, number};
use crate::family::PerFamily;
use crate::lease::Lease;
use crate::object::{Object, Plan};

/// The offset in its subnet at which every node of this backend answers, in each family.
///
/// If the plan gives the node an address inside its subnet, this is the offset of that address:
/// with VXLAN, the first one. Otherwise it is the offset of the second address, which the bridge
/// for containers has, once there is a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(PerFamily<Offset>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Offset {
    addresses: u128,
    /// True if the address is that of a bridge, which need not exist.
    is_bridge: bool,
}

/// Offset of a bridge: `FLANNEL_SUBNET` is the subnet's second address.
const BRIDGE: Offset = Offset { addresses: 1, is_bridge: true };

impl Place {
    /// Returns the place according to this node's own plan.
    pub fn of(own: &Lease, plan: &Plan) -> Self {
        let place = |family| {
            let subnet = own.families.get(family)?.subnet;
            let addresses = plan.objects.iter().filter_map(|object| match object {
                Object::Address(address) => Some(address.network.addr()),
                _ => None,
            });
            let mut inside = addresses.filter(|address| subnet.contains(address));
            let addresses = number(inside.next()?) - number(subnet.network());
            Some(Offset { addresses, is_bridge: false })
        };
        Self(PerFamily::of(|family| Some(place(family).unwrap_or(BRIDGE))))
    }

    /// Returns true if an address at this place is that of a bridge for containers. A node without
    /// containers may have none, and is well all the same.
    pub fn is_of_bridge(self, address: IpAddr) -> bool {
        self.0.get(Family::of(address)).is_some_and(|offset| offset.is_bridge)
    }

    /// Returns a peer's addresses at this place, one for each family of its lease.
    pub fn addresses(self, peer: &Lease) -> impl Iterator<Item = IpAddr> + '_ {
        peer.families.as_ref().zip(self.0).into_iter().filter_map(|(part, offset)| {
            let first = number(part.subnet.network());
            let wanted = first.checked_add(offset.addresses)?;
            let address = match part.subnet {
                IpNet::V4(_) => IpAddr::V4(u32::try_from(wanted).ok()?.into()),
                IpNet::V6(_) => IpAddr::V6(wanted.into()),
            };
            part.subnet.contains(&address).then_some(address)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Address;

    fn lease(key: &str) -> Lease {
        let value = br#"{"PublicIP":"192.168.0.1","PublicIPv6":"2001:db8::1"}"#;
        Lease::from_value(key.parse().unwrap(), value).unwrap()
    }

    fn plan(networks: &[&str]) -> Plan {
        let address = |network: &&str| {
            let network = network.parse().unwrap();
            Object::Address(Address { link: "flannel.1".parse().unwrap(), network })
        };
        Plan { objects: networks.iter().map(address).collect() }
    }

    fn asked(plan: &Plan) -> Vec<String> {
        let place = Place::of(&lease("10.244.8.0-24&fd00:0:0:8::-64"), plan);
        let peer = lease("10.244.9.0-24&fd00:0:0:9::-64");
        place.addresses(&peer).map(|address| address.to_string()).collect()
    }

    #[test]
    fn probed_address_has_offset_of_own_address() {
        assert_eq!(
            asked(&plan(&["10.244.8.0/32", "fd00:0:0:8::/128"])),
            ["10.244.9.0", "fd00:0:0:9::"]
        );
        assert_eq!(asked(&plan(&["10.244.8.7/16"])), ["10.244.9.7", "fd00:0:0:9::1"]);
    }

    #[test]
    fn probed_address_without_own_address_is_the_bridge() {
        assert_eq!(asked(&plan(&[])), ["10.244.9.1", "fd00:0:0:9::1"]);
        assert_eq!(asked(&plan(&["169.254.0.1/32"])), ["10.244.9.1", "fd00:0:0:9::1"]);
    }

    #[test]
    fn bridge_is_told_from_the_backends_own_address() {
        let own = lease("10.244.8.0-24&fd00:0:0:8::-64");
        let place = Place::of(&own, &plan(&["10.244.8.0/32"]));
        assert!(!place.is_of_bridge("10.244.9.0".parse().unwrap()));
        assert!(place.is_of_bridge("fd00:0:0:9::1".parse().unwrap()));
    }

    #[test]
    fn peer_with_smaller_subnet_has_no_probed_address() {
        let place = Place::of(&lease("10.244.8.0-24"), &plan(&["10.244.8.200/32"]));
        assert_eq!(place.addresses(&lease("10.244.9.0-25")).count(), 0);
    }
}
