//! Caches the path MTU of peers for which it is below the device's MTU.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Time for which the kernel's answer is used. The kernel caches it for ten minutes
/// (`net.ipv4.route.mtu_expires`); asking again after this time detects a path that has become
/// wider.
const KEEP: Duration = Duration::from_secs(20);

/// The peers with a small path MTU. Usually there are none.
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
    /// Records the path MTU to an endpoint: the longest outer packet in bytes.
    pub(crate) fn learn(&mut self, endpoint: IpAddr, mtu: usize, now: Instant) {
        self.narrow.retain(|_, narrow| now < narrow.until);
        self.narrow.insert(endpoint, Narrow { mtu, until: now + KEEP });
    }

    /// Returns the longest UDP payload that reaches an endpoint, in bytes. `None` if no limit is
    /// known.
    pub(crate) fn payload(&self, endpoint: IpAddr, now: Instant) -> Option<usize> {
        if self.narrow.is_empty() {
            return None;
        }
        let narrow = self.narrow.get(&endpoint).filter(|narrow| now < narrow.until)?;
        Some(narrow.mtu.saturating_sub(outer_headers(endpoint)))
    }
}

/// Returns the size of the IP and UDP headers of a datagram to this address, in bytes.
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
    fn path_mtu_is_kept_for_a_while_for_one_peer() {
        let (mut mtus, now) = (PathMtus::default(), Instant::now());
        let (narrow, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        mtus.learn(narrow, 1400, now);
        assert_eq!(mtus.payload(narrow, now), Some(1372));
        assert_eq!(mtus.payload(other, now), None);
        assert_eq!(mtus.payload(narrow, now + KEEP), None);
    }

    #[test]
    fn outer_headers_match_endpoint_family() {
        assert_eq!(outer_headers("192.0.2.1".parse().unwrap()), 28);
        assert_eq!(outer_headers("2001:db8::1".parse().unwrap()), 48);
    }
}
