//! Checks of a plugin's answers: pure functions that return the first offending object of a plan,
//! if there is one.
//!
//! Some rules hold for every backend: a plugin touches only devices of its own, routes only the
//! overlay, and sends a peer's packets only to that peer. Its [`Capabilities`] are what it may do
//! beyond that.

use std::fmt;
use std::net::IpAddr;
use std::path::Component;

use heddle_core::address::{Family, LinkName};
use heddle_core::lease::Lease;
use heddle_core::node::{Node, Underlay};
use heddle_core::object::{Link, LinkKind, Object, Plan, Route, RouteAction};
use heddle_core::site::Site;
use heddle_core::text::{is_visible, list};
use ipnet::IpNet;

use crate::capabilities::{Capabilities, Kind};
use crate::file::{File, Setting};
use crate::manifest::World;
use crate::node_plan::{NodePlan, Tunnel};
use crate::refusal::Refusal;

/// Length limit of a file's path, in bytes.
const MAX_PATH: usize = 1024;

type Granted = Result<(), Refusal>;

/// Checks the plan of the node, made by a plugin of this world.
///
/// # Errors
///
/// The first object that breaks a rule, and the rule.
pub fn node_plan(
    plan: &NodePlan,
    capabilities: &Capabilities,
    world: World,
    site: &Site,
) -> Granted {
    let Site { config, node, lease } = site;
    let links = plan.links();
    let networks: Vec<IpNet> = config.networks.iter().map(|overlay| overlay.network).collect();
    if let Some(tunnel) = &plan.tunnel {
        own_tunnel(tunnel, world, &networks, &node.underlay)?;
    }
    let mut port = tunnel_port(plan, capabilities)?;
    links.iter().try_for_each(|link| takes_no_routes(*link, &plan.plan))?;
    for object in &plan.plan.objects {
        match object {
            Object::Link(link) => {
                own_link(link, capabilities, node)?;
                one_port(link, &mut port)
            }
            Object::Address(address) => {
                on_planned_link(object, &links)?;
                let subnets: Vec<IpNet> = lease.families.iter().map(|own| own.subnet).collect();
                within(object, IpNet::from(address.network.addr()), &subnets)?;
                // The kernel adds a connected route for the address.
                within(object, address.network.trunc(), &networks)
            }
            Object::Sysctl(sysctl) => {
                on_planned_link(object, &links)?;
                let has = capabilities.has_sysctl(&sysctl.name);
                granted(has, object, "sysctls", &capabilities.sysctls)
            }
            Object::Neighbour(_) | Object::FdbEntry(_) => {
                Err(Refusal::new(object, "expected only in the plan of the peer it belongs to"))
            }
            Object::Route(route) => {
                let reach = Reach { inside: &networks, capabilities, links: &links };
                reach.destination(object, route)?;
                next_hop(object, route, &links, &networks, None)
            }
        }?;
    }
    Ok(())
}

/// Checks the plan of a peer. `links` are the devices of the node's own plan.
///
/// # Errors
///
/// The first object that breaks a rule, and the rule.
pub fn peer_plan(
    plan: &Plan,
    capabilities: &Capabilities,
    links: &[LinkName],
    node: &Node,
    peer: &Lease,
) -> Granted {
    let subnets: Vec<IpNet> = peer.families.iter().map(|family| family.subnet).collect();
    for object in &plan.objects {
        match object {
            Object::Link(_) => {
                Err(Refusal::new(object, "expected devices in the plan of the node only"))
            }
            Object::Address(_) | Object::Sysctl(_) => {
                Err(Refusal::new(object, "expected only in the plan of the node"))
            }
            Object::Neighbour(neighbour) => {
                on_planned_link(object, links)?;
                within(object, IpNet::from(neighbour.address), &subnets)
            }
            Object::FdbEntry(entry) => {
                on_planned_link(object, links)?;
                match peer.public_addresses().contains(&entry.destination) {
                    true => Ok(()),
                    false => Err(Refusal::new(
                        object,
                        format!("expected the peer's public address, {}", addresses(peer)),
                    )),
                }
            }
            Object::Route(route) => {
                Reach { inside: &subnets, capabilities, links }.destination(object, route)?;
                next_hop(object, route, links, &subnets, Some((node, peer)))
            }
        }?;
    }
    Ok(())
}

