//! Checks that the backend's UDP port is available.

use std::net::IpAddr;

use heddle_core::address::{Family, LinkName};
use heddle_core::object::Vxlan;
use heddle_core::text::list;
use heddle_kernel::HostLink;
use heddle_plugin::NodePlan;

use super::planned_vxlans;
use crate::facts::sockets::{Process, UdpSocket};
use crate::report::{Finding, Severity};

const CHECK: &str = "udp-port";

/// A socket that the plan needs.
struct Wanted<'a> {
    /// Device that needs the socket.
    device: LinkName,
    port: u16,
    family: Family,
    /// Address of a daemon's socket; None for the kernel's, which bind to any.
    address: Option<IpAddr>,
    vxlan: Option<&'a Vxlan>,
}

/// Returns the UDP ports that the plan needs.
pub(crate) fn ports(plan: &NodePlan) -> Vec<u16> {
    let mut ports: Vec<_> = wanted(plan).iter().map(|wanted| wanted.port).collect();
    ports.dedup();
    ports
}

/// `sockets` are those on the plan's ports; `alias` marks this daemon's devices.
pub(crate) fn check(
    plan: &NodePlan,
    links: &[HostLink],
    sockets: &[UdpSocket],
    alias: &str,
) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    let mut add = |finding: Finding| {
        // A program with sockets of both families is one finding.
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    };
    for wanted in wanted(plan) {
        let others = links.iter().filter(|link| link.alias != alias && link.name != wanted.device);
        others.filter_map(|link| by_device(&wanted, link)).for_each(&mut add);
        for socket in sockets.iter().filter(|socket| stands_in_the_way(socket, &wanted)) {
            let ours = |process: &Process| {
                links.iter().any(|link| {
                    link.alias == alias && process.devices.iter().any(|d| d == link.name.as_str())
                })
            };
            if socket.owners.iter().any(ours) {
                continue;
            }
            if !socket.owners.is_empty() {
                add(by_processes(&wanted, &socket.owners));
            } else if !links.iter().any(|link| receives(link, &wanted)) {
                add(by_nobody(&wanted));
            }
        }
    }
    findings
}

fn wanted(plan: &NodePlan) -> Vec<Wanted<'_>> {
    let mut wanted: Vec<_> = planned_vxlans(plan)
        .map(|(link, vxlan)| Wanted {
            device: link.name,
            port: vxlan.port,
            family: Family::of(vxlan.local),
            address: None,
            vxlan: Some(vxlan),
        })
        .collect();
    if let Some(tunnel) = &plan.tunnel {
        wanted.extend(tunnel.local.iter().map(|address| Wanted {
            device: tunnel.link,
            port: tunnel.port,
            family: Family::of(*address),
            address: Some(*address),
            vxlan: None,
        }));
    }
    wanted
}

/// Returns true if the device is a VXLAN device that has the port open.
fn receives(link: &HostLink, wanted: &Wanted<'_>) -> bool {
    let on_port = |port: &heddle_kernel::VxlanPort| {
        port.port == wanted.port && port.families.contains(&wanted.family)
    };
    link.up && link.vxlan.as_ref().is_some_and(on_port)
}

/// Returns true if the two sockets cannot be bound at the same time (`inet_csk_bind_conflict` and
/// the like; udp(7)).
fn stands_in_the_way(socket: &UdpSocket, wanted: &Wanted<'_>) -> bool {
    let any = socket.address.is_unspecified();
    let same_family = Family::of(socket.address) == wanted.family;
    // An IPv6 socket bound to any address also takes IPv4's, unless it is IPv6-only.
    let reaches = same_family || (any && wanted.family == Family::V4);
    let same_address = wanted.address.is_none_or(|address| address == socket.address);
    socket.port == wanted.port && reaches && (any || same_address)
}

fn by_device(wanted: &Wanted<'_>, link: &HostLink) -> Option<Finding> {
    let found = link.vxlan.as_ref()?;
    if found.port != wanted.port || !found.families.contains(&wanted.family) {
        return None;
    }
    let port = wanted.port;
    let whose = if link.alias.is_empty() {
        format!("the VXLAN device {}", link.name)
    } else {
        format!("the VXLAN device {} (alias `{}`)", link.name, link.alias)
    };
    let (problem, remedy) = match wanted.vxlan {
        Some(vxlan) if found.gbp == vxlan.gbp && !found.special => {
            if found.vni != vxlan.vni {
                // Both devices use the same kernel socket.
                return None;
            }
            let vni = vxlan.vni;
            (
                format!("VNI {vni} on UDP port {port} is taken by {whose}"),
                "Remove the device if nothing uses it, or set another `VNI` or `Port` in `Backend`, for all nodes:",
            )
        }
        _ if !link.up => return None,
        _ => (
            format!("UDP port {port} is taken by {whose}"),
            "Remove the device if nothing uses it, or set another `Port` in `Backend`, for all nodes:",
        ),
    };
    Some(Finding {
        check: CHECK,
        severity: Severity::Error,
        problem,
        symptom: symptom(wanted),
        remedy: remedy.to_owned(),
        command: Some(format!("ip -d link show {}", link.name)),
    })
}

fn by_processes(wanted: &Wanted<'_>, owners: &[Process]) -> Finding {
    let who =
        list(owners.iter().map(|process| format!("{} (process {})", process.name, process.id)));
    let remedy = match owners.iter().any(|process| process.name == "flanneld") {
        true => "Stop flanneld; heddled takes over its lease:".to_owned(),
        false => "Stop that program, or set another `Port` in `Backend`, for all nodes. To find its unit:"
            .to_owned(),
    };
    Finding {
        check: CHECK,
        severity: Severity::Error,
        problem: format!("UDP port {} is taken by {who}", wanted.port),
        symptom: symptom(wanted),
        remedy,
        command: owners.first().map(|process| format!("systemctl status {}", process.id)),
    }
}

