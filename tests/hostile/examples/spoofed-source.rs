//! Plans a device whose packets come from an address that is the router's.

use heddle_hostile::{Malice, Scene, hostile};
use heddle_sdk::{LinkKind, NodePlan};

/// The malice.
pub struct SpoofedSource;

impl Malice for SpoofedSource {
    fn plan_node(_: &Scene<'_>, good: &mut NodePlan) {
        let LinkKind::Vxlan(vxlan) = &mut good.plan.links[0].kind else { return };
        vxlan.local = [192, 168, 255, 254].into();
    }
}

hostile!(SpoofedSource, name = "spoofed-source");
