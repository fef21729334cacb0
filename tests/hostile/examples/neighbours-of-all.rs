//! Plans peers' neighbours and end points with the node, whose plan comes before all peers'.

use heddle_hostile::{DEVICE, Malice, Scene, hostile, mac};
use heddle_sdk::{Neighbour, NodePlan};

/// The malice.
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
