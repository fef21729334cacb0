//! Checks that the names of the planned devices are free.

use heddle_core::object::LinkKind;
use heddle_kernel::{ALIAS_PREFIX, HostLink};
use heddle_plugin::NodePlan;

use crate::report::{Finding, Severity};

/// `alias` marks this daemon's devices.
pub(crate) fn check(plan: &NodePlan, links: &[HostLink], alias: &str) -> Vec<Finding> {
    let taken = plan.plan.links().filter_map(|planned| {
        let link = links.iter().find(|link| link.name == planned.name && link.alias != alias)?;
        // The daemon takes over a VXLAN device left by flannel. flannel's TUN device would have
        // ended with flannel.
        let is_flannels = link.kind == "vxlan" && !link.alias.starts_with(ALIAS_PREFIX);
        let planned_vxlan = matches!(planned.kind, LinkKind::Vxlan(_));
        (!(planned_vxlan && is_flannels)).then_some(link)
    });
    taken.map(finding).collect()
}

fn finding(link: &HostLink) -> Finding {
    let (what, remedy) = if link.alias.starts_with(ALIAS_PREFIX) {
        (
            format!("is in use by another heddled (alias `{}`)", link.alias),
            "Set another `VNI` in `Backend` for one of the networks, or remove the device if that daemon is gone:",
        )
    } else if link.kind == "tun" {
        (
            "is in use by another program".to_owned(),
            "Stop the program that has it open, or remove the device:",
        )
    } else {
        let kind = if link.kind.is_empty() { "hardware" } else { &link.kind };
        (
            format!("was not created by heddled (kind {kind})"),
            "Rename the device, or remove it if nothing uses it:",
        )
    };
    Finding {
        check: "device-name",
        severity: Severity::Error,
        problem: format!("device {} {what}", link.name),
        symptom: "heddled leaves the device alone, names it in its log, and does not become ready"
            .to_owned(),
        remedy: remedy.to_owned(),
        command: Some(format!("ip link delete {}", link.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;

    #[test]
    fn only_foreign_device_conflicts() {
        let with = |alias: &str, link: HostLink| HostLink { alias: alias.into(), ..link };
        let kind = |kind: &str, name| HostLink { kind: kind.into(), ..link(name) };
        for (plan, link, problem) in [
            (vxlan_plan(1450), with(ALIAS, vxlan_link("flannel.1", 1, 8472)), None),
            (vxlan_plan(1450), vxlan_link("flannel.1", 1, 8472), None),
            (vxlan_plan(1450), vxlan_link("flannel.2", 1, 8472), None),
            (
                vxlan_plan(1450),
                with("heddle /other", vxlan_link("flannel.1", 1, 8472)),
                Some("device flannel.1 is in use by another heddled (alias `heddle /other`)"),
            ),
            (
                vxlan_plan(1450),
                kind("dummy", "flannel.1"),
                Some("device flannel.1 was not created by heddled (kind dummy)"),
            ),
            (tunnel_plan(), with(ALIAS, kind("tun", "flannel0")), None),
            (
                tunnel_plan(),
                kind("tun", "flannel0"),
                Some("device flannel0 is in use by another program"),
            ),
        ] {
            let found = check(&plan, std::slice::from_ref(&link), ALIAS);
            let problems: Vec<_> = found.iter().map(|finding| finding.problem.as_str()).collect();
            assert_eq!(problems, problem.into_iter().collect::<Vec<_>>(), "{link:?}");
        }
    }
}
