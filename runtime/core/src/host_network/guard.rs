//! The decision which planned objects are withheld from the kernel.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::{Conflict, HostNetwork};
use crate::address::Family;
use crate::object::{Address, Metric, Object, ObjectKey};

/// Decides which planned objects are withheld from the kernel.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    host: HostNetwork,
    /// Destinations withheld for the sake of peers, which the host's own network does not show.
    others: BTreeMap<IpNet, Conflict>,
}

impl Guard {
    /// Replaces the index of the host's own network. Destinations inside the node's own subnets are
    /// never withheld.
    pub fn set_host(&mut self, host: HostNetwork) {
        self.host = host;
    }

    /// Returns the index of the host's own network.
    pub fn host(&self) -> &HostNetwork {
        &self.host
    }

    /// Replaces the destinations withheld for the sake of peers.
    pub fn set_others(&mut self, others: BTreeMap<IpNet, Conflict>) {
        self.others = others;
    }

    /// Removes the withheld objects from the desired ones.
    pub fn permitted<'a>(
        &self,
        mut desired: BTreeMap<ObjectKey, &'a Object>,
    ) -> BTreeMap<ObjectKey, &'a Object> {
        desired.retain(|_, object| self.withholds(object).is_none());
        desired
    }

    /// Returns why an object is withheld; None if it may be in the kernel.
    pub fn withholds(&self, object: &Object) -> Option<Conflict> {
        let destination = match object {
            // A route of the last metric takes nothing from other routes to the same destination.
            Object::Route(route) if route.metric == Metric::Default => route.destination,
            // The kernel adds a connected route for an address, except for a single address.
            Object::Address(Address { network, .. })
                if network.prefix_len() < Family::of_network(*network).bits() =>
            {
                network.trunc()
            }
            _ => return None,
        };
        if self.host.own_subnets.iter().any(|own| own.contains(&destination)) {
            return None;
        }
        self.others.get(&destination).cloned().or_else(|| self.host.conflict(destination))
    }
}
