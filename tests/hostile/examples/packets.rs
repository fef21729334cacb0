//! A packet backend with invalid results: unknown peers, too few packets, oversized ones, or no
//! return at all.

use std::net::IpAddr;

use heddle_hostile::{hang, hoard, tunnel};
use heddle_sdk::*;

/// The hostile plugin, and the misbehaviour selected by the config.
pub struct Packets {
    peers: PrefixTable<PeerIndex>,
    wish: String,
}

impl Packets {
    fn play(&self, at: &str) {
        match self.wish.strip_prefix(at) {
            Some("-loop") => hang(),
            Some("-trap") => panic!("as was asked for"),
            Some("-hoard") => hoard(),
            _ => {}
        }
    }
}

impl Backend for Packets {
    fn advertise(config: &NetworkConfig, _: &Node) -> Result<Advertisements, ConfigError> {
        Ok(Advertisements { backend_type: None, backend_data: vec![None; config.networks.len()] })
    }

    fn plan_node(
        config: &NetworkConfig,
        node: &Node,
        lease: &Lease,
    ) -> Result<NodePlan, ConfigError> {
        let mut plan = tunnel(config, node, lease)?;
        if let LinkKind::Tun(tun) = &mut plan.plan.links[0].kind {
            match () {
                () if config.backend.contains("tun-source") => {
                    tun.local = vec![[192, 168, 255, 254].into()];
                }
                () if config.backend.contains("tun-port") => tun.port = 53,
                () if config.backend.contains("tun-none") => tun.local.clear(),
                () => {}
            }
        }
        if config.backend.contains("tun-two") {
            let second = Link { name: "heddle2".into(), ..plan.plan.links[0].clone() };
            plan.plan.links.push(second);
        }
        Ok(plan)
    }

    fn plan_peer(_: &NetworkConfig, _: &Node, _: &Lease, _: &Lease) -> Result<Plan, PeerError> {
        Ok(Plan::default())
    }
}

impl PacketBackend for Packets {
    fn with_peers(config: &NetworkConfig, _: &Node, _: &Lease, peers: &[Lease]) -> Self {
        let wish = config.backend.split(r#""Wish":""#).nth(1).unwrap_or_default();
        let wish = wish.split('"').next().unwrap_or_default().to_owned();
        let all = Self { peers: PrefixTable::of_peers(peers), wish };
        all.play("update");
        all
    }

    fn steer(&self, destination: IpAddr) -> Option<PeerIndex> {
        self.play("steer");
        match self.wish.as_str() {
            "steer-range" => Some(u32::MAX),
            _ => self.peers.find(destination).copied(),
        }
    }
}

impl Transform for Packets {
    fn overhead(config: &NetworkConfig) -> Result<u32, ConfigError> {
        match () {
            () if config.backend.contains("overhead-loop") => hang(),
            () if config.backend.contains("overhead-huge") => Ok(u32::MAX),
            () => Ok(16),
        }
    }

    fn encapsulate(&mut self, _: PeerIndex, packet: &[u8], payload: &mut Output<'_>) {
        self.play("encapsulate");
        payload.write(packet);
        if self.wish == "encapsulate-long" {
            payload.write(&[0; 17]);
        }
    }

    fn decapsulate(&mut self, _: PeerIndex, payload: &[u8], packet: &mut Output<'_>) {
        self.play("decapsulate");
        packet.write(payload);
        if self.wish == "decapsulate-long" {
            packet.write(&[0; 65_536]);
        }
    }
}

export_transform!(
    Packets,
    name = "packets",
    links = ["heddle*"],
    link_kinds = ["tun"],
    udp_ports = ["1024-65535"],
    sysctls = ["accept_ra"],
);
