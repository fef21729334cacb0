//! The order and the pace of requests.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Bound;
use std::time::Duration;

/// Rate limit in requests per second. With more addresses than that allows, each is probed less
/// often.
pub const MOST: u32 = 1000;

/// Round robin over the addresses, evenly spread over the interval.
#[derive(Clone, Debug)]
pub struct Round {
    interval: Duration,
    addresses: BTreeSet<IpAddr>,
    last: Option<IpAddr>,
}

impl Round {
    /// Creates a round that probes each address once per interval, or less often if [`MOST`]
    /// requires it.
    pub fn new(interval: Duration) -> Self {
        Self { interval, addresses: BTreeSet::new(), last: None }
    }

    /// Replaces the addresses, and continues after the last one probed.
    pub fn set(&mut self, addresses: BTreeSet<IpAddr>) {
        self.addresses = addresses;
    }

    /// Returns the pause between two requests. None without an address.
    pub fn pause(&self) -> Option<Duration> {
        let count = u32::try_from(self.addresses.len()).unwrap_or(u32::MAX);
        let shortest = Duration::from_secs(1) / MOST;
        (count > 0).then(|| (self.interval / count).max(shortest))
    }

    /// Returns the next address to probe.
    pub fn turn(&mut self) -> Option<IpAddr> {
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.addresses.range((after, Bound::Unbounded)).next();
        self.last = next.or_else(|| self.addresses.first()).copied();
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(last: &[u8]) -> BTreeSet<IpAddr> {
        last.iter().map(|last| IpAddr::from([10, 244, *last, 0])).collect()
    }

    #[test]
    fn addresses_take_turns_and_share_the_interval() {
        let mut round = Round::new(Duration::from_secs(3));
        assert_eq!((round.pause(), round.turn()), (None, None));
        round.set(addresses(&[1, 2, 3]));
        assert_eq!(round.pause(), Some(Duration::from_secs(1)));
        let asked: Vec<_> = (0..4).filter_map(|_| round.turn()).collect();
        assert_eq!(asked, [1, 2, 3, 1].map(|last| IpAddr::from([10, 244, last, 0])));
    }

    #[test]
    fn round_continues_after_addresses_change() {
        let mut round = Round::new(Duration::from_secs(3));
        round.set(addresses(&[1, 3, 5]));
        round.turn();
        round.turn();
        round.set(addresses(&[1, 4]));
        assert_eq!(round.turn(), Some(IpAddr::from([10, 244, 4, 0])));
        assert_eq!(round.turn(), Some(IpAddr::from([10, 244, 1, 0])));
    }

    #[test]
    fn request_rate_is_limited() {
        let mut round = Round::new(Duration::from_secs(1));
        let many = (0..=255).flat_map(|a| (0..=255).map(move |b| IpAddr::from([10, a, b, 0])));
        round.set(many.collect());
        assert_eq!(round.pause(), Some(Duration::from_millis(1)));
    }
}
