//! Traps: in `plan-peer`, or in the function that `wish` names. The message imitates the daemon's
//! log lines.

use heddle_hostile::{Malice, Scene, hostile};
use heddle_sdk::{Advertisements, Lease, NodePlan, Plan};

/// The hostile plugin.
pub struct Trap;

fn trap() -> ! {
    panic!("as was asked for\n2026-01-01T00:00:00Z  INFO forged: all is well\r\u{1b}[2J");
}

impl Malice for Trap {
    fn advertise(scene: &Scene<'_>, _: &mut Advertisements) {
        scene.play("advertise", || trap());
    }

    fn plan_node(scene: &Scene<'_>, _: &mut NodePlan) {
        scene.play("plan-node", || trap());
    }

    fn plan_peer(_: &Scene<'_>, _: &Lease, _: &mut Plan) {
        trap();
    }
}

hostile!(Trap, name = "trap");
