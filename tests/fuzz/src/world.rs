//! A small world to plan in, derived from bytes: devices, networks and objects, whose names collide
//! often enough.

use std::net::IpAddr;

use arbitrary::{Result, Unstructured};
use heddle_core::address::{Family, LinkName, MacAddress};
use heddle_core::config::{BackendConfig, NetworkConfig, OverlayNetwork};
use heddle_core::family::PerFamily;
use heddle_core::lease::{Lease, LeaseFamily};
use heddle_core::node::{ExistingLink, Node, Underlay};
use heddle_core::object::{
    Address, FdbEntry, Link, LinkKind, Metric, Neighbour, Object, Route, RouteAction, Sysctl, Vxlan,
};
use heddle_core::site::Site;
use ipnet::IpNet;

/// Parses a value from text.
fn of<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a text that can be read")
}

/// Returns the overlay's networks.
pub fn networks() -> PerFamily<OverlayNetwork> {
    [
        OverlayNetwork {
            network: of("10.244.0.0/16"),
            subnet_length: 24,
            subnet_min: of("10.244.1.0"),
            subnet_max: of("10.244.255.0"),
        },
        OverlayNetwork {
            network: of("fd00::/48"),
            subnet_length: 64,
            subnet_min: of("fd00:0:0:1::"),
            subnet_max: of("fd00:0:0:ffff::"),
        },
    ]
    .into()
}

/// Returns this node, whose devices share names with those of plans.
pub fn node() -> Node {
    let existing =
        |name: &str, kind: &str| ExistingLink { name: of(name), kind: kind.into(), mac: None };
    Node {
        id: of("a"),
        underlay: Underlay {
            link: of("eth0"),
            mtu: 1500,
            addresses: vec![of("192.168.0.72/24"), of("2001:db8::72/64")],
            public_addresses: [of::<IpAddr>("203.0.113.7"), of("2001:db8::72")].into(),
        },
        links: vec![existing("docker0", "bridge"), existing("flannel.1", "vxlan")],
    }
}

/// Returns this node in its network, with its lease.
pub fn site() -> Site {
    let backend = BackendConfig { kind: "any".into(), json: r#"{"Type":"any"}"#.into() };
    let config = NetworkConfig { networks: networks(), nftables: false, backend };
    Site::new(config, node()).with_lease(own())
}

/// Returns this node's lease.
pub fn own() -> Lease {
    let subnets = [("10.244.8.0/24", "203.0.113.7"), ("fd00:0:0:8::/64", "2001:db8::72")];
    lease("10.244.8.0-24&fd00:0:0:8::-64", &subnets)
}

/// Returns another node's lease.
pub fn peer() -> Lease {
    let subnets = [("10.244.36.0/24", "192.168.0.99"), ("fd00:0:0:24::/64", "2001:db8::99")];
    lease("10.244.36.0-24&fd00:0:0:24::-64", &subnets)
}

fn lease(key: &str, families: &[(&str, &str)]) -> Lease {
    let family = |(subnet, address): &(&str, &str)| LeaseFamily {
        subnet: of(subnet),
        public_address: of(address),
        backend_data: None,
    };
    Lease {
        key: of(key),
        families: families.iter().map(family).collect(),
        backend_type: None,
        node_id: None,
        node_name: None,
    }
}

/// Picks a device name.
///
/// # Errors
///
/// If no bytes are left to choose by.
pub fn name(u: &mut Unstructured<'_>) -> Result<LinkName> {
    const NAMES: [&str; 8] =
        ["flannel.1", "flannel.1", "flannel0", "flannel.2", "eth0", "docker0", "all", "wg0"];
    u.choose(&NAMES).map(|name| of(name))
}

/// Picks an address, often one in use.
///
/// # Errors
///
/// If no bytes are left to choose by.
pub fn address(u: &mut Unstructured<'_>) -> Result<IpAddr> {
    const ADDRESSES: [&str; 12] = [
        "10.244.8.0",
        "10.244.8.1",
        "10.244.36.0",
        "10.244.36.9",
        "10.96.0.1",
        "192.168.0.72",
        "192.168.0.99",
        "203.0.113.7",
        "fd00:0:0:8::",
        "fd00:0:0:24::",
        "2001:db8::72",
        "2001:db8::99",
    ];
    match u.ratio(7, 8)? {
        true => u.choose(&ADDRESSES).map(|address| of(address)),
        false => u.arbitrary(),
    }
}

/// Picks a network, with or without host bits.
fn network(u: &mut Unstructured<'_>) -> Result<IpNet> {
    let address = address(u)?;
    let bits = Family::of(address).bits();
    let usual = [bits, bits, bits / 4 * 3, bits / 2, 16, 0];
    let length = if u.ratio(7, 8)? { *u.choose(&usual)? } else { u.int_in_range(0..=bits)? };
    let network = IpNet::new(address, length).expect("a length that the family has");
    Ok(if u.ratio(3, 4)? { network.trunc() } else { network })
}

fn mac(u: &mut Unstructured<'_>) -> Result<MacAddress> {
    Ok(MacAddress([2, 0, 0, 0, 0, u.int_in_range(0..=3)?]))
}

fn link(u: &mut Unstructured<'_>) -> Result<Link> {
    let kind = match u.int_in_range(0..=7)? {
        0 => LinkKind::Other((*u.choose(&["", "bridge", "vxlan"])?).to_owned()),
        1 => LinkKind::Tun,
        _ => LinkKind::Vxlan(Vxlan {
            vni: u.int_in_range(1..=2)?,
            local: address(u)?,
            underlay: if u.ratio(7, 8)? { of("eth0") } else { name(u)? },
            port: *u.choose(&[8472, 8472, 8472, 4789])?,
            learning: u.arbitrary()?,
            gbp: u.ratio(1, 8)?,
        }),
    };
    let mac = if u.ratio(3, 4)? { Some(mac(u)?) } else { None };
    Ok(Link { name: name(u)?, mtu: *u.choose(&[1450, 1400])?, mac, up: true, kind })
}

/// Builds any object.
///
/// # Errors
///
/// If no bytes are left to choose by.
pub fn object(u: &mut Unstructured<'_>) -> Result<Object> {
    Ok(match u.int_in_range(0..=5)? {
        0 => Object::Link(link(u)?),
        1 => Object::Sysctl(Sysctl {
            link: name(u)?,
            family: *u.choose(&[Family::V4, Family::V6])?,
            name: (*u.choose(&["accept_ra", "accept_ra", "rp_filter"])?).to_owned(),
            value: (*u.choose(&["0", "0", "1"])?).to_owned(),
        }),
        2 => Object::Address(Address { link: name(u)?, network: network(u)? }),
        3 => Object::FdbEntry(FdbEntry { link: name(u)?, mac: mac(u)?, destination: address(u)? }),
        4 => Object::Neighbour(Neighbour { link: name(u)?, address: address(u)?, mac: mac(u)? }),
        _ => {
            let action = match u.int_in_range(0..=9)? {
                0 => RouteAction::Blackhole,
                1 => RouteAction::Other,
                _ => RouteAction::Forward {
                    link: name(u)?,
                    gateway: if u.arbitrary()? { Some(address(u)?) } else { None },
                    onlink: u.arbitrary()?,
                },
            };
            let metric = *u.choose(&[Metric::Default, Metric::Default, Metric::Last])?;
            Object::Route(Route { metric, destination: network(u)?.trunc(), action })
        }
    })
}
