//! The node plan of most packet backends.

use crate::{
    Address, ConfigError, Family, IpNet, Lease, Link, LinkKind, NetworkConfig, Node, NodePlan,
    Plan, Route, Sysctl, Tun,
};

/// The length of a UDP header (RFC 768), in bytes.
const UDP_HEADER: u32 = 8;

/// A TUN device that all of the overlay is routed into. Which peer a packet then goes to is a matter of
/// [`steer`](crate::PacketBackend::steer).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The device's name: at most 15 bytes.
    pub device: String,
    /// UDP port of this node and of its peers.
    pub port: u16,
    /// What the backend adds to packets, in bytes: that of its [`Transform`](crate::Transform), or 0.
    pub overhead: u32,
}

impl Tunnel {
    /// The device for both families, with an address in each: the subnet's own, as the source of what the node itself
    /// sends into the overlay. Its MTU leaves room for outer IP and UDP headers and not for the overhead, which the
    /// host sees to.
    ///
    /// # Errors
    ///
    /// The interface's MTU is too small for it.
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
            // Nobody on the overlay is to give this node routes.
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
