//! Includes peers' neighbours and end points in the node's plan, which takes precedence over all
//! peers' plans.

use heddle_hostile::{DEVICE, Malice, Scene, hostile, mac};
use heddle_sdk::{Neighbour, NodePlan};

/// The hostile plugin.
pub struct NeighboursOfAll;

impl Malice for NeighboursOfAll {
    fn plan_node(_: &Scene<'_>, good: &mut NodePlan) {
        good.plan.neighbours.push(Neighbour {
            link: DEVICE.into(),
            address: [10, 244, 201, 0].into(),
            mac: mac("mine"),
        });
    }
}

hostile!(NeighboursOfAll, name = "neighbours-of-all");
