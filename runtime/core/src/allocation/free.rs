//! The search for free subnets.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{AllocationError, Holdings};
use crate::address::{Family, number};
use crate::config::OverlayNetwork;
use crate::host_network::HostNetwork;
use crate::lease::{Lease, LeaseKey};

/// Number of free subnets that the random choice is made among. The randomness makes it unlikely
/// that nodes which boot together want the same subnet.
pub const CANDIDATES: usize = 100;

/// Returns the first subnets that are neither leased nor overlap a network of the host or a public
/// address of a peer. Never empty.
pub(super) fn free(
    overlay: &OverlayNetwork,
    holdings: &Holdings,
    host: &HostNetwork,
) -> Result<Vec<IpNet>, AllocationError> {
    let family = Family::of_network(overlay.network);
    let OverlayNetwork { network, subnet_length, subnet_min, subnet_max, .. } = *overlay;
    let leased = || holdings.taken.keys().filter_map(|key| key.subnets().get(family).copied());
    let peers = holdings.leases.iter().flat_map(Lease::public_addresses).map(IpNet::from);
    let free = free_subnets(overlay, leased().chain(host.occupied()).chain(peers));
    if !free.is_empty() {
        return Ok(free);
    }
    let (length, min, max) = (subnet_length, subnet_min, subnet_max);
    if free_subnets(overlay, leased()).is_empty() {
        let widest = widest(holdings.taken.keys().copied(), network);
        let widest = widest.expect("what is not free is taken");
        return Err(AllocationError::Exhausted { network, length, min, max, widest });
    }
    let peers = holdings.leases.iter().flat_map(Lease::public_addresses).map(IpNet::from);
    let occupied = host.occupied().chain(peers);
    let occupied = occupied.filter(|it| network.contains(it) || it.contains(&network));
    let occupied: BTreeSet<_> = occupied.collect();
    let occupied: Vec<_> = occupied.iter().map(ToString::to_string).collect();
    Err(AllocationError::Occupied { network, length, min, max, networks: occupied.join(", ") })
}

/// Returns the key with the shortest prefix of those that overlap a network.
fn widest(taken: impl Iterator<Item = LeaseKey>, network: IpNet) -> Option<LeaseKey> {
    let length = |key: &LeaseKey| {
        let subnets = key.subnets();
        let subnet = subnets.get(Family::of_network(network))?;
        let shares = network.contains(subnet) || subnet.contains(&network);
        shares.then_some(subnet.prefix_len())
    };
    taken.filter(|key| length(key).is_some()).min_by_key(|key| length(key))
}

/// Returns the first free subnets, up to [`CANDIDATES`].
pub(super) fn free_subnets(
    overlay: &OverlayNetwork,
    taken: impl Iterator<Item = IpNet>,
) -> Vec<IpNet> {
    let mut taken: Vec<(u128, u128)> = taken
        .filter(|subnet| Family::of_network(*subnet) == Family::of_network(overlay.network))
        .map(|subnet| (number(subnet.network()), number(subnet.broadcast())))
        .collect();
    taken.sort_unstable();
    let mut taken = taken.into_iter().peekable();
    let bits = Family::of_network(overlay.network).bits();
    let size = 1u128 << (bits - overlay.subnet_length);
    let last = number(overlay.subnet_max);
    let mut candidate = number(overlay.subnet_min);
    let mut free = Vec::new();
    while candidate <= last && free.len() < CANDIDATES {
        // Both sequences are sorted, so a range that ends before this candidate is done with.
        while taken.next_if(|(_, end)| *end < candidate).is_some() {}
        match taken.peek() {
            Some((start, end)) if *start < candidate + size => {
                // The first subnet boundary after the range. It may lie past the last subnet, or
                // past the end of the address family.
                match (end / size).checked_add(1).and_then(|index| index.checked_mul(size)) {
                    Some(next) => candidate = next,
                    None => break,
                }
            }
            _ => {
                free.push(network(overlay.network, candidate, overlay.subnet_length));
                match candidate.checked_add(size) {
                    Some(next) => candidate = next,
                    None => break,
                }
            }
        }
    }
    free
}

/// Returns the subnet that starts at a number, in the family of `like`.
fn network(like: IpNet, number: u128, length: u8) -> IpNet {
    match like {
        IpNet::V4(_) => {
            let address = Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX));
            Ipv4Net::new_assert(address, length).into()
        }
        IpNet::V6(_) => Ipv6Net::new_assert(Ipv6Addr::from(number), length).into(),
    }
}
