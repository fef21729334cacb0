//! Allocates 4 GB of memory.

use heddle_hostile::{Malice, Scene, hoard, hostile};
use heddle_sdk::{Lease, NodePlan, Plan};

/// The hostile plugin.
pub struct Hoard;

impl Malice for Hoard {
    fn plan_node(scene: &Scene<'_>, _: &mut NodePlan) {
        scene.play("plan-node", hoard);
    }

    fn plan_peer(_: &Scene<'_>, _: &Lease, _: &mut Plan) {
        hoard();
    }
}

hostile!(Hoard, name = "hoard");
