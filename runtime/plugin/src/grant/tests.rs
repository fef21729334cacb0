use heddle_core::address::MacAddress;
use heddle_core::lease::LeaseFamily;
use heddle_core::node::ExistingLink;
use heddle_core::object::{Address, FdbEntry, Metric, Neighbour, Sysctl, Vxlan};

use super::*;

fn networks() -> Vec<OverlayNetwork> {
    vec![OverlayNetwork {
        network: "10.244.0.0/16".parse().unwrap(),
        subnet_length: 24,
        subnet_min: "10.244.1.0".parse().unwrap(),
        subnet_max: "10.244.255.0".parse().unwrap(),
    }]
}

fn node() -> Node {
    Node {
        id: "a".parse().unwrap(),
        underlay: Underlay {
            link: name("eth0"),
            mtu: 1500,
            addresses: vec!["192.168.0.72/24".parse().unwrap()],
            public_addresses: vec!["203.0.113.7".parse().unwrap()],
        },
        links: vec![
            ExistingLink { name: name("docker0"), kind: "bridge".into(), mac: None },
            ExistingLink { name: name("flannel.1"), kind: "vxlan".into(), mac: None },
        ],
    }
}

fn peer() -> Lease {
    Lease {
        key: "10.244.36.0-24".parse().unwrap(),
        families: vec![LeaseFamily {
            subnet: "10.244.36.0/24".parse().unwrap(),
            public_address: "192.168.0.99".parse().unwrap(),
            backend_data: None,
        }],
        backend_type: None,
        node_id: None,
        node_name: None,
    }
}

fn name(text: &str) -> LinkName {
    text.parse().unwrap()
}

const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

fn link(device: &str, underlay: &str, local: &str) -> Object {
    Object::Link(Link {
        name: name(device),
        mtu: 1450,
        mac: None,
        up: true,
        kind: LinkKind::Vxlan(Vxlan {
            vni: 1,
            local: local.parse().unwrap(),
            underlay: name(underlay),
            port: 8472,
            learning: false,
            gbp: false,
        }),
    })
}

fn device() -> Object {
    link("flannel.1", "eth0", "192.168.0.72")
}

fn address(network: &str, link: &str) -> Object {
    Object::Address(Address { link: name(link), network: network.parse().unwrap() })
}

fn route(destination: &str, gateway: Option<&str>, link: &str) -> Object {
    Object::Route(Route {
        metric: Metric::Default,
        destination: destination.parse().unwrap(),
        action: RouteAction::Forward {
            link: name(link),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            onlink: true,
        },
    })
}

fn neighbour(address: &str, link: &str) -> Object {
    let address = address.parse().unwrap();
    Object::Neighbour(Neighbour { link: name(link), address, mac: MAC })
}

fn fdb(destination: &str, link: &str) -> Object {
    let destination = destination.parse().unwrap();
    Object::FdbEntry(FdbEntry { link: name(link), mac: MAC, destination })
}

fn sysctl(link: &str) -> Object {
    Object::Sysctl(Sysctl {
        link: name(link),
        family: Family::V6,
        name: "accept_ra".into(),
        value: "0".into(),
    })
}

fn for_node(objects: Vec<Object>) -> Result<(), String> {
    let plan = NodePlan { plan: Plan { objects }, tunnel: None, mtu: 1450 };
    node_plan(&plan, World::BackendPlugin, &networks(), &node())
        .map_err(|refusal| refusal.to_string())
}

fn for_tunnel(world: World, device: &str, local: &[&str]) -> Result<(), String> {
    let link = name(device);
    let tun = Link { name: link, mtu: 1472, mac: None, up: true, kind: LinkKind::Tun };
    let local = local.iter().map(|address| address.parse().unwrap()).collect();
    let plan = NodePlan {
        plan: Plan { objects: vec![Object::Link(tun)] },
        tunnel: Some(Tunnel { link, local, port: 8285, overhead: 0 }),
        mtu: 1472,
    };
    node_plan(&plan, world, &networks(), &node()).map_err(|refusal| refusal.to_string())
}

fn for_peer(object: Object) -> Result<(), String> {
    let plan = Plan { objects: vec![object] };
    peer_plan(&plan, &[name("flannel.1")], &networks(), &node(), &peer())
        .map_err(|refusal| refusal.to_string())
}

#[test]
fn a_node_may_have_devices_of_its_own_and_what_hangs_on_them() {
    let objects = vec![
        device(),
        address("10.244.8.0/32", "flannel.1"),
        sysctl("flannel.1"),
        route("10.244.0.0/16", None, "flannel.1"),
    ];
    assert_eq!(for_node(objects), Ok(()));
    assert_eq!(for_node(vec![link("new", "eth0", "203.0.113.7")]), Ok(()));
}

#[test]
fn a_device_of_someone_else_is_not_a_plugin_s() {
    for taken in ["eth0", "docker0"] {
        assert_eq!(
            for_node(vec![link(taken, "eth0", "192.168.0.72")]),
            Err(format!("link {taken}: there is a device of that name that is no vxlan device"))
        );
    }
    assert!(for_node(vec![link("flannel.1", "eth1", "192.168.0.72")]).is_err());
    assert!(for_node(vec![link("flannel.1", "eth0", "192.168.0.73")]).is_err());
    assert!(for_node(vec![sysctl("eth0")]).is_err());
    assert!(for_node(vec![device(), address("10.244.8.0/32", "eth0")]).is_err());
}

