//! Plans devices with invalid names and numbers: control characters aimed at the terminal of
//! whoever reads the log, invalid MTUs, group addresses.

use heddle_hostile::{Malice, PORT, Scene, hostile};
use heddle_sdk::{LinkKind, MacAddress, NodePlan};

/// The hostile plugin.
pub struct DeviceNames;

impl Malice for DeviceNames {
    fn plan_node(scene: &Scene<'_>, good: &mut NodePlan) {
        let first = &mut good.plan.links[0];
        let LinkKind::Vxlan(vxlan) = &mut first.kind else { return };
        match scene.wish() {
            "escape" => scene.plan_device(good, "heddle\u{1b}[2J", PORT),
            "tiny" => first.mtu = 0,
            "huge" => first.mtu = u32::MAX,
            "containers" => good.mtu = u32::MAX,
            "group" => first.mac = Some(MacAddress([0xff; 6])),
            "vni" => vxlan.vni = u32::MAX,
            _ => vxlan.port = 0,
        }
    }
}

hostile!(DeviceNames, name = "device-names");
