//! A plugin's opinion of a network config, on a node that does not exist.

use std::net::IpAddr;

use heddle_core::address::Family;
use heddle_core::config::NetworkConfig;
use heddle_core::lease::{Lease, LeaseFamily, LeaseKey};
use heddle_core::node::{Node, Underlay};
use heddle_plugin::{CallError, Catalogue, Limits, Reason, Role};
use ipnet::IpNet;

/// Has the config's backend plan a node with an Ethernet interface, and returns what it has against the config.
pub(crate) async fn try_out(config: &NetworkConfig, catalogue: &Catalogue) -> Option<String> {
    let found = catalogue.find(&config.backend.kind, Role::Backend);
    let backend = match found.and_then(|plugin| plugin.backend(Limits::default())) {
        Ok(backend) => backend,
        Err(error) => return Some(format!("`Backend.Type` is {}: {error}", config.backend.kind)),
    };
    let node = node(config);
    let advertised = match backend.advertise(config, &node).await {
        Ok(advertised) => advertised,
        Err(error) => return Some(problem(error)),
    };
    let lease = lease(config, &node, advertised.backend_type, advertised.backend_data)?;
    backend.plan_node(config, &node, &lease).await.err().map(problem)
}

fn problem(error: CallError) -> String {
    match error.reason {
        Reason::Config { key, message } => format!("`{key}` {message}"),
        _ => error.to_string(),
    }
}

/// A node with an address of documentation (RFC 5737, RFC 3849) in each family.
fn node(config: &NetworkConfig) -> Node {
    let addresses = ["192.0.2.1/24", "2001:db8::1/64"]
        .map(|address| address.parse::<IpNet>().expect("the address is a constant"));
    let public = |overlay: &heddle_core::config::OverlayNetwork| -> IpAddr {
        match Family::of_network(overlay.network) {
            Family::V4 => addresses[0].addr(),
            Family::V6 => addresses[1].addr(),
        }
    };
    Node {
        id: "nobody".parse().expect("the id is a constant"),
        underlay: Underlay {
            link: "eth0".parse().expect("the name is a constant"),
            mtu: 1500,
            public_addresses: config.networks.iter().map(public).collect(),
            addresses: addresses.to_vec(),
        },
        links: Vec::new(),
    }
}

/// A lease of the first subnets.
fn lease(
    config: &NetworkConfig,
    node: &Node,
    backend_type: Option<String>,
    backend_data: Vec<Option<String>>,
) -> Option<Lease> {
    let subnets = config
        .networks
        .iter()
        .map(|overlay| IpNet::new(overlay.subnet_min, overlay.subnet_length).ok());
    let subnets: Vec<_> = subnets.collect::<Option<_>>()?;
    let v4 = subnets.iter().find_map(|subnet| match subnet {
        IpNet::V4(subnet) => Some(*subnet),
        IpNet::V6(_) => None,
    });
    let v6 = subnets.iter().find_map(|subnet| match subnet {
        IpNet::V6(subnet) => Some(*subnet),
        IpNet::V4(_) => None,
    });
    let families = subnets.iter().zip(&node.underlay.public_addresses).zip(backend_data);
    let family = |((subnet, address), backend_data): ((&IpNet, &IpAddr), _)| LeaseFamily {
        subnet: *subnet,
        public_address: *address,
        backend_data,
    };
    Some(Lease {
        key: LeaseKey::new(v4, v6)?,
        families: families.map(family).collect(),
        backend_type,
        node_id: Some(node.id.clone()),
        node_name: None,
    })
}
