//! The `vxlan-tun` backend: VXLAN in user space (RFC 7348), for hosts whose kernel has no VXLAN
//! device. On the wire it is compatible with a kernel VXLAN device of the same configuration,
//! except that the UDP source port is always the same. Nonetheless, nodes with `vxlan` do not talk
//! to it, because leases distinguish the two backends.
//!
//! The kernel routes the whole overlay into one TUN device. A packet is sent to the peer whose
//! subnet contains its destination, behind a VXLAN header and an Ethernet header. A TUN device has
//! no MAC address, so those in the Ethernet header are synthetic: each node publishes in its lease
//! the one that it accepts frames for.

#![forbid(unsafe_code)]

mod frame;

use std::net::IpAddr;

use frame::{Frame, HEADERS, OVERHEAD};
use heddle_sdk::json::Errors;
use heddle_sdk::*;

/// The backend: peers by their subnets, and the headers of frames to and from them.
pub struct VxlanTunBackend {
    subnets: PrefixTable<PeerIndex>,
    vni: u32,
    /// MAC of this node's end point in each family.
    own: PerFamily<MacAddress>,
    /// Headers of packets to each peer; None in a family that this node or the peer lacks.
    headers: Vec<PerFamily<Option<[u8; HEADERS]>>>,
}

/// A value for each family.
struct PerFamily<T> {
    v4: T,
    v6: T,
}

impl<T> PerFamily<T> {
    fn new(each: impl Fn(Family) -> T) -> Self {
        Self { v4: each(Family::V4), v6: each(Family::V6) }
    }

    fn get(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

impl Backend for VxlanTunBackend {
    const KEYS: Option<&'static [&'static str]> = Some(&["VNI", "Port"]);

    fn advertise(config: &NetworkConfig, node: &Node) -> Result<Advertisements, ConfigError> {
        let settings = Settings::read(config)?;
        let data = |family| Some(vtep::backend_data(settings.vni, settings.mac(node, family)));
        Ok(Advertisements {
            backend_type: Some("vxlan-tun".into()),
            backend_data: config.families().map(data).collect(),
        })
    }

    fn plan_node(
        config: &NetworkConfig,
        node: &Node,
        lease: &Lease,
    ) -> Result<NodePlan, ConfigError> {
        let settings = Settings::read(config)?;
        let tunnel = Tunnel { device: settings.device(), port: settings.port, overhead: OVERHEAD };
        tunnel.plan(config, node, lease)
    }

    fn plan_peer(
        config: &NetworkConfig,
        node: &Node,
        lease: &Lease,
        peer: &Lease,
    ) -> Result<Plan, PeerError> {
        if peer.backend_type.as_deref() != Some("vxlan-tun") {
            return Err(PeerError::other_backend(peer));
        }
        let settings = Settings::read(config)?;
        for part in lease.common_families(node, peer)? {
            vtep::peer_mac(part, settings.vni)?;
        }
        // The node's route to the device covers every peer.
        Ok(Plan::default())
    }
}

impl PacketBackend for VxlanTunBackend {
    fn with_peers(config: &NetworkConfig, node: &Node, lease: &Lease, peers: &[Lease]) -> Self {
        let settings = Settings::read(config).expect("there is a plan for this config");
        let vni = settings.vni;
        let own = PerFamily::new(|family| settings.mac(node, family));
        let headers = |peer: &Lease| {
            PerFamily::new(|family| {
                lease.family(family)?;
                let destination = vtep::peer_mac(peer.family(family)?, vni).ok()?;
                Some(Frame { vni, destination, source: *own.get(family), family }.headers())
            })
        };
        let headers = peers.iter().map(headers).collect();
        Self { subnets: PrefixTable::of_peers(peers), vni, own, headers }
    }

    fn steer(&self, destination: IpAddr) -> Option<PeerIndex> {
        self.subnets.find(destination).copied()
    }
}

impl Transform for VxlanTunBackend {
    fn overhead(_: &NetworkConfig) -> Result<u32, ConfigError> {
        Ok(OVERHEAD)
    }

    fn encapsulate(&mut self, peer: PeerIndex, packet: &[u8], payload: &mut Output<'_>) {
        let Some(family) = frame::family(packet) else { return };
        if let Some(headers) = self.headers[peer as usize].get(family) {
            payload.write(headers);
            payload.write(packet);
        }
    }

    fn decapsulate(&mut self, _: PeerIndex, payload: &[u8], packet: &mut Output<'_>) {
        let Some((frame, inner)) = Frame::read(payload) else { return };
        let ours = frame.vni == self.vni && frame.destination == *self.own.get(frame.family);
        if ours && frame::family(inner) == Some(frame.family) {
            packet.write(inner);
        }
    }
}

/// The backend's keys in the network config: those of `vxlan` that apply here.
struct Settings {
    vni: u32,
    port: u16,
}

impl Settings {
    fn read(config: &NetworkConfig) -> Result<Self, ConfigError> {
        let backend = config.backend_of::<VxlanTunBackend>()?;
        let mut errors = Errors::default();
        let vni = errors.note(backend.integer("VNI", 0..=vtep::MAX_VNI)).flatten();
        let port = errors.note(backend.port("Port")).flatten();
        errors.result()?;
        Ok(Self { vni: vni.unwrap_or(1), port: port.unwrap_or(vtep::DEFAULT_PORT) })
    }

    fn device(&self) -> String {
        format!("vtun.{}", self.vni)
    }

    /// Returns the MAC that this node accepts a family's frames for.
    fn mac(&self, node: &Node, family: Family) -> MacAddress {
        node.device_mac(family, &self.device())
    }
}

export_transform!(
    VxlanTunBackend,
    name = "vxlan-tun",
    links = ["vtun.*"],
    link_kinds = ["tun"],
    // The operator chooses `Backend.Port`.
    udp_ports = ["1-65535"],
    sysctls = ["accept_ra"],
);

#[cfg(test)]
mod tests;
