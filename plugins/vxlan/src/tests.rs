use std::net::IpAddr;

use super::*;

fn family(subnet: &str, public: &str, data: Option<&str>) -> LeaseFamily {
    LeaseFamily {
        subnet: subnet.parse().unwrap(),
        public_address: public.parse().unwrap(),
        backend_data: data.map(str::to_owned),
    }
}

fn lease(families: Vec<LeaseFamily>) -> Lease {
    Lease { families, backend_type: Some("vxlan".into()) }
}

fn own() -> Lease {
    lease(vec![family("10.244.8.0/24", "192.168.0.72", None)])
}

fn own_dual() -> Lease {
    lease(vec![
        family("10.244.8.0/24", "192.168.0.72", None),
        family("fc00:0:0:8::/64", "fd00::72", None),
    ])
}

const DATA: &str = r#"{"VNI":1,"VtepMAC":"3a:8b:71:f2:2e:de"}"#;

fn peer(public: &str, data: &str) -> Lease {
    lease(vec![family("10.244.36.0/24", public, Some(data))])
}

fn config(backend: &str) -> NetworkConfig {
    let network = OverlayNetwork { network: "10.244.0.0/16".parse().unwrap(), subnet_length: 24 };
    NetworkConfig { networks: vec![network], backend: backend.to_owned() }
}

fn dual(backend: &str) -> NetworkConfig {
    let mut config = config(backend);
    let network = OverlayNetwork { network: "fc00::/48".parse().unwrap(), subnet_length: 64 };
    config.networks.push(network);
    config
}

fn node() -> Node {
    Node {
        id: "7f0c".into(),
        underlay: Underlay {
            link: "eth0".into(),
            mtu: 1500,
            addresses: ["192.168.0.72/24", "fe80::1/64", "fd00::72/64"]
                .map(|address| address.parse().unwrap())
                .into(),
            public_addresses: ["192.168.0.72", "fd00::72"]
                .map(|address| address.parse().unwrap())
                .into(),
        },
        links: vec![],
    }
}

