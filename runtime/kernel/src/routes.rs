//! Converts routes of the main table to `RTM_NEWROUTE` and back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use heddle_core::address::{Family, LinkName};
use heddle_core::object::{Metric, Route, RouteAction};
use ipnet::{IpNet, Ipv4Net};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::ROUTE_PROTOCOL;
use crate::addresses::family;
use crate::links::Devices;
use crate::socket::Request;

/// The metric of an IPv6 route without an explicit one (`IP6_RT_PRIO_USER`, `net/ip6_route.h`). In
/// IPv4 it is 0.
const DEFAULT_METRIC_V6: u32 = 1024;

/// The metric of [`Metric::Last`].
const LAST_METRIC: u32 = 4096;

/// A route that could be under the key of a planned route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) route: Route,
    /// The index of its output device.
    pub(crate) device: Option<u32>,
    /// The protocol that created it.
    pub(crate) protocol: RouteProtocol,
}

impl Found {
    /// Decodes a route. Returns `None` for routes that cannot conflict with ours: another table,
    /// metric or type of service, source-specific routes, the kernel's own for local delivery and
    /// multicast, and cache entries.
    pub(crate) fn decode(message: &RouteMessage, devices: &Devices) -> Option<Self> {
        let header = &message.header;
        let in_main_table = main_table(message)
            && header.tos == 0
            && header.source_prefix_length == 0
            && !header.flags.contains(RouteFlags::Cloned);
        let metric = match (header.address_family, metric(message)) {
            (AddressFamily::Inet, 0) | (AddressFamily::Inet6, DEFAULT_METRIC_V6) => Metric::Default,
            (AddressFamily::Inet | AddressFamily::Inet6, LAST_METRIC) => Metric::Last,
            _ => return None,
        };
        if !in_main_table {
            return None;
        }
        let action = match header.kind {
            RouteType::Unicast => next_hop(message, devices).unwrap_or(RouteAction::Other),
            RouteType::BlackHole => RouteAction::Blackhole,
            RouteType::Unreachable | RouteType::Prohibit | RouteType::Throw => RouteAction::Other,
            _ => return None,
        };
        let route = Route { destination: destination(message)?, metric, action };
        let device = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
        Some(Self { route, device, protocol: header.protocol })
    }
}

/// A route of the main table, reduced to what tells who owns its destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostFound {
    pub(crate) destination: IpNet,
    /// The device of the first next hop, by index.
    pub(crate) device: Option<u32>,
    /// True if the destination is on the link itself, or on this host.
    pub(crate) connected: bool,
    /// True if the route only applies to one source or type of service.
    pub(crate) partial: bool,
    pub(crate) protocol: RouteProtocol,
}

impl HostFound {
    /// Decodes a route of the main table. Returns `None` for other tables and cache entries. The
    /// kernel keeps its own routes for local delivery and multicast in a separate table; those in
    /// the main table are the administrator's.
    pub(crate) fn decode(message: &RouteMessage) -> Option<Self> {
        if !main_table(message) {
            return None;
        }
        Self::decode_any_table(message)
    }

    /// Decodes a route of any table.
    pub(crate) fn decode_any_table(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        if header.flags.contains(RouteFlags::Cloned) {
            return None;
        }
        let delivers = match header.kind {
            RouteType::Unicast
            | RouteType::BlackHole
            | RouteType::Unreachable
            | RouteType::Prohibit
            | RouteType::Throw => false,
            RouteType::Local | RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast => {
                true
            }
            _ => return None,
        };
        let (mut device, mut gateway) = (None, false);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => device = Some(*index),
                RouteAttribute::MultiPath(hops) => {
                    device = hops.first().map(|hop| hop.interface_index);
                    gateway = hops.iter().any(|hop| hop.attributes.iter().any(is_gateway));
                }
                attribute if is_gateway(attribute) => gateway = true,
                _ => {}
            }
        }
        Some(Self {
            destination: destination(message)?.trunc(),
            device,
            connected: delivers
                || (header.kind == RouteType::Unicast && !gateway && device.is_some()),
            partial: header.tos != 0 || header.source_prefix_length != 0,
            protocol: header.protocol,
        })
    }
}

fn is_gateway(attribute: &RouteAttribute) -> bool {
    matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_))
}

