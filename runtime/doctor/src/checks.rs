//! Checks: pure functions from facts to findings, one subject in each module. Nothing here accesses
//! the host.

pub(crate) mod checksum_offload;
pub(crate) mod credentials;
pub(crate) mod daemon;
pub(crate) mod device_name;
pub(crate) mod docker_bridge;
pub(crate) mod files;
pub(crate) mod firewall;
pub(crate) mod forward;
pub(crate) mod forwarding;
pub(crate) mod kernel_support;
pub(crate) mod mtu;
pub(crate) mod outlook;
pub(crate) mod overlap;
pub(crate) mod peers;
pub(crate) mod reverse_path;
#[cfg(test)]
mod samples;
pub(crate) mod udp_port;

use heddle_core::object::{Link, LinkKind, Vxlan};
use heddle_plugin::NodePlan;

/// Returns the VXLAN devices of a plan.
pub(crate) fn planned_vxlans(plan: &NodePlan) -> impl Iterator<Item = (&Link, &Vxlan)> {
    plan.plan.links().filter_map(|link| match &link.kind {
        LinkKind::Vxlan(vxlan) => Some((link, vxlan)),
        _ => None,
    })
}
