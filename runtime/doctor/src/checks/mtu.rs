//! Checks that packets that fit into one device fit into the next.

use heddle_core::address::{Family, LinkName};
use heddle_core::interface::Interface;
use heddle_core::lease::LeaseKey;
use heddle_core::node::Underlay;
use heddle_kernel::HostLink;
use heddle_plugin::NodePlan;

use super::planned_vxlans;
use crate::report::{Finding, Severity};

const CHECK: &str = "mtu";

const LARGE: &str = "small packets arrive, and large ones are dropped or fragmented: ping works, but transfers hang";

/// Checks from the underlay up: the overlay devices as planned and as they exist, then the ports of
/// the bridges that have an address in this node's subnet.
pub(crate) fn check(
    plan: &NodePlan,
    underlay: &Underlay,
    interfaces: &[Interface],
    links: &[HostLink],
    subnets: Option<LeaseKey>,
) -> Vec<Finding> {
    let too_big = planned_vxlans(plan).filter_map(|(link, vxlan)| {
        let outer = link.mtu + overhead(Family::of(vxlan.local));
        (outer > underlay.mtu).then(|| overlay(link.name, link.mtu, outer, underlay))
    });
    let outdated = plan.plan.links().filter_map(|planned| {
        let link = links.iter().find(|link| link.name == planned.name)?;
        let larger = link.kind == planned.kind.name() && link.mtu > planned.mtu;
        larger.then(|| left_behind(link, planned.mtu, underlay))
    });
    let bridges: Vec<_> = interfaces
        .iter()
        .filter(|interface| interface.kind == "bridge" && has_address_in(interface, subnets))
        .map(|interface| interface.name)
        .collect();
    let ports = links.iter().filter(|link| {
        link.mtu > plan.mtu && link.master.is_some_and(|master| bridges.contains(&master))
    });
    let mut narrower = std::collections::BTreeMap::<LinkName, Vec<&HostLink>>::new();
    for port in ports {
        narrower.entry(port.master.unwrap_or(port.name)).or_default().push(port);
    }
    let on_bridges = narrower.iter().map(|(bridge, ports)| containers(*bridge, ports, plan.mtu));
    too_big.chain(outdated).chain(on_bridges).collect()
}

/// Returns the overhead of VXLAN on an Ethernet frame's payload, in bytes: IP, UDP and VXLAN
/// headers, and the inner Ethernet header (RFC 7348).
fn overhead(family: Family) -> u32 {
    let ip = match family {
        Family::V4 => 20,
        Family::V6 => 40,
    };
    ip + 8 + 8 + 14
}

fn has_address_in(interface: &Interface, subnets: Option<LeaseKey>) -> bool {
    let mut subnets = subnets.iter().flat_map(LeaseKey::subnets);
    subnets.any(|subnet| interface.addresses.iter().any(|address| subnet.contains(&address.addr())))
}

fn overlay(device: LinkName, mtu: u32, outer: u32, underlay: &Underlay) -> Finding {
    let most = underlay.mtu - (outer - mtu);
    Finding {
        check: CHECK,
        severity: Severity::Error,
        problem: format!(
            "{device} would have an MTU of {mtu}, which needs packets of {outer} bytes; {} carries {}",
            underlay.link, underlay.mtu
        ),
        symptom: format!(
            "The kernel refuses the device, and heddled does not become ready; if {device} exists already, {LARGE}"
        ),
        remedy: format!(
            "Remove `MTU` from `Backend` or set it to {} at most (which gives {device} {most}), or raise the MTU of {} and \
             of everything between the hosts:",
            underlay.mtu, underlay.link
        ),
        command: Some(format!("ip link set {} mtu {outer}", underlay.link)),
    }
}

fn left_behind(link: &HostLink, right: u32, underlay: &Underlay) -> Finding {
    Finding {
        check: CHECK,
        severity: Severity::Error,
        problem: format!(
            "{} has an MTU of {}; the current MTU of {} and the network config require {right}",
            link.name, link.mtu, underlay.link
        ),
        symptom: LARGE.to_owned(),
        remedy: format!(
            "Restore the MTU of {} if it has changed by mistake; otherwise restart heddled, Docker and the containers, which \
             then use the new one:",
            underlay.link
        ),
        command: Some("systemctl restart heddled docker".to_owned()),
    }
}

fn containers(bridge: LinkName, ports: &[&HostLink], mtu: u32) -> Finding {
    let largest =
        ports.iter().max_by_key(|port| port.mtu).map_or((bridge, mtu), |p| (p.name, p.mtu));
    let (port, found) = largest;
    let count = ports.len();
    Finding {
        check: CHECK,
        severity: Severity::Warning,
        problem: format!(
            "containers on {bridge} have a larger MTU than the overlay's {mtu} ({count} in total, such as the one behind \
             {port} with {found})"
        ),
        symptom: "Transfers to other hosts start slowly, or hang where something filters ICMP"
            .to_owned(),
        remedy: format!(
            "Start Docker with --mtu={mtu}, which is in heddled's files (for CNI: `mtu` in the bridge's configuration), and \
             then restart the containers."
        ),
        command: (bridge.as_str() == "docker0").then(|| "systemctl restart docker".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;

    fn problems(plan: &NodePlan, interfaces: &[Interface], links: &[HostLink]) -> Vec<String> {
        let found = check(plan, &underlay(), interfaces, links, subnets());
        found.into_iter().map(|finding| finding.problem).collect()
    }

    #[test]
    fn outer_packet_larger_than_underlay_is_reported() {
        assert_eq!(problems(&vxlan_plan(1450), &[], &[]), [""; 0]);
        let found = check(&vxlan_plan(1451), &underlay(), &[], &[], None);
        assert_eq!(
            found[0].problem,
            "flannel.1 would have an MTU of 1451, which needs packets of 1501 bytes; eth0 carries 1500"
        );
        assert!(found[0].remedy.contains("1500 at most (which gives flannel.1 1450)"));
        assert_eq!(problems(&tunnel_plan(), &[], &[]), [""; 0]);
    }

    #[test]
    fn device_mtu_above_plan_is_reported() {
        let device = |mtu| HostLink { mtu, ..vxlan_link("flannel.1", 1, 8472) };
        let problems = |mtu| problems(&vxlan_plan(1350), &[], &[device(mtu)]);
        assert_eq!(problems(1350), [""; 0]);
        // A smaller MTU is no problem: heddled raises it, and no packet is lost until then.
        assert_eq!(problems(1300), [""; 0]);
        let expected = "flannel.1 has an MTU of 1450; the current MTU of eth0 and the network config require 1350";
        assert_eq!(problems(1450), [expected]);
    }

    #[test]
    fn container_mtu_above_overlay_is_reported() {
        let bridge =
            |address| Interface { kind: "bridge".into(), ..interface("docker0", &[address]) };
        let port = |mtu| HostLink { mtu, master: Some(name("docker0")), ..link("veth7") };
        let problems = |address, mtu| {
            problems(&vxlan_plan(1450), &[bridge(address)], &[link("docker0"), port(mtu)])
        };
        assert_eq!(problems("10.244.8.1/24", 1450), [""; 0]);
        assert_eq!(
            problems("10.244.8.1/24", 1500),
            [
                "containers on docker0 have a larger MTU than the overlay's 1450 (1 in total, such as the one behind veth7 \
              with 1500)"
            ]
        );
        // A bridge outside of the overlay.
        assert_eq!(problems("172.17.0.1/16", 1500), [""; 0]);
    }
}
