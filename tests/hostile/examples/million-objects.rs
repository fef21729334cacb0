//! Plans a million routes.

use heddle_hostile::{DEVICE, Malice, Scene, hostile};
use heddle_sdk::{Lease, NodePlan, Plan, Route};

/// The hostile plugin.
pub struct MillionObjects;

fn many(count: usize, plan: &mut Plan) {
    let destination = |number: usize| {
        let [.., a, b] = number.to_be_bytes();
        let address = [10, 244, a, b].into();
        heddle_sdk::IpNet::new(address, 32).expect("a prefix")
    };
    plan.routes = (0..count).map(|number| Route::dev(destination(number), DEVICE)).collect();
}

impl Malice for MillionObjects {
    fn plan_node(scene: &Scene<'_>, good: &mut NodePlan) {
        scene.play("million", || many(1_000_000, &mut good.plan));
        scene.play("more", || many(200_000, &mut good.plan));
        scene.play("many", || many(20_000, &mut good.plan));
    }

    fn plan_peer(_: &Scene<'_>, _: &Lease, good: &mut Plan) {
        many(65, good);
    }
}

hostile!(MillionObjects, name = "million-objects");
