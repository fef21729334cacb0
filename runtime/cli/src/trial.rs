//! Trial of a network config by its backend's plugin, on a fictitious node.

use std::net::IpAddr;

use heddle_core::config::NetworkConfig;
use heddle_core::family::PerFamily;
use heddle_core::lease::LeaseKey;
use heddle_core::node::{Node, Underlay};
use heddle_core::site::Site;
use heddle_join::Loaded;
use heddle_plugin::{CallError, Catalogue, Reason, Role};
use ipnet::IpNet;

/// Lets the config's backend plan a node with an Ethernet interface, and returns its objection to
/// the config, if any.
pub(crate) async fn try_out(config: &NetworkConfig, catalogue: &Catalogue) -> Option<String> {
    let found = catalogue.find(&config.backend.kind, Role::Backend);
    let backend = match found.and_then(|plugin| plugin.backend()) {
        Ok(backend) => backend,
        Err(error) => return Some(format!("`Backend.Type` is {}: {error}", config.backend.kind)),
    };
    let site = Site::new(config.clone(), node(config));
    let subnets = first_subnets(config)?;
    let plan = async {
        let advertised = Loaded { site, planner: &backend }.advertise().await?;
        let lease = advertised.lease(subnets, None);
        advertised.with_lease(lease).plan().await
    };
    plan.await.err().map(problem)
}

fn problem(error: CallError) -> String {
    match error.reason {
        Reason::Config { key, message } => format!("`{key}` {message}"),
        _ => error.to_string(),
    }
}

/// Returns a node with a documentation address (RFC 5737, RFC 3849) in each family.
fn node(config: &NetworkConfig) -> Node {
    let addresses = ["192.0.2.1/24", "2001:db8::1/64"]
        .map(|address| address.parse::<IpNet>().expect("the address is a constant"));
    let public: PerFamily<IpAddr> = addresses.map(|address| address.addr()).into();
    Node {
        id: "nobody".parse().expect("the id is a constant"),
        underlay: Underlay {
            link: "eth0".parse().expect("the name is a constant"),
            mtu: 1500,
            public_addresses: config.networks.zip(public).map(|(_, address)| address),
            addresses: addresses.to_vec(),
        },
        links: Vec::new(),
    }
}

/// Returns the first subnet of each family.
fn first_subnets(config: &NetworkConfig) -> Option<LeaseKey> {
    LeaseKey::new(config.networks.map(|overlay| {
        IpNet::new(overlay.subnet_min, overlay.subnet_length).expect("a subnet has a valid length")
    }))
}