/// Decodes the next hop. Returns `None` if the route has anything beyond a device and a gateway, or
/// no device.
fn next_hop(message: &RouteMessage, devices: &Devices) -> Option<RouteAction> {
    let (mut link, mut gateway) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => link = devices.get(*index).map(|device| device.name),
            RouteAttribute::Gateway(address) => gateway = Some(ip(address)?),
            RouteAttribute::Via(_)
            | RouteAttribute::MultiPath(_)
            | RouteAttribute::NhId(_)
            | RouteAttribute::PrefSource(_)
            | RouteAttribute::Metrics(_)
            | RouteAttribute::Encap(_) => return None,
            _ => {}
        }
    }
    let onlink = message.header.flags.contains(RouteFlags::Onlink);
    Some(RouteAction::Forward { link: link?, gateway, onlink })
}

pub(crate) fn main_table(message: &RouteMessage) -> bool {
    let table = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    table.unwrap_or(message.header.table.into()) == u32::from(RouteHeader::RT_TABLE_MAIN)
}

pub(crate) fn metric(message: &RouteMessage) -> u32 {
    let metric = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    metric.unwrap_or(0)
}

pub(crate) fn destination(message: &RouteMessage) -> Option<IpNet> {
    let given = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    });
    let address = given.or(match message.header.address_family {
        AddressFamily::Inet => Some(Ipv4Addr::UNSPECIFIED.into()),
        AddressFamily::Inet6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
    })?;
    IpNet::new(address, message.header.destination_prefix_length).ok()
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// Builds the request to dump all routes of the main table.
pub(crate) fn all(family: Family) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    RouteNetlinkMessage::GetRoute(message)
}

/// Builds the request to dump the IPv4 routes of every table.
pub(crate) fn of_every_table() -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    RouteNetlinkMessage::GetRoute(message)
}

/// Builds the request for the connected route that the kernel makes for an IPv4 address
/// (`fib_add_ifaddr` in `net/ipv4/fib_frontend.c`), replacing any other route to the same
/// destination.
pub(crate) fn connected(address: Ipv4Net, device: u32) -> Request {
    let mut message = destined(IpNet::V4(address).trunc(), Metric::Default);
    let header = &mut message.header;
    (header.protocol, header.kind) = (RouteProtocol::Kernel, RouteType::Unicast);
    header.scope = RouteScope::Link;
    message.attributes.push(RouteAttribute::Oif(device));
    message.attributes.push(RouteAttribute::PrefSource(RouteAddress::Inet(address.addr())));
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    Request { message: RouteNetlinkMessage::NewRoute(message), flags }
}

/// Builds the request for a route lookup.
pub(crate) fn to(destination: IpAddr) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(destination);
    message.header.destination_prefix_length = Family::of(destination).bits();
    message.attributes.push(RouteAttribute::Destination(destination.into()));
    RouteNetlinkMessage::GetRoute(message)
}

/// Builds the request for a route lookup from a given local source address.
pub(crate) fn from_to(source: IpAddr, destination: IpAddr) -> RouteNetlinkMessage {
    let RouteNetlinkMessage::GetRoute(mut message) = to(destination) else {
        unreachable!("it is a question for a route")
    };
    message.header.source_prefix_length = Family::of(source).bits();
    message.attributes.push(RouteAttribute::Source(source.into()));
    RouteNetlinkMessage::GetRoute(message)
}

/// Builds the request for the route that a lookup from a given local source address would use, with
/// all its next hops.
pub(crate) fn matching(source: IpAddr, destination: IpAddr) -> RouteNetlinkMessage {
    let RouteNetlinkMessage::GetRoute(mut message) = from_to(source, destination) else {
        unreachable!("it is a question for a route")
    };
    message.header.flags |= RouteFlags::FibMatch;
    RouteNetlinkMessage::GetRoute(message)
}

/// Decodes the answer to [`to`]: the device's index, and the source address that the kernel would
/// choose.
pub(crate) fn way(message: &RouteMessage) -> Option<(u32, Option<IpAddr>)> {
    let (mut device, mut source) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => device = Some(*index),
            RouteAttribute::PrefSource(address) => source = ip(address),
            _ => {}
        }
    }
    Some((device?, source))
}

