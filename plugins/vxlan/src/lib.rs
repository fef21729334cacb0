//! The `vxlan` backend: every node has a VXLAN device, and knows every peer's subnet, VTEP and
//! address in advance, so that nothing is ever flooded or learned (flannel's `pkg/backend/vxlan`).
//!
//! A packet for a peer's subnet is routed to the subnet's network address, `onlink` on the device.
//! A permanent neighbour entry maps that address to the MAC of the peer's device, and a permanent
//! FDB entry sends frames for this MAC to the peer's public address. Dual stack has a device for
//! each family, each over its own underlay addresses.

#![forbid(unsafe_code)]

mod settings;

use heddle_sdk::*;
use settings::Settings;

/// The backend.
pub struct VxlanBackend;

impl Backend for VxlanBackend {
    const KEYS: Option<&'static [&'static str]> =
        Some(&["VNI", "Port", "GBP", "Learning", "DirectRouting", "MTU"]);

    fn advertise(config: &NetworkConfig, node: &Node) -> Result<Advertisements, ConfigError> {
        let settings = Settings::read(config)?;
        let data =
            |family| Some(vtep::backend_data(settings.vni, device_mac(&settings, node, family)));
        Ok(Advertisements {
            backend_type: Some("vxlan".into()),
            backend_data: config.families().map(data).collect(),
        })
    }

    fn plan_node(
        config: &NetworkConfig,
        node: &Node,
        lease: &Lease,
    ) -> Result<NodePlan, ConfigError> {
        let settings = Settings::read(config)?;
        let mut node_plan = NodePlan { plan: Plan::default(), mtu: u32::MAX };
        for part in &lease.families {
            let family = part.family();
            let device = settings.device(family);
            let mtu = settings.device_mtu(family, &node.underlay)?;
            node_plan.mtu = node_plan.mtu.min(mtu);
            node_plan.plan.links.push(Link {
                name: device.clone(),
                mtu,
                mac: Some(device_mac(&settings, node, family)),
                kind: LinkKind::Vxlan(Vxlan {
                    vni: settings.vni,
                    local: node.underlay.local_address(part.public_address),
                    underlay: node.underlay.link.clone(),
                    port: settings.port,
                    learning: settings.learning,
                    gbp: settings.gbp,
                }),
            });
            // No host on the overlay may configure routes on this node.
            node_plan.plan.sysctls.push(Sysctl {
                link: device.clone(),
                family: Family::V6,
                name: "accept_ra".into(),
                value: "0".into(),
            });
            node_plan
                .plan
                .addresses
                .push(Address { link: device, network: IpNet::from(part.subnet.network()) });
        }
        Ok(node_plan)
    }

    fn plan_peer(
        config: &NetworkConfig,
        node: &Node,
        lease: &Lease,
        peer: &Lease,
    ) -> Result<Plan, PeerError> {
        if peer.backend_type.as_deref() != Some("vxlan") {
            return Err(PeerError::other_backend(peer));
        }
        let settings = Settings::read(config)?;
        let mut plan = Plan::default();
        for part in lease.common_families(node, peer)? {
            let (subnet, public) = (part.subnet, part.public_address);
            if settings.direct_routing && node.underlay.is_neighbour(public) {
                plan.routes.push(Route::via(subnet, public, &node.underlay.link));
                continue;
            }
            let (device, gateway) = (settings.device(part.family()), subnet.network());
            let mac = vtep::peer_mac(part, settings.vni)?;
            plan.routes.push(Route::onlink(subnet, gateway, &device));
            plan.neighbours.push(Neighbour { link: device.clone(), address: gateway, mac });
            plan.fdb_entries.push(FdbEntry { link: device, mac, destination: public });
        }
        Ok(plan)
    }
}

/// Returns the MAC of this node's device. An existing device keeps its MAC, so that peers need not
/// learn a new one.
fn device_mac(settings: &Settings, node: &Node, family: Family) -> MacAddress {
    let device = settings.device(family);
    let existing = node.links.iter().find(|link| link.name == device && link.kind == "vxlan");
    let mac = existing.and_then(|link| link.mac).filter(|mac| mac.is_unicast());
    mac.unwrap_or_else(|| node.device_mac(family, &device))
}

export_backend!(
    VxlanBackend,
    name = "vxlan",
    links = ["flannel.*", "flannel-v6.*"],
    link_kinds = ["vxlan"],
    // The operator chooses `Backend.Port`.
    udp_ports = ["1-65535"],
    sysctls = ["accept_ra"],
);

#[cfg(test)]
mod tests;
