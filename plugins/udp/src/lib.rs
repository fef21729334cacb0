//! The `udp` backend: packets travel from host to host in UDP datagrams, one bare packet in each,
//! carried in user space (flannel's `pkg/backend/udp`). For hosts whose kernel has no tunnel
//! device.
//!
//! The kernel routes the whole overlay into one TUN device; a packet is then sent to the peer whose
//! subnet contains its destination. flannel carries IPv4 only, this backend also IPv6, between the
//! IPv6 addresses of the nodes.

#![forbid(unsafe_code)]

use std::net::IpAddr;

use heddle_sdk::*;

/// Name of the device. flannel requests `flannel%d`, and the first such device gets this name.
const DEVICE: &str = "flannel0";

/// flannel's default port.
const DEFAULT_PORT: u16 = 8285;

/// The backend: peers by their subnets.
pub struct UdpBackend {
    peers: PrefixTable<PeerIndex>,
}

impl Backend for UdpBackend {
    const KEYS: Option<&'static [&'static str]> = Some(&["Port"]);

    fn advertise(config: &NetworkConfig, _: &Node) -> Result<Advertisements, ConfigError> {
        port(config)?;
        // As in flannel, the lease has no backend type.
        Ok(Advertisements { backend_type: None, backend_data: vec![None; config.networks.len()] })
    }

    fn plan_node(
        config: &NetworkConfig,
        node: &Node,
        lease: &Lease,
    ) -> Result<NodePlan, ConfigError> {
        let tunnel = Tunnel { device: DEVICE.into(), port: port(config)?, overhead: 0 };
        tunnel.plan(config, node, lease)
    }

    fn plan_peer(
        _: &NetworkConfig,
        node: &Node,
        lease: &Lease,
        peer: &Lease,
    ) -> Result<Plan, PeerError> {
        if !matches!(peer.backend_type.as_deref(), None | Some("udp")) {
            return Err(PeerError::other_backend(peer));
        }
        lease.common_families(node, peer)?;
        // The node's route to the device covers every peer.
        Ok(Plan::default())
    }
}

impl PacketBackend for UdpBackend {
    fn with_peers(_: &NetworkConfig, _: &Node, _: &Lease, peers: &[Lease]) -> Self {
        Self { peers: PrefixTable::of_peers(peers) }
    }

    fn steer(&self, destination: IpAddr) -> Option<PeerIndex> {
        self.peers.find(destination).copied()
    }
}

fn port(config: &NetworkConfig) -> Result<u16, ConfigError> {
    let backend = config.backend_of::<UdpBackend>()?;
    Ok(backend.port("Port")?.unwrap_or(DEFAULT_PORT))
}

export_packet_backend!(
    UdpBackend,
    name = "udp",
    links = ["flannel0"],
    link_kinds = ["tun"],
    // The operator chooses `Backend.Port`.
    udp_ports = ["1-65535"],
    sysctls = ["accept_ra"],
);

#[cfg(test)]
mod tests;
