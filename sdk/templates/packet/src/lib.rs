//! The `my-plugin` backend: packets travel between nodes in UDP datagrams, one in each, carried by `heddled`.
//!
//! The kernel routes the whole overlay into one TUN device. `heddled` reads packets from it, asks this plugin which peer
//! each goes to, and sends it there.
//!
//! Keys of `Backend` in the network config, besides `Type`:
//!
//! | key | what it is | unless given |
//! | --- | --- | --- |
//! | `Port` | the UDP port of all nodes, 1024 to 65535 | 7777 |

use std::net::IpAddr;

use heddle_sdk::*;
use serde::Deserialize;

/// What stands in `Backend.Type`, and in the leases of nodes with this backend.
const NAME: &str = "my-plugin";

/// The device's name. An operator who says nothing else grants `heddle*`.
const DEVICE: &str = "heddle0";

/// The keys. Those that are not given have their defaults; upper and lower case are the same.
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
    /// What is wrong with a key is an error that names the key, and says what would be right.
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

/// The backend: its table of peers, by their subnets. The functions are pure: the same arguments, and the same peers,
/// give the same answer, whatever was asked before.
pub struct Plugin {
    peers: PrefixTable<PeerIndex>,
}

impl Backend for Plugin {
    /// What this node's lease says, for others to read.
    fn advertise(config: &NetworkConfig, _node: &Node) -> Result<Advertisements, ConfigError> {
        Settings::read(config)?;
        Ok(Advertisements {
            backend_type: Some(NAME.into()),
            backend_data: vec![None; config.networks.len()],
        })
    }

    /// What this node itself needs: the device, its addresses, and the route that leads the overlay's packets into it.
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

    /// What it takes to reach one peer: nothing of the kernel, because the node's route is for all of them.
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
    /// The table for the peers that have a plan.
    fn with_peers(_config: &NetworkConfig, _node: &Node, _lease: &Lease, peers: &[Lease]) -> Self {
        Self {
            peers: PrefixTable::of_peers(peers),
        }
    }

    /// Which peer packets for a destination go to.
    fn steer(&self, destination: IpAddr) -> Option<PeerIndex> {
        self.peers.find(destination).copied()
    }
}

export_packet_backend!(
    Plugin,
    name = "my-plugin",
    // What the operator is asked for: see `heddle plugin inspect`.
    links = ["heddle0"],
    link_kinds = ["tun"],
    udp_ports = ["1024-65535"],
    sysctls = ["accept_ra"],
);
