//! The `host-gw` backend: every peer is the gateway to its subnet, and packets travel between hosts
//! unchanged (flannel's `pkg/backend/hostgw`). It is the fastest backend and has no overhead, but
//! all hosts must be on one network, because a gateway has to be reachable without another.

#![forbid(unsafe_code)]

use std::fmt::Write;

use heddle_sdk::json::Errors;
use heddle_sdk::*;

/// The backend.
pub struct HostGwBackend;

impl Backend for HostGwBackend {
    const KEYS: Option<&'static [&'static str]> = Some(&[]);

    fn advertise(config: &NetworkConfig, node: &Node) -> Result<Advertisements, ConfigError> {
        let mut errors = Errors::default();
        for public in &node.underlay.public_addresses {
            if !node.underlay.has_address(*public) {
                errors.add(behind_nat(&node.underlay, Family::of(*public)));
            }
        }
        errors.result()?;
        Ok(Advertisements {
            backend_type: Some("host-gw".into()),
            backend_data: vec![None; config.networks.len()],
        })
    }

    fn plan_node(_: &NetworkConfig, node: &Node, _: &Lease) -> Result<NodePlan, ConfigError> {
        Ok(NodePlan { plan: Plan::default(), mtu: node.underlay.packet_mtu() })
    }

    fn plan_peer(
        _: &NetworkConfig,
        node: &Node,
        lease: &Lease,
        peer: &Lease,
    ) -> Result<Plan, PeerError> {
        if peer.backend_type.as_deref() != Some("host-gw") {
            return Err(PeerError::other_backend(peer));
        }
        let mut plan = Plan::default();
        for part in lease.common_families(node, peer)? {
            plan.routes.push(Route::via(part.subnet, part.public_address, &node.underlay.link));
        }
        Ok(plan)
    }
}

/// Returns the error for a public address that the interface does not have: peers use it as the
/// gateway, which only works with the interface's own addresses.
fn behind_nat(underlay: &Underlay, family: Family) -> ConfigError {
    let public = underlay.public_address(family);
    let public = public.map(|address| address.to_string()).unwrap_or_default();
    let mut message = format!(
        "is host-gw, and this node's public address {public} is not an address of {} (NAT): expected another backend, such as vxlan",
        underlay.link
    );
    let flag = match family {
        Family::V4 => "--public-ip",
        Family::V6 => "--public-ipv6",
    };
    let own = underlay.addresses.iter().map(IpNet::addr);
    let own =
        own.filter(|address| Family::of(*address) == family).map(|address| address.to_string());
    let own: Vec<_> = own.collect();
    if !own.is_empty() {
        let _ = write!(message, ", or {flag} to be one of {}", own.join(", "));
    }
    ConfigError { key: "Backend.Type".into(), message }
}

export_backend!(HostGwBackend, name = "host-gw");

#[cfg(test)]
mod tests;
