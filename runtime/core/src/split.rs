//! Splits a withheld route to a whole overlay network into routes to the peers' subnets.
//!
//! A userspace backend plans one route for all peers. If that route conflicts with the host's own
//! network, routes to the subnets inside it may not.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::host_network::Conflict;
use crate::lease::LeaseKey;
use crate::object::{Object, Plan, Route};

/// Routes of the node's own plan that are withheld, with the reasons.
#[derive(Clone, Debug, Default)]
pub struct SplitRoutes(BTreeMap<IpNet, (Route, Conflict)>);

impl SplitRoutes {
    /// Adds a withheld route.
    pub fn insert(&mut self, route: Route, conflict: Conflict) {
        self.0.insert(route.destination, (route, conflict));
    }

    /// Returns true if the route to this destination is withheld.
    pub fn contains(&self, destination: IpNet) -> bool {
        self.0.contains_key(&destination)
    }

    /// Returns the withheld destinations with the reasons.
    pub fn conflicts(&self) -> BTreeMap<IpNet, Conflict> {
        self.0.iter().map(|(destination, (_, conflict))| (*destination, conflict.clone())).collect()
    }

    /// Adds routes to a peer's subnets to its plan, where the plan has none and the subnet is
    /// inside a withheld route's destination.
    pub fn complete(&self, plan: &mut Plan, peer: LeaseKey) {
        for subnet in peer.subnets() {
            let mut routes = self.0.values().map(|(route, _)| route);
            let Some(route) = routes.find(|route| route.destination.contains(&subnet)) else {
                continue;
            };
            let narrow = Object::Route(Route { destination: subnet, ..*route });
            if plan.objects.iter().all(|object| object.key() != narrow.key()) {
                plan.objects.push(narrow);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Metric;

    fn route(destination: &str) -> Route {
        Route { metric: Metric::Default, ..Route::last_resort(destination.parse().unwrap()) }
    }

    fn conflict(route: &Route) -> Conflict {
        let (destination, address) = (route.destination, route.destination.addr());
        Conflict::Store { destination, address }
    }

    #[test]
    fn split_applied_repeatedly_adds_each_subnet_route_once() {
        let peer: LeaseKey = "10.244.8.0-24&fc00:8::-64".parse().unwrap();
        let (v4, v6) = (route("10.244.0.0/16"), route("fc00::/16"));
        let mut split = SplitRoutes::default();
        let mut plan = Plan { objects: Vec::new() };
        split.complete(&mut plan, peer);
        assert!(plan.objects.is_empty());
        split.insert(v4, conflict(&v4));
        split.complete(&mut plan, peer);
        assert_eq!(plan.objects, [Object::Route(route("10.244.8.0/24"))]);
        // The other family is withheld later.
        split.insert(v6, conflict(&v6));
        split.complete(&mut plan, peer);
        let both = ["10.244.8.0/24", "fc00:8::/64"].map(|subnet| Object::Route(route(subnet)));
        assert_eq!(plan.objects, both);
        assert!(
            split.contains(v6.destination) && !split.contains("10.244.8.0/24".parse().unwrap())
        );
        assert_eq!(split.conflicts()[&v4.destination], conflict(&v4));
        // A subnet outside the withheld destinations.
        let mut other = Plan { objects: Vec::new() };
        split.complete(&mut other, "10.245.8.0-24".parse().unwrap());
        assert!(other.objects.is_empty());
    }
}
