//! Conversion from the generated types to the host's. It checks that everything in a plugin's
//! answer is possible at all; [`heddle_grant::check`] checks afterwards that the plugin may ask for
//! it.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use heddle_core::address::{Family, LinkName, MacAddress};
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

/// Converts the texts for a lease: `BackendType`, and a JSON text for each of `families`.
pub(crate) fn advertisements(
    advertisements: wit_backend::Advertisements,
    families: usize,
) -> Checked<(Option<String>, Vec<Option<String>>)> {
    if let Some(kind) = &advertisements.backend_type {
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if kind.is_empty() || kind.len() > MAX_BACKEND_TYPE || !kind.bytes().all(good) {
            return Err(Refusal::new(
                format_args!("backend type `{}`", plain(kind)),
                "expected 1 to 32 letters, digits and `-`",
            ));
        }
    }
    if advertisements.families.len() != families {
        return Err(Refusal::new(
            format_args!("advertisements for {} families", advertisements.families.len()),
            format!("expected {families}, as in the network config"),
        ));
    }
    let mut data = Vec::with_capacity(families);
    for family in advertisements.families {
        data.push(family.backend_data.map(json).transpose()?);
    }
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
mod tests {
    use super::*;

    fn empty() -> wit::Plan {
        wit::Plan {
            links: vec![],
            sysctls: vec![],
            addresses: vec![],
            routes: vec![],
            neighbours: vec![],
            fdb_entries: vec![],
        }
    }

    fn v4(address: [u8; 4]) -> wit::IpAddress {
        wit::IpAddress::Ipv4(address.into())
    }

    fn net(address: [u8; 4], prefix_length: u8) -> wit::IpNetwork {
        wit::IpNetwork { address: v4(address), prefix_length }
    }

    fn vxlan() -> wit::Link {
        wit::Link {
            name: "flannel.1".into(),
            mtu: 1450,
            mac: Some((2, 0, 0, 0, 0, 1)),
            kind: wit::LinkKind::Vxlan(wit::Vxlan {
                vni: 1,
                local: v4([192, 168, 0, 72]),
                underlay: "eth0".into(),
                port: 8472,
                learning: false,
                gbp: false,
            }),
        }
    }

    fn route(destination: wit::IpNetwork, gateway: wit::IpAddress) -> wit::Route {
        let link = "flannel.1".into();
        let next_hop = wit::NextHop { link, gateway: Some(gateway), onlink: true };
        wit::Route { destination, action: wit::RouteAction::Forward(next_hop) }
    }

    fn refused(build: impl FnOnce(&mut wit::Plan)) -> String {
        let mut wit_plan = empty();
        build(&mut wit_plan);
        plan(wit_plan, 64).unwrap_err().to_string()
    }

    #[test]
    fn plan_valid_is_converted_unchanged() {
        let mut wit_plan = empty();
        wit_plan.links.push(vxlan());
        wit_plan.routes.push(route(net([10, 244, 36, 0], 24), v4([10, 244, 36, 0])));
        let objects = plan(wit_plan, 2).unwrap().objects;
        assert_eq!(
            objects.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "link flannel.1 type vxlan mtu 1450 address 02:00:00:00:00:01 id 1 local 192.168.0.72 dev eth0 dstport 8472 nolearning up",
                "route 10.244.36.0/24 via 10.244.36.0 dev flannel.1 onlink",
            ]
        );
    }

    #[test]
    fn link_invalid_is_refused() {
        let with = |change: fn(&mut wit::Link)| {
            refused(|plan| {
                let mut link = vxlan();
                change(&mut link);
                plan.links.push(link);
            })
        };
        assert_eq!(
            with(|link| link.mtu = 67),
            "link flannel.1: its MTU is 67: expected 68 to 65535 bytes"
        );
        assert_eq!(
            with(|link| link.mac = Some((1, 0, 0, 0, 0, 0))),
            "link flannel.1 with MAC 01:00:00:00:00:00: expected a unicast address"
        );
        assert_eq!(
            with(|link| link.name = "../../eth0\n".into()),
            "link on `../../eth0`: expected the name of a device: 1 to 15 bytes without `/`, `:`, white space or control characters"
        );
        assert!(with(|link| link.name = "heddle\u{1b}[2J".into()).contains("link on `heddle [2J`"));
        assert_eq!(
            with(|link| {
                let wit::LinkKind::Vxlan(vxlan) = &mut link.kind else { unreachable!() };
                vxlan.vni = 1 << 24;
            }),
            "link flannel.1: its VNI is 16777216: expected 0 to 16777215"
        );
    }

    fn tun(name: &str) -> wit::Link {
        let local =
            vec![v4([192, 168, 0, 72]), wit::IpAddress::Ipv6((0xfd00, 0, 0, 0, 0, 0, 0, 1))];
        let kind = wit::LinkKind::Tun(wit::Tun { local, port: 8285 });
        wit::Link { name: name.into(), mtu: 1472, mac: None, kind }
    }

    fn with_links(links: Vec<wit::Link>) -> Result<NodePlan, String> {
        let plan = wit::Plan { links, ..empty() };
        node_plan(wit_backend::NodePlan { plan, mtu: 1472 }, 64).map_err(|error| error.to_string())
    }

    #[test]
    fn tun_device_yields_a_tunnel() {
        let plan = with_links(vec![vxlan(), tun("flannel0")]).unwrap();
        assert_eq!(plan.plan.objects[1].to_string(), "link flannel0 type tun mtu 1472 up");
        let local = vec!["192.168.0.72".parse().unwrap(), "fd00::1".parse().unwrap()];
        let link = "flannel0".parse().unwrap();
        assert_eq!(plan.tunnel, Some(Tunnel { link, local, port: 8285, overhead: 0 }));
        assert_eq!(with_links(vec![vxlan()]).unwrap().tunnel, None);
    }

    #[test]
    fn tun_device_invalid_is_refused() {
        let with = |change: fn(&mut wit::Link, &mut wit::Tun)| {
            let mut link = tun("flannel0");
            let wit::LinkKind::Tun(mut tun) = link.kind.clone() else { unreachable!() };
            change(&mut link, &mut tun);
            with_links(vec![wit::Link { kind: wit::LinkKind::Tun(tun), ..link }]).unwrap_err()
        };
        assert_eq!(
            with(|_, tun| tun.port = 0),
            "link flannel0: its port is 0: expected 1 to 65535"
        );
        assert_eq!(
            with(|link, _| link.mac = Some((2, 0, 0, 0, 0, 1))),
            "link flannel0: it has a MAC address: expected none, because a TUN device has none"
        );
        assert_eq!(
            with_links(vec![tun("flannel0"), tun("flannel1")]).unwrap_err(),
            "link flannel1: it is the second TUN device: expected one at most"
        );
    }

    #[test]
    fn overhead_beyond_limit_is_refused() {
        assert_eq!(overhead(1024), Ok(1024));
        assert_eq!(
            overhead(1025).unwrap_err().to_string(),
            "overhead 1025: expected at most 1024 bytes"
        );
    }

    #[test]
    fn route_invalid_is_refused() {
        let with =
            |destination, gateway| refused(|plan| plan.routes.push(route(destination, gateway)));
        assert_eq!(
            with(net([10, 0, 0, 0], 33), v4([10, 0, 0, 1])),
            "route 10.0.0.0/33: expected a prefix of at most 32 bits"
        );
        assert_eq!(
            with(net([10, 0, 0, 1], 24), v4([10, 0, 0, 1])),
            "route 10.0.0.1/24: bits after the prefix must be zero: expected 10.0.0.0/24"
        );
        assert_eq!(
            with(net([10, 0, 0, 0], 24), wit::IpAddress::Ipv6((0xfd00, 0, 0, 0, 0, 0, 0, 1))),
            "route 10.0.0.0/24 via fd00::1: expected a gateway of the destination's family"
        );
    }

    #[test]
    fn sysctl_invalid_is_refused() {
        let with = |name: &str, value: &str| {
            let sysctl = wit::Sysctl {
                link: "flannel.1".into(),
                family: wit::IpFamily::Ipv6,
                name: name.into(),
                value: value.into(),
            };
            refused(|plan| plan.sysctls.push(sysctl))
        };
        assert_eq!(
            with("../../../kernel/core_pattern", "1"),
            "sysctl ipv6.conf.flannel.1.../../../kernel/core_pattern = 1: expected a name of lower-case letters, digits and `_`"
        );
        assert!(with("accept_ra", "0\n1").contains("expected a value"));
        assert!(with("accept_ra", "").contains("expected a value"));
        assert!(with("accept_ra", &"0".repeat(65)).contains("expected a value"));
    }

    #[test]
    fn multicast_mac_is_refused_everywhere() {
        let link = || "flannel.1".to_owned();
        let (mac, address) = ((0xff, 0xff, 0xff, 0xff, 0xff, 0xff), v4([10, 0, 0, 1]));
        let neighbour = wit::Neighbour { link: link(), address, mac };
        assert!(refused(|plan| plan.neighbours.push(neighbour)).starts_with("neighbour with MAC"));
        let entry = wit::FdbEntry { link: link(), mac, destination: address };
        assert!(refused(|plan| plan.fdb_entries.push(entry)).starts_with("fdb entry with MAC"));
    }

    #[test]
    fn object_planned_twice_is_refused() {
        let twice = refused(|plan| {
            plan.routes.push(route(net([10, 0, 0, 0], 24), v4([10, 0, 0, 1])));
            plan.routes.push(route(net([10, 0, 0, 0], 24), v4([10, 0, 0, 2])));
        });
        assert_eq!(twice, "route 10.0.0.0/24: planned more than once");
    }

    #[test]
    fn plan_with_too_many_objects_is_refused() {
        let crowd = refused(|plan| {
            for last in 0..65 {
                plan.routes.push(route(net([10, 0, last, 0], 24), v4([10, 0, 0, 1])));
            }
        });
        assert_eq!(crowd, "65 objects: expected at most 64");
    }

    #[test]
    fn advertisements_unfit_for_a_lease_are_refused() {
        let with = |kind: &str, data: &[&str]| {
            let families = data
                .iter()
                .map(|data| wit_backend::Advertisement { backend_data: Some((*data).to_owned()) });
            let wit = wit_backend::Advertisements {
                backend_type: Some(kind.to_owned()),
                families: families.collect(),
            };
            advertisements(wit, 1).map_err(|refusal| refusal.to_string())
        };
        assert_eq!(
            with("vxlan", &[r#"{"VNI":1}"#]),
            Ok((Some("vxlan".into()), vec![Some(r#"{"VNI":1}"#.into())]))
        );
        assert!(with("vxlan", &["{"]).unwrap_err().contains("expected JSON"));
        assert!(with("vx\"lan", &["{}"]).unwrap_err().contains("expected 1 to 32 letters"));
        assert!(with("vxlan", &[]).unwrap_err().contains("expected 1, as in the network config"));
        let long = format!("\"{}\"", "x".repeat(MAX_BACKEND_DATA));
        assert!(with("vxlan", &[&long]).unwrap_err().contains("expected at most 8192"));
    }
}
