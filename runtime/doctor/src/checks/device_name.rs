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
            format!("another heddled's (alias `{}`)", link.alias),
            "Give one of the two networks another `VNI` in `Backend`; or, if that daemon is gone, remove the device:",
        )
    } else if link.kind == "tun" {
        ("another program's".to_owned(), "End the program that has it open, or remove the device:")
    } else {
        let kind = if link.kind.is_empty() { "hardware" } else { &link.kind };
        (
            format!("none of Heddle's ({kind})"),
            "Rename the device, or remove it if nothing needs it:",
        )
    };
    Finding {
        check: "device-name",
        severity: Severity::Error,
        problem: format!("the device {} is {what}", link.name),
        symptom: "heddled leaves it alone, names it in its log, and does not get ready".to_owned(),
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
                Some("the device flannel.1 is another heddled's (alias `heddle /other`)"),
            ),
            (
                vxlan_plan(1450),
                kind("dummy", "flannel.1"),
                Some("the device flannel.1 is none of Heddle's (dummy)"),
            ),
            (tunnel_plan(), with(ALIAS, kind("tun", "flannel0")), None),
            (
                tunnel_plan(),
                kind("tun", "flannel0"),
                Some("the device flannel0 is another program's"),
            ),
        ] {
            let found = check(&plan, std::slice::from_ref(&link), ALIAS);
            let problems: Vec<_> = found.iter().map(|finding| finding.problem.as_str()).collect();
            assert_eq!(problems, problem.into_iter().collect::<Vec<_>>(), "{link:?}");
        }
    }
}
