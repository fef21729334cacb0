//! The `my-plugin` backend: every node is the gateway to its own subnet, and packets travel between
//! nodes unchanged. All nodes must be on one network, because a gateway has to be reachable without
//! another.
//!
//! Keys of `Backend` in the network config, besides `Type`:
//!
//! | key | meaning | default |
//! | --- | --- | --- |
//! | `MTU` | the MTU for containers' interfaces | that of the interface between nodes |

#![forbid(unsafe_code)]

use heddle_sdk::*;
use serde::Deserialize;

/// Value of `Backend.Type`, and backend type in the leases of nodes with this backend.
const NAME: &str = "my-plugin";

/// The keys. Missing ones have their defaults; names are case-insensitive.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Settings {
    #[serde(rename = "MTU")]
    mtu: Option<u32>,
}

impl Settings {
    /// Reads the keys. An error names the key and the expected value.
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

/// The backend. Its functions are pure: the same arguments give the same result, independent of
/// earlier calls.
pub struct Plugin;

impl Backend for Plugin {
    /// Returns the backend's part of this node's lease, for other nodes to read.
    fn advertise(config: &NetworkConfig, node: &Node) -> Result<Advertisements, ConfigError> {
        Settings::read(config, node)?;
        Ok(Advertisements {
            backend_type: Some(NAME.into()),
            backend_data: vec![None; config.networks.len()],
        })
    }

    /// Plans this node itself: no device, no address.
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

    /// Plans one peer: a route to its subnet in each family that both nodes have.
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
