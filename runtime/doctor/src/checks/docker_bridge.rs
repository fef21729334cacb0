//! Checks that Docker's bridge is in this node's subnet.

use std::path::Path;

use heddle_core::address::Family;
use heddle_core::config::NetworkConfig;
use heddle_core::interface::Interface;
use heddle_core::lease::LeaseKey;
use heddle_core::text::list;
use ipnet::IpNet;

use crate::report::{Finding, Severity};

/// Docker's default bridge.
const BRIDGE: &str = "docker0";

/// Returns true if the interface is Docker's default bridge.
pub(crate) fn is_docker_s(interface: &Interface) -> bool {
    interface.name.as_str() == BRIDGE && interface.kind == "bridge"
}

/// Checks the bridge. A Docker that does not use the overlay is no problem; it does if its bridge
/// has an address in the overlay, or if there is an `instruction`, a file by which Docker takes its
/// options from Heddle.
pub(crate) fn check(
    interfaces: &[Interface],
    config: &NetworkConfig,
    subnets: Option<LeaseKey>,
    instruction: Option<&Path>,
) -> Option<Finding> {
    let bridge = interfaces.iter().find(|interface| is_docker_s(interface))?;
    let subnets = subnets?.subnets();
    let wrong = |family: Family| {
        let subnet = *subnets.get(family)?;
        let network = config.networks.get(family)?.network;
        let addresses = bridge.addresses.iter();
        let of_family: Vec<IpNet> =
            addresses.filter(|address| Family::of_network(**address) == family).copied().collect();
        // Docker uses an IPv6 subnet only if configured by means other than Heddle's options.
        let concerned = of_family.iter().any(|address| network.contains(&address.addr()))
            || (instruction.is_some() && family == Family::V4 && !of_family.is_empty());
        let right = of_family.iter().any(|address| subnet.contains(&address.addr()));
        (concerned && !right).then_some((of_family, subnet))
    };
    let (addresses, subnet) = [Family::V4, Family::V6].into_iter().find_map(wrong)?;
    let reason = match instruction {
        Some(file) => {
            format!(" (from which Docker takes its options, according to {})", file.display())
        }
        None => String::new(),
    };
    Some(Finding {
        check: "docker-bridge",
        severity: Severity::Error,
        problem: format!(
            "{BRIDGE} has {}, and this node's subnet is {subnet}{reason}",
            list(addresses)
        ),
        symptom: "Containers have addresses of another subnet, so other hosts cannot reach them".to_owned(),
        remedy: "Docker was started before heddled had this subnet, or with other options. Restart Docker, and then the \
                 containers, which otherwise keep their addresses:"
            .to_owned(),
        command: Some("systemctl restart docker".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;

    fn problem(kind: &str, addresses: &[&str], instruction: Option<&str>) -> Option<String> {
        let bridge = Interface { kind: kind.into(), ..interface("docker0", addresses) };
        let config = NetworkConfig::parse(br#"{"Network":"10.244.0.0/16"}"#).unwrap();
        check(&[bridge], &config, subnets(), instruction.map(Path::new))
            .map(|finding| finding.problem)
    }

    #[test]
    fn bridge_in_subnet_has_no_finding() {
        assert_eq!(problem("bridge", &["10.244.8.1/24"], Some("/x")), None);
        assert_eq!(problem("bridge", &["10.244.8.1/24", "fd00::1/64"], None), None);
    }

    #[test]
    fn bridge_in_earlier_subnet_is_stale() {
        assert_eq!(
            problem("bridge", &["10.244.7.1/24"], None).unwrap(),
            "docker0 has 10.244.7.1/24, and this node's subnet is 10.244.8.0/24"
        );
    }

    #[test]
    fn docker_default_network_is_wrong_only_with_instruction() {
        assert_eq!(problem("bridge", &["172.17.0.1/16"], None), None);
        assert_eq!(problem("bridge", &[], Some("/x")), None);
        assert_eq!(
            problem("bridge", &["172.17.0.1/16"], Some("/etc/d.conf")).unwrap(),
            "docker0 has 172.17.0.1/16, and this node's subnet is 10.244.8.0/24 (from which Docker takes \
             its options, according to /etc/d.conf)"
        );
    }

    #[test]
    fn non_bridge_interface_is_ignored() {
        assert_eq!(problem("dummy", &["10.244.7.1/24"], None), None);
    }
}
