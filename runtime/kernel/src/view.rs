//! The kernel as seen through a [`Scope`]: which messages concern this daemon, and whether it owns
//! the object. Observation and events share one view.

use heddle_core::diff::{Observation, Scope};
use heddle_core::host_network::{HostAddress, HostRoute};
use heddle_core::object::{Address, Metric, Object, ObjectKey, Route};
use rtnetlink::packet_route::neighbour::NeighbourMessage;
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol};

use crate::addresses::Assigned;
use crate::links::{Device, Devices};
use crate::{ALIAS_PREFIX, ROUTE_PROTOCOL, addresses, neighbours, routes};

/// A scope, and the devices that exist.
pub(crate) struct View {
    pub(crate) scope: Scope,
    pub(crate) devices: Devices,
}

impl View {
    /// Returns true if the device is planned, or was created by this daemon.
    pub(crate) fn contains(&self, device: &Device) -> bool {
        self.scope.links.contains(&device.name) || made_by(&self.scope, device)
    }

    /// Returns true if the daemon may change objects on the device: it is planned or was created by
    /// the daemon, and is not a foreign device that happens to have the name.
    pub(crate) fn manages(&self, device: &Device) -> bool {
        self.contains(device) && changeable(&self.scope, device)
    }

    fn managed(&self, index: u32) -> Option<&Device> {
        self.devices.get(index).filter(|device| self.manages(device))
    }

    pub(crate) fn link(&self, device: &Device) -> Option<Observation> {
        self.contains(device).then(|| Observation {
            object: Object::Link(device.link(&self.devices)),
            ours: made_by(&self.scope, device),
        })
    }

    pub(crate) fn address(&self, assigned: &Assigned) -> Option<Observation> {
        let link = self.managed(assigned.device)?.name;
        let object = Object::Address(Address { link, network: assigned.network });
        Some(Observation { object, ours: true })
    }

    /// Decodes a neighbour or FDB entry: its key, and the entry itself if it could be planned.
    pub(crate) fn neighbour(
        &self,
        message: &NeighbourMessage,
    ) -> Option<(ObjectKey, Option<Observation>)> {
        let device = self.managed(message.header.ifindex)?;
        let (key, object) = neighbours::decode(message, device)?;
        Some((key, object.map(|object| Observation { object, ours: true })))
    }

    /// Decodes a route, if its destination is in the overlay, its protocol is Heddle's, or it goes
    /// through a managed device. The route is ours to remove if its protocol is Heddle's and it
    /// does not go through another Heddle daemon's device, or if a flannel that ran here made it.
    pub(crate) fn route(&self, message: &RouteMessage) -> Option<Observation> {
        let found = routes::Found::decode(message, &self.devices)?;
        let covered = self.scope.covers(found.route.destination);
        let device = found.device.and_then(|index| self.devices.get(index));
        let on_managed = device.is_some_and(|device| self.manages(device));
        let on_anothers = device.is_some_and(|device| made_by_another(&self.scope, device));
        let heddle = found.protocol == RouteProtocol::from(ROUTE_PROTOCOL);
        // flannel leaves the protocol unset, which the kernel turns into boot; iproute2 and others
        // use static.
        let flannel = matches!(found.protocol, RouteProtocol::Boot | RouteProtocol::Static)
            && found.route.metric == Metric::Default;
        let ours = (heddle && !on_anothers && (covered || on_managed))
            || (flannel && covered && on_managed);
        (covered || on_managed || heddle)
            .then_some(Observation { object: Object::Route(found.route), ours })
    }
}

impl View {
    /// Returns a route of the main table that is not Heddle's and overlaps the scope's networks.
    /// Routes through another Heddle daemon's device count as the host's.
    pub(crate) fn host_route(&self, message: &RouteMessage) -> Option<HostRoute> {
        let found = routes::HostFound::decode(message)?;
        if !self.scope.meets(found.destination) {
            return None;
        }
        let device = found.device.and_then(|index| self.devices.get(index));
        let on_managed = device.is_some_and(|device| self.manages(device));
        let on_anothers = device.is_some_and(|device| made_by_another(&self.scope, device));
        let heddle = found.protocol == RouteProtocol::from(ROUTE_PROTOCOL);
        if on_managed || (heddle && !on_anothers) {
            return None;
        }
        Some(HostRoute {
            destination: found.destination,
            link: device.map(|device| device.name),
            // Another daemon's overlay must not be broken either.
            connected: found.connected || on_anothers,
            partial: found.partial,
        })
    }

    /// Returns a route with Heddle's protocol, unless it goes through another Heddle daemon's
    /// device.
    pub(crate) fn own_route(&self, message: &RouteMessage) -> Option<Route> {
        let found = routes::Found::decode(message, &self.devices)?;
        let device = found.device.and_then(|index| self.devices.get(index));
        let on_anothers = device.is_some_and(|device| made_by_another(&self.scope, device));
        let heddle = found.protocol == RouteProtocol::from(ROUTE_PROTOCOL);
        (heddle && !on_anothers).then_some(found.route)
    }

    /// Returns an address of a device that the daemon does not manage, if it overlaps the scope's
    /// networks.
    pub(crate) fn host_address(&self, address: &addresses::Host) -> Option<HostAddress> {
        let device = self.devices.get(address.device)?;
        if self.manages(device) || !self.scope.meets(address.network.trunc()) {
            return None;
        }
        let controller = device.controller.and_then(|index| self.devices.get(index));
        let in_vrf = controller.is_some_and(|controller| controller.kind == "vrf");
        Some(HostAddress {
            link: device.name,
            network: address.network,
            up: device.up,
            // The loopback device's networks are in the local table.
            prefix_route: address.prefix_route && !in_vrf && !device.loopback,
        })
    }
}

/// Returns true if the device carries this daemon's alias.
pub(crate) fn made_by(scope: &Scope, device: &Device) -> bool {
    !scope.alias.is_empty() && device.alias == scope.alias
}

/// Returns true if the device carries the alias of another Heddle daemon, one for another network.
pub(crate) fn made_by_another(scope: &Scope, device: &Device) -> bool {
    device.alias.starts_with(ALIAS_PREFIX) && !made_by(scope, device)
}

/// Returns true if a device with a planned name may be changed or deleted: this daemon created it;
/// or it is a VXLAN device like flannel's; or a TUN device, because a daemon plans only the one
/// that it has just opened. Any other device of that name belongs to somebody else: two daemons
/// that both claimed the device of a VNI would take it from each other forever.
pub(crate) fn changeable(scope: &Scope, device: &Device) -> bool {
    let adoptable = device.kind == "vxlan" || device.is_tun();
    made_by(scope, device) || (adoptable && !made_by_another(scope, device))
}
