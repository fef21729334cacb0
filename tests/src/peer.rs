//! Nodes that exist only as a lease in etcd.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use heddle_lab::{FdbEntry, Host, KernelState, Neighbour, PREFIX, Route};

/// Network config of an overlay large enough for tens of thousands of peers.
pub const NETWORK_FOR_PEERS: &str =
    r#"{"Network":"10.0.0.0/8","SubnetLen":24,"Backend":{"Type":"vxlan"}}"#;

/// A peer by number, up to 32,767. Its subnet is part of 10.128.0.0/9, and its address is beyond
/// the lab's router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub u16);

impl Peer {
    /// Returns `count` peers, numbered from `first` on.
    pub fn range(first: u16, count: u16) -> Vec<Self> {
        (first..first + count).map(Self).collect()
    }

    fn octets(self) -> [u8; 2] {
        self.0.to_be_bytes()
    }

    /// Returns the first address of the peer's subnet, a /24.
    pub fn subnet(self) -> Ipv4Addr {
        let [high, low] = self.octets();
        Ipv4Addr::new(10, 128 + high, low, 0)
    }

    /// Returns the peer's underlay address.
    pub fn public_ip(self) -> Ipv4Addr {
        let [high, low] = self.octets();
        Ipv4Addr::new(172, 16, high, low)
    }

    /// Returns the MAC address of the peer's VTEP.
    pub fn mac(self) -> String {
        let [high, low] = self.octets();
        format!("02:00:00:00:{high:02x}:{low:02x}")
    }

    /// Returns the last part of the lease's key.
    pub fn lease_key(self) -> String {
        format!("{}-24", self.subnet())
    }

    /// Returns the lease's key in etcd.
    pub fn etcd_key(self) -> String {
        format!("{PREFIX}/subnets/{}", self.lease_key())
    }

    /// Returns the lease as flannel writes it.
    pub fn value(self) -> String {
        format!(
            r#"{{"PublicIP":"{}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{}"}}}}"#,
            self.public_ip(),
            self.mac()
        )
    }

    /// Returns the peers' keys and values for etcd.
    pub fn leases(peers: &[Self]) -> Vec<(String, String)> {
        peers.iter().map(|peer| (peer.etcd_key(), peer.value())).collect()
    }

    /// Returns the objects that a node programs for these peers: a route, a neighbour and an FDB
    /// entry each. `protocol` is that of the routes.
    pub fn objects(peers: &[Self], protocol: &str) -> KernelState {
        let device = || "flannel.1".to_owned();
        KernelState {
            routes: peers
                .iter()
                .map(|peer| Route {
                    dst: format!("{}/24", peer.subnet()),
                    gateway: Some(peer.subnet().to_string()),
                    dev: Some(device()),
                    kind: None,
                    protocol: Some(protocol.to_owned()),
                    flags: vec!["onlink".into()],
                    metric: None,
                })
                .collect(),
            neighbours: peers
                .iter()
                .map(|peer| Neighbour {
                    dst: peer.subnet().to_string(),
                    dev: device(),
                    lladdr: Some(peer.mac()),
                    state: vec!["PERMANENT".into()],
                })
                .collect(),
            fdb: peers
                .iter()
                .map(|peer| FdbEntry {
                    mac: peer.mac(),
                    ifname: device(),
                    dst: Some(peer.public_ip().to_string()),
                    flags: vec!["self".into()],
                    state: "permanent".into(),
                })
                .collect(),
        }
    }
}

/// Programs with iproute2 the objects that a node programs for these peers, and returns the time it
/// took.
pub fn by_hand(host: &Host, peers: &[Peer]) -> Duration {
    let mut ip = format!(
        "link add name flannel.1 type vxlan id 1 local {} dev eth0 dstport 8472 nolearning\n\
         addr add 10.0.1.0/32 dev flannel.1\nlink set flannel.1 mtu 1450 up\n",
        host.v4()
    );
    let mut bridge = String::new();
    for peer in peers {
        let (subnet, mac) = (peer.subnet(), peer.mac());
        writeln!(ip, "neigh add {subnet} lladdr {mac} dev flannel.1 nud permanent").unwrap();
        writeln!(ip, "route add {subnet}/24 via {subnet} dev flannel.1 onlink").unwrap();
        let address = peer.public_ip();
        writeln!(bridge, "fdb append {mac} dev flannel.1 dst {address} self permanent").unwrap();
    }
    let start = Instant::now();
    host.namespace().batch("ip", &ip).unwrap();
    host.namespace().batch("bridge", &bridge).unwrap();
    start.elapsed()
}
