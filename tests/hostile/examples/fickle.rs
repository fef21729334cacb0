//! Returns a different plan on every call, for the same input.

use std::hash::{BuildHasher, RandomState};

use heddle_hostile::{Malice, Scene, hostile};
use heddle_sdk::{Lease, NodePlan, Plan, Route, RouteAction};

/// The hostile plugin.
pub struct Fickle;

fn chance() -> u64 {
    RandomState::new().hash_one(0)
}

impl Malice for Fickle {
    fn plan_node(_: &Scene<'_>, good: &mut NodePlan) {
        good.mtu = 1400 - (chance() % 100) as u32;
    }

    fn plan_peer(_: &Scene<'_>, peer: &Lease, good: &mut Plan) {
        let destination = peer.families[0].subnet;
        good.routes = match chance() % 3 {
            0 => vec![Route { destination, action: RouteAction::Blackhole }],
            1 => vec![],
            _ => std::mem::take(&mut good.routes),
        };
        if chance().is_multiple_of(2) {
            panic!("not today");
        }
    }
}

hostile!(Fickle, name = "fickle");
