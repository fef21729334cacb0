//! Plans somebody else's device as its own, to have it replaced: one whose name it did not ask for,
//! one of another kind whose name it did ask for, the external interface.

use heddle_hostile::{Malice, PORT, Scene, hostile};
use heddle_sdk::NodePlan;

/// The hostile plugin.
pub struct ForeignDevice;

impl Malice for ForeignDevice {
    fn plan_node(scene: &Scene<'_>, good: &mut NodePlan) {
        scene.plan_device(good, scene.wish(), PORT);
    }
}

hostile!(ForeignDevice, name = "foreign-device");
