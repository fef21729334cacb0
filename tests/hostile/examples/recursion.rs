//! Recurses until the stack overflows.

use heddle_hostile::{Malice, Scene, hostile, recurse};
use heddle_sdk::{Lease, NodePlan, Plan};

/// The hostile plugin.
pub struct Recursion;

impl Malice for Recursion {
    fn plan_node(scene: &Scene<'_>, good: &mut NodePlan) {
        scene.play("plan-node", || good.mtu = recurse(0));
    }

    fn plan_peer(_: &Scene<'_>, _: &Lease, good: &mut Plan) {
        good.routes.truncate(recurse(0) as usize);
    }
}

hostile!(Recursion, name = "recursion");
