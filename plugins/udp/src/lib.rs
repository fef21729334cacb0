//! The `udp` backend: packets go from host to host in UDP datagrams, one in each and nothing around it, carried in user
//! space (flannel's `pkg/backend/udp`). For hosts whose kernel has nothing better.
//!
//! The kernel routes the whole overlay into one TUN device; a packet then goes to the peer whose subnet its destination
//! is in. flannel carries IPv4 alone, and this IPv6 as well, between the IPv6 addresses of the nodes.

use std::net::IpAddr;

use heddle_sdk::json::Object;
use heddle_sdk::*;

/// The device. flannel asks for `flannel%d`, and the first there is has this name.
const DEVICE: &str = "flannel0";

/// flannel's port.
const DEFAULT_PORT: u16 = 8285;

/// The backend: peers by their subnets.
pub struct UdpBackend {
    peers: PrefixTable<PeerIndex>,
}

impl Backend for UdpBackend {
    fn advertise(config: &NetworkConfig, _: &Node) -> Result<Advertisements, ConfigError> {
        port(config)?;
        // As in flannel, the lease does not say what it is for.
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
        // The route to the device is the node's, and covers every peer.
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
    let backend = Object::parse("Backend", &config.backend)?;
    Ok(backend.port("Port")?.unwrap_or(DEFAULT_PORT))
}

export_packet_backend!(
    UdpBackend,
    name = "udp",
    links = ["flannel0"],
    link_kinds = ["tun"],
    // `Backend.Port` is the operator's.
    udp_ports = ["1-65535"],
    sysctls = ["accept_ra"],
);

#[cfg(test)]
mod tests;
