//! A plugin for the tests of `heddle-plugin` that misbehaves on demand: the backend type in a
//! peer's lease selects how. It exports all that a backend can, so it serves as a plugin of each
//! world.

#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "tries what a plugin must not do")]

mod packets;

use std::time::Duration;

use heddle_sdk::*;

/// The misbehaving backend.
pub struct Misbehaving;

impl Backend for Misbehaving {
    fn advertise(_: &NetworkConfig, _: &Node) -> Result<Advertisements, ConfigError> {
        Ok(Advertisements { backend_type: None, backend_data: vec![Some("{".into())] })
    }

    fn plan_node(
        config: &NetworkConfig,
        node: &Node,
        lease: &Lease,
    ) -> Result<NodePlan, ConfigError> {
        if config.backend.contains("tun") {
            // Leaves no room for the transform's bytes; the host has to lower the MTU by
            // `overhead`.
            let tunnel = Tunnel { device: "flannel0".into(), port: 8285, overhead: 0 };
            return tunnel.plan(config, node, lease);
        }
        let address =
            Address { link: node.underlay.link.clone(), network: node.underlay.addresses[0] };
        let plan = Plan { addresses: vec![address], ..Plan::default() };
        Ok(NodePlan { plan, mtu: 1450 })
    }

    fn plan_peer(_: &NetworkConfig, _: &Node, _: &Lease, peer: &Lease) -> Result<Plan, PeerError> {
        let subnet = peer.families[0].subnet;
        let route = || Route::onlink(subnet, subnet.network(), "flannel.1");
        let routes = match peer.backend_type.as_deref().unwrap_or_default() {
            "good" => vec![route()],
            "panic" => panic!("at the disco"),
            "loop" => hang(),
            "hoard" => hoard(),
            "recurse" => recurse(0),
            "sleep" => {
                std::thread::sleep(Duration::from_secs(3600));
                vec![]
            }
            "exit" => std::process::exit(3),
            "flood" => {
                for _ in 0..10_000 {
                    log::warn(&"x".repeat(10_000));
                }
                vec![route()]
            }
            "twice" => vec![route(), route()],
            "crowd" => (0..65).map(|_| route()).collect(),
            "avalanche" => (0..1_000_000).map(|_| route()).collect(),
            "theft" => {
                let everything = "0.0.0.0/0".parse().expect("a network");
                vec![Route::onlink(everything, subnet.network(), "flannel.1")]
            }
            "open" => match std::fs::read_to_string("/etc/hostname") {
                Ok(name) => panic!("read the host's name, {name}"),
                Err(_) => vec![route()],
            },
            "other" => return Err(PeerError::OtherBackend("\u{1b}[31mred\nline".repeat(1000))),
            kind => panic!("cannot {kind}"),
        };
        Ok(Plan { routes, ..Plan::default() })
    }
}

fn hang() -> ! {
    loop {
        std::hint::black_box(());
    }
}

fn hoard() -> ! {
    let mut hoard = Vec::new();
    loop {
        hoard.push(vec![1_u8; 1 << 20]);
        std::hint::black_box(&hoard);
    }
}

fn recurse(depth: usize) -> Vec<Route> {
    let mut routes = if std::hint::black_box(true) { recurse(depth + 1) } else { vec![] };
    routes.truncate(depth);
    routes
}

export_backend!(Misbehaving, name = "misbehaving");
