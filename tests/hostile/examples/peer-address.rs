//! Plans an address inside another node's subnet on its own device, to receive packets sent there.

use heddle_hostile::{DEVICE, Malice, Scene, hostile, network};
use heddle_sdk::{Address, NodePlan};

/// The hostile plugin.
pub struct PeerAddress;

impl Malice for PeerAddress {
    fn plan_node(_: &Scene<'_>, good: &mut NodePlan) {
        good.plan
            .addresses
            .push(Address { link: DEVICE.into(), network: network("10.244.201.7/32") });
    }
}

hostile!(PeerAddress, name = "peer-address");
