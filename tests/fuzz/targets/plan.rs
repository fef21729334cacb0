//! A plugin's plan, for any capabilities that its manifest asks for: the check of the plan and, if
//! it passes, the diff against a kernel in any state.

#![no_main]
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::IpAddr;

use arbitrary::{Result, Unstructured};
use heddle_core::address::{Family, LinkName};
use heddle_core::desired::{Desired, Owner, Priority};
use heddle_core::diff::{ObjectChange, Observation, Observed, diff};
use heddle_core::host_network::{Claims, Guard, HostAddress, HostNetwork, HostRouting, Vital};
use heddle_core::object::{LinkKind, Metric, Object, ObjectKey, Plan, RouteAction, Sysctl};
use heddle_fuzz::world::{address, name, networks, node, object, own, peer, site};
use heddle_grant::{Capabilities, NodePlan, Tunnel, World, check};
use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;

/// Formats a subset of the items as a JSON list.
fn some(u: &mut Unstructured<'_>, key: &str, from: &[&str]) -> Result<String> {
    let mut chosen = Vec::new();
    for item in from {
        if u.ratio(3, 4)? {
            chosen.push(format!("{item:?}"));
        }
    }
    Ok(format!("{key:?}:[{}]", chosen.join(",")))
}

fn capabilities(u: &mut Unstructured<'_>) -> Result<Capabilities> {
    let json = format!(
        "{{{},{},{},{},{}}}",
        some(u, "links", &["flannel.*", "flannel0", "all", "eth*"])?,
        some(u, "link-kinds", &["vxlan", "tun"])?,
        some(u, "routes", &["10.96.0.0/12", "fd42::/32"])?,
        some(u, "udp-ports", &["8000-9000", "4789"])?,
        some(u, "sysctls", &["accept_*", "rp_filter"])?,
    );
    Ok(serde_json::from_str(&json).expect("capabilities"))
}

fn objects(u: &mut Unstructured<'_>, most: usize) -> Result<Vec<Object>> {
    (0..u.int_in_range(0..=most)?).map(|_| object(u)).collect()
}

fn node_plan(u: &mut Unstructured<'_>) -> Result<NodePlan> {
    let tunnel = match u.ratio(1, 4)? {
        false => None,
        true => Some(Tunnel {
            link: name(u)?,
            local: (0..u.int_in_range(0..=2)?).map(|_| address(u)).collect::<Result<_>>()?,
            port: *u.choose(&[8285, 4789, 1])?,
            overhead: 0,
        }),
    };
    Ok(NodePlan { plan: Plan { objects: objects(u, 8)? }, tunnel, mtu: 1450 })
}

/// The grant, restated independently of the implementation.
struct Grant<'a> {
    capabilities: &'a Capabilities,
    /// Devices of the node's plan.
    links: Vec<LinkName>,
    /// Overlay networks that the plan concerns.
    inside: Vec<IpNet>,
    /// Gateways to which packets for a peer may be sent without a device of the plugin's own.
    addresses: Vec<IpAddr>,
}

impl Grant<'_> {
    fn inside(&self, network: IpNet) -> bool {
        self.inside.iter().any(|outer| outer.contains(&network))
    }

    fn on_own(&self, object: &Object) {
        assert!(object.link().is_some_and(|link| self.links.contains(&link)), "{object}");
    }

    /// Asserts the rules for the objects of any plan.
    fn holds(&self, object: &Object) {
        let mine = |address: &IpAddr| {
            let underlay = node().underlay;
            underlay.addresses.iter().any(|it| it.addr() == *address)
                || underlay.public_addresses.contains(address)
        };
        match object {
            Object::Link(link) => {
                assert!(self.capabilities.has_link(link.name.as_str()), "{object}");
                assert!(!["eth0", "docker0", "all"].contains(&link.name.as_str()), "{object}");
                match &link.kind {
                    LinkKind::Vxlan(vxlan) => {
                        assert!(vxlan.underlay.as_str() == "eth0" && mine(&vxlan.local));
                        assert!(self.capabilities.has_port(vxlan.port));
                    }
                    LinkKind::Tun => assert_ne!(link.name.as_str(), "flannel.1"),
                    LinkKind::Other(_) => panic!("{object}"),
                }
            }
            Object::Sysctl(sysctl) => {
                self.on_own(object);
                assert!(self.capabilities.has_sysctl(&sysctl.name), "{object}");
            }
            Object::Address(address) => {
                self.on_own(object);
                assert!(own().key.subnets().iter().any(|it| it.contains(&address.network.addr())));
            }
            Object::Neighbour(neighbour) => {
                self.on_own(object);
                assert!(self.inside(neighbour.address.into()), "{object}");
            }
            Object::FdbEntry(entry) => {
                self.on_own(object);
                assert!(self.addresses.contains(&entry.destination), "{object}");
            }
            Object::Route(route) => {
                let granted = self.capabilities.routes.iter();
                let beyond = granted.clone().any(|it| it.contains(&route.destination));
                let inside = self.inside(route.destination);
                assert!(inside || beyond, "{object}");
                if let RouteAction::Forward { link, gateway, .. } = route.action {
                    let own = self.links.contains(&link);
                    let to_peer = link.as_str() == "eth0"
                        && gateway.is_some_and(|it| self.addresses.contains(&it));
                    assert!(own || (to_peer && inside), "{object}");
                    let near = gateway.is_none_or(|it| self.inside(it.into()));
                    assert!(near || !own, "{object}");
                }
            }
        }
    }
}

