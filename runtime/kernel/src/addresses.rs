//! Converts addresses of devices to `RTM_NEWADDR` and back.

use std::net::IpAddr;

use heddle_core::interface::usability::{self, AddressFacts};
use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::socket::Request;

/// An address of global scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Assigned {
    /// The index of its device.
    pub(crate) device: u32,
    /// The address and its prefix length.
    pub(crate) network: IpNet,
}

impl Assigned {
    /// Decodes an address. Returns `None` for an address of narrower scope.
    pub(crate) fn decode(message: &AddressMessage) -> Option<Self> {
        let header = &message.header;
        if header.scope != AddressScope::Universe {
            return None;
        }
        let Parts { own: address, .. } = Parts::of(message)?;
        let network = IpNet::new(address, header.prefix_len).ok()?;
        Some(Self { device: header.index, network })
    }
}

/// Decodes the facts on which the choice of a public address depends, with the index of the
/// address's device. Returns `None` for an address of another network namespace.
pub(crate) fn facts(message: &AddressMessage) -> Option<(u32, AddressFacts)> {
    let is_elsewhere =
        |found: &AddressAttribute| matches!(found, AddressAttribute::TargetNetNsId(_));
    if message.attributes.iter().any(is_elsewhere) {
        return None;
    }
    let Parts { own, other, flags } = Parts::of(message)?;
    let facts = AddressFacts {
        address: own,
        prefix_length: message.header.prefix_len,
        peer: other,
        scope: scope(message.header.scope),
        tentative: flags.intersects(AddressFlags::Tentative | AddressFlags::Optimistic),
        duplicate: flags.contains(AddressFlags::Dadfailed),
        deprecated: flags.contains(AddressFlags::Deprecated),
        // In IPv4 the bit of `IFA_F_TEMPORARY` marks a secondary address of the same network.
        temporary: own.is_ipv6() && flags.contains(AddressFlags::Secondary),
    };
    Some((message.header.index, facts))
}

fn scope(scope: AddressScope) -> usability::AddressScope {
    match scope {
        AddressScope::Universe => usability::AddressScope::Global,
        AddressScope::Site => usability::AddressScope::Site,
        AddressScope::Link => usability::AddressScope::Link,
        AddressScope::Host => usability::AddressScope::Host,
        _ => usability::AddressScope::Other,
    }
}

/// An address, reduced to what matters for the host's own routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// The index of its device.
    pub(crate) device: u32,
    /// The address and its prefix length.
    pub(crate) network: IpNet,
    /// True if the kernel makes a connected route for exactly this network: not with
    /// `IFA_F_NOPREFIXROUTE`, not for a secondary address of a network, and not on a point-to-point
    /// link, where the route leads to the peer's address.
    pub(crate) prefix_route: bool,
}

impl Host {
    /// Decodes an address. Returns `None` for addresses of host scope, which have no connected
    /// route.
    pub(crate) fn decode(message: &AddressMessage) -> Option<Self> {
        let header = &message.header;
        if header.scope == AddressScope::Host {
            return None;
        }
        let Parts { own, other, flags } = Parts::of(message)?;
        let is_point_to_point = other.is_some_and(|other| other != own);
        // In IPv6 the same bit marks a temporary address.
        let is_secondary = own.is_ipv4() && flags.contains(AddressFlags::Secondary);
        Some(Self {
            device: header.index,
            network: IpNet::new(own, header.prefix_len).ok()?,
            prefix_route: !is_point_to_point
                && !is_secondary
                && !flags.contains(AddressFlags::Noprefixroute),
        })
    }
}

/// The relevant attributes of an address.
struct Parts {
    /// The address itself.
    own: IpAddr,
    /// The peer's address on a point-to-point link; elsewhere the same as `own`.
    other: Option<IpAddr>,
    flags: AddressFlags,
}

impl Parts {
    /// Extracts the attributes. Returns `None` for a message without an address.
    fn of(message: &AddressMessage) -> Option<Self> {
        let (mut local, mut other) = (None, None);
        let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Address(address) => other = Some(*address),
                AddressAttribute::Local(own) => local = Some(*own),
                AddressAttribute::Flags(all) => flags = *all,
                _ => {}
            }
        }
        Some(Self { own: local.or(other)?, other, flags })
    }
}

/// Builds the request to dump all addresses.
pub(crate) fn all() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

/// Builds the request to add an address to a device.
pub(crate) fn put(device: u32, network: IpNet) -> Request {
    let mut message = message(device, network);
    if network.addr().is_ipv6() {
        // Skip duplicate address detection, so that the address is usable at once: an overlay
        // device has no other hosts that could use the same one.
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    Request {
        message: RouteNetlinkMessage::NewAddress(message),
        flags: NLM_F_CREATE | NLM_F_REPLACE,
    }
}

/// Builds the request to remove an address.
pub(crate) fn remove(device: u32, network: IpNet) -> Request {
    Request { message: RouteNetlinkMessage::DelAddress(message(device, network)), flags: 0 }
}

fn message(device: u32, network: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(network.addr());
    message.header.prefix_len = network.prefix_len();
    message.header.scope = AddressScope::Universe;
    message.header.index = device;
    message.attributes =
        vec![AddressAttribute::Local(network.addr()), AddressAttribute::Address(network.addr())];
    message
}

/// Returns netlink's constant for the family of an address.
pub(crate) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests;
