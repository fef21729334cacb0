//! The node plan of most packet backends.

use crate::{
    Address, ConfigError, Family, IpNet, Lease, Link, LinkKind, NetworkConfig, Node, NodePlan,
    Plan, Route, Sysctl, Tun,
};

/// The length of a UDP header (RFC 768), in bytes.
const UDP_HEADER: u32 = 8;

/// A TUN device that the whole overlay is routed into. [`steer`](crate::PacketBackend::steer)
/// selects the peer for each packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Name of the device: at most 15 bytes.
    pub device: String,
    /// UDP port of this node and of its peers.
    pub port: u16,
    /// Bytes that the backend adds to packets: the overhead of its [`Transform`](crate::Transform),
    /// or 0.
    pub overhead: u32,
}

impl Tunnel {
    /// Plans the device for both families, with an address in each: the subnet's own, as the source
    /// of the node's own packets into the overlay. The MTU leaves room for the outer IP and UDP
    /// headers, but not for the overhead, which the host subtracts.
    ///
    /// # Errors
    ///
    /// If the interface's MTU is too small.
    pub fn plan(
        &self,
        config: &NetworkConfig,
        node: &Node,
        lease: &Lease,
    ) -> Result<NodePlan, ConfigError> {
        let outer = node.underlay.packet_mtu();
        let headers = |family: Family| family.header_length() + UDP_HEADER;
        let least = |family: Family| family.least_mtu() + self.overhead + headers(family);
        let least = config.families().map(least).max().unwrap_or_default();
        if outer < least {
            return Err(ConfigError {
                key: "Backend.Type".into(),
                message: format!(
                    "is for interfaces with an MTU of {least} or more: that of {} is {outer}",
                    node.underlay.link
                ),
            });
        }
        let mtu = outer - config.families().map(headers).max().unwrap_or_default();
        let local =
            lease.families.iter().map(|part| node.underlay.local_address(part.public_address));
        let device = self.device.as_str();
        let plan = Plan {
            links: vec![Link {
                name: device.to_owned(),
                mtu,
                mac: None,
                kind: LinkKind::Tun(Tun { local: local.collect(), port: self.port }),
            }],
            // No host on the overlay may configure routes on this node.
            sysctls: vec![Sysctl {
                link: device.to_owned(),
                family: Family::V6,
                name: "accept_ra".into(),
                value: "0".into(),
            }],
            addresses: lease
                .families
                .iter()
                .map(|part| Address {
                    link: device.to_owned(),
                    network: IpNet::from(part.subnet.network()),
                })
                .collect(),
            routes: config
                .networks
                .iter()
                .map(|overlay| Route::dev(overlay.network, device))
                .collect(),
            ..Plan::default()
        };
        Ok(NodePlan { plan, mtu })
    }
}
