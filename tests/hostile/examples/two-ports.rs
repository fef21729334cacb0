//! Plans two devices, each of which receives on a port of its own.

use heddle_hostile::{Malice, PORT, Scene, hostile};
use heddle_sdk::NodePlan;

/// The hostile plugin.
pub struct TwoPorts;

impl Malice for TwoPorts {
    fn plan_node(scene: &Scene<'_>, good: &mut NodePlan) {
        scene.plan_device(good, "heddle2", PORT + 1);
    }
}

hostile!(TwoPorts, name = "two-ports");
