//! Trial of a network config by its backend's plugin, on a fictitious node.

use std::net::IpAddr;

use heddle_core::config::{ConfigWarning, NetworkConfig};
use heddle_core::family::PerFamily;
use heddle_core::lease::LeaseKey;
use heddle_core::node::{Node, Underlay};
use heddle_core::site::Site;
use heddle_join::Loaded;
use heddle_plugin::{Backend, CallError, Catalogue, PluginError, Reason, Role};
use ipnet::IpNet;

/// The backend's opinion of a config.
#[derive(Default)]
pub(crate) struct Trial {
    /// Keys that the backend does not have.
    pub(crate) unknown: Vec<ConfigWarning>,
    /// Its objection to the config, or the reason why there is none from it.
    pub(crate) objection: Option<String>,
}

/// Lets the config's backend plan a node with an Ethernet interface.
pub(crate) async fn try_out(config: &NetworkConfig, catalogue: &Catalogue) -> Trial {
    let found = match catalogue.find(&config.backend.kind, Role::Backend) {
        Ok(found) => found,
        Err(error) => {
            return Trial { objection: Some(no_plugin(config, &error)), ..Trial::default() };
        }
    };
    let keys = found.manifest().keys.as_deref();
    let unknown = keys.map(|keys| config.backend.unknown_keys(keys)).unwrap_or_default();
    let objection = match found.backend() {
        Ok(backend) => plan(config, &backend).await.err().map(problem),
        Err(error) => Some(no_plugin(config, &error)),
    };
    Trial { unknown, objection }
}

fn no_plugin(config: &NetworkConfig, error: &PluginError) -> String {
    format!("`Backend.Type` is {}: {error}", config.backend.kind)
}

async fn plan(config: &NetworkConfig, backend: &Backend) -> Result<(), CallError> {
    let site = Site::new(config.clone(), node(config));
    let advertised = Loaded { site, planner: backend }.advertise().await?;
    let lease = advertised.lease(first_subnets(config), None);
    advertised.with_lease(lease).plan().await.map(drop)
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
fn first_subnets(config: &NetworkConfig) -> LeaseKey {
    let subnets = LeaseKey::new(config.networks.map(|overlay| {
        IpNet::new(overlay.subnet_min, overlay.subnet_length).expect("a subnet has a valid length")
    }));
    subnets.expect("a config enables at least one family")
}
