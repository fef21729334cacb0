//! Names of our chains and tables, distinct for every daemon of a host.

use std::fmt::Write as _;

use heddle_core::address::Family;
use sha2::{Digest, Sha256};

use crate::rule::Purpose;

/// The network whose chains have flannel's names: flannel's default for `--etcd-prefix`.
const DEFAULT_NETWORK: &str = "/coreos.com/network";

/// The names that one daemon uses.
///
/// The daemon of [`DEFAULT_NETWORK`] uses flannel's names and so takes over from flannel in place.
/// Any other daemon appends a suffix to these names. The suffix depends only on the name of its
/// network, so that a restart finds the same names again. The longest name is `FLANNEL-POSTRTG-`
/// and eight digits, 24 bytes of the 28 that iptables allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    suffix: String,
}

impl Names {
    pub(crate) fn new(network_name: &str) -> Self {
        let mut suffix = String::new();
        if network_name != DEFAULT_NETWORK {
            suffix.push('-');
            for byte in &Sha256::digest(network_name)[..4] {
                // Writing to a string cannot fail.
                let _ = write!(suffix, "{byte:02x}");
            }
        }
        Self { suffix }
    }

    /// Returns the name of an iptables chain.
    pub(crate) fn chain(&self, purpose: Purpose) -> String {
        let name = match purpose {
            Purpose::Masquerade => "FLANNEL-POSTRTG",
            Purpose::Forward => "FLANNEL-FWD",
        };
        format!("{name}{}", self.suffix)
    }

    /// Returns the name of an nftables table (`pkg/trafficmngr/nftables/nftables.go` of flannel).
    pub(crate) fn table(&self, family: Family) -> String {
        let name = match family {
            Family::V4 => "flannel-ipv4",
            Family::V6 => "flannel-ipv6",
        };
        format!("{name}{}", self.suffix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_network_has_flannels_names() {
        let names = Names::new("/coreos.com/network");
        assert_eq!(names.chain(Purpose::Masquerade), "FLANNEL-POSTRTG");
        assert_eq!(names.chain(Purpose::Forward), "FLANNEL-FWD");
        assert_eq!(names.table(Family::V4), "flannel-ipv4");
        assert_eq!(names.table(Family::V6), "flannel-ipv6");
    }

    #[test]
    fn other_networks_have_own_names_within_iptables_limit() {
        let (blue, red) = (Names::new("/blue"), Names::new("/red"));
        for purpose in Purpose::ALL {
            assert_ne!(blue.chain(purpose), red.chain(purpose));
            assert_ne!(blue.chain(purpose), Names::new(DEFAULT_NETWORK).chain(purpose));
            assert!(blue.chain(purpose).len() <= 28);
        }
        assert_ne!(blue.table(Family::V4), red.table(Family::V4));
    }

    #[test]
    fn names_are_stable_across_versions() {
        assert_eq!(Names::new("/blue").chain(Purpose::Forward), "FLANNEL-FWD-5ac5f721");
    }
}
