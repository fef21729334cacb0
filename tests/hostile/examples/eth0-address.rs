//! Plans an address on the external interface, which belongs to the host.

use heddle_hostile::{Malice, Scene, hostile};
use heddle_sdk::{Address, NodePlan};

/// The hostile plugin.
pub struct Eth0Address;

impl Malice for Eth0Address {
    fn plan_node(scene: &Scene<'_>, good: &mut NodePlan) {
        let network = good.plan.addresses[0].network;
        let link = scene.node.underlay.link.clone();
        good.plan.addresses.push(Address { link, network });
    }
}

hostile!(Eth0Address, name = "eth0-address");
