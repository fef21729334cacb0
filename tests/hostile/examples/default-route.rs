//! Plans a default route through its own device, to attract all traffic of the host.

use heddle_hostile::{DEVICE, Malice, Scene, hostile, network};
use heddle_sdk::{NodePlan, Route};

/// The hostile plugin.
pub struct DefaultRoute;

impl Malice for DefaultRoute {
    fn plan_node(_: &Scene<'_>, good: &mut NodePlan) {
        good.plan.routes.push(Route::dev(network("0.0.0.0/0"), DEVICE));
    }
}

hostile!(DefaultRoute, name = "default-route");
