//! Choice of this node's subnet.
//!
//! The order is flannel's (`tryAcquireLease` in `pkg/subnet/etcd/local_manager.go`): the lease that
//! already is this node's, then the node's previous subnet, then one of the first hundred free
//! subnets. Unlike in flannel, a lease with this node's id is this node's even if the address has
//! changed ([`Relation`]); a subnet that is still valid is kept although the other family's is not;
//! and a node chooses no subnet that overlaps a network of its host, and gives up a subnet that its
//! host needs ([`HostNetwork`]). [`choose`] only decides; the caller carries the choice out with a
//! compare-and-swap, and calls it again if it loses the race to another node.

mod free;
mod ownership;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::{Family, LinkName};
use crate::config::{NetworkConfig, OverlayNetwork};
use crate::family::PerFamily;
use crate::host_network::{Conflict, HostNetwork};
use crate::lease::{Lease, LeaseKey};
use crate::node::NodeId;
use crate::record::Record;

pub use free::CANDIDATES;
pub use ownership::{Holder, Holders, HostMarks, Recognition, Relation};

use free::free;
use ownership::relation;

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

    /// Returns the public addresses in the leases with this id.
    pub fn published(&self, id: &NodeId) -> Vec<IpAddr> {
        let own = self.leases.iter().filter(|lease| lease.node_id.as_ref() == Some(id));
        own.flat_map(Lease::public_addresses).collect()
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
    /// The properties by which the host recognizes its leases.
    pub marks: &'a HostMarks,
    /// The holders of leases that have been asked whether they are there.
    pub holders: &'a Holders,
}

impl Claimant<'_> {
    /// Returns the relation of a lease to the node.
    pub fn relation(&self, lease: &Lease) -> Relation {
        relation(lease, self.id, self.public_addresses, self.marks)
    }

    /// Returns the reason why the node cannot use these subnets, even if they are free or its own.
    pub fn conflict(&self, key: LeaseKey) -> Option<Conflict> {
        key.subnets().into_iter().find_map(|subnet| self.conflict_of(subnet))
    }

    fn conflict_of(&self, subnet: IpNet) -> Option<Conflict> {
        self.host.conflict_of_own(subnet, self.underlay)
    }

    /// Returns true if a lease contains a subnet that the node had before.
    fn had(&self, key: LeaseKey) -> bool {
        self.previous.is_some_and(|previous| overlap(previous, key))
    }
}

/// The next step towards a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Take over this lease. It is this node's from a previous run, or reserved for the node, or
    /// its holder is gone.
    TakeOver(LeaseKey),
    /// Replace a lease that could be taken over by another one, which keeps those of its subnets
    /// that the config and the host allow.
    Move {
        /// The lease to take over.
        from: LeaseKey,
        /// The lease to have instead.
        to: LeaseKey,
    },
    /// Delete this lease and choose again. None of its subnets can be kept: they do not fit the
    /// config, overlap those of older leases, or cover addresses that the host needs.
    Discard(LeaseKey),
    /// Ask the holder of this lease whether it is there, and choose again.
    Ask(LeaseKey),
    /// Create a lease for this free subnet.
    Create(LeaseKey),
}

/// The reason why no subnet can be allocated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError {
    /// Another node has published this node's public address.
    #[error(
        "public address {address} is already published by {owner} in lease {key}{}; give this node another one (--iface, \
         --public-ip), or release that lease if its node is gone: {}",
        if *alive { ", and that node keeps its lease" } else { "" },
        release_command(*key)
    )]
    AddressInUse {
        /// The address in conflict.
        address: IpAddr,
        /// The node that published it.
        owner: String,
        /// The lease of that node.
        key: LeaseKey,
        /// True if that node has answered that it is there.
        alive: bool,
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
    let leases = || holdings.leases.iter().map(|lease| (lease, claimant.relation(lease)));
    let address = claimant.public_addresses.first().copied();
    let has_address =
        |lease: &Lease| address.is_some_and(|own| lease.public_addresses().contains(&own));
    let seniority = |lease: &&Lease| holdings.seniority(config, lease.key);
    let of = |wanted| leases().filter(move |(_, found)| *found == wanted).map(|(lease, _)| lease);
    let own = of(Relation::Own)
        .min_by_key(|lease| (!claimant.had(lease.key), !has_address(lease), seniority(lease)));
    let holder = |lease: &Lease| claimant.holders.get(&lease.key);
    let former = of(Relation::Namesake)
        .filter(|lease| holder(lease) != Some(&Holder::Alive))
        .min_by_key(|lease| (!claimant.had(lease.key), seniority(lease)));
    let mut candidate = own;
    // The lease with this node's id and address takes precedence over others with the address.
    if let (Some(rival), Some(address)) = (of(Relation::Rival).min_by_key(seniority), address)
        && !of(Relation::Own).any(has_address)
    {
        let (key, owner) = (rival.key, rival.owner());
        match holder(rival) {
            // If the node has a lease of its own, the rival may be about to give up the address.
            Some(Holder::Gone) => candidate = own.or(former).or(Some(rival)),
            // Only of an address that is this host's can it be said that nobody else has it.
            None if claimant.marks.addresses.contains(&address) => return Ok(Choice::Ask(key)),
            found => {
                let alive = found.is_some();
                return Err(AllocationError::AddressInUse { address, owner, key, alive });
            }
        }
    }
    candidate = candidate.or_else(|| of(Relation::Anonymous).min_by_key(seniority)).or(former);
    if let Some(lease) = candidate
        && claimant.relation(lease) == Relation::Namesake
        && holder(lease).is_none()
    {
        return Ok(Choice::Ask(lease.key));
    }
    match candidate {
        Some(lease) => keep(config, holdings, claimant, lease.key, pick),
        None => complete(config, holdings, claimant, PerFamily::NONE, pick).map(Choice::Create),
    }
}

