//! The kernel through a [`Scope`]: which messages are about this daemon's business, and whether what they show is
//! its own. Observation and events look through the same one.

use heddle_core::diff::{Observation, Scope};
use heddle_core::host_network::{HostAddress, HostRoute};
use heddle_core::object::{Address, Metric, Object, ObjectKey, Route};
use rtnetlink::packet_route::neighbour::NeighbourMessage;
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol};

use crate::addresses::Assigned;
use crate::links::{Device, Devices};
use crate::{ALIAS_PREFIX, ROUTE_PROTOCOL, addresses, neighbours, routes};

/// A scope, and the devices that there are.
pub(crate) struct View {
    pub(crate) scope: Scope,
    pub(crate) devices: Devices,
}

impl View {
    /// Whether the device is planned, or was made by this daemon.
    pub(crate) fn contains(&self, device: &Device) -> bool {
        self.scope.links.contains(&device.name) || made_by(&self.scope, device)
    }

    /// Whether the daemon may change what hangs on the device: it is planned or made by the daemon, and not
    /// something else that happens to have the name.
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

    /// For neighbours and FDB entries: what the message is about, and what stands there that could be planned.
    pub(crate) fn neighbour(
        &self,
        message: &NeighbourMessage,
    ) -> Option<(ObjectKey, Option<Observation>)> {
        let device = self.managed(message.header.ifindex)?;
        let (key, object) = neighbours::decode(message, device)?;
        Some((key, object.map(|object| Observation { object, ours: true })))
    }

    /// A route is looked at if its destination lies in the overlay, its protocol is Heddle's, or it goes through a
    /// managed device. It is ours to remove if the protocol says so, unless it goes through another Heddle daemon's
    /// device, or if a flannel that ran here made it.
    pub(crate) fn route(&self, message: &RouteMessage) -> Option<Observation> {
        let found = routes::Found::decode(message, &self.devices)?;
        let covered = self.scope.covers(found.route.destination);
        let device = found.device.and_then(|index| self.devices.get(index));
        let on_managed = device.is_some_and(|device| self.manages(device));
        let on_anothers = device.is_some_and(|device| made_by_another(&self.scope, device));
        let heddle = found.protocol == RouteProtocol::from(ROUTE_PROTOCOL);
        // flannel leaves the protocol to the kernel, which makes it boot; iproute2 and others use static.
        let flannel = matches!(found.protocol, RouteProtocol::Boot | RouteProtocol::Static)
            && found.route.metric == Metric::Default;
        let ours = (heddle && !on_anothers && (covered || on_managed))
            || (flannel && covered && on_managed);
        (covered || on_managed || heddle)
            .then_some(Observation { object: Object::Route(found.route), ours })
    }
}

impl View {
    /// A route of the main table that is not Heddle's and meets the scope's networks. Routes through another Heddle daemon's
    /// device are the host's, as far as this daemon is concerned.
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
            // Nobody else's overlay is taken apart, either.
            connected: found.connected || on_anothers,
            partial: found.partial,
        })
    }

    /// A route of Heddle's, unless it leads through another Heddle daemon's device.
    pub(crate) fn own_route(&self, message: &RouteMessage) -> Option<Route> {
        let found = routes::Found::decode(message, &self.devices)?;
        let device = found.device.and_then(|index| self.devices.get(index));
        let on_anothers = device.is_some_and(|device| made_by_another(&self.scope, device));
        let heddle = found.protocol == RouteProtocol::from(ROUTE_PROTOCOL);
        (heddle && !on_anothers).then_some(found.route)
    }

    /// An address of a device that is not the daemon's, if its network meets the scope's networks.
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
            // The loopback's networks are the local table's.
            prefix_route: address.prefix_route && !in_vrf && !device.loopback,
        })
    }
}

/// Whether the device carries the daemon's mark.
pub(crate) fn made_by(scope: &Scope, device: &Device) -> bool {
    !scope.alias.is_empty() && device.alias == scope.alias
}

/// Whether the device carries the mark of another Heddle daemon: one for another network.
pub(crate) fn made_by_another(scope: &Scope, device: &Device) -> bool {
    device.alias.starts_with(ALIAS_PREFIX) && !made_by(scope, device)
}

/// Whether a device that has a planned name may be changed or deleted: one that this daemon made; a VXLAN device as
/// flannel makes them; or a TUN device, because a daemon plans only the one that it has just opened. Anything else
/// under that name belongs to somebody: two daemons that both took the device of a VNI for theirs would take it from
/// each other for ever.
pub(crate) fn changeable(scope: &Scope, device: &Device) -> bool {
    let adoptable = device.kind == "vxlan" || device.is_tun();
    made_by(scope, device) || (adoptable && !made_by_another(scope, device))
}