/// Checks that files may be written: to a path that the operator names with a setting, or that the
/// plugin's capabilities cover.
///
/// # Errors
///
/// The first file that breaks a rule, and the rule.
pub fn files(files: &[File], capabilities: &Capabilities, settings: &[Setting]) -> Granted {
    for file in files {
        let refuse = |rule: &str| {
            Err(Refusal::new(format_args!("file {} ({:o})", file.path.display(), file.mode), rule))
        };
        let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if !file.path.is_absolute() || !file.path.components().all(plain) {
            return refuse("expected an absolute path without `..`");
        }
        // The path is shown in the log.
        let path = file.path.to_string_lossy();
        if path.len() > MAX_PATH {
            return refuse(&format!("expected a path of at most {MAX_PATH} bytes"));
        }
        if !is_visible(&path) {
            return refuse("expected a path without control characters");
        }
        // If others could write to the file, they could forge it for its readers.
        if file.mode & !0o755 != 0 {
            return refuse("expected permission bits up to 755, none of them for others to write");
        }
        let asked_for = settings.iter().any(|setting| setting.names(&file.path));
        let has = file.path.to_str().is_some_and(|path| capabilities.has_file(path));
        if !asked_for && !has {
            return refuse(&format!(
                "expected the setting `path`, or a capability for it: files {}",
                or_none(&capabilities.files)
            ));
        }
        if files.iter().filter(|other| other.path == file.path).count() > 1 {
            return refuse("planned more than once");
        }
    }
    Ok(())
}

/// Checks a device: it must be new, or already be of the planned kind, and belong to nobody else.
fn own_link(link: &Link, capabilities: &Capabilities, node: &Node) -> Granted {
    let underlay = &node.underlay;
    let refuse = |rule: String| Err(Refusal::new(format_args!("link {}", link.name), rule));
    let kind = link.kind.name();
    // Below `/proc/sys/net`, these two names stand for all devices.
    if matches!(link.name.as_str(), "all" | "default") {
        return refuse("expected a name that is not that of all devices' settings".into());
    }
    let other = node.links.iter().find(|found| found.name == link.name && found.kind != kind);
    if link.name == underlay.link {
        return refuse("it is the external interface, which no plan may have".into());
    }
    if let Some(found) = other {
        let found = if found.kind.is_empty() { "hardware" } else { &found.kind };
        return refuse(format!("a device of that name exists, of kind {found} and not {kind}"));
    }
    let object = format_args!("link {}", link.name);
    granted(capabilities.has_link(link.name.as_str()), object, "links", &capabilities.links)?;
    match &link.kind {
        LinkKind::Vxlan(vxlan) => {
            has_kind(link, Kind::Vxlan, capabilities)?;
            has_port(link.name, vxlan.port, capabilities)?;
            if vxlan.underlay != underlay.link {
                return refuse(format!(
                    "its packets leave through {}: expected {}, the external interface",
                    vxlan.underlay, underlay.link
                ));
            }
            own_source(link.name, vxlan.local, underlay)
        }
        // The rest of its properties is checked with the tunnel.
        LinkKind::Tun => has_kind(link, Kind::Tun, capabilities),
        LinkKind::Other(_) => refuse(format!("a device of kind `{kind}` cannot be planned")),
    }
}

/// Checks that a device ignores router advertisements, so that nobody on the overlay can add routes
/// to the node (RFC 4861, section 6.3.4; `accept_ra` in the kernel's
/// `Documentation/networking/ip-sysctl.rst`).
fn takes_no_routes(link: LinkName, plan: &Plan) -> Granted {
    let refused = plan.objects.iter().any(|object| match object {
        Object::Sysctl(sysctl) => {
            (sysctl.link, sysctl.family) == (link, Family::V6)
                && (sysctl.name.as_str(), sysctl.value.as_str()) == ("accept_ra", "0")
        }
        _ => false,
    });
    match refused {
        true => Ok(()),
        false => Err(Refusal::new(
            format_args!("link {link}"),
            format!(
                "expected the setting net.ipv6.conf.{link}.accept_ra = 0, so that no other host on the overlay gives this node routes"
            ),
        )),
    }
}

fn has_kind(link: &Link, kind: Kind, capabilities: &Capabilities) -> Granted {
    let object = format_args!("link {} type {kind}", link.name);
    granted(capabilities.link_kinds.contains(&kind), object, "link-kinds", &capabilities.link_kinds)
}

fn has_port(link: LinkName, port: u16, capabilities: &Capabilities) -> Granted {
    let object = format_args!("link {link} with UDP port {port}");
    granted(capabilities.has_port(port), object, "udp-ports", &capabilities.udp_ports)
}

/// Returns the port of the plan's TUN device.
fn tunnel_port(plan: &NodePlan, capabilities: &Capabilities) -> Result<Option<u16>, Refusal> {
    let Some(tunnel) = &plan.tunnel else { return Ok(None) };
    has_port(tunnel.link, tunnel.port, capabilities)?;
    Ok(Some(tunnel.port))
}

/// Checks that all devices of a plan receive at one port. `port` is that of the first device, once
/// known.
fn one_port(link: &Link, port: &mut Option<u16>) -> Granted {
    let LinkKind::Vxlan(vxlan) = &link.kind else { return Ok(()) };
    match *port.get_or_insert(vxlan.port) {
        port if port == vxlan.port => Ok(()),
        port => Err(Refusal::new(
            format_args!("link {} with UDP port {}", link.name, vxlan.port),
            format!("expected {port}, that of the plan's other device: a plugin has one UDP port"),
        )),
    }
}

