//! Address ranges in which an overlay does not work, or not everywhere.

use std::fmt;

use ipnet::IpNet;

/// A range with a special meaning (RFC 6890).
pub(super) struct Range {
    network: &'static str,
    meaning: &'static str,
    /// False if no packet to such an address ever leaves a host, or is forwarded by one.
    works: bool,
}

const RANGES: [Range; 9] = [
    Range { network: "127.0.0.0/8", meaning: "loopback", works: false },
    Range { network: "224.0.0.0/4", meaning: "multicast", works: false },
    Range { network: "0.0.0.0/8", meaning: "\"this network\", RFC 1122", works: true },
    Range { network: "169.254.0.0/16", meaning: "link-local, RFC 3927", works: true },
    Range { network: "240.0.0.0/4", meaning: "reserved, RFC 1112", works: true },
    Range { network: "::1/128", meaning: "loopback", works: false },
    Range { network: "fe80::/10", meaning: "link-local, which no host forwards", works: false },
    Range { network: "ff00::/8", meaning: "multicast", works: false },
    Range { network: "::ffff:0:0/96", meaning: "IPv4-mapped, RFC 4291", works: true },
];

impl Range {
    fn network(&self) -> IpNet {
        self.network.parse().expect("the range is a constant")
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.network, self.meaning)
    }
}

/// Returns the range in which no subnet of this network can work.
pub(super) fn unusable(network: IpNet) -> Option<&'static Range> {
    RANGES.iter().find(|range| !range.works && range.network().contains(&network))
}

/// Returns the ranges that overlap one of these networks.
pub(super) fn overlapping(networks: &[IpNet]) -> Vec<&'static Range> {
    let overlaps = |range: &&Range| {
        let range = range.network();
        networks.iter().any(|network| network.contains(&range) || range.contains(network))
    };
    RANGES.iter().filter(overlaps).collect()
}
