//! Choice of this node's subnet.
//!
//! The order is flannel's (`tryAcquireLease` in `pkg/subnet/etcd/local_manager.go`): the lease that
//! already has this node's address, then the node's previous subnet, then one of the first hundred
//! free subnets. Unlike flannel, a node chooses no subnet that overlaps a network of its host, and
//! gives up a subnet that its host needs ([`HostNetwork`]). [`choose`] only decides; the caller
//! carries the choice out with a compare-and-swap, and calls it again if it loses the race to
//! another node.

mod free;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::LinkName;
use crate::config::{NetworkConfig, OverlayNetwork};
use crate::family::PerFamily;
use crate::host_network::{Conflict, HostNetwork};
use crate::lease::{Lease, LeaseKey};
use crate::node::NodeId;
use crate::record::Record;

pub use free::CANDIDATES;

use free::free;

/// The contents of the store, as far as they matter to the choice of a subnet.
#[derive(Clone, Debug, Default)]
pub struct Holdings {
    /// All keys in use, readable values or not, with the store's count of when each key was
    /// created.
    taken: BTreeMap<LeaseKey, u64>,
    /// The leases whose values can be read.
    leases: Vec<Lease>,
}

impl Holdings {
    /// Returns the records that are readable leases.
    pub fn leases(&self) -> &[Lease] {
        &self.leases
    }

    /// Adds a record.
    pub fn add(&mut self, record: &Record) {
        let Ok(key) = record.key.parse() else { return };
        self.taken.insert(key, record.age.made);
        self.leases.extend(record.lease(key));
    }

    /// Returns the lease of a key, if its record can be read.
    pub fn get(&self, key: LeaseKey) -> Option<&Lease> {
        self.leases.iter().find(|lease| lease.key == key)
    }

    /// Removes a record, as if it had been deleted.
    pub fn remove(&mut self, key: LeaseKey) {
        self.taken.remove(&key);
        self.leases.retain(|lease| lease.key != key);
    }

    fn seniority(&self, config: &NetworkConfig, key: LeaseKey) -> Seniority {
        let made = self.taken.get(&key).copied().unwrap_or(u64::MAX);
        seniority(fits(config, key), made, key)
    }
}

/// The node that wants a subnet.
#[derive(Clone, Copy, Debug)]
pub struct Claimant<'a> {
    /// The node's id.
    pub id: &'a NodeId,
    /// The node's public addresses in the enabled families.
    pub public_addresses: PerFamily<IpAddr>,
    /// The subnets the node had before, as recorded in its subnet.env.
    pub previous: Option<LeaseKey>,
    /// The host's own networks and addresses, which the node's subnet must not overlap.
    pub host: &'a HostNetwork,
    /// The interface that carries the overlay's packets.
    pub underlay: LinkName,
}

impl Claimant<'_> {
    /// Returns the reason why the node cannot use these subnets, even if they are free or its own.
    pub fn conflict(&self, key: LeaseKey) -> Option<Conflict> {
        key.subnets()
            .into_iter()
            .find_map(|subnet| self.host.conflict_of_own(subnet, self.underlay))
    }
}

/// The next step towards a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Take over this lease. It has this node's address: it is from a previous run, or reserved for
    /// the node.
    TakeOver(LeaseKey),
    /// Delete this lease and choose again. It has this node's address, but does not fit the config,
    /// overlaps an older lease that fits, or covers addresses that the host needs.
    Discard(LeaseKey),
    /// Create a lease for this free subnet.
    Create(LeaseKey),
}

/// The reason why no subnet can be allocated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError {
    /// Another node has published this node's public address.
    #[error(
        "public address {address} is already published by {owner} in lease {key}; \
         give this node another one (--iface, --public-ip), or delete that lease if its node is gone"
    )]
    AddressInUse {
        /// The address in conflict.
        address: IpAddr,
        /// The node that published it.
        owner: String,
        /// The lease of that node.
        key: LeaseKey,
    },
    /// Every subnet is leased.
    #[error(
        "no free /{length} between {min} and {max}: every subnet of {network} is leased (the widest lease is {widest}); \
         leases of nodes that are gone end a day after their last renewal"
    )]
    Exhausted {
        /// The overlay network.
        network: IpNet,
        /// The length of a subnet, in bits.
        length: u8,
        /// The first subnet in the allocation range.
        min: IpAddr,
        /// The last subnet in the allocation range.
        max: IpAddr,
        /// The leased key that takes the most addresses. One key written by mistake may cover the
        /// whole network.
        widest: LeaseKey,
    },
    /// Every subnet that is not leased overlaps a network of the host.
    #[error(
        "no free /{length} between {min} and {max}: every subnet of {network} that is not leased overlaps a network of \
         this host, or contains an address that nodes are reached at ({networks}); set Network, SubnetMin and SubnetMax to a range that no host uses"
    )]
    Occupied {
        /// The overlay network.
        network: IpNet,
        /// The length of a subnet, in bits.
        length: u8,
        /// The first subnet in the allocation range.
        min: IpAddr,
        /// The last subnet in the allocation range.
        max: IpAddr,
        /// The host's networks that are in the way.
        networks: String,
    },
}

