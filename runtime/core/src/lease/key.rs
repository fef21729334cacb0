//! Keys of leases.

use std::fmt;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::family::PerFamily;
use crate::text::{LONGEST, one_line};

/// The key of a lease: the subnets of one node.
///
/// As text `10.244.8.0-24`, dual stack `10.244.8.0-24&fc00:0:0:8::-64`, and IPv6 alone
/// `0.0.0.0-0&fc00:0:0:8::-64`, because flannel writes an empty IPv4 network in that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey {
    // Unlike a `PerFamily<IpNet>`, these cannot hold a network of the other family, which would
    // print as another key.
    pub(super) v4: Option<Ipv4Net>,
    pub(super) v6: Option<Ipv6Net>,
}

impl LeaseKey {
    /// The smallest key: sorts before all others.
    pub(crate) const FIRST: Self = Self { v4: None, v6: None };

    /// Returns the key for these subnets; None without any subnet.
    ///
    /// Host bits are truncated. An IPv4 network of length 0 counts as none, because the text form
    /// uses it for IPv6-only keys.
    pub fn new(subnets: PerFamily<IpNet>) -> Option<Self> {
        let v4 = match subnets.v4 {
            Some(IpNet::V4(network)) if network.prefix_len() > 0 => Some(network.trunc()),
            _ => None,
        };
        let v6 = match subnets.v6 {
            Some(IpNet::V6(network)) => Some(network.trunc()),
            _ => None,
        };
        (v4.is_some() || v6.is_some()).then_some(Self { v4, v6 })
    }

    /// Returns the subnets.
    pub fn subnets(&self) -> PerFamily<IpNet> {
        PerFamily { v4: self.v4.map(IpNet::V4), v6: self.v6.map(IpNet::V6) }
    }
}

impl fmt::Display for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.v4 {
            Some(v4) => write!(f, "{}-{}", v4.addr(), v4.prefix_len())?,
            None => f.write_str("0.0.0.0-0")?,
        }
        match self.v6 {
            Some(v6) => write!(f, "&{}-{}", v6.addr(), v6.prefix_len()),
            None => Ok(()),
        }
    }
}

/// A text below `<prefix>/subnets/` that is not a lease key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a lease key: expected `10.244.8.0-24` or `10.244.8.0-24&fc00:0:0:8::-64`")]
pub struct InvalidLeaseKey(pub String);

impl FromStr for LeaseKey {
    type Err = InvalidLeaseKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        fn network<A: FromStr, N>(text: &str, new: impl Fn(A, u8) -> Option<N>) -> Option<N> {
            let (address, length) = text.rsplit_once('-')?;
            new(address.parse().ok()?, length.parse().ok()?)
        }
        let parse = || {
            let (first, second) = match text.split_once('&') {
                Some((first, second)) => (first, Some(second)),
                None => (text, None),
            };
            let v4 = network(first, |a, l| Ipv4Net::new(a, l).ok())?;
            let v6 = match second {
                Some(second) => Some(network(second, |a, l| Ipv6Net::new(a, l).ok())?),
                None => None,
            };
            Self::new(PerFamily { v4: Some(v4.into()), v6: v6.map(IpNet::V6) })
        };
        // Two spellings of one key would be two records of one peer.
        let canonical = |key: &Self| key.to_string() == text;
        parse().filter(canonical).ok_or_else(|| InvalidLeaseKey(one_line(text, LONGEST)))
    }
}
