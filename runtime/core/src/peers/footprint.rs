//! The kernel objects that leases may have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::lease::Lease;
use crate::object::Object;

/// The kernel objects that may exist for a set of leases: those with destinations in their subnets,
/// and FDB entries to their public addresses.
#[derive(Clone, Debug, Default)]
pub struct Footprint {
    /// Subnets by their first address. The leases do not overlap.
    subnets: BTreeMap<IpAddr, IpNet>,
    addresses: BTreeSet<IpAddr>,
}

impl Footprint {
    /// Returns the footprint of these leases.
    pub fn of<'a>(leases: impl IntoIterator<Item = &'a Lease>) -> Self {
        let mut footprint = Self::default();
        for lease in leases {
            let subnets = lease.key.subnets().into_iter();
            footprint.subnets.extend(subnets.map(|subnet| (subnet.network(), subnet)));
            footprint.addresses.extend(lease.public_addresses());
        }
        footprint
    }

    /// Returns true if the object may exist for one of the leases.
    pub fn covers(&self, object: &Object) -> bool {
        match object {
            Object::Route(route) => self.has(route.destination),
            Object::Neighbour(neighbour) => self.has(neighbour.address.into()),
            Object::FdbEntry(entry) => self.addresses.contains(&entry.destination),
            Object::Link(_) | Object::Sysctl(_) | Object::Address(_) => false,
        }
    }

    fn has(&self, network: IpNet) -> bool {
        let before = self.subnets.range(..=network.network()).next_back();
        before.is_some_and(|(_, subnet)| subnet.contains(&network))
    }
}
