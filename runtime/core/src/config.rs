//! The network config: the JSON object at `<prefix>/config`.
//!
//! The rules and defaults are flannel's (`pkg/subnet/config.go`), with one difference: without a
//! `Backend`, flannel's documentation says vxlan and its code says udp; Heddle follows the
//! documentation.

mod capacity;
mod check;
mod error;
mod keys;
mod members;
mod ranges;
mod superseded;
#[cfg(test)]
mod tests;
mod warning;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::address::{Family, number};
use crate::family::{InFamily, PerFamily};

pub use capacity::Capacity;
pub use error::{ConfigError, ConfigErrors};
pub use keys::KEYS;
pub use superseded::{KeyChange, Superseded};
pub use warning::ConfigWarning;

use check::{backend, flag, read_overlay};
use error::{Errors, broken};
use keys::{ENABLE_NFTABLES, ENABLE_V4, ENABLE_V6, V4, V6};
use members::members;

/// Backend used if the config names none.
pub const DEFAULT_BACKEND: &str = "vxlan";

/// Length limit of the network config in bytes.
pub const CONFIG_LIMIT: usize = 64 << 10;

/// The cluster's network: its address ranges and its backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// The overlay networks of the enabled families. Never empty.
    pub networks: PerFamily<OverlayNetwork>,
    /// True if traffic rules go through nftables instead of iptables (`EnableNFTables`).
    pub nftables: bool,
    /// The backend that connects the nodes.
    pub backend: BackendConfig,
}

/// The overlay network of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlayNetwork {
    /// The whole network.
    pub network: IpNet,
    /// The length of a node's subnet, in bits.
    pub subnet_length: u8,
    /// The first subnet that may be allocated to a node.
    pub subnet_min: IpAddr,
    /// The last subnet that may be allocated to a node.
    pub subnet_max: IpAddr,
}

/// The `Backend` object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendConfig {
    /// `Type`: the name of a plugin, in lower case.
    pub kind: String,
    /// The whole object as JSON text, which is passed to the plugin. Its `Type` is in lower case.
    pub json: String,
}

impl NetworkConfig {
    /// Parses the value of `<prefix>/config`.
    ///
    /// # Errors
    ///
    /// Every error found, each with its key and the rule.
    pub fn parse(text: &[u8]) -> Result<Self, ConfigErrors> {
        let members = members(text)?;
        let mut errors = Errors::default();
        let v4 = flag(ENABLE_V4, true, &members, &mut errors);
        let v6 = flag(ENABLE_V6, false, &members, &mut errors);
        if !v4 && !v6 && errors.0.is_empty() {
            errors.add(broken(ENABLE_V4, false, "`EnableIPv4` or `EnableIPv6` must be true"));
        }
        let mut networks = PerFamily::NONE;
        if v4 {
            networks.v4 = read_overlay::<Ipv4Net, Ipv4Addr>(&V4, &members, &mut errors);
        }
        if v6 {
            networks.v6 = read_overlay::<Ipv6Net, Ipv6Addr>(&V6, &members, &mut errors);
        }
        let nftables = flag(ENABLE_NFTABLES, false, &members, &mut errors);
        match errors.note(backend(&members)) {
            Some(backend) if errors.0.is_empty() => Ok(Self { networks, nftables, backend }),
            _ => Err(ConfigErrors(errors.0)),
        }
    }
}

impl InFamily for OverlayNetwork {
    fn family(&self) -> Family {
        self.network.family()
    }
}

impl OverlayNetwork {
    /// Returns true if a node may have this subnet: it has the right length and lies between the
    /// first and the last.
    pub fn fits(&self, subnet: IpNet) -> bool {
        subnet.prefix_len() == self.subnet_length
            && self.network.contains(&subnet)
            && (self.subnet_min..=self.subnet_max).contains(&subnet.network())
    }

    /// Returns the first and the last address that nodes may have, if `SubnetMin` or `SubnetMax`
    /// restricts them to a part of the network.
    pub fn reserved_range(&self) -> Option<(IpAddr, IpAddr)> {
        let bits = Family::of_network(self.network).bits();
        let size = 1_u128 << (bits - self.subnet_length);
        let (first, last) = (number(self.network.network()), number(self.network.broadcast()));
        let (min, max) = (number(self.subnet_min), number(self.subnet_max));
        let is_usual = min <= first.saturating_add(size) && max >= last - (size - 1);
        let end = IpNet::new(self.subnet_max, self.subnet_length).ok()?.broadcast();
        (!is_usual).then_some((self.subnet_min, end))
    }
}

/// Returns the first address of the `index`th subnet of a network.
pub(crate) fn subnet_at(network: IpNet, length: u8, index: u128) -> IpAddr {
    match network {
        IpNet::V4(network) => {
            let offset = u32::try_from(index << (32 - length)).unwrap_or(u32::MAX);
            Ipv4Addr::from(u32::from(network.network()).saturating_add(offset)).into()
        }
        IpNet::V6(network) => {
            let offset = index << (128 - length);
            Ipv6Addr::from(u128::from(network.network()).saturating_add(offset)).into()
        }
    }
}
