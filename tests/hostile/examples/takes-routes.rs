//! Plans a device that accepts router advertisements from the overlay, and sysctls of it that the
//! operator has not granted.

use heddle_hostile::{DEVICE, Malice, Scene, hostile};
use heddle_sdk::{Family, NodePlan, Sysctl};

/// The hostile plugin.
pub struct TakesRoutes;

impl Malice for TakesRoutes {
    fn plan_node(scene: &Scene<'_>, good: &mut NodePlan) {
        match scene.wish() {
            "none" => good.plan.sysctls.clear(),
            "always" => good.plan.sysctls[0].value = "2".into(),
            _ => good.plan.sysctls.push(Sysctl {
                link: DEVICE.into(),
                family: Family::V4,
                name: "proxy_arp".into(),
                value: "1".into(),
            }),
        }
    }
}

hostile!(TakesRoutes, name = "takes-routes");