fn by_nobody(wanted: &Wanted<'_>) -> Finding {
    Finding {
        check: CHECK,
        severity: Severity::Error,
        problem: format!(
            "UDP port {} is taken, but neither by a VXLAN device nor by a process that is visible here",
            wanted.port
        ),
        symptom: symptom(wanted),
        remedy: "Look for a program in a container on the host's network or another kind of tunnel, or set another `Port` in \
                 `Backend`, for all nodes:"
            .to_owned(),
        command: Some(format!("ss -lunpe 'sport = :{}'", wanted.port)),
    }
}

fn symptom(wanted: &Wanted<'_>) -> String {
    match wanted.vxlan {
        Some(_) => format!(
            "The kernel refuses the device {} (EADDRINUSE or EEXIST), and heddled does not become ready",
            wanted.device
        ),
        None => "heddled waits for the port, and `/readyz` names it under `packet path`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;

    fn process(name: &str, devices: &[&str]) -> Process {
        Process {
            id: 7,
            name: name.into(),
            devices: devices.iter().map(ToString::to_string).collect(),
        }
    }

    fn problems(plan: &NodePlan, links: &[HostLink], sockets: &[UdpSocket]) -> Vec<String> {
        check(plan, links, sockets, ALIAS).into_iter().map(|finding| finding.problem).collect()
    }

    #[test]
    fn program_on_port_is_reported() {
        for (plan, address, port, taken) in [
            (vxlan_plan(1450), "0.0.0.0", 8472, true),
            (vxlan_plan(1450), "127.0.0.1", 8472, true),
            (vxlan_plan(1450), "::", 8472, true),
            (vxlan_plan(1450), "fd00::1", 8472, false),
            (vxlan_plan(1450), "0.0.0.0", 8473, false),
            (tunnel_plan(), "0.0.0.0", 8285, true),
            (tunnel_plan(), "192.168.0.72", 8285, true),
            (tunnel_plan(), "127.0.0.1", 8285, false),
            (tunnel_plan(), "::", 8285, true),
            (empty_plan(), "0.0.0.0", 8472, false),
        ] {
            let socket = UdpSocket::new(address, port, vec![process("nc", &[])]);
            let expected = format!("UDP port {port} is taken by nc (process 7)");
            let expected: &[String] = if taken { &[expected] } else { &[] };
            assert_eq!(problems(&plan, &[], &[socket]), expected, "{address}:{port}");
        }
    }

    #[test]
    fn program_with_both_families_is_one_finding() {
        let socket = |address| UdpSocket::new(address, 8472, vec![process("nc", &[])]);
        assert_eq!(problems(&vxlan_plan(1450), &[], &[socket("0.0.0.0"), socket("::")]).len(), 1);
    }

    #[test]
    fn sockets_of_daemon_are_no_conflict() {
        let tun = HostLink { kind: "tun".into(), alias: ALIAS.into(), ..link("flannel0") };
        let socket =
            |devices| UdpSocket::new("192.168.0.72", 8285, vec![process("heddled", devices)]);
        assert_eq!(
            problems(&tunnel_plan(), std::slice::from_ref(&tun), &[socket(&["flannel0"])]),
            [""; 0]
        );
        let another_s = HostLink { alias: "heddle /other".into(), ..tun };
        assert_eq!(problems(&tunnel_plan(), &[another_s], &[socket(&["flannel0"])]).len(), 1);
    }

    #[test]
    fn kernel_socket_belongs_to_a_vxlan_device() {
        let socket = [UdpSocket::new("0.0.0.0", 8472, vec![])];
        let ours = HostLink { alias: ALIAS.into(), ..vxlan_link("flannel.1", 1, 8472) };
        let flannel_s = vxlan_link("flannel.1", 1, 8472);
        for device in [ours, flannel_s] {
            assert_eq!(problems(&vxlan_plan(1450), &[device], &socket), [""; 0]);
        }
        let problems = problems(&vxlan_plan(1450), &[], &socket);
        assert!(problems[0].contains("neither by a VXLAN device nor by a process"), "{problems:?}");
    }

    #[test]
    fn vxlan_devices_may_share_port_but_not_vni() {
        let plan = vxlan_plan(1450);
        assert_eq!(problems(&plan, &[vxlan_link("other", 2, 8472)], &[]), [""; 0]);
        assert_eq!(problems(&plan, &[vxlan_link("other", 1, 4789)], &[]), [""; 0]);
        let down = HostLink { up: false, ..vxlan_link("other", 1, 8472) };
        let expected = "VNI 1 on UDP port 8472 is taken by the VXLAN device other";
        assert_eq!(problems(&plan, &[down], &[]), [expected]);
        let mut external = vxlan_link("cilium_vxlan", 0, 8472);
        external.vxlan.as_mut().unwrap().special = true;
        let expected = "UDP port 8472 is taken by the VXLAN device cilium_vxlan";
        assert_eq!(problems(&plan, std::slice::from_ref(&external), &[]), [expected]);
        external.up = false;
        assert_eq!(problems(&plan, &[external], &[]), [""; 0]);
    }

    #[test]
    fn packet_path_shares_port_with_no_device() {
        let device = vxlan_link("other", 2, 8285);
        let expected = "UDP port 8285 is taken by the VXLAN device other";
        assert_eq!(problems(&tunnel_plan(), &[device], &[]), [expected]);
        // The daemon removes its own leftovers of an earlier backend.
        let ours = HostLink { alias: ALIAS.into(), ..vxlan_link("flannel.1", 1, 8285) };
        assert_eq!(problems(&tunnel_plan(), &[ours], &[]), [""; 0]);
    }
}
