//! The `vxlan` backend: every node has a VXLAN device, and knows every peer's subnet, VTEP and address beforehand, so
//! that nothing is ever flooded or learned (flannel's `pkg/backend/vxlan`).
//!
//! A packet for a peer's subnet is routed to the subnet's network address, `onlink` on the device. A permanent
//! neighbour gives that address the MAC of the peer's device, and a permanent FDB entry says that frames for this MAC
//! go to the peer's public address. Dual stack has a device for each family, each over its own underlay addresses.

mod settings;

use std::net::IpAddr;

use heddle_sdk::json::Object;
use heddle_sdk::*;
use settings::{MAX_VNI, Settings};
use sha2::{Digest, Sha256};

/// The backend.
pub struct VxlanBackend;

impl Backend for VxlanBackend {
    fn advertise(config: &NetworkConfig, node: &Node) -> Result<Advertisements, ConfigError> {
        let settings = Settings::read(config)?;
        let data = |family| {
            let (vni, mac) = (settings.vni, device_mac(&settings, node, family));
            Some(format!(r#"{{"VNI":{vni},"VtepMAC":"{mac}"}}"#))
        };
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
            let family = Family::of_network(part.subnet);
            let device = settings.device(family);
            let mtu = settings.device_mtu(family, &node.underlay)?;
            node_plan.mtu = node_plan.mtu.min(mtu);
            node_plan.plan.links.push(Link {
                name: device.clone(),
                mtu,
                mac: Some(device_mac(&settings, node, family)),
                kind: LinkKind::Vxlan(Vxlan {
                    vni: settings.vni,
                    local: local_address(&node.underlay, part.public_address),
                    underlay: node.underlay.link.clone(),
                    port: settings.port,
                    learning: settings.learning,
                    gbp: settings.gbp,
                }),
            });
            // Nobody on the overlay is to give this node routes.
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
            // flannel's udp backend leaves the field out.
            let kind = peer.backend_type.as_deref().unwrap_or("udp");
            return Err(PeerError::OtherBackend(kind.to_owned()));
        }
        let settings = Settings::read(config)?;
        let mut plan = Plan::default();
        for own in &lease.families {
            let family = Family::of_network(own.subnet);
            let Some(peer) = peer.family(family) else { continue };
            let (subnet, public) = (peer.subnet, peer.public_address);
            if own.public_address == public || node.underlay.public_addresses.contains(&public) {
                return Err(PeerError::Invalid(format!(
                    "its public address {public} is this node's own: expected the address of another node"
                )));
            }
            if settings.direct_routing && is_neighbour(&node.underlay, public) {
                plan.routes.push(Route::via(subnet, public, &node.underlay.link));
                continue;
            }
            let (device, gateway) = (settings.device(family), subnet.network());
            let mac = peer_mac(&settings, family, peer.backend_data.as_deref())?;
            plan.routes.push(Route::onlink(subnet, gateway, &device));
            plan.neighbours.push(Neighbour { link: device.clone(), address: gateway, mac });
            plan.fdb_entries.push(FdbEntry { link: device, mac, destination: public });
        }
        Ok(plan)
    }
}

/// The MAC of this node's device. A device that is there keeps the one it has, so that peers need not learn a new one.
/// Otherwise it follows from who and where the node is, so that it comes back after a loss and cloned machines differ.
fn device_mac(settings: &Settings, node: &Node, family: Family) -> MacAddress {
    let device = settings.device(family);
    let existing = node.links.iter().find(|link| link.name == device && link.kind == "vxlan");
    if let Some(mac) = existing.and_then(|link| link.mac).filter(|mac| mac.is_unicast()) {
        return mac;
    }
    let public = node.underlay.public_address(family).map(|address| address.to_string());
    let identity = format!("{}\0{}\0{device}", node.id, public.unwrap_or_default());
    let hash = Sha256::digest(identity);
    MacAddress::locally_administered([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5]])
}

/// The MAC that a peer's lease gives for its device.
fn peer_mac(
    settings: &Settings,
    family: Family,
    data: Option<&str>,
) -> Result<MacAddress, PeerError> {
    let field = match family {
        Family::V4 => "BackendData",
        Family::V6 => "BackendV6Data",
    };
    let Some(data) = data else {
        return Err(PeerError::Invalid(format!(
            r#"{field} is missing: expected an object such as {{"VNI":{},"VtepMAC":"3a:8b:71:f2:2e:de"}}"#,
            settings.vni
        )));
    };
    let data = Object::parse(field, data)?;
    // Leases of flannel up to 0.14 do not say.
    let vni = data.integer("VNI", 0..=MAX_VNI)?.unwrap_or(settings.vni);
    if vni != settings.vni {
        let rule = format!("is {vni}: expected {}, as in the network config", settings.vni);
        return Err(data.error("VNI", rule).into());
    }
    let text = data.text("VtepMAC")?.ok_or_else(|| {
        data.error("VtepMAC", "is missing: expected the MAC address of the peer's device")
    })?;
    let mac: MacAddress =
        text.parse().map_err(|error| data.error("VtepMAC", format!("is {text:?}: {error}")))?;
    if !mac.is_unicast() {
        return Err(data.error("VtepMAC", format!("is {mac}: expected a unicast address")).into());
    }
    Ok(mac)
}

/// The source address of outer packets: the public one, or behind NAT, where the interface does not have it, the
/// interface's own.
fn local_address(underlay: &Underlay, public: IpAddr) -> IpAddr {
    let link_local = |address: IpAddr| match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let own = || underlay.addresses.iter().map(IpNet::addr);
    let same_family = |address: &IpAddr| Family::of(*address) == Family::of(public);
    if own().any(|address| address == public) {
        return public;
    }
    own().filter(same_family).min_by_key(|address| link_local(*address)).unwrap_or(public)
}

/// Whether an address is reached through the interface without a gateway.
fn is_neighbour(underlay: &Underlay, address: IpAddr) -> bool {
    underlay.addresses.iter().any(|network| network.contains(&address))
}

export_backend!(VxlanBackend, name = "vxlan");

#[cfg(test)]
mod tests;