/// Decides what becomes of a lease that the node may take over.
fn keep(
    config: &NetworkConfig,
    holdings: &Holdings,
    claimant: &Claimant<'_>,
    key: LeaseKey,
    pick: &mut dyn FnMut(usize) -> usize,
) -> Result<Choice, AllocationError> {
    // A previous run may have created the lease and ended before it noticed that another node had
    // been faster.
    let own = holdings.seniority(config, key);
    let is_senior = |other: &&Lease| holdings.seniority(config, other.key) < own;
    let superseded = |subnet| {
        let mut seniors = holdings.leases.iter().filter(is_senior);
        seniors.any(|other| overlaps(other.key, subnet))
    };
    let keeps = |(overlay, subnet): &(OverlayNetwork, IpNet)| {
        overlay.fits(*subnet) && claimant.conflict_of(*subnet).is_none() && !superseded(*subnet)
    };
    let both = config.networks.zip(key.subnets()).into_iter();
    let kept: PerFamily<IpNet> = both.filter(keeps).map(|(_, subnet)| subnet).collect();
    if kept.is_empty() {
        return Ok(Choice::Discard(key));
    }
    match complete(config, holdings, claimant, kept, pick) {
        Ok(to) if to == key => Ok(Choice::TakeOver(key)),
        Ok(to) => Ok(Choice::Move { from: key, to }),
        // Somebody else has the other family's subnet, so the lease is not good for anything.
        Err(_) if fits(config, key) => Ok(Choice::Discard(key)),
        Err(error) => Err(error),
    }
}

/// Completes a lease with subnets of the enabled families that it lacks: those that the node had
/// before, if they are free, or else any.
fn complete(
    config: &NetworkConfig,
    holdings: &Holdings,
    claimant: &Claimant<'_>,
    kept: PerFamily<IpNet>,
    pick: &mut dyn FnMut(usize) -> usize,
) -> Result<LeaseKey, AllocationError> {
    let previous = claimant.previous.map(|key| key.subnets()).unwrap_or_default();
    let usable = |overlay: &OverlayNetwork, subnet: &IpNet| {
        overlay.fits(*subnet)
            && claimant.conflict_of(*subnet).is_none()
            && !covers_peer(claimant.host, holdings, *subnet)
            && !holdings.taken.keys().any(|key| overlaps(*key, *subnet))
    };
    let mut subnets = PerFamily::NONE;
    for overlay in &config.networks {
        let family = Family::of_network(overlay.network);
        let known = kept.get(family).copied();
        let known =
            known.or_else(|| previous.get(family).copied().filter(|it| usable(overlay, it)));
        let subnet = match known {
            Some(subnet) => subnet,
            None => {
                let free = free(overlay, holdings, claimant.host)?;
                free[pick(free.len())]
            }
        };
        match family {
            Family::V4 => subnets.v4 = Some(subnet),
            Family::V6 => subnets.v6 = Some(subnet),
        }
    }
    Ok(LeaseKey::new(subnets).expect("a config enables at least one family"))
}

/// Returns true if the host reaches a peer's public address, and would lose it to this subnet.
fn covers_peer(host: &HostNetwork, holdings: &Holdings, subnet: IpNet) -> bool {
    let mut addresses = holdings.leases.iter().flat_map(Lease::public_addresses);
    addresses.any(|address| host.loses(address, subnet))
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
    one.subnets().into_iter().any(|subnet| overlaps(other, subnet))
}

/// Returns true if a lease and a subnet have an address in common.
fn overlaps(key: LeaseKey, subnet: IpNet) -> bool {
    let same = key.subnets().get(Family::of_network(subnet)).copied();
    same.is_some_and(|own| own.contains(&subnet) || subnet.contains(&own))
}

/// Returns the command that releases a lease of another node.
pub fn release_command(key: LeaseKey) -> String {
    let subnet = key.subnets().first().map(ToString::to_string);
    format!("heddle lease release {}", subnet.unwrap_or_default())
}

/// Tie-break between overlapping leases: all nodes use the smallest. Leases that fit the config
/// come first, then the one that was created first.
pub(crate) type Seniority = (bool, u64, LeaseKey);

/// Returns the tie-break key of a lease. `made` is that of its [`Age`](crate::record::Age).
pub(crate) fn seniority(fits: bool, made: u64, key: LeaseKey) -> Seniority {
    (!fits, made, key)
}
