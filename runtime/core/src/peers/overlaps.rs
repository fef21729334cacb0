//! Index of leases with addresses in common.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::Family;
use crate::lease::LeaseKey;

/// Leases indexed by their subnets. A lookup takes as many steps as there are overlapping leases,
/// plus one per prefix length in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlaps {
    /// There is nearly always one lease per subnet, so the vectors are unsorted.
    subnets: BTreeMap<IpNet, Vec<LeaseKey>>,
    /// Number of subnets of each prefix length.
    lengths: BTreeMap<(Family, u8), usize>,
}

impl Overlaps {
    pub(crate) fn insert(&mut self, key: LeaseKey) {
        for subnet in key.subnets() {
            // A vector that grows by itself would reserve room for four.
            let leases = self.subnets.entry(subnet).or_insert_with(|| Vec::with_capacity(1));
            if leases.is_empty() {
                *self.lengths.entry(length(subnet)).or_default() += 1;
            }
            if !leases.contains(&key) {
                leases.push(key);
            }
        }
    }

    pub(crate) fn remove(&mut self, key: LeaseKey) {
        for subnet in key.subnets() {
            let Some(leases) = self.subnets.get_mut(&subnet) else { continue };
            leases.retain(|other| *other != key);
            if !leases.is_empty() {
                continue;
            }
            self.subnets.remove(&subnet);
            if let Some(count) = self.lengths.get_mut(&length(subnet)) {
                *count -= 1;
                if *count == 0 {
                    self.lengths.remove(&length(subnet));
                }
            }
        }
    }

    /// Returns the other leases that overlap this one. A lease that does so in both families occurs
    /// twice.
    pub(crate) fn with(&self, key: LeaseKey) -> impl Iterator<Item = LeaseKey> {
        let subnets: Vec<_> = key.subnets().into_iter().collect();
        let found = subnets.into_iter().flat_map(|subnet| self.with_subnet(subnet));
        found.filter(move |other| *other != key)
    }

    /// Returns the leases whose subnets contain an address.
    pub(crate) fn with_address(&self, address: IpAddr) -> impl Iterator<Item = LeaseKey> {
        self.with_subnet(IpNet::from(address))
    }

    fn with_subnet(&self, subnet: IpNet) -> impl Iterator<Item = LeaseKey> {
        let (family, own) = length(subnet);
        let shorter = self.lengths.range((family, 0)..(family, own));
        let around = shorter.filter_map(move |(&(_, length), _)| {
            let around = IpNet::new(subnet.addr(), length).ok()?;
            self.subnets.get(&around.trunc())
        });
        // Sorted by first address, then by length: the subnets inside a subnet follow it.
        let last = IpNet::new(subnet.broadcast(), family.bits()).unwrap_or(subnet);
        let inside = self.subnets.range(subnet..=last).map(|(_, leases)| leases);
        around.chain(inside).flatten().copied()
    }
}

fn length(subnet: IpNet) -> (Family, u8) {
    (Family::of_network(subnet), subnet.prefix_len())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::allocation::overlap;
    use crate::family::PerFamily;

    /// Generates lease keys in a small part of each family, so that many overlap.
    fn key() -> impl Strategy<Value = LeaseKey> {
        let v4 = (0_u8..4, 22_u8..=26).prop_map(|(part, length)| {
            format!("10.244.{part}.{}/{length}", u32::from(part) * 64 % 256).parse().unwrap()
        });
        let v6 = (0_u8..4, 62_u8..=66)
            .prop_map(|(part, length)| format!("fd00:0:0:{part}::/{length}").parse().unwrap());
        (proptest::option::of(v4), proptest::option::of(v6))
            .prop_filter_map("a key has a subnet", |(v4, v6)| {
                LeaseKey::new(PerFamily { v4: v4.map(IpNet::V4), v6: v6.map(IpNet::V6) })
            })
    }

    proptest! {
        #[test]
        fn overlaps_match_a_pairwise_comparison(
            keys in proptest::collection::btree_set(key(), 0..24),
            gone in proptest::collection::vec(any::<bool>(), 24),
        ) {
            let mut overlaps = Overlaps::default();
            keys.iter().for_each(|key| overlaps.insert(*key));
            let mut left = keys.clone();
            for (key, _) in keys.iter().zip(gone).filter(|(_, gone)| *gone) {
                overlaps.remove(*key);
                left.remove(key);
            }
            for key in &keys {
                let found: BTreeSet<_> = overlaps.with(*key).collect();
                let expected: BTreeSet<_> =
                    left.iter().copied().filter(|it| it != key && overlap(*it, *key)).collect();
                prop_assert_eq!(found, expected, "{}", key);
            }
        }
    }
}
