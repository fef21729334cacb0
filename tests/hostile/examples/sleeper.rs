//! Sleeps for a day.

use std::time::Duration;

use heddle_hostile::{Malice, Scene, hostile};
use heddle_sdk::{Lease, NodePlan, Plan};

/// The hostile plugin.
pub struct Sleeper;

const DAY: Duration = Duration::from_secs(86_400);

impl Malice for Sleeper {
    fn plan_node(scene: &Scene<'_>, _: &mut NodePlan) {
        scene.play("plan-node", || std::thread::sleep(DAY));
    }

    fn plan_peer(_: &Scene<'_>, _: &Lease, _: &mut Plan) {
        std::thread::sleep(DAY);
    }
}

hostile!(Sleeper, name = "sleeper");
