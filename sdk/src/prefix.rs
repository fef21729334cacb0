//! Longest-prefix match.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::ops::BitAnd;

use ipnet::IpNet;
use rustc_hash::FxBuildHasher;

use crate::{Lease, PeerIndex};

/// Values by network, looked up by address: the longest prefix wins. One table holds both families.
///
/// A look-up costs one hash table probe per prefix length in the table. Overlays have one or two.
///
/// ```
/// use heddle_sdk::{IpNet, PrefixTable};
///
/// let mut table = PrefixTable::default();
/// for (network, value) in [("10.244.0.0/16", "overlay"), ("10.244.36.0/24", "peer")] {
///     table.insert(network.parse::<IpNet>()?, value);
/// }
/// assert_eq!(table.find("10.244.36.7".parse()?), Some(&"peer"));
/// assert_eq!(table.find("10.244.37.7".parse()?), Some(&"overlay"));
/// assert_eq!(table.find("10.245.0.1".parse()?), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct PrefixTable<T> {
    v4: Masks<u32, T>,
    v6: Masks<u128, T>,
}

/// Values by prefix, grouped by netmask, the longest first. Masking is cheaper than shifting on
/// machines without 128-bit registers.
type Masks<Bits, T> = Vec<(Bits, HashMap<Bits, T, FxBuildHasher>)>;

impl<T> Default for PrefixTable<T> {
    fn default() -> Self {
        Self { v4: Vec::new(), v6: Vec::new() }
    }
}

impl<T> PrefixTable<T> {
    /// Inserts a network, and returns its previous value.
    pub fn insert(&mut self, network: IpNet, value: T) -> Option<T> {
        match network {
            IpNet::V4(network) => {
                put(&mut self.v4, network.netmask().into(), network.network().into(), value)
            }
            IpNet::V6(network) => {
                put(&mut self.v6, network.netmask().into(), network.network().into(), value)
            }
        }
    }

    /// Returns the value of the longest prefix that contains an address.
    pub fn find(&self, address: IpAddr) -> Option<&T> {
        match address {
            IpAddr::V4(address) => get(&self.v4, address.into()),
            IpAddr::V6(address) => get(&self.v6, address.into()),
        }
    }
}

impl<T> FromIterator<(IpNet, T)> for PrefixTable<T> {
    fn from_iter<I: IntoIterator<Item = (IpNet, T)>>(networks: I) -> Self {
        let mut table = Self::default();
        for (network, value) in networks {
            table.insert(network, value);
        }
        table
    }
}

impl PrefixTable<PeerIndex> {
    /// Returns the index of each lease by its subnets: turns the peers of
    /// [`with_peers`](crate::PacketBackend::with_peers) into a table to steer by.
    pub fn of_peers(peers: &[Lease]) -> Self {
        (0..)
            .zip(peers)
            .flat_map(|(index, peer)| peer.families.iter().map(move |part| (part.subnet, index)))
            .collect()
    }
}

fn put<Bits: Copy + Ord + Hash, T>(
    masks: &mut Masks<Bits, T>,
    mask: Bits,
    prefix: Bits,
    value: T,
) -> Option<T> {
    // As a number, a longer mask is the larger one.
    let at = match masks.binary_search_by(|(other, _)| mask.cmp(other)) {
        Ok(at) => at,
        Err(at) => {
            masks.insert(at, (mask, HashMap::default()));
            at
        }
    };
    masks[at].1.insert(prefix, value)
}

fn get<Bits, T>(masks: &Masks<Bits, T>, address: Bits) -> Option<&T>
where
    Bits: Copy + Eq + Hash + BitAnd<Output = Bits>,
{
    masks.iter().find_map(|(mask, values)| values.get(&(address & *mask)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(networks: &[&'static str]) -> PrefixTable<&'static str> {
        networks.iter().map(|network| (network.parse().unwrap(), *network)).collect()
    }

    fn find(table: &PrefixTable<&'static str>, address: &str) -> Option<&'static str> {
        table.find(address.parse().unwrap()).copied()
    }

    #[test]
    fn longest_prefix_wins() {
        let table = table(&[
            "10.244.0.0/16",
            "10.244.36.0/24",
            "10.244.36.7/32",
            "fc00::/48",
            "fc00:0:0:8::/64",
            "fc00:0:0:8::7/128",
        ]);
        for (address, expected) in [
            ("10.244.36.7", Some("10.244.36.7/32")),
            ("10.244.36.8", Some("10.244.36.0/24")),
            ("10.244.37.8", Some("10.244.0.0/16")),
            ("10.245.37.8", None),
            ("fc00:0:0:8::7", Some("fc00:0:0:8::7/128")),
            ("fc00:0:0:8:ffff::7", Some("fc00:0:0:8::/64")),
            ("fc00:0:0:9::", Some("fc00::/48")),
            ("fc01::", None),
        ] {
            assert_eq!(find(&table, address), expected, "{address}");
        }
    }

    #[test]
    fn zero_length_prefix_matches_all_of_its_family() {
        let only_v4 = table(&["0.0.0.0/0"]);
        assert_eq!(find(&only_v4, "255.255.255.255"), Some("0.0.0.0/0"));
        assert_eq!(find(&only_v4, "::"), None);
        assert_eq!(find(&table(&["::/0"]), "ffff::ffff"), Some("::/0"));
        assert_eq!(find(&table(&[]), "10.0.0.1"), None);
    }

    #[test]
    fn network_inserted_twice_has_the_later_value() {
        let mut table = PrefixTable::default();
        // Host bits are ignored.
        assert_eq!(table.insert("10.244.36.9/24".parse().unwrap(), 1), None);
        assert_eq!(table.insert("10.244.36.0/24".parse().unwrap(), 2), Some(1));
        assert_eq!(table.find("10.244.36.1".parse().unwrap()), Some(&2));
    }

    #[test]
    fn peers_are_found_by_any_of_their_subnets() {
        let family = |subnet: &str, public: &str| crate::LeaseFamily {
            subnet: subnet.parse().unwrap(),
            public_address: public.parse().unwrap(),
            backend_data: None,
        };
        let lease = |families| Lease { families, backend_type: None };
        let table = PrefixTable::of_peers(&[
            lease(vec![family("10.244.8.0/24", "192.168.0.72")]),
            lease(vec![
                family("10.244.36.0/24", "192.168.0.99"),
                family("fc00:0:0:36::/64", "fd00::99"),
            ]),
        ]);
        for (address, expected) in [
            ("10.244.8.1", Some(0)),
            ("10.244.36.1", Some(1)),
            ("fc00:0:0:36::1", Some(1)),
            ("fc00:0:0:8::1", None),
        ] {
            assert_eq!(table.find(address.parse().unwrap()).copied(), expected, "{address}");
        }
    }
}
