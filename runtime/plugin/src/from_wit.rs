//! Conversion from the generated types to the host's. It checks that everything in a plugin's
//! answer is possible at all; [`heddle_grant::check`] checks afterwards that the plugin may ask for
//! it.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use heddle_core::address::{Family, LinkName, MacAddress};
use heddle_core::config::OverlayNetwork;
use heddle_core::family::PerFamily;
use heddle_core::lease::BACKEND_DATA_LIMIT;
use heddle_core::object::{
    Address, FdbEntry, Link, LinkKind, Metric, Neighbour, Object, Plan, Route, RouteAction, Sysctl,
    Vxlan,
};
use heddle_core::text::is_visible;
use heddle_grant::text::plain;
use heddle_grant::{MTU, NodePlan, Refusal, Tunnel};
use ipnet::IpNet;

use crate::bindings::backend::exports::heddle::overlay::backend as wit_backend;
use crate::bindings::backend::heddle::overlay::types as wit;

/// Largest VNI: 24 bits (RFC 7348, section 5).
const MAX_VNI: u32 = 0xff_ffff;

/// Length limit, in bytes, of the name and of the value of a sysctl. Values in `/proc/sys/net` need
/// no more.
const MAX_SYSCTL: usize = 64;

/// Size limit of a plugin's data in a lease, in bytes; readers of leases have the same limit. A key
/// pair and a few numbers take some hundreds.
const MAX_BACKEND_DATA: usize = BACKEND_DATA_LIMIT;

/// Maximum number of bytes that a plugin may add to a packet. Headers and the tag of a cipher take
/// a few dozen.
const MAX_OVERHEAD: u32 = 1024;

/// Length limit of a `BackendType`, the same as that of a plugin's name.
const MAX_BACKEND_TYPE: usize = 32;

type Checked<T> = Result<T, Refusal>;

/// Converts the plan of the node. Refuses more than `limit` objects.
pub(crate) fn node_plan(answer: wit_backend::NodePlan, limit: usize) -> Checked<NodePlan> {
    let tunnel = tunnel(&answer.plan.links)?;
    Ok(NodePlan { plan: plan(answer.plan, limit)?, tunnel, mtu: mtu(answer.mtu)? })
}

/// Converts a plan. Refuses more than `limit` objects.
pub(crate) fn plan(plan: wit::Plan, limit: usize) -> Checked<Plan> {
    let count = plan.links.len()
        + plan.sysctls.len()
        + plan.addresses.len()
        + plan.routes.len()
        + plan.neighbours.len()
        + plan.fdb_entries.len();
    if count > limit {
        return Err(Refusal::new(
            format_args!("{count} objects"),
            format!("expected at most {limit}"),
        ));
    }
    let mut objects = Vec::with_capacity(count);
    for item in plan.links {
        objects.push(Object::Link(link(item)?));
    }
    for item in plan.sysctls {
        objects.push(Object::Sysctl(sysctl(item)?));
    }
    for item in plan.addresses {
        let link = link_name("address", &item.link)?;
        objects.push(Object::Address(Address { link, network: network("address", item.network)? }));
    }
    for item in plan.fdb_entries {
        let link = link_name("fdb entry", &item.link)?;
        let mac = unicast("fdb entry", item.mac)?;
        let destination = address(item.destination);
        objects.push(Object::FdbEntry(FdbEntry { link, mac, destination }));
    }
    for item in plan.neighbours {
        let link = link_name("neighbour", &item.link)?;
        let mac = unicast("neighbour", item.mac)?;
        objects.push(Object::Neighbour(Neighbour { link, address: address(item.address), mac }));
    }
    for item in plan.routes {
        objects.push(Object::Route(route(item)?));
    }
    no_duplicates(&objects)?;
    Ok(Plan { objects })
}

/// Checks the number of bytes that a transform adds to a packet.
pub(crate) fn overhead(overhead: u32) -> Checked<u32> {
    match overhead <= MAX_OVERHEAD {
        true => Ok(overhead),
        false => Err(Refusal::new(
            format_args!("overhead {overhead}"),
            format!("expected at most {MAX_OVERHEAD} bytes"),
        )),
    }
}

