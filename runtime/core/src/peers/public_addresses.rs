//! The public addresses of leases, indexed by the length of the host's own route to each.
//!
//! An overlay route takes the packets for an address if it is at least as long as the host's own
//! route. The index finds the few addresses that a short route would take among ten thousand that
//! it would not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::host_network::HostNetwork;
use crate::lease::{Lease, LeaseKey};

/// Public addresses with the keys of their leases.
#[derive(Clone, Debug, Default)]
pub(crate) struct PublicAddresses {
    /// Addresses by the prefix length of the host's own route; None without a route.
    by_length: BTreeMap<Option<u8>, BTreeSet<(IpAddr, LeaseKey)>>,
}

impl PublicAddresses {
    /// Adds the addresses of a lease.
    pub(crate) fn insert(&mut self, host: &HostNetwork, lease: &Lease) {
        for address in lease.public_addresses() {
            let addresses = self.by_length.entry(host.longest(address)).or_default();
            addresses.insert((address, lease.key));
        }
    }

    /// Removes the addresses of a lease, which were added with the same host.
    pub(crate) fn remove(&mut self, host: &HostNetwork, lease: &Lease) {
        for address in lease.public_addresses() {
            let length = host.longest(address);
            let Some(addresses) = self.by_length.get_mut(&length) else { continue };
            addresses.remove(&(address, lease.key));
            if addresses.is_empty() {
                self.by_length.remove(&length);
            }
        }
    }

    /// Rebuilds the index for another host network.
    pub(crate) fn rebuild<'a>(
        &mut self,
        host: &HostNetwork,
        leases: impl Iterator<Item = &'a Lease>,
    ) {
        self.by_length.clear();
        leases.for_each(|lease| self.insert(host, lease));
    }

    /// Returns the addresses inside a network.
    pub(crate) fn inside(&self, network: IpNet) -> impl Iterator<Item = (IpAddr, LeaseKey)> {
        self.by_length.values().flat_map(move |addresses| within(addresses, network))
    }

    /// Returns the addresses whose packets a route to this destination would take.
    pub(crate) fn taken_by(&self, destination: IpNet) -> impl Iterator<Item = (IpAddr, LeaseKey)> {
        let taken = self.by_length.range(..=Some(destination.prefix_len()));
        taken.flat_map(move |(_, addresses)| within(addresses, destination))
    }
}

fn within(
    addresses: &BTreeSet<(IpAddr, LeaseKey)>,
    network: IpNet,
) -> impl Iterator<Item = (IpAddr, LeaseKey)> {
    let from = (network.network(), LeaseKey::FIRST);
    let addresses = addresses.range(from..).copied();
    addresses.take_while(move |(address, _)| network.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host_network::{Claims, HostRoute, HostRouting, Vital};

    #[test]
    fn addresses_are_found_by_network_and_by_route() {
        let route = |destination: &str| HostRoute {
            destination: destination.parse().unwrap(),
            link: Some("eth0".parse().unwrap()),
            connected: false,
            partial: false,
        };
        let routing = HostRouting {
            routes: [route("0.0.0.0/0"), route("10.244.1.0/24")].into(),
            ..HostRouting::default()
        };
        let claims =
            Claims { overlay: vec!["10.244.0.0/16".parse().unwrap()], ..Claims::default() };
        let host = HostNetwork::new(&claims, &routing, Vital::default());
        let lease = |key: &str, address: &str| {
            let value = format!(r#"{{"PublicIP":"{address}"}}"#);
            Lease::from_value(key.parse().unwrap(), value.as_bytes()).unwrap()
        };
        let leases = [
            lease("10.244.8.0-24", "10.244.1.9"),
            lease("10.244.9.0-24", "10.244.2.9"),
            lease("10.244.10.0-24", "192.168.0.9"),
        ];
        let mut addresses = PublicAddresses::default();
        leases.iter().for_each(|lease| addresses.insert(&host, lease));
        let inside = |addresses: &PublicAddresses, network: &str| -> Vec<_> {
            let found = addresses.inside(network.parse().unwrap());
            found.map(|(address, _)| address.to_string()).collect()
        };
        let taken = |addresses: &PublicAddresses, network: &str| -> Vec<_> {
            let found = addresses.taken_by(network.parse().unwrap());
            found.map(|(address, _)| address.to_string()).collect()
        };
        assert_eq!(inside(&addresses, "10.244.0.0/16"), ["10.244.2.9", "10.244.1.9"]);
        assert_eq!(taken(&addresses, "10.244.0.0/16"), ["10.244.2.9"]);
        assert_eq!(taken(&addresses, "10.244.1.0/24"), ["10.244.1.9"]);
        assert_eq!(inside(&addresses, "10.244.2.0/25"), ["10.244.2.9"]);
        addresses.remove(&host, &leases[1]);
        assert_eq!(taken(&addresses, "10.244.0.0/16"), [""; 0]);
        let other = HostNetwork::default();
        addresses.rebuild(&other, leases.iter());
        assert_eq!(taken(&addresses, "10.244.0.0/16"), ["10.244.1.9", "10.244.2.9"]);
    }
}
