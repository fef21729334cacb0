//! Decides which addresses of a device can be published to other hosts, and as what.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::{Family, is_host};

/// An address of a device, as the kernel reports it (`RTM_NEWADDR`, rtnetlink(7)).
///
/// Flags that change nothing have no field: `permanent`, `secondary` of IPv4, `noprefixroute`,
/// `mngtmpaddr`, `stable-privacy`, `autojoin`, `home`, `nodad`. The same goes for lifetimes: the
/// kernel marks an address whose preferred lifetime has ended as deprecated, and removes one whose
/// valid lifetime has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressFacts {
    /// The address itself.
    pub address: IpAddr,
    /// Length of the prefix, in bits. On a point-to-point link it is that of the other end.
    pub prefix_length: u8,
    /// The other end of a point-to-point link.
    pub peer: Option<IpAddr>,
    /// The part of the network in which the address is valid.
    pub scope: AddressScope,
    /// True while duplicate address detection runs, also for an optimistic address (RFC 4429).
    pub tentative: bool,
    /// True if duplicate address detection has found another host with the address.
    pub duplicate: bool,
    /// True if the preferred lifetime is over (RFC 4862).
    pub deprecated: bool,
    /// True for a temporary IPv6 address (RFC 8981).
    pub temporary: bool,
}

/// The scope of an address (`rt_scope_t`, `linux/rtnetlink.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressScope {
    /// The whole internet.
    Global,
    /// Inside the site: `fec0::/10`, or as an administrator has set it.
    Site,
    /// On the link.
    Link,
    /// Inside the host.
    Host,
    /// As the administrator of the host defines it.
    Other,
}

/// The reason why an address is not published, or only if there is no better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Duplicate address detection runs. The kernel sends nothing from the address yet.
    Tentative,
    /// Another host has the address.
    Duplicate,
    /// The address is to be used no more, but still works.
    Deprecated,
    /// The address changes every day.
    Temporary,
    /// The address is not valid on other hosts.
    Scope(AddressScope),
    /// The address cannot be that of a host: loopback, multicast, broadcast, unspecified.
    NoHost,
    /// The address is of 169.254.0.0/16 or fe80::/10, whatever its scope.
    LinkLocal,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tentative => "is tentative: duplicate address detection has not ended",
            Self::Duplicate => "is a duplicate: another host has it",
            Self::Deprecated => "is deprecated",
            Self::Temporary => "is temporary",
            Self::Scope(AddressScope::Link) => "has the scope link",
            Self::Scope(AddressScope::Host) => "has the scope host",
            Self::Scope(_) => "has a scope of its own",
            Self::NoHost => "cannot be the address of a host",
            Self::LinkLocal => "is link-local",
        })
    }
}

/// The verdict on an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usability {
    /// The address can be published.
    Usable,
    /// The address is published if the device has no better one of the family.
    LastResort(Unusable),
    /// The address is never published.
    Never(Unusable),
}

/// Decides on an address.
pub fn usability(found: &AddressFacts) -> Usability {
    if !is_host(found.address) {
        return Usability::Never(Unusable::NoHost);
    }
    if let AddressScope::Link | AddressScope::Host | AddressScope::Other = found.scope {
        return Usability::Never(Unusable::Scope(found.scope));
    }
    if found.duplicate {
        return Usability::Never(Unusable::Duplicate);
    }
    // Before `tentative`: it will be temporary afterwards as well.
    if found.temporary {
        return Usability::Never(Unusable::Temporary);
    }
    if found.tentative {
        return Usability::Never(Unusable::Tentative);
    }
    if is_link_local(found.address) {
        return Usability::LastResort(Unusable::LinkLocal);
    }
    // Packets to and from it still arrive, so it is better than no address.
    if found.deprecated {
        return Usability::LastResort(Unusable::Deprecated);
    }
    Usability::Usable
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// The addresses of a device, sorted by what they are good for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sorted {
    /// The addresses that can be published, the better ones first, and otherwise in the order of
    /// the kernel.
    pub usable: Vec<IpNet>,
    /// The other ones, with the reason.
    pub unusable: Vec<(IpNet, Unusable)>,
}

/// Sorts the addresses of a device. `loopback` is true for the loopback device.
pub fn sort(found: &[AddressFacts], loopback: bool) -> Sorted {
    let mut sorted = Sorted::default();
    let mut last = Vec::new();
    for found in found {
        let network = neighbours(found, loopback);
        match usability(found) {
            Usability::Usable => sorted.usable.push(network),
            Usability::LastResort(_) => last.push(network),
            Usability::Never(reason) => sorted.unusable.push((network, reason)),
        }
    }
    sorted.usable.append(&mut last);
    sorted
}

