//! Conversion between the generated types and those of the SDK. Moves instead of copying where
//! possible.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::MacAddress;
use crate::bindings::backend::exports::heddle::overlay::backend as wit_backend;
use crate::bindings::backend::heddle::overlay::types as wit;
use crate::bindings::emitter::exports::heddle::overlay::emitter as wit_emitter;
use crate::types as sdk;

pub(crate) fn all<A, B: From<A>>(items: Vec<A>) -> Vec<B> {
    items.into_iter().map(B::from).collect()
}

pub(crate) fn ip(address: wit::IpAddress) -> IpAddr {
    match address {
        wit::IpAddress::Ipv4((a, b, c, d)) => Ipv4Addr::new(a, b, c, d).into(),
        wit::IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => {
            Ipv6Addr::new(a, b, c, d, e, f, g, h).into()
        }
    }
}

fn to_ip(address: IpAddr) -> wit::IpAddress {
    match address {
        IpAddr::V4(address) => wit::IpAddress::Ipv4(address.octets().into()),
        IpAddr::V6(address) => wit::IpAddress::Ipv6(address.segments().into()),
    }
}

fn network(network: wit::IpNetwork) -> IpNet {
    IpNet::new(ip(network.address), network.prefix_length)
        .expect("the host gives no prefix longer than the address")
}

fn to_network(network: IpNet) -> wit::IpNetwork {
    wit::IpNetwork { address: to_ip(network.addr()), prefix_length: network.prefix_len() }
}

fn mac((a, b, c, d, e, f): wit::MacAddress) -> MacAddress {
    MacAddress([a, b, c, d, e, f])
}

fn to_mac(mac: MacAddress) -> wit::MacAddress {
    mac.0.into()
}

// ---- Arguments of a plugin ---------------------------------------------------------------------

impl From<wit::OverlayNetwork> for sdk::OverlayNetwork {
    fn from(overlay: wit::OverlayNetwork) -> Self {
        Self { network: network(overlay.network), subnet_length: overlay.subnet_length }
    }
}

impl From<wit::NetworkConfig> for sdk::NetworkConfig {
    fn from(config: wit::NetworkConfig) -> Self {
        Self { networks: all(config.networks), backend: config.backend }
    }
}

impl From<wit::Underlay> for sdk::Underlay {
    fn from(underlay: wit::Underlay) -> Self {
        Self {
            link: underlay.link,
            mtu: underlay.mtu,
            addresses: underlay.addresses.into_iter().map(network).collect(),
            public_addresses: underlay.public_addresses.into_iter().map(ip).collect(),
        }
    }
}

impl From<wit::ExistingLink> for sdk::ExistingLink {
    fn from(link: wit::ExistingLink) -> Self {
        Self { name: link.name, kind: link.kind, mac: link.mac.map(mac) }
    }
}

impl From<wit::Node> for sdk::Node {
    fn from(node: wit::Node) -> Self {
        Self { id: node.id, underlay: node.underlay.into(), links: all(node.links) }
    }
}

impl From<wit::LeaseFamily> for sdk::LeaseFamily {
    fn from(family: wit::LeaseFamily) -> Self {
        Self {
            subnet: network(family.subnet),
            public_address: ip(family.public_address),
            backend_data: family.backend_data,
        }
    }
}

impl From<wit::Lease> for sdk::Lease {
    fn from(lease: wit::Lease) -> Self {
        Self { families: all(lease.families), backend_type: lease.backend_type }
    }
}

impl From<wit_emitter::View> for sdk::View {
    fn from(view: wit_emitter::View) -> Self {
        Self {
            config: view.config.into(),
            lease: view.lease.into(),
            mtu: view.mtu,
            ip_masq: view.ip_masq,
        }
    }
}

impl From<wit_emitter::Setting> for sdk::Setting {
    fn from(setting: wit_emitter::Setting) -> Self {
        Self { name: setting.name, value: setting.value }
    }
}

// ---- Results of a plugin -----------------------------------------------------------------------

