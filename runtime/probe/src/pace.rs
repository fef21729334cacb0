//! Which address is asked next, and when.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Bound;
use std::time::Duration;

/// The most requests a second. With more addresses than fit, each is asked less often.
pub const MOST: u32 = 1000;

/// Addresses that are asked one after the other, evenly over time.
#[derive(Clone, Debug)]
pub struct Round {
    interval: Duration,
    addresses: BTreeSet<IpAddr>,
    last: Option<IpAddr>,
}

impl Round {
    /// Each address once an interval, as far as [`MOST`] allows.
    pub fn new(interval: Duration) -> Self {
        Self { interval, addresses: BTreeSet::new(), last: None }
    }

    /// Asks these from now on, and goes on where it was.
    pub fn set(&mut self, addresses: BTreeSet<IpAddr>) {
        self.addresses = addresses;
    }

    /// How long to wait between two requests. None without an address.
    pub fn pause(&self) -> Option<Duration> {
        let count = u32::try_from(self.addresses.len()).unwrap_or(u32::MAX);
        let shortest = Duration::from_secs(1) / MOST;
        (count > 0).then(|| (self.interval / count).max(shortest))
    }

    /// Whose turn it is.
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
    fn each_has_its_turn_and_the_interval_is_shared() {
        let mut round = Round::new(Duration::from_secs(3));
        assert_eq!((round.pause(), round.turn()), (None, None));
        round.set(addresses(&[1, 2, 3]));
        assert_eq!(round.pause(), Some(Duration::from_secs(1)));
        let asked: Vec<_> = (0..4).filter_map(|_| round.turn()).collect();
        assert_eq!(asked, [1, 2, 3, 1].map(|last| IpAddr::from([10, 244, last, 0])));
    }

    #[test]
    fn it_goes_on_where_it_was_when_addresses_come_and_go() {
        let mut round = Round::new(Duration::from_secs(3));
        round.set(addresses(&[1, 3, 5]));
        round.turn();
        round.turn();
        round.set(addresses(&[1, 4]));
        assert_eq!(round.turn(), Some(IpAddr::from([10, 244, 4, 0])));
        assert_eq!(round.turn(), Some(IpAddr::from([10, 244, 1, 0])));
    }

    #[test]
    fn there_are_no_more_than_so_many_a_second() {
        let mut round = Round::new(Duration::from_secs(1));
        let many = (0..=255).flat_map(|a| (0..=255).map(move |b| IpAddr::from([10, a, b, 0])));
        round.set(many.collect());
        assert_eq!(round.pause(), Some(Duration::from_millis(1)));
    }
}
