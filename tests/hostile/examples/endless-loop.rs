//! Loops for ever: in `plan-peer`, or in the function that `wish` names.

use heddle_hostile::{Malice, Scene, hang, hostile};
use heddle_sdk::{Advertisements, Lease, NodePlan, Plan};

/// The hostile plugin.
pub struct EndlessLoop;

impl Malice for EndlessLoop {
    fn advertise(scene: &Scene<'_>, _: &mut Advertisements) {
        scene.play("advertise", || hang());
    }

    fn plan_node(scene: &Scene<'_>, _: &mut NodePlan) {
        scene.play("plan-node", || hang());
    }

    fn plan_peer(_: &Scene<'_>, _: &Lease, _: &mut Plan) {
        hang();
    }
}

hostile!(EndlessLoop, name = "endless-loop");
