//! The `my-plugin` backend: every node is the gateway to its own subnet, and packets travel between nodes as they are.
//! All nodes have to be on one network, because a gateway must be reached without another.
//!
//! Keys of `Backend` in the network config, besides `Type`:
//!
//! | key | what it is | unless given |
//! | --- | --- | --- |
//! | `MTU` | the MTU for containers' interfaces | that of the interface between nodes |

use heddle_sdk::*;
use serde::Deserialize;

/// What stands in `Backend.Type`, and in the leases of nodes with this backend.
const NAME: &str = "my-plugin";

/// The keys. Those that are not given have their defaults; upper and lower case are the same.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Settings {
    #[serde(rename = "MTU")]
    mtu: Option<u32>,
}

impl Settings {
    /// What is wrong with a key is an error that names the key, and says what would be right.
    fn read(config: &NetworkConfig, node: &Node) -> Result<Self, ConfigError> {
        let settings: Self = config.settings()?;
        let least = config
            .families()
            .map(Family::least_mtu)
            .max()
            .unwrap_or_default();
        let most = node.underlay.packet_mtu();
        match settings.mtu {
            Some(mtu) if !(least..=most).contains(&mtu) => Err(ConfigError {
                key: "Backend.MTU".into(),
                message: format!("is {mtu}: expected {least} to {most}"),
            }),
            _ => Ok(settings),
        }
    }
}

/// The backend. Its functions are pure: the same arguments give the same answer, whatever was asked before.
pub struct Plugin;

impl Backend for Plugin {
    /// What this node's lease says, for others to read.
    fn advertise(config: &NetworkConfig, node: &Node) -> Result<Advertisements, ConfigError> {
        Settings::read(config, node)?;
        Ok(Advertisements {
            backend_type: Some(NAME.into()),
            backend_data: vec![None; config.networks.len()],
        })
    }

    /// What this node itself needs: no device, no address.
    fn plan_node(
        config: &NetworkConfig,
        node: &Node,
        _lease: &Lease,
    ) -> Result<NodePlan, ConfigError> {
        let settings = Settings::read(config, node)?;
        let mtu = settings.mtu.unwrap_or(node.underlay.packet_mtu());
        Ok(NodePlan {
            plan: Plan::default(),
            mtu,
        })
    }

    /// What it takes to reach one peer: a route to its subnet in each family that both nodes have.
    fn plan_peer(
        _config: &NetworkConfig,
        node: &Node,
        lease: &Lease,
        peer: &Lease,
    ) -> Result<Plan, PeerError> {
        if peer.backend_type.as_deref() != Some(NAME) {
            return Err(PeerError::other_backend(peer));
        }
        let mut plan = Plan::default();
        for part in lease.common_families(node, peer)? {
            let gateway = part.public_address;
            if !node.underlay.is_neighbour(gateway) {
                return Err(PeerError::Invalid(format!(
                    "its public address {gateway} is on no network of {}: expected all nodes on one network",
                    node.underlay.link
                )));
            }
            plan.routes
                .push(Route::via(part.subnet, gateway, &node.underlay.link));
        }
        Ok(plan)
    }
}

export_backend!(Plugin, name = "my-plugin");
