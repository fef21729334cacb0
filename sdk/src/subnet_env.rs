//! flannel's `subnet.env`, from which Docker, the CNI plugin and users' scripts learn the node's
//! subnet (`WriteSubnetFile` in flannel's `pkg/subnet/subnet.go`).

use std::fmt::{Display, Write};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::{Family, View};

/// Returns the file's content. A family has lines only if it is enabled.
///
/// ```text
/// FLANNEL_NETWORK=10.244.0.0/16
/// FLANNEL_SUBNET=10.244.8.1/24
/// FLANNEL_IPV6_NETWORK=2001:cafe:42::/56
/// FLANNEL_IPV6_SUBNET=2001:cafe:42::1/64
/// FLANNEL_MTU=1450
/// FLANNEL_IPMASQ=true
/// ```
///
/// # Errors
///
/// If the lease has no subnet in one of the config's networks.
pub fn text(view: &View) -> Result<String, String> {
    let mut text = String::new();
    for overlay in &view.config.networks {
        let family = Family::of_network(overlay.network);
        let subnet = match view.lease.family(family) {
            Some(part) => part.subnet,
            None => return Err(format!("the lease has no subnet in {}", overlay.network)),
        };
        let prefix = match family {
            Family::V4 => "FLANNEL_",
            Family::V6 => "FLANNEL_IPV6_",
        };
        line(&mut text, prefix, "NETWORK", overlay.network);
        line(&mut text, prefix, "SUBNET", bridge_address(subnet));
    }
    line(&mut text, "FLANNEL_", "MTU", view.mtu);
    line(&mut text, "FLANNEL_", "IPMASQ", view.ip_masq);
    Ok(text)
}

fn line(text: &mut String, prefix: &str, name: &str, value: impl Display) {
    writeln!(text, "{prefix}{name}={value}").expect("a string takes everything");
}

/// Returns the first usable address of a node's subnet, with the subnet's prefix length. It is that
/// of the bridge: `10.244.8.1/24`.
pub fn bridge_address(subnet: IpNet) -> IpNet {
    let first = match subnet.network() {
        IpAddr::V4(address) => IpAddr::V4((u32::from(address) + 1).into()),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) + 1).into()),
    };
    IpNet::new(first, subnet.prefix_len()).expect("the length is that of the subnet")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Lease, LeaseFamily, NetworkConfig, OverlayNetwork};

    const V4: (&str, &str) = ("10.244.0.0/16", "10.244.8.0/24");
    const V6: (&str, &str) = ("2001:cafe:42::/56", "2001:cafe:42::/64");

    fn view(networks: &[&str], subnets: &[&str]) -> View {
        let network = |network: &&str| OverlayNetwork {
            network: network.parse().unwrap(),
            subnet_length: 24,
        };
        let family = |subnet: &&str| LeaseFamily {
            subnet: subnet.parse().unwrap(),
            public_address: "192.168.0.72".parse().unwrap(),
            backend_data: None,
        };
        View {
            config: NetworkConfig {
                networks: networks.iter().map(network).collect(),
                backend: "{}".into(),
            },
            lease: Lease { families: subnets.iter().map(family).collect(), backend_type: None },
            mtu: 1450,
            ip_masq: true,
        }
    }

    #[test]
    fn both_families_are_written_like_flannel() {
        assert_eq!(
            text(&view(&[V4.0, V6.0], &[V4.1, V6.1])).unwrap(),
            "FLANNEL_NETWORK=10.244.0.0/16\n\
             FLANNEL_SUBNET=10.244.8.1/24\n\
             FLANNEL_IPV6_NETWORK=2001:cafe:42::/56\n\
             FLANNEL_IPV6_SUBNET=2001:cafe:42::1/64\n\
             FLANNEL_MTU=1450\n\
             FLANNEL_IPMASQ=true\n"
        );
    }

    #[test]
    fn disabled_family_has_no_line() {
        assert!(!text(&view(&[V4.0], &[V4.1])).unwrap().contains("IPV6"));
        let only_v6 = text(&view(&[V6.0], &[V6.1])).unwrap();
        assert!(only_v6.starts_with("FLANNEL_IPV6_NETWORK="), "{only_v6}");
    }

    #[test]
    fn lease_without_a_family_is_an_error() {
        let error = text(&view(&[V4.0, V6.0], &[V4.1])).unwrap_err();
        assert_eq!(error, "the lease has no subnet in 2001:cafe:42::/56");
    }
}