/// Asserts that a plan which passed is within the grant.
fn node_plan_holds(plan: &NodePlan, capabilities: &Capabilities, world: World) {
    let inside = networks().iter().map(|overlay| overlay.network).collect();
    let grant = Grant { capabilities, links: plan.links(), inside, addresses: vec![] };
    let mut ports: Vec<u16> = plan.tunnel.iter().map(|tunnel| tunnel.port).collect();
    for object in &plan.plan.objects {
        grant.holds(object);
        assert!(!matches!(object, Object::Neighbour(_) | Object::FdbEntry(_)), "{object}");
        if let Object::Link(link) = object {
            let closed = |object: &Object| {
                matches!(object, Object::Sysctl(it) if it.link == link.name && it.family == Family::V6
                    && it.name == "accept_ra" && it.value == "0")
            };
            assert!(plan.plan.objects.iter().any(closed), "{object}");
            if let LinkKind::Vxlan(vxlan) = &link.kind {
                ports.push(vxlan.port);
            }
        }
    }
    ports.dedup();
    assert!(ports.len() <= 1 && ports.iter().all(|port| capabilities.has_port(*port)));
    assert!(plan.tunnel.is_none() || world.steers());
}

/// Picks the host's own networks: a subset of those inside the overlay, around it, and next to it.
fn guard(u: &mut Unstructured<'_>) -> Result<Guard> {
    const NETWORKS: [&str; 8] = [
        "10.244.36.1/24",
        "10.244.36.9/30",
        "10.244.0.1/16",
        "10.0.0.1/8",
        "10.244.8.1/24",
        "10.96.0.1/16",
        "192.168.0.72/24",
        "fd00:0:0:24::1/80",
    ];
    let mut routing = HostRouting::default();
    for network in NETWORKS {
        if u.arbitrary()? {
            routing.addresses.insert(HostAddress {
                link: "lan0".parse().expect("a name"),
                network: network.parse().expect("a network"),
                up: u.arbitrary()?,
                prefix_route: u.ratio(7, 8)?,
            });
        }
    }
    let overlay = networks().iter().map(|overlay| overlay.network).collect();
    let granted = vec!["10.96.0.0/12".parse().expect("a network")];
    let own = own().key.subnets().into_iter().collect();
    let claims = Claims { overlay, granted, own, ..Claims::default() };
    let store = (0..u.int_in_range(0..=2)?).map(|_| address(u)).collect::<Result<_>>()?;
    let vital = Vital { store, ..Vital::default() };
    let mut guard = Guard::default();
    guard.set_host(HostNetwork::new(&claims, &routing, vital));
    Ok(guard)
}

/// Asserts that no route that may be in the kernel takes packets from one of the host's networks.
fn leaves_host_alone(guard: &Guard, desired: &BTreeMap<ObjectKey, &Object>) {
    let whole = |network: IpNet| {
        networks().iter().any(|it| network.contains(&it.network) && network != it.network)
    };
    for (network, _) in guard.host().overlapping().filter(|(network, _)| !whole(*network)) {
        let takes = |object: &&&Object| match object {
            Object::Route(route) => {
                route.metric == Metric::Default
                    && network.contains(&route.destination)
                    && !own().key.subnets().iter().any(|own| own.contains(&route.destination))
            }
            _ => false,
        };
        assert_eq!(desired.values().find(takes), None, "{network}");
    }
}

