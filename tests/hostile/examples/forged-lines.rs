//! Returns errors whose text imitates log lines of the daemon.

use heddle_hostile::{Hostile, Malice};
use heddle_sdk::*;

/// The hostile plugin.
pub struct ForgedLines;

const FORGED: &str =
    "is wrong\n2026-01-01T00:00:00Z  INFO forged: all is well\r\u{1b}[2J\u{2028}\u{85}";

impl Malice for ForgedLines {}

impl Backend for ForgedLines {
    fn advertise(config: &NetworkConfig, node: &Node) -> Result<Advertisements, ConfigError> {
        match config.backend.contains("advertise") {
            true => Err(ConfigError { key: FORGED.into(), message: FORGED.repeat(1000) }),
            false => Hostile::<Self>::advertise(config, node),
        }
    }

    fn plan_node(
        config: &NetworkConfig,
        node: &Node,
        lease: &Lease,
    ) -> Result<NodePlan, ConfigError> {
        Hostile::<Self>::plan_node(config, node, lease)
    }

    fn plan_peer(
        config: &NetworkConfig,
        node: &Node,
        lease: &Lease,
        peer: &Lease,
    ) -> Result<Plan, PeerError> {
        match peer.families[0].backend_data.as_deref() {
            Some(heddle_hostile::HOSTILE) => Err(PeerError::Invalid(FORGED.repeat(1000))),
            _ => Hostile::<Self>::plan_peer(config, node, lease, peer),
        }
    }
}

heddle_sdk::export_backend!(
    ForgedLines,
    name = "forged-lines",
    links = ["heddle*"],
    link_kinds = ["vxlan"],
    udp_ports = ["1024-65535"],
    sysctls = ["accept_ra"],
);
