//! A backend that violates the rule that `Backend.Fault` names, and no other.

#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use heddle_sdk::json::Object;
use heddle_sdk::*;

const DEVICE: &str = "heddle-broken";

/// Number of calls of this instance.
static ASKED: AtomicU32 = AtomicU32::new(0);

/// The backend.
pub struct Broken {
    fault: String,
    peers: PrefixTable<PeerIndex>,
}

fn fault(config: &NetworkConfig) -> String {
    let backend = Object::parse("Backend", &config.backend);
    let text =
        backend.and_then(|backend| backend.text("Fault").map(|text| text.map(str::to_owned)));
    text.ok().flatten().unwrap_or_default()
}

impl Backend for Broken {
    fn advertise(config: &NetworkConfig, _: &Node) -> Result<Advertisements, ConfigError> {
        if fault(config) == "key" {
            return Err(ConfigError { key: "Port".into(), message: "is wrong".into() });
        }
        if fault(config) == "trap" && config.backend.contains("VNI") {
            panic!("never saw a VNI");
        }
        let backend_data = vec![None; config.networks.len()];
        Ok(Advertisements { backend_type: Some("broken".into()), backend_data })
    }

    fn plan_node(
        config: &NetworkConfig,
        node: &Node,
        lease: &Lease,
    ) -> Result<NodePlan, ConfigError> {
        let port = if fault(config) == "port" { 53 } else { 4000 };
        let mut planned =
            Tunnel { device: DEVICE.into(), port, overhead: 4 }.plan(config, node, lease)?;
        match fault(config).as_str() {
            "clock" => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                planned.mtu -= now.map_or(0, |now| now.subsec_nanos()) % 100;
            }
            "mtu" => planned.mtu = 9000,
            "sysctl" => {
                let mut another = planned.plan.sysctls[0].clone();
                another.name = "forwarding".into();
                planned.plan.sysctls.push(another);
            }
            _ => {}
        }
        Ok(planned)
    }

    fn plan_peer(
        config: &NetworkConfig,
        _: &Node,
        _: &Lease,
        peer: &Lease,
    ) -> Result<Plan, PeerError> {
        let fault = fault(config);
        if peer.backend_type.as_deref() != Some("broken") && fault != "others" {
            return Err(PeerError::other_backend(peer));
        }
        let part = &peer.families[0];
        let mut route = Route::dev(part.subnet, DEVICE);
        match fault.as_str() {
            "memory" if ASKED.fetch_add(1, Ordering::Relaxed) % 2 == 1 => {
                return Ok(Plan::default());
            }
            "peer" => return Err(PeerError::Invalid("nobody is good enough".into())),
            "data" if part.backend_data.is_some() => panic!("never saw any data"),
            "default" => route.destination = "0.0.0.0/0".parse().expect("a network"),
            "same" => {
                let (link, mac) = (DEVICE.into(), MacAddress::derived("everybody"));
                let entry = FdbEntry { link, mac, destination: part.public_address };
                return Ok(Plan { fdb_entries: vec![entry], ..Plan::default() });
            }
            _ => {}
        }
        Ok(Plan { routes: vec![route], ..Plan::default() })
    }
}

impl PacketBackend for Broken {
    fn with_peers(config: &NetworkConfig, _: &Node, _: &Lease, peers: &[Lease]) -> Self {
        Self { fault: fault(config), peers: PrefixTable::of_peers(peers) }
    }

    fn steer(&self, destination: IpAddr) -> Option<PeerIndex> {
        let peer = self.peers.find(destination).copied();
        match self.fault.as_str() {
            "astray" => peer.map(|peer| if peer == 0 { 1 } else { 0 }),
            "nowhere" => None,
            "range" => Some(1000),
            _ => peer,
        }
    }
}

impl Transform for Broken {
    fn overhead(_: &NetworkConfig) -> Result<u32, ConfigError> {
        Ok(4)
    }

    fn encapsulate(&mut self, _: PeerIndex, packet: &[u8], payload: &mut Output<'_>) {
        payload.write(b"head");
        payload.write(packet);
        match self.fault.as_str() {
            "long" => payload.write(b"more"),
            "bits" => payload[10] ^= 1,
            _ => {}
        }
    }

    fn decapsulate(&mut self, _: PeerIndex, payload: &[u8], packet: &mut Output<'_>) {
        match payload.strip_prefix(b"head") {
            Some(inside) => packet.write(inside),
            None if self.fault == "junk" => panic!("where is the head?"),
            None => {}
        }
    }
}

export_transform!(
    Broken,
    name = "broken",
    links = ["heddle-broken"],
    link_kinds = ["tun"],
    udp_ports = [4000],
    sysctls = ["accept_ra"],
);
