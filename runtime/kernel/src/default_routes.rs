//! Decides which default routes lead to other hosts, and by which devices.

use rtnetlink::packet_route::route::{
    RouteAttribute, RouteFlags, RouteMessage, RouteNextHopFlags, RoutePreference, RouteType,
};

use crate::nexthops::NextHops;
use crate::routes;

/// The order in which the kernel prefers default routes, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// True if the route only applies to one source or type of service.
    partial: bool,
    metric: u32,
    /// Router preference of IPv6 (RFC 4191): 0 high, 1 medium, 2 low.
    preference: u8,
}

/// A default route that leads to other hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DefaultRoute {
    pub(crate) rank: Rank,
    /// The devices of the next hops, by index, in the kernel's order.
    pub(crate) devices: Vec<u32>,
}

impl DefaultRoute {
    /// Decodes a default route. Returns `None` for any other route, for tables other than main, for
    /// routes that drop packets (blackhole, unreachable, prohibit, throw), for cache entries, and
    /// for routes all of whose next hops are dead.
    ///
    /// A next hop whose device has no carrier counts: the kernel uses it, unless the sysctl
    /// `ignore_routes_with_linkdown` is set.
    pub(crate) fn decode(message: &RouteMessage, nexthops: &NextHops) -> Option<Self> {
        let header = &message.header;
        if !routes::main_table(message)
            || header.destination_prefix_length != 0
            || header.kind != RouteType::Unicast
            || header.flags.contains(RouteFlags::Cloned)
        {
            return None;
        }
        let devices = egress(message, nexthops);
        let rank = Rank {
            partial: header.tos != 0 || header.source_prefix_length != 0,
            metric: routes::metric(message),
            preference: preference(message),
        };
        (!devices.is_empty()).then_some(Self { rank, devices })
    }
}

/// Returns the devices by which packets of a route leave, by index: of all next hops that are not
/// dead. None for a route that delivers or drops.
pub(crate) fn egress(message: &RouteMessage, nexthops: &NextHops) -> Vec<u32> {
    if message.header.kind != RouteType::Unicast {
        return vec![];
    }
    let is_dead = message.header.flags.contains(RouteFlags::Dead);
    let (mut devices, mut object) = (Vec::new(), None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) if !is_dead => devices.push(*index),
            RouteAttribute::MultiPath(hops) => {
                let alive = hops.iter().filter(|hop| !hop.flags.contains(RouteNextHopFlags::Dead));
                devices.extend(alive.map(|hop| hop.interface_index));
            }
            RouteAttribute::NhId(id) => object = Some(*id),
            _ => {}
        }
    }
    match object {
        // With the sysctl `nexthop_compat_mode` at 0, the kernel tells only the object's number.
        Some(id) if devices.is_empty() && !is_dead => nexthops.devices(id),
        _ => devices,
    }
}

