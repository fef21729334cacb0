//! Whether Docker's bridge is in this node's subnet.

use std::path::Path;

use heddle_core::address::Family;
use heddle_core::config::NetworkConfig;
use heddle_core::interface::Interface;
use heddle_core::lease::LeaseKey;
use ipnet::IpNet;

use super::list;
use crate::report::{Finding, Severity};

/// Docker's default bridge.
const BRIDGE: &str = "docker0";

/// Whether the interface is it.
pub(crate) fn is_docker_s(interface: &Interface) -> bool {
    interface.name.as_str() == BRIDGE && interface.kind == "bridge"
}

/// A Docker that has nothing to do with the overlay is no fault: its bridge has an address in the overlay, or
/// `instruction`, a file that tells it to take its options from Heddle, shows that it has.
pub(crate) fn check(
    interfaces: &[Interface],
    config: &NetworkConfig,
    subnets: Option<LeaseKey>,
    instruction: Option<&Path>,
) -> Option<Finding> {
    let bridge = interfaces.iter().find(|interface| is_docker_s(interface))?;
    let subnets = subnets?;
    let wrong = |family: Family| {
        let subnet = subnets.subnet(family)?;
        let network = config.network(family)?.network;
        let addresses = bridge.addresses.iter();
        let of_family: Vec<IpNet> =
            addresses.filter(|address| Family::of_network(**address) == family).copied().collect();
        // Docker takes an IPv6 subnet only if it is told to, by other means than those that Heddle has.
        let concerned = of_family.iter().any(|address| network.contains(&address.addr()))
            || (instruction.is_some() && family == Family::V4 && !of_family.is_empty());
        let right = of_family.iter().any(|address| subnet.contains(&address.addr()));
        (concerned && !right).then_some((of_family, subnet))
    };
    let (addresses, subnet) = [Family::V4, Family::V6].into_iter().find_map(wrong)?;
    let reason = match instruction {
        Some(file) => format!(" (Docker is to take it from Heddle, by {})", file.display()),
        None => String::new(),
    };
    Some(Finding {
        check: "docker-bridge",
        severity: Severity::Error,
        problem: format!(
            "{BRIDGE} has {}, and this node's subnet is {subnet}{reason}",
            list(addresses)
        ),
        symptom: "Containers have addresses of another subnet: nobody on other hosts reaches them".to_owned(),
        remedy: "Docker was started before heddled had this subnet, or with other options. Start it again; containers \
                 started before keep their addresses until they are started again, too."
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
    fn a_bridge_in_the_subnet_is_right() {
        assert_eq!(problem("bridge", &["10.244.8.1/24"], Some("/x")), None);
        assert_eq!(problem("bridge", &["10.244.8.1/24", "fd00::1/64"], None), None);
    }

    #[test]
    fn a_bridge_of_an_earlier_subnet_is_stale() {
        assert_eq!(
            problem("bridge", &["10.244.7.1/24"], None).unwrap(),
            "docker0 has 10.244.7.1/24, and this node's subnet is 10.244.8.0/24"
        );
    }

    #[test]
    fn docker_s_own_network_is_wrong_only_if_docker_is_to_use_ours() {
        assert_eq!(problem("bridge", &["172.17.0.1/16"], None), None);
        assert_eq!(problem("bridge", &[], Some("/x")), None);
        assert_eq!(
            problem("bridge", &["172.17.0.1/16"], Some("/etc/d.conf")).unwrap(),
            "docker0 has 172.17.0.1/16, and this node's subnet is 10.244.8.0/24 (Docker is to take it from Heddle, by \
             /etc/d.conf)"
        );
    }

    #[test]
    fn what_is_no_bridge_is_not_docker_s() {
        assert_eq!(problem("dummy", &["10.244.7.1/24"], None), None);
    }
}
