//! Plans a device that receives on UDP port 53, which belongs to the host's resolver.

use heddle_hostile::{Malice, Scene, hostile};
use heddle_sdk::{LinkKind, NodePlan};

/// The hostile plugin.
pub struct DnsPort;

impl Malice for DnsPort {
    fn plan_node(_: &Scene<'_>, good: &mut NodePlan) {
        let LinkKind::Vxlan(vxlan) = &mut good.plan.links[0].kind else { return };
        vxlan.port = 53;
    }
}

hostile!(DnsPort, name = "dns-port");
