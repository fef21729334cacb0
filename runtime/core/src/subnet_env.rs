//! The subnet of a previous run, as recorded in the subnet.env file that flannel and Heddle write
//! for Docker.
//!
//! The file is written by an emitter; only these keys of it are ever read back. flannel reads those
//! of the subnet (`ReadCIDRFromSubnetFile` in its `main.go`), and those of the network for its
//! rules.

use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::family::PerFamily;
use crate::lease::LeaseKey;

/// Parses the subnets recorded in a subnet.env.
///
/// `FLANNEL_SUBNET` holds an address of the subnet, not the first one. Returns None if the lines
/// are missing, as when `mk-docker-opts.sh` has written its own into the same file.
pub fn previous_subnets(text: &str) -> Option<LeaseKey> {
    LeaseKey::new(networks(text, "FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"))
}

/// Parses the overlay networks recorded in a subnet.env, without host bits.
pub fn previous_networks(text: &str) -> PerFamily<IpNet> {
    networks(text, "FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK").map(|network| network.trunc())
}

/// Returns the networks that the last lines of these keys have.
fn networks(text: &str, v4: &str, v6: &str) -> PerFamily<IpNet> {
    let v4 = value::<Ipv4Net>(text, v4).map(IpNet::V4);
    PerFamily { v4, v6: value::<Ipv6Net>(text, v6).map(IpNet::V6) }
}

/// Returns the value of the last line that sets a key.
fn value<T: FromStr>(text: &str, key: &str) -> Option<T> {
    let lines = text.lines().filter_map(|line| line.trim().split_once('='));
    let value = lines.filter(|(name, _)| *name == key).map(|(_, value)| value).next_back()?;
    value.trim_matches('"').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn previous_subnets_are_parsed_without_host_bits() {
        let text = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.8.1/24\n\
                    FLANNEL_IPV6_SUBNET=2001:cafe:42:8::1/64\nFLANNEL_MTU=1450\n";
        assert_eq!(
            previous_subnets(text).unwrap().to_string(),
            "10.244.8.0-24&2001:cafe:42:8::-64"
        );
    }

    #[test]
    fn previous_networks_are_parsed_per_family() {
        let networks =
            |text| previous_networks(text).iter().map(ToString::to_string).collect::<Vec<_>>();
        let v4 = "FLANNEL_NETWORK=10.244.0.1/16\nFLANNEL_SUBNET=10.244.8.1/24\n";
        assert_eq!(networks(v4), ["10.244.0.0/16"]);
        let dual = format!("{v4}FLANNEL_IPV6_NETWORK=\"2001:cafe:42::/56\"\n");
        assert_eq!(networks(&dual), ["10.244.0.0/16", "2001:cafe:42::/56"]);
        assert_eq!(networks("FLANNEL_NETWORK=2001:cafe:42::/56\n"), [""; 0]);
    }

    #[test]
    fn unrelated_files_yield_nothing() {
        for text in
            ["", "DOCKER_OPT_MTU=\"--mtu=1450\"\n", "FLANNEL_SUBNET=10.244.8.1\n", "\0\u{1}="]
        {
            assert_eq!(previous_subnets(text), None);
            assert!(previous_networks(text).is_empty());
        }
    }
}
