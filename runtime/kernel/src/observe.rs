//! Reads the kernel's state.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use heddle_core::address::{Family, LinkName};
use heddle_core::diff::{Observation, Observed, Scope};
use heddle_core::host_network::HostRouting;
use heddle_core::interface::Interface;
use heddle_core::interface::usability::sort;
use heddle_core::object::{Object, Route, Sysctl};
use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::route::RouteType;

use crate::addresses::{self, Assigned};
use crate::default_routes::{self, DefaultRoute};
use crate::error::{KernelError, Refusal};
use crate::links::{self, Device, Devices, VxlanOptions};
use crate::nexthops::NextHops;
use crate::routes::HostFound;
use crate::socket::Socket;
use crate::view::View;
use crate::{neighbours, routes, sysctls};

/// Names the object that could not be read in the error.
pub(crate) trait Reading<T> {
    fn reading(self, what: &'static str) -> Result<T, KernelError>;
}

impl<T> Reading<T> for Result<T, Refusal> {
    fn reading(self, what: &'static str) -> Result<T, KernelError> {
        self.map_err(|refusal| KernelError::Refused { what, refusal })
    }
}

pub(crate) fn devices(socket: &mut Socket) -> Result<Vec<Device>, Refusal> {
    socket.dump(links::all(), |message| match message {
        RouteNetlinkMessage::NewLink(message) => Device::decode(&message),
        _ => None,
    })
}

pub(crate) fn assigned(socket: &mut Socket) -> Result<Vec<Assigned>, Refusal> {
    Ok(addresses(socket)?.iter().filter_map(Assigned::decode).collect())
}

fn addresses(socket: &mut Socket) -> Result<Vec<AddressMessage>, Refusal> {
    socket.dump(addresses::all(), |message| match message {
        RouteNetlinkMessage::NewAddress(message) => Some(message),
        _ => None,
    })
}

pub(crate) fn interfaces(socket: &mut Socket) -> Result<Vec<Interface>, KernelError> {
    let devices = devices(socket).reading("the devices")?;
    let mut by_device: HashMap<u32, Vec<_>> = HashMap::new();
    let addresses = addresses(socket).reading("the addresses")?;
    for (device, found) in addresses.iter().filter_map(addresses::facts) {
        by_device.entry(device).or_default().push(found);
    }
    let interface = |device: Device| {
        let found = by_device.remove(&device.index).unwrap_or_default();
        let interface = Interface {
            name: device.name,
            mtu: device.mtu,
            up: device.up,
            loopback: device.loopback,
            local: device.vxlan.as_ref().map(VxlanOptions::local),
            kind: device.kind,
            mac: device.mac,
            alias: device.alias,
            addresses: vec![],
            unusable: vec![],
        };
        interface.with_addresses(sort(&found, device.loopback))
    };
    Ok(devices.into_iter().map(interface).collect())
}

/// Returns the default routes that lead to other hosts, best first, each with the devices of its
/// next hops.
pub(crate) fn default_routes(
    socket: &mut Socket,
    family: Family,
) -> Result<Vec<Vec<LinkName>>, KernelError> {
    let devices: Devices = devices(socket).reading("the devices")?.into_iter().collect();
    let nexthops = NextHops::read(socket);
    let mut found = routes_of(socket, family, |message| match message {
        RouteNetlinkMessage::NewRoute(message) => DefaultRoute::decode(&message, &nexthops),
        _ => None,
    })
    .reading("the default routes")?;
    // Stable: of equal routes, the kernel lists first the one that it uses.
    found.sort_by_key(|route| route.rank);
    Ok(found.iter().map(|route| names(&route.devices, &devices)).collect())
}

/// Returns the devices by which packets from `source` to these destinations leave, with all next
/// hops of their routes. Destinations without a route, and the host's own addresses, have none.
pub(crate) fn egress(
    socket: &mut Socket,
    source: IpAddr,
    destinations: &[IpAddr],
) -> Result<BTreeSet<LinkName>, KernelError> {
    let devices: Devices = devices(socket).reading("the devices")?.into_iter().collect();
    let nexthops = NextHops::read(socket);
    let mut found = BTreeSet::new();
    for destination in destinations {
        // No usable route, whatever the reason.
        let Ok(RouteNetlinkMessage::NewRoute(message)) =
            socket.get(routes::matching(source, *destination))
        else {
            continue;
        };
        found.extend(names(&default_routes::egress(&message, &nexthops), &devices));
    }
    Ok(found)
}

fn names(indices: &[u32], devices: &Devices) -> Vec<LinkName> {
    indices.iter().filter_map(|index| devices.get(*index)).map(|device| device.name).collect()
}

pub(crate) fn route_to(
    socket: &mut Socket,
    destination: IpAddr,
) -> Result<(LinkName, Option<IpAddr>), KernelError> {
    const WHAT: &str = "the route to an address";
    let unreachable = || Refusal { errno: Errno::ENETUNREACH, message: None };
    let way = match socket.get(routes::to(destination)).reading(WHAT)? {
        RouteNetlinkMessage::NewRoute(message) => routes::way(&message),
        _ => None,
    };
    let (index, source) = way.ok_or_else(unreachable).reading(WHAT)?;
    let devices: Devices = devices(socket).reading("the devices")?.into_iter().collect();
    let device = devices.get(index).ok_or_else(unreachable).reading(WHAT)?;
    Ok((device.name, source))
}

/// Dumps routes of the main table. A family that the kernel does not support has no routes, and
/// neither does a table into which none was ever put.
fn routes_of<T>(
    socket: &mut Socket,
    family: Family,
    pick: impl FnMut(RouteNetlinkMessage) -> Option<T>,
) -> Result<Vec<T>, Refusal> {
    match socket.dump(routes::all(family), pick) {
        Err(Refusal { errno: Errno::ENOENT | Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP, .. }) => {
            Ok(vec![])
        }
        result => result,
    }
}

pub(crate) fn observe(
    socket: &mut Socket,
    scope: Scope,
    sysctls: &[Sysctl],
) -> Result<Observed, KernelError> {
    let devices: Devices = devices(socket).reading("the devices")?.into_iter().collect();
    let view = View { scope, devices };
    let mut observed = Observed::default();
    let mut note = |observation: Observation| {
        // Of several routes to one destination the kernel lists first the one that it uses.
        observed.objects.entry(observation.object.key()).or_insert(observation);
    };

    view.devices.iter().filter_map(|device| view.link(device)).for_each(&mut note);
    let settings = sysctls.iter().filter_map(sysctls::read);
    settings.map(|s| Observation { object: Object::Sysctl(s), ours: true }).for_each(&mut note);
    let addresses = addresses(socket).reading("the addresses")?;
    let assigned = addresses.iter().filter_map(Assigned::decode);
    assigned.filter_map(|assigned| view.address(&assigned)).for_each(&mut note);
    let mut host = host_addresses(&view, &addresses);

    let pick_neighbour = |message| match message {
        RouteNetlinkMessage::NewNeighbour(message) => view.neighbour(&message)?.1,
        _ => None,
    };
    for device in view.devices.iter().filter(|device| view.manages(device)) {
        let entries = socket.dump(neighbours::fdb_of(device.index), pick_neighbour);
        entries.reading("the forwarding database")?.into_iter().for_each(&mut note);
    }
    let neighbours = socket.dump(neighbours::all(), pick_neighbour).reading("the neighbours")?;
    neighbours.into_iter().for_each(&mut note);

    for family in [Family::V4, Family::V6] {
        let routes = routes_of(socket, family, |message| match message {
            RouteNetlinkMessage::NewRoute(message) => {
                host.routes.extend(view.host_route(&message));
                view.route(&message)
            }
            _ => None,
        });
        routes.reading("the routes")?.into_iter().for_each(&mut note);
    }
    observed.host = host;
    Ok(observed)
}

/// Returns the host's own routes and addresses that overlap the scope's networks.
pub(crate) fn host_routing(socket: &mut Socket, scope: Scope) -> Result<HostRouting, KernelError> {
    let devices: Devices = devices(socket).reading("the devices")?.into_iter().collect();
    let view = View { scope, devices };
    let addresses = addresses(socket).reading("the addresses")?;
    let mut host = host_addresses(&view, &addresses);
    for family in [Family::V4, Family::V6] {
        let routes = routes_of(socket, family, |message| match message {
            RouteNetlinkMessage::NewRoute(message) => view.host_route(&message),
            _ => None,
        });
        host.routes.extend(routes.reading("the routes")?);
    }
    Ok(host)
}

fn host_addresses(view: &View, addresses: &[AddressMessage]) -> HostRouting {
    let found = addresses.iter().filter_map(addresses::Host::decode);
    let found = found.filter_map(|address| view.host_address(&address));
    HostRouting { addresses: found.collect(), ..HostRouting::default() }
}

/// Returns the routes of the main table with Heddle's protocol, of any network, except those
/// through another Heddle daemon's device.
pub(crate) fn own_routes(socket: &mut Socket, scope: Scope) -> Result<Vec<Route>, KernelError> {
    let devices: Devices = devices(socket).reading("the devices")?.into_iter().collect();
    let view = View { scope, devices };
    let mut found = Vec::new();
    for family in [Family::V4, Family::V6] {
        let routes = routes_of(socket, family, |message| match message {
            RouteNetlinkMessage::NewRoute(message) => view.own_route(&message),
            _ => None,
        });
        found.extend(routes.reading("the routes")?);
    }
    Ok(found)
}

/// Returns the destinations of connected IPv4 routes in any table, with their devices.
pub(crate) fn connected_networks(
    socket: &mut Socket,
) -> Result<BTreeSet<(IpNet, LinkName)>, KernelError> {
    let devices: Devices = devices(socket).reading("the devices")?.into_iter().collect();
    let found = socket.dump(routes::of_every_table(), |message| match message {
        RouteNetlinkMessage::NewRoute(message) => {
            let found = HostFound::decode_any_table(&message)?;
            let carries_all = message.header.kind == RouteType::Unicast && !found.partial;
            let device = devices.get(found.device.filter(|_| found.connected && carries_all)?)?;
            Some((found.destination, device.name))
        }
        _ => None,
    });
    Ok(found.reading("the routes")?.into_iter().collect())
}