/// Returns the address with the network in which hosts are neighbours. On the loopback device, it
/// has none, whatever the prefix; on a point-to-point link, the prefix is that of the other end.
fn neighbours(found: &AddressFacts, loopback: bool) -> IpNet {
    let host = IpNet::from(found.address);
    let is_point_to_point = found.peer.is_some_and(|peer| peer != found.address);
    if loopback || is_point_to_point {
        return host;
    }
    let length = found.prefix_length.min(Family::of(found.address).bits());
    IpNet::new(found.address, length).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an address of global scope without any flag.
    fn found(network: &str) -> AddressFacts {
        let network: IpNet = network.parse().unwrap();
        AddressFacts {
            address: network.addr(),
            prefix_length: network.prefix_len(),
            peer: None,
            scope: AddressScope::Global,
            tentative: false,
            duplicate: false,
            deprecated: false,
            temporary: false,
        }
    }

    const V6: &str = "2001:db8::1/64";

    #[test]
    fn address_without_flags_is_usable() {
        for network in ["192.0.2.1/24", "192.0.2.1/32", V6, "2001:db8::1/128", "fd00::1/64"] {
            assert_eq!(usability(&found(network)), Usability::Usable, "{network}");
        }
        let site = AddressFacts { scope: AddressScope::Site, ..found("fec0::1/64") };
        assert_eq!(usability(&site), Usability::Usable);
    }

    #[test]
    fn address_of_narrow_scope_is_never_published() {
        for scope in [AddressScope::Link, AddressScope::Host, AddressScope::Other] {
            for network in ["192.0.2.1/24", V6] {
                let verdict = usability(&AddressFacts { scope, ..found(network) });
                assert_eq!(verdict, Usability::Never(Unusable::Scope(scope)), "{network}");
            }
        }
    }

    #[test]
    fn address_that_no_host_can_have_is_never_published() {
        for network in ["127.0.0.5/8", "224.0.0.1/32", "0.0.0.0/0", "::1/128", "ff02::1/64"] {
            let verdict = usability(&found(network));
            assert_eq!(verdict, Usability::Never(Unusable::NoHost), "{network}");
        }
    }

    #[test]
    fn tentative_and_duplicate_addresses_are_not_published() {
        let tentative = AddressFacts { tentative: true, ..found(V6) };
        assert_eq!(usability(&tentative), Usability::Never(Unusable::Tentative));
        // The kernel keeps the flag `tentative` of an address that failed.
        let failed = AddressFacts { duplicate: true, ..tentative };
        assert_eq!(usability(&failed), Usability::Never(Unusable::Duplicate));
    }

    #[test]
    fn temporary_address_is_never_published() {
        let temporary = AddressFacts { temporary: true, ..found(V6) };
        let never = Usability::Never(Unusable::Temporary);
        assert_eq!(usability(&temporary), never);
        assert_eq!(usability(&AddressFacts { deprecated: true, ..temporary }), never);
        assert_eq!(usability(&AddressFacts { tentative: true, ..temporary }), never);
    }

    #[test]
    fn deprecated_and_link_local_addresses_are_last_resorts() {
        let deprecated = AddressFacts { deprecated: true, ..found(V6) };
        assert_eq!(usability(&deprecated), Usability::LastResort(Unusable::Deprecated));
        let link_local = found("169.254.7.7/16");
        assert_eq!(usability(&link_local), Usability::LastResort(Unusable::LinkLocal));
        let all = [deprecated, found("2001:db8::2/64"), link_local, found("192.0.2.1/24")];
        let sorted = sort(&all, false);
        let usable: Vec<_> = sorted.usable.iter().map(|own| own.addr().to_string()).collect();
        assert_eq!(usable, ["2001:db8::2", "192.0.2.1", "2001:db8::1", "169.254.7.7"]);
        assert_eq!(sorted.unusable, []);
    }

    #[test]
    fn unusable_addresses_are_kept_with_their_reasons() {
        let tentative = AddressFacts { tentative: true, ..found(V6) };
        let sorted = sort(&[tentative, found("192.0.2.1/24")], false);
        assert_eq!(sorted.usable, ["192.0.2.1/24".parse().unwrap()]);
        assert_eq!(sorted.unusable, [(V6.parse().unwrap(), Unusable::Tentative)]);
    }

    #[test]
    fn networks_of_loopback_and_peer_links_have_no_neighbours() {
        let usable = |found: AddressFacts, loopback| sort(&[found], loopback).usable[0].to_string();
        assert_eq!(usable(found("192.0.2.1/24"), false), "192.0.2.1/24");
        assert_eq!(usable(found("192.0.2.1/24"), true), "192.0.2.1/32");
        assert_eq!(usable(found(V6), true), "2001:db8::1/128");
        let peer = |peer: &str| Some(peer.parse().unwrap());
        let other_end = AddressFacts { peer: peer("198.51.100.9"), ..found("192.0.2.1/24") };
        assert_eq!(usable(other_end, false), "192.0.2.1/32");
        // IPv4 reports the address itself as the other end of a broadcast link.
        let same = AddressFacts { peer: peer("192.0.2.1"), ..found("192.0.2.1/24") };
        assert_eq!(usable(same, false), "192.0.2.1/24");
    }
}
