//! What fits the way to a peer, where that is less than the device's MTU promises.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long the kernel's answer is used. It remembers for ten minutes itself (`net.ipv4.route.mtu_expires`); asked
/// again after this, a way that has got wider is noticed.
const KEEP: Duration = Duration::from_secs(20);

/// The peers behind a narrow way. Usually there are none.
#[derive(Debug, Default)]
pub(crate) struct PathMtus {
    narrow: HashMap<IpAddr, Narrow>,
}

#[derive(Debug)]
struct Narrow {
    mtu: usize,
    until: Instant,
}

impl PathMtus {
    /// Takes note of the longest outer packet that reaches an endpoint, in bytes.
    pub(crate) fn learn(&mut self, endpoint: IpAddr, mtu: usize, now: Instant) {
        self.narrow.retain(|_, narrow| now < narrow.until);
        self.narrow.insert(endpoint, Narrow { mtu, until: now + KEEP });
    }

    /// The longest UDP payload that reaches an endpoint, in bytes; none where no limit is known.
    pub(crate) fn payload(&self, endpoint: IpAddr, now: Instant) -> Option<usize> {
        if self.narrow.is_empty() {
            return None;
        }
        let narrow = self.narrow.get(&endpoint).filter(|narrow| now < narrow.until)?;
        Some(narrow.mtu.saturating_sub(outer_headers(endpoint)))
    }
}

/// IP and UDP header of a datagram to this address, in bytes.
pub(crate) fn outer_headers(endpoint: IpAddr) -> usize {
    const UDP: usize = 8;
    match endpoint {
        IpAddr::V4(_) => 20 + UDP,
        IpAddr::V6(_) => 40 + UDP,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_way_is_remembered_for_a_while_and_one_peer_alone() {
        let (mut mtus, now) = (PathMtus::default(), Instant::now());
        let (narrow, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        mtus.learn(narrow, 1400, now);
        assert_eq!(mtus.payload(narrow, now), Some(1372));
        assert_eq!(mtus.payload(other, now), None);
        assert_eq!(mtus.payload(narrow, now + KEEP), None);
    }

    #[test]
    fn the_outer_headers_are_those_of_the_endpoint_s_family() {
        assert_eq!(outer_headers("192.0.2.1".parse().unwrap()), 28);
        assert_eq!(outer_headers("2001:db8::1".parse().unwrap()), 48);
    }
}
