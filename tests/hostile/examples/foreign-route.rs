//! Includes in the node's plan a route through the external interface, or one that exists already
//! and is somebody else's.

use heddle_hostile::{DEVICE, Malice, Scene, hostile, network};
use heddle_sdk::{NodePlan, Route};

/// The hostile plugin.
pub struct ForeignRoute;

impl Malice for ForeignRoute {
    fn plan_node(scene: &Scene<'_>, good: &mut NodePlan) {
        good.plan.routes.push(match scene.wish() {
            "taken" => Route::dev(network("198.51.100.0/24"), DEVICE),
            _ => Route::via(
                network("10.244.0.0/16"),
                [192, 168, 255, 254].into(),
                &scene.node.underlay.link,
            ),
        });
    }
}

hostile!(ForeignRoute, name = "foreign-route");
