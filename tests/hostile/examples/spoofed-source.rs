//! Plans a device that sends from the router's address.

use heddle_hostile::{Malice, Scene, hostile};
use heddle_sdk::{LinkKind, NodePlan};

/// The hostile plugin.
pub struct SpoofedSource;

impl Malice for SpoofedSource {
    fn plan_node(_: &Scene<'_>, good: &mut NodePlan) {
        let LinkKind::Vxlan(vxlan) = &mut good.plan.links[0].kind else { return };
        vxlan.local = [192, 168, 255, 254].into();
    }
}

hostile!(SpoofedSource, name = "spoofed-source");