/// Checks a TUN device: its packets leave from this node's own addresses, and its plugin steers
/// packets.
fn own_tunnel(tunnel: &Tunnel, world: World, networks: &[IpNet], underlay: &Underlay) -> Granted {
    let refuse = |rule| Err(Refusal::new(format_args!("link {}", tunnel.link), rule));
    if !world.steers() {
        return refuse(format!(
            "it is a TUN device, planned by a plugin of the world {world}: expected {} or {}",
            World::PacketBackendPlugin,
            World::TransformPlugin
        ));
    }
    let sources = tunnel.local.iter().copied().map(Family::of);
    if !sources.eq(networks.iter().copied().map(Family::of_network)) {
        return refuse(format!(
            "its source addresses are {}: expected one of the family of each of {}, in that order",
            list(&tunnel.local),
            list(networks)
        ));
    }
    tunnel.local.iter().try_for_each(|local| own_source(tunnel.link, *local, underlay))
}

/// Checks that packets between hosts leave from an address of this node.
fn own_source(link: LinkName, source: IpAddr, underlay: &Underlay) -> Granted {
    let on_link = underlay.addresses.iter().any(|network| network.addr() == source);
    match on_link || underlay.public_addresses.contains(&source) {
        true => Ok(()),
        false => Err(Refusal::new(
            format_args!("link {link}"),
            format!(
                "its source address is {source}: expected one of the external interface's or the public one"
            ),
        )),
    }
}

fn on_planned_link(object: &Object, links: &[LinkName]) -> Granted {
    match object.link() {
        Some(link) if links.contains(&link) => Ok(()),
        _ => Err(Refusal::new(object, "expected on a device that the node's plan has")),
    }
}

/// Refuses an object without the capability that it needs.
fn granted<T: fmt::Display>(
    has: bool,
    object: impl fmt::Display,
    key: &str,
    those: &[T],
) -> Granted {
    match has {
        true => Ok(()),
        false => Err(Refusal::new(
            object,
            format!("expected a capability for it: {key} {}", or_none(those)),
        )),
    }
}

/// The destinations that routes may have: those inside these networks, and through the plugin's own
/// devices also those that its capabilities cover.
struct Reach<'a> {
    inside: &'a [IpNet],
    capabilities: &'a Capabilities,
    links: &'a [LinkName],
}

impl Reach<'_> {
    fn destination(&self, object: &Object, route: &Route) -> Granted {
        let beyond = self.capabilities.routes.iter().any(|net| net.contains(&route.destination));
        let by_own_device = object.link().is_some_and(|link| self.links.contains(&link));
        match beyond && by_own_device {
            true => Ok(()),
            false if beyond => Err(Refusal::new(
                object,
                format!(
                    "expected within {}, or through a device that the node's plan has",
                    either(self.inside)
                ),
            )),
            false => within(object, route.destination, self.inside),
        }
    }
}

fn within(object: &Object, network: IpNet, networks: &[IpNet]) -> Granted {
    match networks.iter().any(|outer| outer.contains(&network)) {
        true => Ok(()),
        false => Err(Refusal::new(object, format!("expected within {}", either(networks)))),
    }
}

/// Checks the next hop of a route: through a device of the plugin's own into these networks, or
/// through the external interface to the peer itself.
fn next_hop(
    object: &Object,
    route: &Route,
    links: &[LinkName],
    networks: &[IpNet],
    peer: Option<(&Node, &Lease)>,
) -> Granted {
    let RouteAction::Forward { link, gateway, .. } = route.action else {
        return Ok(());
    };
    if links.contains(&link) {
        return match gateway {
            Some(gateway) if !networks.iter().any(|network| network.contains(&gateway)) => {
                Err(Refusal::new(object, format!("expected a gateway within {}", either(networks))))
            }
            _ => Ok(()),
        };
    }
    match peer {
        Some((node, peer)) if link == node.underlay.link => {
            match gateway.is_some_and(|gateway| peer.public_addresses().contains(&gateway)) {
                true => Ok(()),
                false => Err(Refusal::new(
                    object,
                    format!("expected the peer's public address, {}, as gateway", addresses(peer)),
                )),
            }
        }
        _ => Err(Refusal::new(object, "expected through a device that the node's plan has")),
    }
}

fn addresses(peer: &Lease) -> String {
    either(peer.public_addresses())
}

fn either(items: impl IntoIterator<Item = impl ToString>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(" or ")
}

fn or_none<T: fmt::Display>(items: &[T]) -> String {
    if items.is_empty() { "none".to_owned() } else { list(items) }
}

#[cfg(test)]
mod tests;
