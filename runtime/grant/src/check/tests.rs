use heddle_core::address::MacAddress;
use heddle_core::config::NetworkConfig;
use heddle_core::lease::LeaseFamily;
use heddle_core::node::ExistingLink;
use heddle_core::object::{Address, FdbEntry, Metric, Neighbour, Sysctl, Vxlan};

use super::*;

fn site() -> Site {
    let config = NetworkConfig::parse(br#"{"Network":"10.244.0.0/16"}"#).unwrap();
    Site::new(config, node()).with_lease(own())
}

fn node() -> Node {
    Node {
        id: "a".parse().unwrap(),
        underlay: Underlay {
            link: name("eth0"),
            mtu: 1500,
            addresses: vec!["192.168.0.72/24".parse().unwrap()],
            public_addresses: ["203.0.113.7".parse::<IpAddr>().unwrap()].into(),
        },
        links: vec![
            ExistingLink { name: name("docker0"), kind: "bridge".into(), mac: None },
            ExistingLink { name: name("flannel.1"), kind: "vxlan".into(), mac: None },
        ],
    }
}

fn own() -> Lease {
    lease("10.244.8.0/24", "203.0.113.7")
}

fn peer() -> Lease {
    lease("10.244.36.0/24", "192.168.0.99")
}

fn lease(subnet: &str, public_address: &str) -> Lease {
    Lease {
        key: subnet.replace('/', "-").parse().unwrap(),
        families: [LeaseFamily {
            subnet: subnet.parse().unwrap(),
            public_address: public_address.parse().unwrap(),
            backend_data: None,
        }]
        .into(),
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

fn setting(link: &str, setting: &str, value: &str) -> Object {
    Object::Sysctl(Sysctl {
        link: name(link),
        family: Family::V6,
        name: setting.into(),
        value: value.into(),
    })
}

fn sysctl(link: &str) -> Object {
    setting(link, "accept_ra", "0")
}

/// The capabilities that the plugin requested and was granted, unless a test says otherwise.
const ASKED: &str = r#"{"links":["flannel.*","flannel0","new"],"link-kinds":["vxlan","tun"],
    "udp-ports":["8000-9000"],"sysctls":["accept_ra"],"files":["/run/flannel/"]}"#;

fn capabilities(json: &str) -> Capabilities {
    serde_json::from_str(json).unwrap()
}

/// Checks a plan of these objects, and of the sysctl that every device must have.
fn for_node_with(asked: &str, mut objects: Vec<Object>) -> Result<(), String> {
    let links = objects.iter().filter_map(|object| match object {
        Object::Link(link) => Some(sysctl(link.name.as_str())),
        _ => None,
    });
    let missing: Vec<_> = links.filter(|sysctl| !objects.contains(sysctl)).collect();
    objects.extend(missing);
    for_node_alone(asked, objects)
}

fn for_node_alone(asked: &str, objects: Vec<Object>) -> Result<(), String> {
    let plan = NodePlan { plan: Plan { objects }, tunnel: None, mtu: 1450 };
    node_plan(&plan, &capabilities(asked), World::BackendPlugin, &site())
        .map_err(|refusal| refusal.to_string())
}

fn for_node(objects: Vec<Object>) -> Result<(), String> {
    for_node_with(ASKED, objects)
}

fn for_tunnel(world: World, device: &str, local: &[&str]) -> Result<(), String> {
    let link = name(device);
    let tun = Link { name: link, mtu: 1472, mac: None, up: true, kind: LinkKind::Tun };
    let local = local.iter().map(|address| address.parse().unwrap()).collect();
    let plan = NodePlan {
        plan: Plan { objects: vec![Object::Link(tun), sysctl(device)] },
        tunnel: Some(Tunnel { link, local, port: 8285, overhead: 0 }),
        mtu: 1472,
    };
    node_plan(&plan, &capabilities(ASKED), world, &site()).map_err(|refusal| refusal.to_string())
}

fn for_peer_with(asked: &str, object: Object) -> Result<(), String> {
    let plan = Plan { objects: vec![object] };
    peer_plan(&plan, &capabilities(asked), &[name("flannel.1")], &node(), &peer())
        .map_err(|refusal| refusal.to_string())
}

fn for_peer(object: Object) -> Result<(), String> {
    for_peer_with(ASKED, object)
}

#[test]
fn node_plan_may_have_own_devices_and_their_objects() {
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
fn foreign_device_is_refused() {
    for (taken, rule) in [
        ("eth0", "it is the external interface, which no plan may have"),
        ("docker0", "a device of that name exists, of kind bridge and not vxlan"),
    ] {
        assert_eq!(
            for_node(vec![link(taken, "eth0", "192.168.0.72")]),
            Err(format!("link {taken}: {rule}"))
        );
    }
    assert!(for_node(vec![link("flannel.1", "eth1", "192.168.0.72")]).is_err());
    assert!(for_node(vec![link("flannel.1", "eth0", "192.168.0.73")]).is_err());
    assert!(for_node(vec![sysctl("eth0")]).is_err());
    assert!(for_node(vec![device(), address("10.244.8.0/32", "eth0")]).is_err());
}

#[test]
fn tun_device_requires_a_steering_plugin() {
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
fn tunnel_source_must_be_an_address_of_this_node() {
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
    for (taken, rule) in [
        ("eth0", "it is the external interface, which no plan may have"),
        ("docker0", "a device of that name exists, of kind bridge and not tun"),
        ("flannel.1", "a device of that name exists, of kind vxlan and not tun"),
    ] {
        assert_eq!(tunnel(taken, &["192.168.0.72"]), Err(format!("link {taken}: {rule}")));
    }
}

#[test]
fn node_addresses_and_routes_stay_within_the_overlay() {
    assert!(for_node(vec![device(), address("192.168.0.1/32", "flannel.1")]).is_err());
    // An address must be this node's own, and the connected route that the kernel adds for it must
    // lead into the overlay.
    assert_eq!(for_node(vec![device(), address("10.244.8.1/16", "flannel.1")]), Ok(()));
    assert_eq!(
        for_node(vec![device(), address("10.244.36.1/32", "flannel.1")]),
        Err("address 10.244.36.1/32 dev flannel.1: expected within 10.244.8.0/24".into())
    );
    assert_eq!(
        for_node(vec![device(), address("10.244.8.1/5", "flannel.1")]),
        Err("address 10.244.8.1/5 dev flannel.1: expected within 10.244.0.0/16".into())
    );
    assert_eq!(
        for_node(vec![device(), route("0.0.0.0/0", None, "flannel.1")]),
        Err("route 0.0.0.0/0 dev flannel.1 onlink: expected within 10.244.0.0/16".into())
    );
    assert!(for_node(vec![device(), route("10.244.0.0/16", None, "eth0")]).is_err());
    assert!(for_node(vec![route("10.244.0.0/16", None, "flannel.1")]).is_err());
}

#[test]
fn peer_packets_go_to_the_peer() {
    assert_eq!(for_peer(route("10.244.36.0/24", Some("10.244.36.0"), "flannel.1")), Ok(()));
    assert_eq!(for_peer(route("10.244.36.0/24", Some("192.168.0.99"), "eth0")), Ok(()));
    assert_eq!(for_peer(neighbour("10.244.36.0", "flannel.1")), Ok(()));
    assert_eq!(for_peer(fdb("192.168.0.99", "flannel.1")), Ok(()));
}

#[test]
fn peer_plan_touches_nothing_else() {
    for object in [
        device(),
        sysctl("flannel.1"),
        address("10.244.36.0/32", "flannel.1"),
        // Another node's subnet, and the whole overlay.
        route("10.244.37.0/24", Some("10.244.36.0"), "flannel.1"),
        route("10.244.0.0/16", Some("10.244.36.0"), "flannel.1"),
        // A router other than the peer.
        route("10.244.36.0/24", Some("192.168.0.1"), "eth0"),
        route("10.244.36.0/24", None, "eth0"),
        route("10.244.36.0/24", Some("192.168.0.99"), "docker0"),
        route("10.244.36.0/24", Some("192.168.0.99"), "flannel.1"),
        route("10.244.36.0/24", Some("10.244.37.0"), "flannel.1"),
        neighbour("10.244.37.0", "flannel.1"),
        neighbour("192.168.0.99", "flannel.1"),
        neighbour("10.244.36.0", "eth0"),
        fdb("192.168.0.98", "flannel.1"),
        fdb("192.168.0.99", "eth0"),
    ] {
        assert!(for_peer(object.clone()).is_err(), "{object}");
    }
}

#[test]
fn files_are_written_only_where_the_operator_permits() {
    let file = |path: &str, mode| File { path: path.into(), mode, contents: vec![] };
    let settings = [Setting { name: "path".into(), value: "/etc/subnet.env".into() }];
    let may = capabilities(ASKED);
    let check = |file: File| files(&[file], &may, &settings).map_err(|refusal| refusal.to_string());
    assert_eq!(check(file("/run/flannel/subnet.env", 0o644)), Ok(()));
    assert_eq!(check(file("/etc/subnet.env", 0o644)), Ok(()));
    for bad in ["/etc/shadow", "/run/flannel/../../etc/shadow", "run/flannel/x", "/run/flannelx"] {
        assert!(check(file(bad, 0o644)).is_err(), "{bad}");
    }
    for mode in [0o4755, 0o666, 0o664, 0o1644] {
        let refused = check(file("/run/flannel/subnet.env", mode)).unwrap_err();
        assert!(refused.contains("expected permission bits up to 755"), "{refused}");
    }
    for bad in [
        "/run/flannel/a\nb",
        "/run/flannel/\u{1b}[2J",
        "/run/flannel/\u{2028}",
        "/run/flannel/\u{202e}vne",
    ] {
        let refused = check(file(bad, 0o644)).unwrap_err();
        assert!(refused.ends_with("expected a path without control characters"), "{refused}");
    }
    let long = format!("/run/flannel/{}", "x/".repeat(1024));
    assert!(check(file(&long, 0o644)).unwrap_err().ends_with("at most 1024 bytes"));
    let twice = [file("/run/flannel/x", 0o644), file("/run/flannel/x", 0o644)];
    assert!(files(&twice, &may, &[]).is_err());
    assert_eq!(
        check(file("/etc/cni/net.d/10-heddle.conflist", 0o644)),
        Err("file /etc/cni/net.d/10-heddle.conflist (644): expected the setting `path`, \
             or a capability for it: files /run/flannel/"
            .into())
    );
}

#[test]
fn only_path_settings_name_output_files() {
    let file = File { path: "/etc/shadow".into(), mode: 0o644, contents: vec![] };
    let check = |name: &str| {
        let settings = [Setting { name: name.into(), value: "/etc/shadow".into() }];
        files(std::slice::from_ref(&file), &Capabilities::default(), &settings).is_ok()
    };
    assert!(check("path") && check("key-path"));
    assert!(!check("template") && !check("compath"));
}

#[test]
fn device_properties_need_one_capability_each() {
    for (asked, expected) in [
        (ASKED, Ok(())),
        ("{}", Err("link flannel.1: expected a capability for it: links none")),
        (
            r#"{"links":["flannel.*"],"link-kinds":["tun"]}"#,
            Err("link flannel.1 type vxlan: expected a capability for it: link-kinds tun"),
        ),
        (
            r#"{"links":["flannel.*"],"link-kinds":["vxlan"],"udp-ports":[53,"1000-2000"]}"#,
            Err(
                "link flannel.1 with UDP port 8472: expected a capability for it: udp-ports 53, 1000-2000",
            ),
        ),
    ] {
        assert_eq!(for_node_with(asked, vec![device()]), expected.map_err(str::to_owned));
    }
    assert_eq!(
        for_node(vec![device(), setting("flannel.1", "forwarding", "1")]),
        Err("sysctl net.ipv6.conf.flannel.1.forwarding = 1: \
             expected a capability for it: sysctls accept_ra"
            .into())
    );
}

#[test]
fn device_must_disable_router_advertisements() {
    let error = "link flannel.1: expected the setting net.ipv6.conf.flannel.1.accept_ra = 0, \
                 so that no other host on the overlay gives this node routes";
    for objects in [
        vec![device()],
        vec![device(), setting("flannel.1", "accept_ra", "2")],
        vec![device(), setting("flannel.1", "autoconf", "0")],
    ] {
        assert_eq!(for_node_alone(ASKED, objects), Err(error.into()));
    }
}

#[test]
fn plan_with_two_udp_ports_is_refused() {
    let other = |port| {
        let Object::Link(mut link) = link("flannel.2", "eth0", "192.168.0.72") else {
            unreachable!()
        };
        let LinkKind::Vxlan(vxlan) = &mut link.kind else { unreachable!() };
        vxlan.port = port;
        Object::Link(link)
    };
    assert_eq!(for_node(vec![device(), other(8472)]), Ok(()));
    assert_eq!(
        for_node(vec![device(), other(8473)]),
        Err("link flannel.2 with UDP port 8473: expected 8472, that of the plan's other device: \
             a plugin has one UDP port"
            .into())
    );
}

#[test]
fn device_named_all_or_default_is_refused() {
    for all in ["all", "default"] {
        let error =
            for_node_with(&ASKED.replace("new", "*"), vec![link(all, "eth0", "192.168.0.72")]);
        assert!(error.unwrap_err().contains("all devices' settings"));
    }
}

#[test]
fn route_outside_overlay_needs_capability_and_own_device() {
    let wide = ASKED.replace("{", r#"{"routes":["10.96.0.0/12"],"#);
    let service = |gateway, link| route("10.96.0.0/16", gateway, link);
    assert!(for_node(vec![device(), service(None, "flannel.1")]).is_err());
    assert_eq!(for_node_with(&wide, vec![device(), service(None, "flannel.1")]), Ok(()));
    assert_eq!(for_peer_with(&wide, service(Some("10.244.36.0"), "flannel.1")), Ok(()));
    assert_eq!(
        for_peer_with(&wide, service(Some("192.168.0.99"), "eth0")),
        Err(
            "route 10.96.0.0/16 via 192.168.0.99 dev eth0 onlink: expected within 10.244.36.0/24, \
             or through a device that the node's plan has"
                .into()
        )
    );
    assert!(for_peer_with(&wide, route("10.0.0.0/8", Some("10.244.36.0"), "flannel.1")).is_err());
}