/// Asserts that after applying the diff to any kernel state no difference remains, and foreign
/// objects are untouched.
fn apply(desired: &Desired, guard: &Guard, mut observed: Observed) {
    let desired = guard.permitted(desired.objects());
    leaves_host_alone(guard, &desired);
    let before = observed.clone();
    let mut rebuilt = Vec::new();
    for change in diff(&desired, &observed) {
        if let ObjectChange::Replace(Object::Link(link))
        | ObjectChange::Remove(Object::Link(link)) = &change
        {
            rebuilt.push(link.name);
        }
        observed.note(&change);
    }
    assert_eq!(diff(&desired, &observed), []);
    for (key, object) in &desired {
        let found = observed.objects.get(key).map(|seen| &seen.object);
        match (object, found) {
            // A device without a planned MAC may have any.
            (Object::Link(wanted), Some(Object::Link(found))) if wanted.mac.is_none() => {
                assert_eq!(wanted.kind, found.kind);
            }
            (wanted, found) => assert_eq!(found, Some(*wanted)),
        }
    }
    for (key, seen) in before.objects.iter().filter(|(_, seen)| !seen.ours) {
        let gone = seen.object.link().is_some_and(|link| rebuilt.contains(&link));
        assert!(gone || desired.contains_key(key) || observed.objects.get(key) == Some(seen));
    }
}

/// Returns the objects of a plan that pass together with those before them; each device with its
/// mandatory sysctl.
fn passing(plan: &NodePlan, passes: impl Fn(&NodePlan) -> bool) -> NodePlan {
    let mut passing = NodePlan { plan: Plan::default(), tunnel: None, mtu: plan.mtu };
    for object in &plan.plan.objects {
        let mut more = passing.clone();
        if let Object::Link(link) = object {
            let (link, family) = (link.name, Family::V6);
            let (name, value) = ("accept_ra".to_owned(), "0".to_owned());
            more.plan.objects.push(Object::Sysctl(Sysctl { link, family, name, value }));
        }
        more.plan.objects.push(object.clone());
        if passes(&more) {
            passing = more;
        }
    }
    passing
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let capabilities = capabilities(u)?;
    let world = *u.choose(&[World::BackendPlugin, World::PacketBackendPlugin])?;
    let (node, peer) = (node(), peer());
    let checked = |plan: &NodePlan| check::node_plan(plan, &capabilities, world, &site());
    let mut node_plan = node_plan(u)?;
    if let Err(refusal) = checked(&node_plan) {
        assert!(!refusal.to_string().contains(char::is_control));
        node_plan = passing(&node_plan, |plan| checked(plan).is_ok());
    }
    node_plan_holds(&node_plan, &capabilities, world);

    let links = node_plan.links();
    let passes = |objects: &[Object]| {
        let plan = Plan { objects: objects.to_vec() };
        check::peer_plan(&plan, &capabilities, &links, &node, &peer).is_ok()
    };
    // Each of a peer's objects passes or fails by itself.
    let mut peer_plan = Plan { objects: objects(u, 8)? };
    peer_plan.objects.retain(|object| passes(std::slice::from_ref(object)));
    assert!(passes(&peer_plan.objects));
    let grant = Grant {
        capabilities: &capabilities,
        links: links.clone(),
        inside: peer.key.subnets().into_iter().collect(),
        addresses: peer.public_addresses().into_iter().collect(),
    };
    for object in &peer_plan.objects {
        grant.holds(object);
        assert!(!matches!(object, Object::Link(_) | Object::Address(_) | Object::Sysctl(_)));
    }

    let mut desired = Desired::default();
    let priority = Priority::default();
    desired.set(Owner::Node, &priority, node_plan.plan);
    desired.set(Owner::Peer(peer.key), &priority, peer_plan);
    let mut observed = Observed::default();
    for object in objects(u, 16)? {
        observed.objects.insert(object.key(), Observation { object, ours: u.arbitrary()? });
    }
    apply(&desired, &guard(u)?, observed);
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    // `Unstructured` makes up values once the bytes run out.
    let _ = run(&mut Unstructured::new(bytes));
});