/// Checks the MTU for containers.
fn mtu(mtu: u32) -> Checked<u32> {
    match MTU.contains(&mtu) {
        true => Ok(mtu),
        false => Err(Refusal::new(format_args!("mtu {mtu}"), "expected 68 to 65535 bytes")),
    }
}

/// Converts the texts for a lease: `BackendType`, and the JSON texts for the families of
/// `networks`.
pub(crate) fn advertisements(
    advertisements: wit_backend::Advertisements,
    networks: &PerFamily<OverlayNetwork>,
) -> Checked<(Option<String>, PerFamily<String>)> {
    if let Some(kind) = &advertisements.backend_type {
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if kind.is_empty() || kind.len() > MAX_BACKEND_TYPE || !kind.bytes().all(good) {
            return Err(Refusal::new(
                format_args!("backend type `{}`", plain(kind)),
                "expected 1 to 32 letters, digits and `-`",
            ));
        }
    }
    let count = advertisements.families.len();
    let texts = advertisements.families.into_iter().map(|family| family.backend_data);
    let Some(texts) = networks.assign(texts) else {
        return Err(Refusal::new(
            format_args!("advertisements for {count} families"),
            format!("expected {}, as in the network config", networks.len()),
        ));
    };
    let data = PerFamily {
        v4: texts.v4.flatten().map(json).transpose()?,
        v6: texts.v6.flatten().map(json).transpose()?,
    };
    Ok((advertisements.backend_type, data))
}

/// Checks that a text is JSON of bounded length.
fn json(text: String) -> Checked<String> {
    if text.len() > MAX_BACKEND_DATA {
        return Err(Refusal::new(
            format_args!("backend data of {} bytes", text.len()),
            format!("expected at most {MAX_BACKEND_DATA}"),
        ));
    }
    match serde_json::from_str::<&serde_json::value::RawValue>(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(Refusal::new(
            format_args!("backend data `{}`", heddle_core::text::one_line(&text, 60)),
            format!("expected JSON: {error}"),
        )),
    }
}

fn link(link: wit::Link) -> Checked<Link> {
    let name = link_name("link", &link.name)?;
    let refuse = |rule: &str| Err(Refusal::new(format_args!("link {name}"), rule));
    if !MTU.contains(&link.mtu) {
        return refuse(&format!("its MTU is {}: expected 68 to 65535 bytes", link.mtu));
    }
    let mac = link.mac.map(|mac| unicast(&format!("link {name}"), mac)).transpose()?;
    let kind = match link.kind {
        wit::LinkKind::Vxlan(vxlan) => {
            if vxlan.vni > MAX_VNI {
                return refuse(&format!("its VNI is {}: expected 0 to {MAX_VNI}", vxlan.vni));
            }
            if vxlan.port == 0 {
                return refuse("its port is 0: expected 1 to 65535");
            }
            LinkKind::Vxlan(Vxlan {
                vni: vxlan.vni,
                local: address(vxlan.local),
                underlay: link_name(&format!("the underlay of link {name}"), &vxlan.underlay)?,
                port: vxlan.port,
                learning: vxlan.learning,
                gbp: vxlan.gbp,
            })
        }
        wit::LinkKind::Tun(_) if mac.is_some() => {
            return refuse("it has a MAC address: expected none, because a TUN device has none");
        }
        wit::LinkKind::Tun(_) => LinkKind::Tun,
    };
    Ok(Link { name, mtu: link.mtu, mac, up: true, kind })
}

/// Returns the tunnel behind the TUN device among these links, if there is one. Refuses a second
/// TUN device.
fn tunnel(links: &[wit::Link]) -> Checked<Option<Tunnel>> {
    let mut tunnel = None;
    for link in links {
        let wit::LinkKind::Tun(tun) = &link.kind else { continue };
        let name = link_name("link", &link.name)?;
        let refuse = |rule| Err(Refusal::new(format_args!("link {name}"), rule));
        if tunnel.is_some() {
            return refuse("it is the second TUN device: expected one at most");
        }
        if tun.port == 0 {
            return refuse("its port is 0: expected 1 to 65535");
        }
        let local = tun.local.iter().copied().map(address).collect();
        tunnel = Some(Tunnel { link: name, local, port: tun.port, overhead: 0 });
    }
    Ok(tunnel)
}

