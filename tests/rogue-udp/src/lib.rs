//! A packet backend that fails on demand, for the end-to-end tests. It steers packets like udp,
//! except that a destination whose last byte is 66 traps, and 99 loops for ever. With
//! `Backend.Harm`, every packet traps, whatever its destination; network addresses are exempt, so
//! the host can still ask about subnets. A peer whose `BackendData` is `"trap"` or `"hang"` makes
//! the function that receives the peers fail.

#![forbid(unsafe_code)]

use std::net::IpAddr;

use heddle_sdk::json::Object;
use heddle_sdk::*;

/// Last byte of the addresses that trap.
const TRAP: u8 = 66;

/// Last byte of the addresses that hang.
const HANG: u8 = 99;

/// The backend.
pub struct RogueUdp {
    peers: PrefixTable<PeerIndex>,
    /// True if every packet traps.
    harm: bool,
}

impl Backend for RogueUdp {
    fn advertise(config: &NetworkConfig, _: &Node) -> Result<Advertisements, ConfigError> {
        Ok(Advertisements { backend_type: None, backend_data: vec![None; config.networks.len()] })
    }

    fn plan_node(
        config: &NetworkConfig,
        node: &Node,
        lease: &Lease,
    ) -> Result<NodePlan, ConfigError> {
        let tunnel = Tunnel { device: "flannel0".into(), port: 8285, overhead: 0 };
        tunnel.plan(config, node, lease)
    }

    fn plan_peer(_: &NetworkConfig, _: &Node, _: &Lease, _: &Lease) -> Result<Plan, PeerError> {
        Ok(Plan::default())
    }
}

impl PacketBackend for RogueUdp {
    fn with_peers(config: &NetworkConfig, _: &Node, _: &Lease, peers: &[Lease]) -> Self {
        let harm = Object::parse("Backend", &config.backend)
            .and_then(|backend| backend.flag("Harm"))
            .is_ok_and(|harm| harm == Some(true));
        for data in peers.iter().flat_map(|peer| &peer.families).flat_map(|part| &part.backend_data)
        {
            match data.as_str() {
                r#""trap""# => trap(),
                r#""hang""# => hang(),
                _ => {}
            }
        }
        Self { peers: PrefixTable::of_peers(peers), harm }
    }

    fn steer(&self, destination: IpAddr) -> Option<PeerIndex> {
        let last = match destination {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[15],
        };
        if last == TRAP || (self.harm && last != 0) {
            trap();
        }
        if last == HANG {
            hang();
        }
        self.peers.find(destination).copied()
    }
}

fn trap() -> ! {
    panic!("as was asked for");
}

fn hang() -> ! {
    loop {
        std::hint::black_box(());
    }
}

export_packet_backend!(
    RogueUdp,
    name = "rogue-udp",
    links = ["flannel0"],
    link_kinds = ["tun"],
    udp_ports = ["8285"],
    sysctls = ["accept_ra"],
);
