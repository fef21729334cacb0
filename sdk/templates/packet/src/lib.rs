//! The `my-plugin` backend: packets travel between nodes in UDP datagrams, one in each, carried by
//! `heddled`.
//!
//! The kernel routes the whole overlay into one TUN device. `heddled` reads packets from it, asks
//! this plugin for the peer of each, and sends it there.
//!
//! Keys of `Backend` in the network config, besides `Type`:
//!
//! | key | meaning | default |
//! | --- | --- | --- |
//! | `Port` | the UDP port of all nodes, 1024 to 65535 | 7777 |

#![forbid(unsafe_code)]

use std::net::IpAddr;

use heddle_sdk::*;
use serde::Deserialize;

/// Value of `Backend.Type`, and backend type in the leases of nodes with this backend.
const NAME: &str = "my-plugin";

/// Name of the device. By default, operators grant `heddle*`.
const DEVICE: &str = "heddle0";

/// The keys. Missing ones have their defaults; names are case-insensitive.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Settings {
    port: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self { port: 7777 }
    }
}

impl Settings {
    /// Reads the keys. An error names the key and the expected value.
    fn read(config: &NetworkConfig) -> Result<Self, ConfigError> {
        let settings: Self = config.settings()?;
        match settings.port {
            1024.. => Ok(settings),
            port => Err(ConfigError {
                key: "Backend.Port".into(),
                message: format!("is {port}: expected 1024 to 65535"),
            }),
        }
    }
}

/// The backend: its table of peers, by their subnets. The functions are pure: the same arguments
/// and the same peers give the same result, independent of earlier calls.
pub struct Plugin {
    peers: PrefixTable<PeerIndex>,
}

impl Backend for Plugin {
    /// Returns the backend's part of this node's lease, for other nodes to read.
    fn advertise(config: &NetworkConfig, _node: &Node) -> Result<Advertisements, ConfigError> {
        Settings::read(config)?;
        Ok(Advertisements {
            backend_type: Some(NAME.into()),
            backend_data: vec![None; config.networks.len()],
        })
    }

    /// Plans this node itself: the device, its addresses, and the route that leads the overlay's
    /// packets into it.
    fn plan_node(
        config: &NetworkConfig,
        node: &Node,
        lease: &Lease,
    ) -> Result<NodePlan, ConfigError> {
        let Settings { port } = Settings::read(config)?;
        Tunnel {
            device: DEVICE.into(),
            port,
            overhead: 0,
        }
        .plan(config, node, lease)
    }

    /// Plans one peer: no kernel objects, because the node's route covers all of them.
    fn plan_peer(
        _config: &NetworkConfig,
        node: &Node,
        lease: &Lease,
        peer: &Lease,
    ) -> Result<Plan, PeerError> {
        if peer.backend_type.as_deref() != Some(NAME) {
            return Err(PeerError::other_backend(peer));
        }
        lease.common_families(node, peer)?;
        Ok(Plan::default())
    }
}

impl PacketBackend for Plugin {
    /// Creates the table for the peers that have a plan.
    fn with_peers(_config: &NetworkConfig, _node: &Node, _lease: &Lease, peers: &[Lease]) -> Self {
        Self {
            peers: PrefixTable::of_peers(peers),
        }
    }

    /// Returns the peer that packets for a destination are sent to.
    fn steer(&self, destination: IpAddr) -> Option<PeerIndex> {
        self.peers.find(destination).copied()
    }
}

export_packet_backend!(
    Plugin,
    name = "my-plugin",
    // The capabilities that the operator has to grant: see `heddle plugin inspect`.
    links = ["heddle0"],
    link_kinds = ["tun"],
    udp_ports = ["1024-65535"],
    sysctls = ["accept_ra"],
);
