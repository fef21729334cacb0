//! The subnet that a node had before, as the file remembers it that flannel and Heddle leave for Docker.
//!
//! The file is written by an emitter; only these two keys of it are ever read back
//! (`ReadCIDRFromSubnetFile` in flannel's `main.go`).

use ipnet::{Ipv4Net, Ipv6Net};

use crate::lease::LeaseKey;

/// Finds the subnets in the text of a subnet.env.
///
/// `FLANNEL_SUBNET` carries an address of the subnet, not its first. None if there are no such lines, as when
/// `mk-docker-opts.sh` has written its own into the same file.
pub fn previous_subnets(text: &str) -> Option<LeaseKey> {
    let value = |key: &str| {
        let lines = text.lines().filter_map(|line| line.trim().split_once('='));
        lines.filter(|(name, _)| *name == key).map(|(_, value)| value.trim_matches('"')).next_back()
    };
    let v4: Option<Ipv4Net> = value("FLANNEL_SUBNET").and_then(|text| text.parse().ok());
    let v6: Option<Ipv6Net> = value("FLANNEL_IPV6_SUBNET").and_then(|text| text.parse().ok());
    LeaseKey::new(v4, v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subnets_are_found_by_their_first_usable_address() {
        let text = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.8.1/24\n\
                    FLANNEL_IPV6_SUBNET=2001:cafe:42:8::1/64\nFLANNEL_MTU=1450\n";
        assert_eq!(
            previous_subnets(text).unwrap().to_string(),
            "10.244.8.0-24&2001:cafe:42:8::-64"
        );
    }

    #[test]
    fn other_files_hold_none() {
        for text in
            ["", "DOCKER_OPT_MTU=\"--mtu=1450\"\n", "FLANNEL_SUBNET=10.244.8.1\n", "\0\u{1}="]
        {
            assert_eq!(previous_subnets(text), None);
        }
    }
}
