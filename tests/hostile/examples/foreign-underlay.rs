//! Plans a device whose underlay is somebody else's bridge.

use heddle_hostile::{Malice, Scene, hostile};
use heddle_sdk::{LinkKind, NodePlan};

/// The hostile plugin.
pub struct ForeignUnderlay;

impl Malice for ForeignUnderlay {
    fn plan_node(_: &Scene<'_>, good: &mut NodePlan) {
        let LinkKind::Vxlan(vxlan) = &mut good.plan.links[0].kind else { return };
        vxlan.underlay = "br0".into();
    }
}

hostile!(ForeignUnderlay, name = "foreign-underlay");
