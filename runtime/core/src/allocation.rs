//! Choice of this node's subnet.
//!
//! The order is flannel's (`tryAcquireLease` in `pkg/subnet/etcd/local_manager.go`): the lease that
//! already has this node's address, then the node's previous subnet, then one of the first hundred
//! free subnets. Unlike flannel, a node chooses no subnet that overlaps a network of its host, and
//! gives up a subnet that its host needs ([`HostNetwork`]). [`choose`] only decides; the caller
//! carries the choice out with a compare-and-swap, and calls it again if it loses the race to
//! another node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::address::{Family, LinkName, number};
use crate::config::{NetworkConfig, OverlayNetwork};
use crate::family::PerFamily;
use crate::host_network::{Conflict, HostNetwork};
use crate::lease::{Lease, LeaseKey, Record};
use crate::node::NodeId;

/// Number of free subnets that the random choice is made among. The randomness makes it unlikely
/// that nodes which boot together want the same subnet.
pub const CANDIDATES: usize = 100;

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
    pub fn add(&mut self, record: &Record<'_>) {
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

/// Returns the first subnets that are neither leased nor overlap a network of the host or a public
/// address of a peer. Never empty.
fn free(
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

/// Returns the tie-break key of a lease. `made` is that of its [`Age`](crate::lease::Age).
pub(crate) fn seniority(fits: bool, made: u64, key: LeaseKey) -> Seniority {
    (!fits, made, key)
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
fn free_subnets(overlay: &OverlayNetwork, taken: impl Iterator<Item = IpNet>) -> Vec<IpNet> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::PerFamily;
    use crate::host_network::{Claims, HostAddress, HostRouting, Vital};
    use proptest::prelude::*;

    fn config(text: &str) -> NetworkConfig {
        NetworkConfig::parse(text.as_bytes()).unwrap()
    }

    fn lease(key: &str, value: &str) -> Lease {
        Lease::from_value(key.parse().unwrap(), value.as_bytes()).unwrap()
    }

    /// Chooses a subnet for 192.168.0.72, and always picks the first candidate.
    fn choose_among(
        config: &NetworkConfig,
        leases: &[Lease],
        previous: Option<&str>,
    ) -> Result<Choice, AllocationError> {
        choose_at(&HostNetwork::default(), "192.168.0.72", config, leases, previous)
    }

    fn choose_at(
        host: &HostNetwork,
        address: &str,
        config: &NetworkConfig,
        leases: &[Lease],
        previous: Option<&str>,
    ) -> Result<Choice, AllocationError> {
        let made = (1..).zip(leases).map(|(made, lease)| (lease.key, made));
        let holdings = Holdings { taken: made.collect(), leases: leases.to_vec() };
        let claimant = Claimant {
            id: &"me".parse().unwrap(),
            public_addresses: [address.parse::<IpAddr>().unwrap()].into(),
            previous: previous.map(|key| key.parse().unwrap()),
            host,
            underlay: "eth0".parse().unwrap(),
        };
        choose(config, &holdings, &claimant, &mut |_| 0)
    }

    fn key(text: &str) -> LeaseKey {
        text.parse().unwrap()
    }

    const NETWORK: &str = r#"{"Network":"10.244.0.0/16"}"#;

    #[test]
    fn lease_with_own_address_is_taken_over() {
        let mine = lease("10.244.9.0-24", r#"{"PublicIP":"192.168.0.72"}"#);
        let other = lease("10.244.8.0-24", r#"{"PublicIP":"192.168.0.71"}"#);
        assert_eq!(
            choose_among(&config(NETWORK), &[other, mine], Some("10.244.7.0-24")),
            Ok(Choice::TakeOver(key("10.244.9.0-24")))
        );
    }

    #[test]
    fn own_lease_that_does_not_fit_is_discarded() {
        let mine = [lease("10.1.9.0-24", r#"{"PublicIP":"192.168.0.72","NodeID":"me"}"#)];
        assert_eq!(
            choose_among(&config(NETWORK), &mine, None),
            Ok(Choice::Discard(key("10.1.9.0-24")))
        );
        let mine = [lease("10.244.9.0-24", r#"{"PublicIP":"192.168.0.72"}"#)];
        let dual =
            config(r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}"#);
        assert_eq!(choose_among(&dual, &mine, None), Ok(Choice::Discard(key("10.244.9.0-24"))));
    }

    #[test]
    fn own_lease_overlapping_an_older_fitting_one_is_discarded() {
        let dual =
            config(r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}"#);
        let ours = "10.244.9.0-24&fd00:0:0:9::-64";
        let mine = || lease(ours, r#"{"PublicIP":"192.168.0.72","NodeID":"me"}"#);
        let theirs = |key| lease(key, r#"{"PublicIP":"192.168.0.71"}"#);
        for (leases, choice) in [
            ([theirs("10.244.9.0-24&fd00:0:0:8::-64"), mine()], Choice::Discard(key(ours))),
            ([mine(), theirs("10.244.9.0-24&fd00:0:0:8::-64")], Choice::TakeOver(key(ours))),
            // From before a change of the network config.
            ([theirs("10.244.9.0-24"), mine()], Choice::TakeOver(key(ours))),
            ([theirs("10.244.0.0-20&fd00::-56"), mine()], Choice::TakeOver(key(ours))),
        ] {
            assert_eq!(choose_among(&dual, &leases, None), Ok(choice), "{leases:?}");
        }
    }

    #[test]
    fn reservation_with_one_family_is_taken_over_for_both() {
        let dual =
            config(r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}"#);
        let reserved = "10.244.8.0-24&fd00:0:0:8::-64";
        let mine = [lease(reserved, r#"{"PublicIP":"192.168.0.72"}"#)];
        assert_eq!(choose_among(&dual, &mine, None), Ok(Choice::TakeOver(key(reserved))));
    }

    #[test]
    fn address_published_by_another_node_is_refused_by_name() {
        let theirs = [lease(
            "10.244.9.0-24",
            r#"{"PublicIP":"192.168.0.72","NodeID":"them","NodeName":"web-2"}"#,
        )];
        assert_eq!(
            choose_among(&config(NETWORK), &theirs, None).unwrap_err().to_string(),
            "public address 192.168.0.72 is already published by web-2 (node id them) at 192.168.0.72 in lease \
             10.244.9.0-24; give this node another one (--iface, --public-ip), or delete that lease if its node is gone"
        );
    }

    #[test]
    fn lease_with_own_id_precedes_others_with_own_address() {
        let config = config(NETWORK);
        for other in [
            lease("10.244.3.0-24", r#"{"PublicIP":"192.168.0.72"}"#),
            lease("10.244.3.0-25", r#"{"PublicIP":"192.168.0.72"}"#),
            lease("10.244.3.0-24", r#"{"PublicIP":"192.168.0.72","NodeID":"thief"}"#),
        ] {
            let ours = lease("10.244.9.0-24", r#"{"PublicIP":"192.168.0.72","NodeID":"me"}"#);
            let choice = choose_among(&config, &[other, ours.clone()], None);
            assert_eq!(choice, Ok(Choice::TakeOver(ours.key)));
        }
    }

    #[test]
    fn previous_subnet_free_and_fitting_is_kept() {
        let config = config(NETWORK);
        assert_eq!(
            choose_among(&config, &[], Some("10.244.77.0-24")),
            Ok(Choice::Create(key("10.244.77.0-24")))
        );
        let taken = [lease("10.244.77.0-24", r#"{"PublicIP":"192.168.0.71"}"#)];
        assert_eq!(
            choose_among(&config, &taken, Some("10.244.77.0-24")),
            Ok(Choice::Create(key("10.244.1.0-24")))
        );
        assert_eq!(
            choose_among(&config, &[], Some("10.1.77.0-24")),
            Ok(Choice::Create(key("10.244.1.0-24")))
        );
    }

    #[test]
    fn first_and_taken_subnets_are_never_allocated() {
        let taken = [
            lease("10.244.1.0-24", r#"{"PublicIP":"192.168.0.1"}"#),
            lease("10.244.2.0-23", r#"{"PublicIP":"192.168.0.2"}"#),
            lease("10.244.4.128-25", r#"{"PublicIP":"192.168.0.3"}"#),
        ];
        assert_eq!(
            choose_among(&config(NETWORK), &taken, None),
            Ok(Choice::Create(key("10.244.5.0-24")))
        );
    }

    /// Returns a host on 192.168.0.0/24 with a bridge and two more networks, and an etcd endpoint
    /// inside the overlay.
    fn busy_host() -> HostNetwork {
        let address = |link: &str, network: &str| HostAddress {
            link: link.parse().unwrap(),
            network: network.parse().unwrap(),
            up: true,
            prefix_route: true,
        };
        let addresses = [
            address("eth0", "10.244.3.1/24"),
            address("lan0", "10.244.2.1/26"),
            address("docker0", "10.244.77.1/24"),
        ];
        let routing = HostRouting { addresses: addresses.into(), ..HostRouting::default() };
        let claims =
            Claims { overlay: vec!["10.244.0.0/16".parse().unwrap()], ..Claims::default() };
        let vital = Vital { store: ["10.244.4.9".parse().unwrap()].into(), ..Vital::default() };
        HostNetwork::new(&claims, &routing, vital)
    }

    fn choose_on(
        host: &HostNetwork,
        config: &NetworkConfig,
        leases: &[Lease],
        previous: Option<&str>,
    ) -> Result<Choice, AllocationError> {
        choose_at(host, "10.244.3.1", config, leases, previous)
    }

    #[test]
    fn subnet_with_host_or_peer_address_is_not_chosen() {
        let (host, config) = (busy_host(), config(NETWORK));
        let peer = [lease("10.244.1.0-24", r#"{"PublicIP":"10.244.5.9"}"#)];
        // Subnets 2 to 4 are the host's; 5 contains a peer's address.
        assert_eq!(
            choose_on(&host, &config, &peer, None),
            Ok(Choice::Create(key("10.244.6.0-24")))
        );
    }

    #[test]
    fn previous_subnet_on_bridge_is_kept_and_on_underlay_dropped() {
        let (host, config) = (busy_host(), config(NETWORK));
        assert_eq!(
            choose_on(&host, &config, &[], Some("10.244.77.0-24")),
            Ok(Choice::Create(key("10.244.77.0-24")))
        );
        for previous in ["10.244.3.0-24", "10.244.4.0-24"] {
            let choice = choose_on(&host, &config, &[], Some(previous));
            assert_eq!(choice, Ok(Choice::Create(key("10.244.1.0-24"))));
        }
    }

    #[test]
    fn own_lease_inside_underlay_is_discarded() {
        let (host, config) = (busy_host(), config(NETWORK));
        let own = |key| [lease(key, r#"{"PublicIP":"10.244.3.1","NodeID":"me"}"#)];
        for (lease, choice) in [
            ("10.244.77.0-24", Choice::TakeOver(key("10.244.77.0-24"))),
            ("10.244.3.0-24", Choice::Discard(key("10.244.3.0-24"))),
            ("10.244.4.0-24", Choice::Discard(key("10.244.4.0-24"))),
        ] {
            assert_eq!(choose_on(&host, &config, &own(lease), None), Ok(choice));
        }
    }

    #[test]
    fn network_covered_by_host_networks_is_an_error_naming_them() {
        let config = config(r#"{"Network":"10.244.2.0/23","SubnetLen":26}"#);
        let error = choose_on(&busy_host(), &config, &[], None);
        let taken = ["10.244.2.64-26", "10.244.2.128-26", "10.244.2.192-26"];
        assert!(matches!(error, Ok(Choice::Create(_))), "{error:?}");
        let taken = taken.map(|key| lease(key, r#"{"PublicIP":"192.168.0.9"}"#));
        let error = choose_on(&busy_host(), &config, &taken, None).unwrap_err().to_string();
        assert!(error.contains("(10.244.2.0/26, 10.244.3.0/24)"), "{error}");
    }

    #[test]
    fn families_are_chosen_independently() {
        let dual =
            config(r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}"#);
        let taken = [lease("10.244.1.0-24", r#"{"PublicIP":"192.168.0.1"}"#)];
        assert_eq!(
            choose_among(&dual, &taken, None),
            Ok(Choice::Create(key("10.244.2.0-24&fd00:0:0:1::-64")))
        );
    }

    #[test]
    fn full_network_is_an_error_with_its_range() {
        let config = config(r#"{"Network":"10.1.0.0/28"}"#);
        let full: &[&str] = &["10.1.0.4-30", "10.1.0.8-30", "10.1.0.12-30"];
        // One mistyped key is enough to exhaust the network.
        for (keys, widest) in
            [(full, "10.1.0.4-30"), (&["10.1.0.4-30", "10.1.0.0-28"], "10.1.0.0-28")]
        {
            let lease = |key: &&str| lease(key, r#"{"PublicIP":"192.168.0.1"}"#);
            let taken: Vec<_> = keys.iter().map(lease).collect();
            assert_eq!(
                choose_among(&config, &taken, None).unwrap_err().to_string(),
                format!(
                    "no free /30 between 10.1.0.4 and 10.1.0.12: every subnet of 10.1.0.0/28 is leased \
                     (the widest lease is {widest}); leases of nodes that are gone end a day after their last renewal"
                )
            );
        }
    }

    #[test]
    fn free_subnets_at_end_of_address_space_terminate() {
        let config = config(
            r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0/124"}"#,
        );
        let overlay = &config.networks.v6.unwrap();
        assert_eq!(free_subnets(overlay, std::iter::empty()).len(), 3);
        assert_eq!(free_subnets(overlay, ["ffff::/16".parse().unwrap()].into_iter()), []);
    }

    proptest! {
        #[test]
        fn chosen_subnet_is_free_and_fits(
            taken in prop::collection::btree_set((0u32..1 << 16, 17u8..=30), 0..300),
            pick in 0usize..CANDIDATES,
        ) {
            let config = config(NETWORK);
            let taken: BTreeMap<LeaseKey, u64> = taken
                .into_iter()
                .filter_map(|(host, length)| {
                    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 0, 0)) + host);
                    let subnet = IpNet::new(address.into(), length).ok()?;
                    Some((LeaseKey::new([subnet].into())?, 1))
                })
                .collect();
            let holdings = Holdings { taken: taken.clone(), leases: vec![] };
            let claimant = Claimant {
                id: &"me".parse().unwrap(),
                public_addresses: PerFamily::NONE,
                previous: None,
                host: &HostNetwork::default(),
                underlay: "eth0".parse().unwrap(),
            };
            match choose(&config, &holdings, &claimant, &mut |count| pick % count) {
                Ok(Choice::Create(key)) => {
                    prop_assert!(fits(&config, key));
                    prop_assert!(!taken.keys().any(|other| overlap(*other, key)));
                }
                Err(AllocationError::Exhausted { .. }) => {
                    for index in 1u8..=255 {
                        let key: LeaseKey = format!("10.244.{index}.0-24").parse().unwrap();
                        prop_assert!(taken.keys().any(|other| overlap(*other, key)));
                    }
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