fn device(config: &NetworkConfig, node: &Node, lease: &Lease) -> (Link, Vxlan) {
    let plan = VxlanBackend::plan_node(config, node, lease).unwrap().plan;
    let link = plan.links[0].clone();
    let LinkKind::Vxlan(vxlan) = link.kind.clone() else { unreachable!("the only kind") };
    (link, vxlan)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

const VXLAN: &str = r#"{"Type":"vxlan"}"#;

#[test]
fn the_node_has_the_device_that_flannel_makes() {
    let node_plan = VxlanBackend::plan_node(&config(VXLAN), &node(), &own()).unwrap();
    let mac = node_plan.plan.links[0].mac;
    assert!(mac.unwrap().is_unicast());
    let expected = Plan {
        links: vec![Link {
            name: "flannel.1".into(),
            mtu: 1450,
            mac,
            kind: LinkKind::Vxlan(Vxlan {
                vni: 1,
                local: ip("192.168.0.72"),
                underlay: "eth0".into(),
                port: 8472,
                learning: false,
                gbp: false,
            }),
        }],
        sysctls: vec![Sysctl {
            link: "flannel.1".into(),
            family: Family::V6,
            name: "accept_ra".into(),
            value: "0".into(),
        }],
        addresses: vec![Address { link: "flannel.1".into(), network: net("10.244.8.0/32") }],
        ..Plan::default()
    };
    assert_eq!(node_plan, NodePlan { plan: expected, mtu: 1450 });
}

#[test]
fn dual_stack_has_a_device_for_each_family_and_the_smaller_mtu() {
    let node_plan = VxlanBackend::plan_node(&dual(VXLAN), &node(), &own_dual()).unwrap();
    let links = &node_plan.plan.links;
    assert_eq!((links[0].name.as_str(), links[0].mtu), ("flannel.1", 1450));
    assert_eq!((links[1].name.as_str(), links[1].mtu), ("flannel-v6.1", 1430));
    assert_ne!(links[0].mac, links[1].mac);
    let LinkKind::Vxlan(vxlan) = &links[1].kind else { unreachable!("the only kind") };
    assert_eq!(vxlan.local, ip("fd00::72"));
    assert_eq!(node_plan.plan.addresses[1].network, net("fc00:0:0:8::/128"));
    assert_eq!(node_plan.plan.sysctls.len(), 2);
    assert_eq!(node_plan.mtu, 1430);
}

#[test]
fn every_key_has_its_effect() {
    let backend = r#"{"vni":7,"port":4789,"gbp":true,"learning":true,"mtu":9000}"#;
    let (link, vxlan) = device(&config(backend), &node(), &own());
    assert_eq!((link.name.as_str(), link.mtu), ("flannel.7", 8950));
    let expected = Vxlan {
        vni: 7,
        local: ip("192.168.0.72"),
        underlay: "eth0".into(),
        port: 4789,
        learning: true,
        gbp: true,
    };
    assert_eq!(vxlan, expected);
}

#[test]
fn zero_leaves_port_and_mtu_to_the_defaults() {
    let (link, vxlan) = device(&config(r#"{"Port":0,"MTU":0}"#), &node(), &own());
    assert_eq!((link.mtu, vxlan.port), (1450, 8472));
}

#[test]
fn a_key_out_of_range_is_named_with_its_rule() {
    let error = |config: NetworkConfig| Settings::read(&config).err().unwrap().to_string();
    assert_eq!(
        error(config(r#"{"VNI":16777216}"#)),
        "Backend.VNI is 16777216: expected a whole number from 0 to 16777215"
    );
    assert_eq!(
        error(config(r#"{"Port":65536}"#)),
        "Backend.Port is 65536: expected a whole number from 0 to 65535"
    );
    assert_eq!(
        error(config(r#"{"MTU":117}"#)),
        "Backend.MTU is 117: expected 118 to 65535, the external interface's MTU"
    );
    assert_eq!(
        error(dual(r#"{"MTU":1300}"#)),
        "Backend.MTU is 1300: expected 1350 to 65535, the external interface's MTU"
    );
    assert_eq!(
        error(dual(r#"{"VNI":10000}"#)),
        "Backend.VNI is 10000: expected at most 9999 with IPv6, because the device's name flannel-v6.10000 may have 15 bytes"
    );
    assert!(Settings::read(&dual(r#"{"VNI":9999}"#)).is_ok());
    // Without IPv6, the longest VNI gives a name of 16 bytes.
    assert!(Settings::read(&config(r#"{"VNI":9999999}"#)).is_ok());
    assert_eq!(
        error(config(r#"{"VNI":16777215}"#)),
        "Backend.VNI is 16777215: expected at most 9999999, because the device's name flannel.16777215 may have 15 bytes"
    );
}

#[test]
fn an_interface_too_small_for_the_overhead_is_an_error() {
    let mut small = node();
    small.underlay.mtu = 1300;
    let error = VxlanBackend::plan_node(&dual(VXLAN), &small, &own_dual()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Backend.MTU is not given, and 1300, the MTU of eth0, is too small: expected 1350 or more"
    );
}

#[test]
fn the_lease_says_what_the_device_is() {
    let advertisements = VxlanBackend::advertise(&dual(VXLAN), &node()).unwrap();
    assert_eq!(advertisements.backend_type.as_deref(), Some("vxlan"));
    let plan = VxlanBackend::plan_node(&dual(VXLAN), &node(), &own_dual()).unwrap().plan;
    for (link, data) in plan.links.iter().zip(&advertisements.backend_data) {
        let mac = link.mac.unwrap();
        assert_eq!(data.as_deref(), Some(format!(r#"{{"VNI":1,"VtepMAC":"{mac}"}}"#).as_str()));
    }
    assert_eq!(advertisements.backend_data.len(), 2);
}

#[test]
fn a_device_that_is_there_keeps_its_mac() {
    let mut node = node();
    let mac: MacAddress = "3a:8b:71:f2:2e:de".parse().unwrap();
    let existing =
        |kind: &str| ExistingLink { name: "flannel.1".into(), kind: kind.into(), mac: Some(mac) };
    node.links = vec![existing("vxlan")];
    assert_eq!(device(&config(VXLAN), &node, &own()).0.mac, Some(mac));
    node.links = vec![existing("bridge")];
    assert_ne!(device(&config(VXLAN), &node, &own()).0.mac, Some(mac));
}

#[test]
fn the_mac_depends_on_node_address_and_vni_and_nothing_else() {
    let mac = |node: &Node, backend: &str| device(&config(backend), node, &own()).0.mac.unwrap();
    let first = mac(&node(), VXLAN);
    assert_eq!(first, mac(&node(), r#"{"VNI":1,"Port":4789}"#));
    let mut other = node();
    other.id = "7f0d".into();
    assert_ne!(first, mac(&other, VXLAN));
    let mut other = node();
    other.underlay.public_addresses[0] = ip("192.168.0.73");
    assert_ne!(first, mac(&other, VXLAN));
    assert_ne!(first, mac(&node(), r#"{"VNI":2}"#));
}

#[test]
fn behind_nat_the_interface_s_own_address_is_the_source() {
    let mut node = node();
    node.underlay.public_addresses = vec![ip("203.0.113.7"), ip("2001:db8::7")];
    let lease = lease(vec![
        family("10.244.8.0/24", "203.0.113.7", None),
        family("fc00:0:0:8::/64", "2001:db8::7", None),
    ]);
    let plan = VxlanBackend::plan_node(&dual(VXLAN), &node, &lease).unwrap().plan;
    let locals = plan.links.iter().map(|link| match &link.kind {
        LinkKind::Vxlan(vxlan) => vxlan.local,
        _ => unreachable!("the only kind"),
    });
    assert!(locals.eq([ip("192.168.0.72"), ip("fd00::72")]));
}

#[test]
fn a_peer_takes_a_route_a_neighbour_and_an_fdb_entry() {
    let plan =
        VxlanBackend::plan_peer(&config(VXLAN), &node(), &own(), &peer("192.168.0.99", DATA));
    let mac = "3a:8b:71:f2:2e:de".parse().unwrap();
    let link = || "flannel.1".to_owned();
    let expected = Plan {
        routes: vec![Route::onlink(net("10.244.36.0/24"), ip("10.244.36.0"), "flannel.1")],
        neighbours: vec![Neighbour { link: link(), address: ip("10.244.36.0"), mac }],
        fdb_entries: vec![FdbEntry { link: link(), mac, destination: ip("192.168.0.99") }],
        ..Plan::default()
    };
    assert_eq!(plan, Ok(expected));
}

#[test]
fn both_families_of_a_peer_are_planned_where_both_nodes_have_them() {
    let v6 =
        family("fc00:0:0:36::/64", "fd00::99", Some(r#"{"VNI":1,"VtepMAC":"3a:8b:71:f2:2e:df"}"#));
    let mut dual_peer = peer("192.168.0.99", DATA);
    dual_peer.families.push(v6);
    let plan = VxlanBackend::plan_peer(&dual(VXLAN), &node(), &own_dual(), &dual_peer).unwrap();
    assert_eq!(
        plan.routes[1],
        Route::onlink(net("fc00:0:0:36::/64"), ip("fc00:0:0:36::"), "flannel-v6.1")
    );
    assert_eq!(plan.fdb_entries[1].destination, ip("fd00::99"));
    assert_eq!(plan.neighbours[1].mac.to_string(), "3a:8b:71:f2:2e:df");

    let plan = VxlanBackend::plan_peer(&config(VXLAN), &node(), &own(), &dual_peer).unwrap();
    assert_eq!(plan.routes.len(), 1);
    let v4_peer = peer("192.168.0.99", DATA);
    let plan = VxlanBackend::plan_peer(&dual(VXLAN), &node(), &own_dual(), &v4_peer).unwrap();
    assert_eq!(plan.routes.len(), 1);
}

#[test]
fn direct_routing_goes_around_the_device_where_no_gateway_is_needed() {
    let config = config(r#"{"DirectRouting":true}"#);
    let near = VxlanBackend::plan_peer(&config, &node(), &own(), &peer("192.168.0.99", DATA));
    let route = Route::via(net("10.244.36.0/24"), ip("192.168.0.99"), "eth0");
    assert_eq!(near, Ok(Plan { routes: vec![route], ..Plan::default() }));
    let far = VxlanBackend::plan_peer(&config, &node(), &own(), &peer("192.168.1.99", DATA));
    assert_eq!(far.unwrap().fdb_entries.len(), 1);
}

#[test]
fn a_peer_of_another_backend_is_not_ours() {
    let kind = |kind: Option<&str>| {
        let mut peer = peer("192.168.0.99", DATA);
        peer.backend_type = kind.map(str::to_owned);
        VxlanBackend::plan_peer(&config(VXLAN), &node(), &own(), &peer)
    };
    assert_eq!(kind(Some("host-gw")), Err(PeerError::OtherBackend("host-gw".into())));
    assert_eq!(kind(None), Err(PeerError::OtherBackend("udp".into())));
}

#[test]
fn a_lease_of_flannel_0_14_names_no_vni() {
    let peer = peer("192.168.0.99", r#"{"VtepMAC":"12:b9:d6:fb:f8:e3"}"#);
    let plan = VxlanBackend::plan_peer(&config(VXLAN), &node(), &own(), &peer).unwrap();
    assert_eq!(plan.neighbours[0].mac.to_string(), "12:b9:d6:fb:f8:e3");
}

#[test]
fn what_is_wrong_with_a_peer_is_named() {
    let message =
        |peer: Lease| match VxlanBackend::plan_peer(&config(VXLAN), &node(), &own(), &peer) {
            Err(PeerError::Invalid(message)) => message,
            other => panic!("{other:?}"),
        };
    for (data, expected) in [
        (
            r#"{"VNI":2,"VtepMAC":"3a:8b:71:f2:2e:de"}"#,
            "BackendData.VNI is 2: expected 1, as in the network config",
        ),
        (
            r#"{"VNI":1}"#,
            "BackendData.VtepMAC is missing: expected the MAC address of the peer's device",
        ),
        (
            r#"{"VNI":1,"VtepMAC":"3a:8b"}"#,
            "BackendData.VtepMAC is \"3a:8b\": expected six hexadecimal octets with colons, 3a:8b:71:f2:2e:de",
        ),
        (
            r#"{"VNI":1,"VtepMAC":"01:00:5e:00:00:01"}"#,
            "BackendData.VtepMAC is 01:00:5e:00:00:01: expected a unicast address",
        ),
        (r#"{"VNI":1,"VtepMAC":7}"#, "BackendData.VtepMAC is 7: expected a text"),
    ] {
        assert_eq!(message(peer("192.168.0.99", data)), expected);
    }
    assert!(message(peer("192.168.0.99", "garbage")).starts_with("BackendData is not a JSON"));
    let mut silent = peer("192.168.0.99", DATA);
    silent.families[0].backend_data = None;
    assert!(message(silent).starts_with("BackendData is missing"));
    assert_eq!(
        message(peer("192.168.0.72", DATA)),
        "its public address 192.168.0.72 is this node's own: expected the address of another node"
    );
}