#[test]
fn a_tun_device_is_for_plugins_that_steer() {
    for world in [World::PacketBackendPlugin, World::TransformPlugin] {
        assert_eq!(for_tunnel(world, "flannel0", &["192.168.0.72"]), Ok(()));
        assert_eq!(for_tunnel(world, "flannel0", &["203.0.113.7"]), Ok(()));
    }
    assert_eq!(
        for_tunnel(World::BackendPlugin, "flannel0", &["192.168.0.72"]),
        Err("link flannel0: it is a TUN device, planned by a plugin of the world backend-plugin: \
             expected packet-backend-plugin or transform-plugin"
            .into())
    );
}

#[test]
fn a_tunnel_s_packets_leave_from_this_node_s_addresses() {
    let tunnel = |device, local: &[&str]| for_tunnel(World::PacketBackendPlugin, device, local);
    assert_eq!(
        tunnel("flannel0", &["192.168.0.73"]),
        Err("link flannel0: its source address is 192.168.0.73: \
             expected one of the external interface's or the public one"
            .into())
    );
    assert_eq!(
        tunnel("flannel0", &["192.168.0.72", "fd00::1"]),
        Err("link flannel0: its source addresses are 192.168.0.72, fd00::1: \
             expected one of the family of each of 10.244.0.0/16, in that order"
            .into())
    );
    assert!(tunnel("flannel0", &["fd00::1"]).is_err());
    assert!(tunnel("flannel0", &[]).is_err());
    for taken in ["eth0", "docker0", "flannel.1"] {
        assert_eq!(
            tunnel(taken, &["192.168.0.72"]),
            Err(format!("link {taken}: there is a device of that name that is no tun device"))
        );
    }
}

#[test]
fn a_node_s_addresses_and_routes_stay_within_the_overlay() {
    assert!(for_node(vec![device(), address("192.168.0.1/32", "flannel.1")]).is_err());
    assert_eq!(
        for_node(vec![device(), route("0.0.0.0/0", None, "flannel.1")]),
        Err("route 0.0.0.0/0 dev flannel.1 onlink: expected within 10.244.0.0/16".into())
    );
    assert!(for_node(vec![device(), route("10.244.0.0/16", None, "eth0")]).is_err());
    assert!(for_node(vec![route("10.244.0.0/16", None, "flannel.1")]).is_err());
}

#[test]
fn a_peer_s_packets_go_to_the_peer() {
    assert_eq!(for_peer(route("10.244.36.0/24", Some("10.244.36.0"), "flannel.1")), Ok(()));
    assert_eq!(for_peer(route("10.244.36.0/24", Some("192.168.0.99"), "eth0")), Ok(()));
    assert_eq!(for_peer(neighbour("10.244.36.0", "flannel.1")), Ok(()));
    assert_eq!(for_peer(fdb("192.168.0.99", "flannel.1")), Ok(()));
}

#[test]
fn a_peer_s_plan_touches_nothing_else() {
    for object in [
        device(),
        sysctl("flannel.1"),
        address("10.244.36.0/32", "flannel.1"),
        // Another node's subnet, and the whole overlay.
        route("10.244.37.0/24", Some("10.244.36.0"), "flannel.1"),
        route("10.244.0.0/16", Some("10.244.36.0"), "flannel.1"),
        // Someone else's router.
        route("10.244.36.0/24", Some("192.168.0.1"), "eth0"),
        route("10.244.36.0/24", None, "eth0"),
        route("10.244.36.0/24", Some("192.168.0.99"), "docker0"),
        route("10.244.36.0/24", Some("192.168.0.99"), "flannel.1"),
        neighbour("192.168.0.99", "flannel.1"),
        neighbour("10.244.36.0", "eth0"),
        fdb("192.168.0.98", "flannel.1"),
        fdb("192.168.0.99", "eth0"),
    ] {
        assert!(for_peer(object.clone()).is_err(), "{object}");
    }
}

#[test]
fn files_go_where_the_operator_said() {
    let file = |path: &str, mode| File { path: path.into(), mode, contents: vec![] };
    let settings = [Setting { name: "path".into(), value: "/etc/subnet.env".into() }];
    let check = |file: File| files(&[file], &settings).map_err(|refusal| refusal.to_string());
    assert_eq!(check(file("/run/flannel/subnet.env", 0o644)), Ok(()));
    assert_eq!(check(file("/etc/cni/net.d/10-heddle.conflist", 0o644)), Ok(()));
    assert_eq!(check(file("/etc/subnet.env", 0o644)), Ok(()));
    for bad in ["/etc/shadow", "/run/flannel/../../etc/shadow", "run/flannel/x", "/run/flannelx"] {
        assert!(check(file(bad, 0o644)).is_err(), "{bad}");
    }
    assert!(check(file("/run/flannel/subnet.env", 0o4755)).is_err());
    let twice = [file("/run/flannel/x", 0o644), file("/run/flannel/x", 0o644)];
    assert!(files(&twice, &[]).is_err());
}
