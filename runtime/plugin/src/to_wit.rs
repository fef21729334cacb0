//! Conversion from the host's types to the generated ones.

use std::net::IpAddr;

use heddle_core::address::MacAddress;
use heddle_core::config::NetworkConfig;
use heddle_core::lease::Lease;
use heddle_core::node::Node;
use ipnet::IpNet;

use crate::bindings::backend::heddle::overlay::types as wit;

/// The kinds of devices that a plan can ask for (`link-kind` in the WIT). Plugins do not see other
/// devices.
pub(crate) const PLANNABLE: [&str; 2] = ["vxlan", "tun"];

pub(crate) fn address(address: IpAddr) -> wit::IpAddress {
    match address {
        IpAddr::V4(address) => wit::IpAddress::Ipv4(address.octets().into()),
        IpAddr::V6(address) => wit::IpAddress::Ipv6(address.segments().into()),
    }
}

fn network(network: IpNet) -> wit::IpNetwork {
    wit::IpNetwork { address: address(network.addr()), prefix_length: network.prefix_len() }
}

fn mac(mac: MacAddress) -> wit::MacAddress {
    mac.0.into()
}

pub(crate) fn config(config: &NetworkConfig) -> wit::NetworkConfig {
    wit::NetworkConfig {
        networks: config
            .networks
            .iter()
            .map(|overlay| wit::OverlayNetwork {
                network: network(overlay.network),
                subnet_length: overlay.subnet_length,
            })
            .collect(),
        backend: config.backend.json.clone(),
    }
}

pub(crate) fn node(node: &Node) -> wit::Node {
    let underlay = &node.underlay;
    wit::Node {
        id: node.id.to_string(),
        underlay: wit::Underlay {
            link: underlay.link.to_string(),
            mtu: underlay.mtu,
            addresses: underlay.addresses.iter().copied().map(network).collect(),
            public_addresses: underlay.public_addresses.iter().copied().map(address).collect(),
        },
        links: node
            .links
            .iter()
            .filter(|link| PLANNABLE.contains(&link.kind.as_str()))
            .map(|link| wit::ExistingLink {
                name: link.name.to_string(),
                kind: link.kind.clone(),
                mac: link.mac.map(mac),
            })
            .collect(),
    }
}

pub(crate) fn lease(lease: &Lease) -> wit::Lease {
    wit::Lease {
        families: lease
            .families
            .iter()
            .map(|family| wit::LeaseFamily {
                subnet: network(family.subnet),
                public_address: address(family.public_address),
                backend_data: family.backend_data.clone(),
            })
            .collect(),
        backend_type: lease.backend_type.clone(),
    }
}