/// Builds the request to create a route, if there is none to the same destination with the same
/// metric. `None` if the route cannot be planned.
///
/// `index` looks up the index of a device.
pub(crate) fn create<E>(
    route: &Route,
    index: impl FnOnce(LinkName) -> Result<u32, E>,
) -> Result<Option<Request>, E> {
    let request = put(route, index)?;
    Ok(request.map(|request| Request { flags: NLM_F_CREATE | NLM_F_EXCL, ..request }))
}

/// Builds the request to create a route, replacing any other to the same destination. `None` if the
/// route cannot be planned.
///
/// `index` looks up the index of a device.
pub(crate) fn put<E>(
    route: &Route,
    index: impl FnOnce(LinkName) -> Result<u32, E>,
) -> Result<Option<Request>, E> {
    let Some(mut message) = message(route, index)? else {
        return Ok(None);
    };
    let header = &mut message.header;
    header.protocol = RouteProtocol::from(ROUTE_PROTOCOL);
    (header.kind, header.scope) = match route.action {
        RouteAction::Forward { gateway: None, .. } => (RouteType::Unicast, RouteScope::Link),
        RouteAction::Forward { .. } => (RouteType::Unicast, RouteScope::Universe),
        RouteAction::Blackhole | RouteAction::Other => (RouteType::BlackHole, RouteScope::Universe),
    };
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    Ok(Some(Request { message: RouteNetlinkMessage::NewRoute(message), flags }))
}

/// Builds the request for the same route without its gateway. `None` unless the request is for an
/// on-link gateway in IPv6.
pub(crate) fn without_gateway(request: &Request) -> Option<Request> {
    let RouteNetlinkMessage::NewRoute(message) = &request.message else {
        return None;
    };
    let header = &message.header;
    if header.address_family != AddressFamily::Inet6 || !header.flags.contains(RouteFlags::Onlink) {
        return None;
    }
    let mut message = message.clone();
    message.header.flags.remove(RouteFlags::Onlink);
    message.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::Gateway(_)));
    Some(Request { message: RouteNetlinkMessage::NewRoute(message), flags: request.flags })
}

/// Builds the request to remove exactly the route that another request creates. `None` if that
/// request is for something else.
pub(crate) fn undo(request: &Request) -> Option<Request> {
    let RouteNetlinkMessage::NewRoute(message) = &request.message else {
        return None;
    };
    Some(Request { message: RouteNetlinkMessage::DelRoute(message.clone()), flags: 0 })
}

/// Builds the request to remove a route as it was observed. A route that has since been replaced is
/// left alone if the kernel can distinguish the two: it compares the attributes of the request.
pub(crate) fn remove<E>(
    route: &Route,
    index: impl FnOnce(LinkName) -> Result<u32, E>,
) -> Result<Request, E> {
    let mut message = match message(route, index)? {
        Some(message) => message,
        None => destined(route.destination, route.metric),
    };
    message.header.scope = RouteScope::NoWhere;
    if route.action == RouteAction::Blackhole {
        message.header.kind = RouteType::BlackHole;
    }
    Ok(Request { message: RouteNetlinkMessage::DelRoute(message), flags: 0 })
}

fn message<E>(
    route: &Route,
    index: impl FnOnce(LinkName) -> Result<u32, E>,
) -> Result<Option<RouteMessage>, E> {
    let mut message = destined(route.destination, route.metric);
    match route.action {
        RouteAction::Forward { link, gateway, onlink } => {
            message.attributes.push(RouteAttribute::Oif(index(link)?));
            let gateway = gateway.map(|address| RouteAttribute::Gateway(address.into()));
            message.attributes.extend(gateway);
            message.header.flags.set(RouteFlags::Onlink, onlink);
        }
        RouteAction::Blackhole => {}
        RouteAction::Other => return Ok(None),
    }
    Ok(Some(message))
}

fn destined(destination: IpNet, metric: Metric) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(destination.addr());
    message.header.destination_prefix_length = destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.attributes.push(RouteAttribute::Destination(destination.network().into()));
    let metric = match (metric, destination) {
        (Metric::Default, IpNet::V4(_)) => None,
        (Metric::Default, IpNet::V6(_)) => Some(DEFAULT_METRIC_V6),
        (Metric::Last, _) => Some(LAST_METRIC),
    };
    message.attributes.extend(metric.map(RouteAttribute::Priority));
    message
}