fn sysctl(sysctl: wit::Sysctl) -> Checked<Sysctl> {
    let link = link_name("sysctl", &sysctl.link)?;
    let family = match sysctl.family {
        wit::IpFamily::Ipv4 => Family::V4,
        wit::IpFamily::Ipv6 => Family::V6,
    };
    let refuse = |rule: &str| {
        let object = format!(
            "sysctl {}.conf.{link}.{} = {}",
            family.sysctl_tree(),
            plain(&sysctl.name),
            plain(&sysctl.value)
        );
        Err(Refusal::new(object, rule))
    };
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let name_fits = (1..=MAX_SYSCTL).contains(&sysctl.name.len());
    if !name_fits || !sysctl.name.bytes().all(good) {
        return refuse("expected a name of lower-case letters, digits and `_`");
    }
    let value_fits = (1..=MAX_SYSCTL).contains(&sysctl.value.len());
    if !value_fits || !sysctl.value.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        return refuse("expected a value of 1 to 64 printable characters");
    }
    Ok(Sysctl { link, family, name: sysctl.name, value: sysctl.value })
}

fn route(route: wit::Route) -> Checked<Route> {
    let destination = network("route", route.destination)?;
    if destination.trunc() != destination {
        return Err(Refusal::new(
            format_args!("route {destination}"),
            format!("bits after the prefix must be zero: expected {}", destination.trunc()),
        ));
    }
    let action = match route.action {
        wit::RouteAction::Blackhole => RouteAction::Blackhole,
        wit::RouteAction::Forward(next_hop) => {
            let link = link_name(&format!("route {destination}"), &next_hop.link)?;
            let gateway = next_hop.gateway.map(address);
            if let Some(gateway) = gateway
                && Family::of(gateway) != Family::of_network(destination)
            {
                return Err(Refusal::new(
                    format_args!("route {destination} via {gateway}"),
                    "expected a gateway of the destination's family",
                ));
            }
            RouteAction::Forward { link, gateway, onlink: next_hop.onlink }
        }
    };
    Ok(Route { metric: Metric::Default, destination, action })
}

fn no_duplicates(objects: &[Object]) -> Checked<()> {
    let mut keys = HashSet::with_capacity(objects.len());
    match objects.iter().map(Object::key).find(|key| !keys.insert(key.clone())) {
        Some(key) => Err(Refusal::new(key, "planned more than once")),
        None => Ok(()),
    }
}

fn address(address: wit::IpAddress) -> IpAddr {
    match address {
        wit::IpAddress::Ipv4((a, b, c, d)) => Ipv4Addr::new(a, b, c, d).into(),
        wit::IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => {
            Ipv6Addr::new(a, b, c, d, e, f, g, h).into()
        }
    }
}

fn network(object: &str, network: wit::IpNetwork) -> Checked<IpNet> {
    let address = address(network.address);
    IpNet::new(address, network.prefix_length).map_err(|_| {
        Refusal::new(
            format_args!("{object} {address}/{}", network.prefix_length),
            format!("expected a prefix of at most {} bits", Family::of(address).bits()),
        )
    })
}

fn link_name(object: &str, name: &str) -> Checked<LinkName> {
    // The kernel accepts invisible characters, but they would mislead readers of the log.
    let shown = is_visible(name) && !name.contains(char::is_whitespace);
    name.parse().ok().filter(|_| shown).ok_or_else(|| {
        let rule = "expected the name of a device: 1 to 15 bytes without `/`, `:`, white space or control characters";
        Refusal::new(format_args!("{object} on `{}`", plain(name)), rule)
    })
}

fn unicast(object: &str, (a, b, c, d, e, f): wit::MacAddress) -> Checked<MacAddress> {
    let mac = MacAddress([a, b, c, d, e, f]);
    match mac.is_unicast() {
        true => Ok(mac),
        false => {
            Err(Refusal::new(format_args!("{object} with MAC {mac}"), "expected a unicast address"))
        }
    }
}

#[cfg(test)]
mod tests;
