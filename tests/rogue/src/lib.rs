//! A backend that fails on demand, for the end-to-end tests, as a peer's `BackendData` or
//! `Backend.Harm` in the network config say. Peers that ask for nothing get a route over the
//! underlay.

#![forbid(unsafe_code)]

use heddle_sdk::*;

/// The backend.
pub struct Rogue;

impl Backend for Rogue {
    fn advertise(config: &NetworkConfig, _: &Node) -> Result<Advertisements, ConfigError> {
        harm(&config.backend);
        let backend_data = vec![None; config.networks.len()];
        Ok(Advertisements { backend_type: Some("rogue".into()), backend_data })
    }

    fn plan_node(_: &NetworkConfig, node: &Node, _: &Lease) -> Result<NodePlan, ConfigError> {
        Ok(NodePlan { plan: Plan::default(), mtu: node.underlay.mtu })
    }

    fn plan_peer(
        _: &NetworkConfig,
        node: &Node,
        _: &Lease,
        peer: &Lease,
    ) -> Result<Plan, PeerError> {
        let mut plan = Plan::default();
        for family in &peer.families {
            let data = family.backend_data.as_deref().unwrap_or_default();
            harm(data);
            let destination = match data.contains("theft") {
                true => "0.0.0.0/0".parse().expect("a network"),
                false => family.subnet,
            };
            plan.routes.push(Route::via(destination, family.public_address, &node.underlay.link));
        }
        Ok(plan)
    }
}

fn harm(wish: &str) {
    if wish.contains("trap") {
        panic!("as was asked for");
    }
    if wish.contains("hang") {
        loop {
            std::hint::black_box(());
        }
    }
    if wish.contains("hoard") {
        let mut hoard = Vec::new();
        loop {
            hoard.push(vec![1_u8; 1 << 20]);
            std::hint::black_box(&hoard);
        }
    }
}

export_backend!(Rogue, name = "rogue");
