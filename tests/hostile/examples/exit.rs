//! Exits the process it runs in.

use heddle_hostile::{Malice, Scene, hostile};
use heddle_sdk::{Lease, NodePlan, Plan};

/// The hostile plugin.
pub struct Exit;

impl Malice for Exit {
    fn plan_node(scene: &Scene<'_>, _: &mut NodePlan) {
        scene.play("plan-node", || std::process::exit(0));
    }

    fn plan_peer(_: &Scene<'_>, _: &Lease, _: &mut Plan) {
        std::process::exit(3);
    }
}

hostile!(Exit, name = "exit");
