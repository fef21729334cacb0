//! Plans a TUN device, without exporting a function that steers its packets.

use heddle_hostile::{Malice, Scene, hostile, tunnel};
use heddle_sdk::NodePlan;

/// The hostile plugin.
pub struct TunWithoutSteering;

impl Malice for TunWithoutSteering {
    fn plan_node(scene: &Scene<'_>, good: &mut NodePlan) {
        let lease = scene.lease.expect("a lease");
        *good = tunnel(scene.config, scene.node, lease).expect("a plan");
    }
}

hostile!(
    TunWithoutSteering,
    name = "tun-without-steering",
    links = ["heddle*"],
    link_kinds = ["tun"],
    udp_ports = ["1024-65535"],
    sysctls = ["accept_ra"]
);