fn preference(message: &RouteMessage) -> u8 {
    let found = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Preference(preference) => Some(preference),
        _ => None,
    });
    match found {
        Some(RoutePreference::High) => 0,
        Some(RoutePreference::Low) => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::AddressFamily;
    use rtnetlink::packet_route::route::{RouteHeader, RouteNextHop};

    use super::*;

    const V4: AddressFamily = AddressFamily::Inet;
    const V6: AddressFamily = AddressFamily::Inet6;

    /// Returns a default route of the main table.
    fn route(family: AddressFamily, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = RouteType::Unicast;
        message.attributes = attributes;
        message
    }

    fn through(device: u32) -> Vec<RouteAttribute> {
        vec![RouteAttribute::Oif(device)]
    }

    fn hop(device: u32, flags: RouteNextHopFlags) -> RouteNextHop {
        let mut hop = RouteNextHop::default();
        (hop.interface_index, hop.flags) = (device, flags);
        hop
    }

    fn devices(message: &RouteMessage) -> Option<Vec<u32>> {
        let objects = NextHops::new([(7, vec![2]), (8, vec![2, 3])]);
        DefaultRoute::decode(message, &objects).map(|found| found.devices)
    }

    #[test]
    fn unicast_default_route_of_main_counts() {
        assert_eq!(devices(&route(V4, through(2))), Some(vec![2]));
        let mut other_table = route(V4, through(2));
        other_table.attributes.push(RouteAttribute::Table(100));
        assert_eq!(devices(&other_table), None);
        let mut narrow = route(V4, through(2));
        narrow.header.destination_prefix_length = 1;
        assert_eq!(devices(&narrow), None);
        let mut cached = route(V6, through(2));
        cached.header.flags |= RouteFlags::Cloned;
        assert_eq!(devices(&cached), None);
        let mut onlink = route(V4, through(2));
        onlink.header.flags |= RouteFlags::Onlink;
        assert_eq!(devices(&onlink), Some(vec![2]));
    }

    #[test]
    fn default_route_that_drops_packets_does_not_count() {
        for kind in [
            RouteType::BlackHole,
            RouteType::Unreachable,
            RouteType::Prohibit,
            RouteType::Throw,
            RouteType::Local,
        ] {
            let mut message = route(V4, through(1));
            message.header.kind = kind;
            assert_eq!(devices(&message), None, "{kind:?}");
        }
        assert_eq!(devices(&route(V4, vec![])), None);
    }

    #[test]
    fn dead_next_hops_do_not_count() {
        let mut dead = route(V4, through(2));
        dead.header.flags |= RouteFlags::Dead;
        assert_eq!(devices(&dead), None);
        let mut no_carrier = route(V4, through(2));
        no_carrier.header.flags |= RouteFlags::Linkdown;
        assert_eq!(devices(&no_carrier), Some(vec![2]));
        let hops = |flags: [RouteNextHopFlags; 2]| {
            let hops = vec![hop(2, flags[0]), hop(3, flags[1])];
            devices(&route(V4, vec![RouteAttribute::MultiPath(hops)]))
        };
        let (none, dead) = (RouteNextHopFlags::empty(), RouteNextHopFlags::Dead);
        assert_eq!(hops([none, none]), Some(vec![2, 3]));
        assert_eq!(hops([dead, RouteNextHopFlags::Linkdown]), Some(vec![3]));
        assert_eq!(hops([dead, dead]), None);
    }

    #[test]
    fn next_hop_object_is_looked_up() {
        let object = |id| vec![RouteAttribute::NhId(id)];
        assert_eq!(devices(&route(V4, object(7))), Some(vec![2]));
        assert_eq!(devices(&route(V6, object(8))), Some(vec![2, 3]));
        assert_eq!(devices(&route(V4, object(9))), None);
        // The usual setting: the kernel tells both.
        let both = [object(8), through(2)].concat();
        assert_eq!(devices(&route(V4, both)), Some(vec![2]));
    }

    #[test]
    fn lower_metric_and_higher_preference_come_first() {
        let rank = |message: &RouteMessage| {
            DefaultRoute::decode(message, &NextHops::default()).unwrap().rank
        };
        let with = |attribute| route(V6, [through(2), vec![attribute]].concat());
        let metric = |metric| rank(&with(RouteAttribute::Priority(metric)));
        let preference = |preference| rank(&with(RouteAttribute::Preference(preference)));
        assert!(rank(&route(V4, through(2))) < metric(100));
        assert!(metric(100) < metric(1024));
        assert!(preference(RoutePreference::High) < preference(RoutePreference::Medium));
        assert!(preference(RoutePreference::Medium) < preference(RoutePreference::Low));
        let mut source = route(V6, through(2));
        source.header.source_prefix_length = 64;
        assert!(metric(1024) < rank(&source));
        let mut service = route(V4, through(2));
        service.header.tos = 8;
        assert!(metric(1024) < rank(&service));
    }
}