impl From<sdk::Family> for wit::IpFamily {
    fn from(family: sdk::Family) -> Self {
        match family {
            sdk::Family::V4 => Self::Ipv4,
            sdk::Family::V6 => Self::Ipv6,
        }
    }
}

impl From<sdk::Link> for wit::Link {
    fn from(link: sdk::Link) -> Self {
        let kind = match link.kind {
            sdk::LinkKind::Vxlan(vxlan) => wit::LinkKind::Vxlan(wit::Vxlan {
                vni: vxlan.vni,
                local: to_ip(vxlan.local),
                underlay: vxlan.underlay,
                port: vxlan.port,
                learning: vxlan.learning,
                gbp: vxlan.gbp,
            }),
            sdk::LinkKind::Tun(tun) => wit::LinkKind::Tun(wit::Tun {
                local: tun.local.into_iter().map(to_ip).collect(),
                port: tun.port,
            }),
        };
        Self { name: link.name, mtu: link.mtu, mac: link.mac.map(to_mac), kind }
    }
}

impl From<sdk::Sysctl> for wit::Sysctl {
    fn from(sysctl: sdk::Sysctl) -> Self {
        Self {
            link: sysctl.link,
            family: sysctl.family.into(),
            name: sysctl.name,
            value: sysctl.value,
        }
    }
}

impl From<sdk::Address> for wit::Address {
    fn from(address: sdk::Address) -> Self {
        Self { link: address.link, network: to_network(address.network) }
    }
}

impl From<sdk::Route> for wit::Route {
    fn from(route: sdk::Route) -> Self {
        let action = match route.action {
            sdk::RouteAction::Forward(next_hop) => wit::RouteAction::Forward(wit::NextHop {
                link: next_hop.link,
                gateway: next_hop.gateway.map(to_ip),
                onlink: next_hop.onlink,
            }),
            sdk::RouteAction::Blackhole => wit::RouteAction::Blackhole,
        };
        Self { destination: to_network(route.destination), action }
    }
}

impl From<sdk::Neighbour> for wit::Neighbour {
    fn from(neighbour: sdk::Neighbour) -> Self {
        Self { link: neighbour.link, address: to_ip(neighbour.address), mac: to_mac(neighbour.mac) }
    }
}

impl From<sdk::FdbEntry> for wit::FdbEntry {
    fn from(entry: sdk::FdbEntry) -> Self {
        Self { link: entry.link, mac: to_mac(entry.mac), destination: to_ip(entry.destination) }
    }
}

impl From<sdk::Plan> for wit::Plan {
    fn from(plan: sdk::Plan) -> Self {
        Self {
            links: all(plan.links),
            sysctls: all(plan.sysctls),
            addresses: all(plan.addresses),
            routes: all(plan.routes),
            neighbours: all(plan.neighbours),
            fdb_entries: all(plan.fdb_entries),
        }
    }
}

impl From<sdk::NodePlan> for wit_backend::NodePlan {
    fn from(node_plan: sdk::NodePlan) -> Self {
        Self { plan: node_plan.plan.into(), mtu: node_plan.mtu }
    }
}

impl From<sdk::Advertisements> for wit_backend::Advertisements {
    fn from(advertisements: sdk::Advertisements) -> Self {
        Self {
            backend_type: advertisements.backend_type,
            families: advertisements
                .backend_data
                .into_iter()
                .map(|backend_data| wit_backend::Advertisement { backend_data })
                .collect(),
        }
    }
}

impl From<sdk::ConfigError> for wit::ConfigError {
    fn from(error: sdk::ConfigError) -> Self {
        Self { key: error.key, message: error.message }
    }
}

impl From<sdk::PeerError> for wit_backend::PeerError {
    fn from(error: sdk::PeerError) -> Self {
        match error {
            sdk::PeerError::OtherBackend(kind) => Self::OtherBackend(kind),
            sdk::PeerError::Invalid(message) => Self::Invalid(message),
        }
    }
}

impl From<sdk::File> for wit_emitter::File {
    fn from(file: sdk::File) -> Self {
        Self { path: file.path, mode: file.mode, contents: file.contents }
    }
}
