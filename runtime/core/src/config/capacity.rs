//! Number of nodes and containers that a network config has room for.

use std::fmt;

use crate::address::{Family, number};

use super::OverlayNetwork;

/// The room in one family's overlay network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Number of subnets that nodes may have.
    pub subnets: u128,
    /// Number of addresses in each for a bridge and its containers.
    pub addresses: u128,
}

impl OverlayNetwork {
    /// Returns the network's capacity: the subnets from the first to the last, and the addresses in
    /// each without the first, which the node's device has, and without IPv4's broadcast address.
    pub fn capacity(&self) -> Capacity {
        let family = Family::of_network(self.network);
        let size = 1_u128 << (family.bits() - self.subnet_length);
        let subnets = (number(self.subnet_max) - number(self.subnet_min)) / size + 1;
        let addresses = match family {
            Family::V4 => size - 2,
            Family::V6 => size - 1,
        };
        Capacity { subnets, addresses }
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subnets, addresses } = *self;
        let plural = if subnets == 1 { "" } else { "s" };
        write!(f, "{} subnet{plural} of {} addresses", Count(subnets), Count(addresses))
    }
}

/// A number for people: `65,535`, and `2^64` from a billion on.
struct Count(u128);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One address more or less does not matter there.
        if self.0 >= 1_000_000_000 {
            return write!(f, "2^{}", (self.0 + 1).ilog2());
        }
        let digits = self.0.to_string();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}