/// Decides the next step towards a subnet.
///
/// `pick` returns a random number below its argument, which is at least 1.
///
/// # Errors
///
/// [`AllocationError`] if another node has published this node's address, or no subnet is free.
pub fn choose(
    config: &NetworkConfig,
    holdings: &Holdings,
    claimant: &Claimant<'_>,
    pick: &mut dyn FnMut(usize) -> usize,
) -> Result<Choice, AllocationError> {
    let Holdings { taken, leases } = holdings;
    // flannel tells nodes apart by the address of the first family.
    let address = claimant.public_addresses.first().copied();
    let ours = |lease: &&Lease| address.is_some_and(|own| lease.public_addresses().contains(&own));
    // Other nodes may publish this address too. The lease with this node's id takes precedence.
    let anonymous_or_foreign = |lease: &&Lease| lease.node_id.as_ref() != Some(claimant.id);
    if let Some(lease) = leases.iter().filter(ours).min_by_key(anonymous_or_foreign) {
        let key = lease.key;
        if let (Some(id), Some(address)) = (&lease.node_id, address)
            && id != claimant.id
        {
            return Err(AllocationError::AddressInUse { address, owner: lease.owner(), key });
        }
        // A previous run may have created the lease and ended before it noticed that another node
        // had been faster.
        let own = holdings.seniority(config, key);
        let keeps = fits(config, key)
            && claimant.conflict(key).is_none()
            && !leases.iter().any(|other| {
                overlap(other.key, key) && holdings.seniority(config, other.key) < own
            });
        return Ok(if keeps { Choice::TakeOver(key) } else { Choice::Discard(key) });
    }
    if let Some(previous) = claimant.previous
        && fits(config, previous)
        && claimant.conflict(previous).is_none()
        && !covers_peer(claimant.host, holdings, previous)
        && !taken.keys().any(|key| overlap(*key, previous))
    {
        return Ok(Choice::Create(previous));
    }
    let mut subnet = |overlay: &OverlayNetwork| {
        let free = free(overlay, holdings, claimant.host)?;
        Ok(free.get(pick(free.len())).copied())
    };
    let subnets = config.networks.iter().filter_map(|overlay| subnet(overlay).transpose());
    let subnets = subnets.collect::<Result<_, _>>()?;
    Ok(Choice::Create(LeaseKey::new(subnets).expect("a config enables at least one family")))
}

/// Returns true if the host reaches a peer's public address, and would lose it to these subnets.
fn covers_peer(host: &HostNetwork, holdings: &Holdings, key: LeaseKey) -> bool {
    let mut addresses = holdings.leases.iter().flat_map(Lease::public_addresses);
    addresses.any(|address| key.subnets().iter().any(|subnet| host.loses(address, *subnet)))
}

/// Returns true if a lease has exactly the families of the config, each with a subnet that
/// [fits](OverlayNetwork::fits).
pub fn fits(config: &NetworkConfig, key: LeaseKey) -> bool {
    let (networks, subnets) = (config.networks, key.subnets());
    networks.families() == subnets.families()
        && networks.zip(subnets).iter().all(|(overlay, subnet)| overlay.fits(*subnet))
}

/// Returns true if two leases have an address in common.
pub fn overlap(one: LeaseKey, other: LeaseKey) -> bool {
    let pairs = one.subnets().zip(other.subnets());
    pairs.iter().any(|(a, b)| a.contains(b) || b.contains(a))
}

/// Tie-break between overlapping leases: all nodes use the smallest. Leases that fit the config
/// come first, then the one that was created first.
pub(crate) type Seniority = (bool, u64, LeaseKey);

/// Returns the tie-break key of a lease. `made` is that of its [`Age`](crate::record::Age).
pub(crate) fn seniority(fits: bool, made: u64, key: LeaseKey) -> Seniority {
    (!fits, made, key)
}
