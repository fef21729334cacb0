//! Plans sysctls outside its own device: of `all`, of `default`, of the external interface; and
//! with names and values that lead elsewhere.

use heddle_hostile::{DEVICE, Malice, PORT, Scene, hostile};
use heddle_sdk::{Family, NodePlan, Sysctl};

/// The hostile plugin.
pub struct ForeignSysctl;

impl Malice for ForeignSysctl {
    fn plan_node(scene: &Scene<'_>, good: &mut NodePlan) {
        let mut set = |link: &str, name: &str, value: &str| {
            good.plan.sysctls.push(Sysctl {
                link: link.into(),
                family: Family::V4,
                name: name.into(),
                value: value.into(),
            });
        };
        match scene.wish() {
            "path" => set(DEVICE, "../../../../kernel/core_pattern", "|/bin/sh"),
            "dots" => set("..", "ip_forward", "0"),
            "value" => set(DEVICE, "forwarding", "0\n1"),
            // With a device named `all` among its own.
            "device" => {
                set("all", "forwarding", "0");
                scene.plan_device(good, "all", PORT);
            }
            link => set(link, "forwarding", "0"),
        }
    }
}

hostile!(
    ForeignSysctl,
    name = "foreign-sysctl",
    links = ["heddle*", "all"],
    link_kinds = ["vxlan"],
    udp_ports = ["1024-65535"],
    sysctls = ["accept_ra"]
);
