//! Plans an address of the node's own with a prefix so short that the kernel's own route for it,
//! which comes with the address, draws a part of the internet into the overlay.

use heddle_hostile::{DEVICE, Malice, Scene, hostile};
use heddle_sdk::{Address, IpNet, NodePlan};

/// The hostile plugin.
pub struct WideAddress;

impl Malice for WideAddress {
    fn plan_node(scene: &Scene<'_>, good: &mut NodePlan) {
        let own = scene.lease.expect("a lease").families[0].subnet.network();
        let network = IpNet::new(own, 5).expect("a prefix");
        good.plan.addresses = vec![Address { link: DEVICE.into(), network }];
    }
}

hostile!(WideAddress, name = "wide-address");
