use super::*;

fn family(subnet: &str, public: &str, data: Option<String>) -> LeaseFamily {
    LeaseFamily { subnet: net(subnet), public_address: ip(public), backend_data: data }
}

fn lease(families: Vec<LeaseFamily>) -> Lease {
    Lease { families, backend_type: Some("vxlan-tun".into()) }
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

const PEER: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x0b]);
const PEER_V6: MacAddress = MacAddress([2, 0, 0, 0, 6, 0x0b]);

fn peer_dual() -> Lease {
    lease(vec![
        family("10.244.36.0/24", "192.168.0.99", Some(vtep::backend_data(7, PEER))),
        family("fc00:0:0:36::/64", "fd00::99", Some(vtep::backend_data(7, PEER_V6))),
    ])
}

fn config(backend: &str) -> NetworkConfig {
    let network = OverlayNetwork { network: net("10.244.0.0/16"), subnet_length: 24 };
    NetworkConfig { networks: vec![network], backend: backend.to_owned() }
}

fn dual(backend: &str) -> NetworkConfig {
    let mut config = config(backend);
    config.networks.push(OverlayNetwork { network: net("fc00::/48"), subnet_length: 64 });
    config
}

fn node() -> Node {
    Node {
        id: "7f0c".into(),
        underlay: Underlay {
            link: "eth0".into(),
            mtu: 1500,
            addresses: ["192.168.0.72/24", "fd00::72/64"].map(net).into(),
            public_addresses: ["192.168.0.72", "fd00::72"].map(ip).into(),
        },
        links: vec![],
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter(|c| !c.is_whitespace()).collect();
    let octet = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(octet).collect()
}

const VXLAN_TUN: &str = r#"{"Type":"vxlan-tun"}"#;
const VNI_7: &str = r#"{"Type":"vxlan-tun","VNI":7}"#;

/// What Linux 6.18 sent through `vxlan id 7` with the address 02:00:00:00:00:0a for `ping -s 4` to a neighbour with the
/// address 02:00:00:00:00:0b: headers and packets.
const LINUX: [(Family, &str, &str); 2] = [
    (
        Family::V4,
        "08000000 00000700 02000000000b 02000000000a 0800",
        "45000020e95e4000400138920af401000af402050800f0a60554000100010203",
    ),
    (
        Family::V6,
        "08000000 00000700 02000000000b 02000000000a 86dd",
        "60018798000c3a40fc000000000000010000000000000000fc0000000000000200000000000000058000
         80520558000100010203",
    ),
];

fn backend() -> VxlanTunBackend {
    VxlanTunBackend::with_peers(&dual(VNI_7), &node(), &own_dual(), &[own_dual(), peer_dual()])
}

fn written(write: impl FnOnce(&mut Output<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut Output::new(&mut bytes));
    bytes
}

#[test]
fn headers_are_those_that_linux_writes() {
    let (destination, source) = (PEER, MacAddress([2, 0, 0, 0, 0, 0x0a]));
    for (family, headers, packet) in LINUX {
        let frame = Frame { vni: 7, destination, source, family };
        assert_eq!(frame.headers().as_slice(), bytes(headers));
        let (headers, packet) = (bytes(headers), bytes(packet));
        let payload = [headers, packet.clone()].concat();
        assert_eq!(Frame::read(&payload), Some((frame, packet.as_slice())));
        assert_eq!(frame::family(&packet), Some(family));
    }
}

#[test]
fn a_packet_goes_from_this_node_s_end_point_to_the_peer_s() {
    for (family, _, packet) in LINUX {
        let packet = bytes(packet);
        let payload = written(|payload| backend().encapsulate(1, &packet, payload));
        let destination = match family {
            Family::V4 => PEER,
            Family::V6 => PEER_V6,
        };
        let source = node().device_mac(family, "vtun.7");
        let frame = Frame { vni: 7, destination, source, family };
        assert_eq!(Frame::read(&payload), Some((frame, packet.as_slice())));
        assert_eq!(payload.len() - packet.len(), 22);
    }
}

#[test]
fn a_packet_for_which_the_peer_has_no_end_point_is_dropped() {
    let v4 = bytes(LINUX[0].2);
    // The peer's lease says nothing of it, and so no plan was made for it either.
    assert!(written(|payload| backend().encapsulate(0, &v4, payload)).is_empty());
    // Neither version 4 nor version 6.
    assert!(written(|payload| backend().encapsulate(1, &[0x50, 0], payload)).is_empty());
    assert!(written(|payload| backend().encapsulate(1, &[], payload)).is_empty());
    // A family that this node has not.
    let mut only_v4 = VxlanTunBackend::with_peers(&config(VNI_7), &node(), &own(), &[peer_dual()]);
    assert!(!written(|payload| only_v4.encapsulate(0, &v4, payload)).is_empty());
    assert!(written(|payload| only_v4.encapsulate(0, &bytes(LINUX[1].2), payload)).is_empty());
}

/// A frame as a peer sends it, changed, and what comes out of it.
fn taken(family: Family, packet: &str, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let destination = node().device_mac(family, "vtun.7");
    let frame = Frame { vni: 7, destination, source: PEER, family };
    let mut payload = [frame.headers().to_vec(), bytes(packet)].concat();
    change(&mut payload);
    written(|packet| backend().decapsulate(1, &payload, packet))
}

#[test]
fn a_frame_for_this_node_s_end_point_is_taken() {
    for (family, _, packet) in LINUX {
        assert_eq!(taken(family, packet, |_| ()), bytes(packet));
        // RFC 7348: reserved bits are ignored.
        let reserved = |payload: &mut Vec<u8>| {
            for at in [0, 1, 2, 3, 7] {
                payload[at] |= 0xf7;
            }
        };
        assert_eq!(taken(family, packet, reserved), bytes(packet));
    }
}

#[test]
fn a_frame_that_is_not_for_this_node_is_dropped() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 9] = [
        ("no valid VNI", |payload| payload[0] = 0),
        ("another VNI", |payload| payload[6] = 8),
        ("a longer VNI", |payload| payload[4] = 1),
        ("another destination", |payload| payload[13] ^= 1),
        ("broadcast", |payload| payload[8..14].fill(0xff)),
        ("ARP", |payload| payload[20..22].copy_from_slice(&[0x08, 0x06])),
        ("a version that is not the ethertype's", |payload| payload[22] ^= 0x20),
        ("no packet", |payload| payload.truncate(22)),
        ("not all of the headers", |payload| payload.truncate(21)),
    ];
    for (family, _, packet) in LINUX {
        for (what, change) in changes {
            assert!(taken(family, packet, change).is_empty(), "{what}, {family:?}");
        }
    }
    // The end point of the other family.
    let swapped = |payload: &mut Vec<u8>| {
        payload[8..14].copy_from_slice(&node().device_mac(Family::V6, "vtun.7").0);
    };
    assert!(taken(Family::V4, LINUX[0].2, swapped).is_empty());
}

#[test]
fn what_one_node_sends_another_takes() {
    let mut there = node();
    there.id = "7f0d".into();
    there.underlay.public_addresses = ["192.168.0.99", "fd00::99"].map(ip).into();
    let lease = |node: &Node, subnets: [&str; 2]| {
        let data = VxlanTunBackend::advertise(&dual(VNI_7), node).unwrap().backend_data;
        let parts = subnets.iter().zip(&node.underlay.public_addresses).zip(data);
        let part = |((subnet, public), backend_data): ((&&str, &IpAddr), _)| LeaseFamily {
            subnet: net(subnet),
            public_address: *public,
            backend_data,
        };
        lease(parts.map(part).collect())
    };
    let a = lease(&node(), ["10.244.8.0/24", "fc00:0:0:8::/64"]);
    let b = lease(&there, ["10.244.36.0/24", "fc00:0:0:36::/64"]);
    let mut here = VxlanTunBackend::with_peers(&dual(VNI_7), &node(), &a, std::slice::from_ref(&b));
    let mut there = VxlanTunBackend::with_peers(&dual(VNI_7), &there, &b, &[a]);
    for (_, _, packet) in LINUX {
        let packet = bytes(packet);
        let payload = written(|payload| here.encapsulate(0, &packet, payload));
        assert_eq!(written(|packet| there.decapsulate(0, &payload, packet)), packet);
        // A node does not take what it sent itself.
        assert!(written(|packet| here.decapsulate(0, &payload, packet)).is_empty());
    }
}

#[test]
fn the_node_has_one_device_for_both_families() {
    let node_plan = VxlanTunBackend::plan_node(&dual(VXLAN_TUN), &node(), &own_dual()).unwrap();
    let link = || "vtun.1".to_owned();
    let local = ["192.168.0.72", "fd00::72"].map(ip).into();
    // The host lowers the MTU by the overhead.
    let mtu = 1500 - 48;
    let kind = LinkKind::Tun(Tun { local, port: 8472 });
    let expected = Plan {
        links: vec![Link { name: link(), mtu, mac: None, kind }],
        sysctls: vec![Sysctl {
            link: link(),
            family: Family::V6,
            name: "accept_ra".into(),
            value: "0".into(),
        }],
        addresses: vec![
            Address { link: link(), network: net("10.244.8.0/32") },
            Address { link: link(), network: net("fc00:0:0:8::/128") },
        ],
        routes: vec![
            Route::dev(net("10.244.0.0/16"), "vtun.1"),
            Route::dev(net("fc00::/48"), "vtun.1"),
        ],
        ..Plan::default()
    };
    assert_eq!(node_plan, NodePlan { plan: expected, mtu });
    assert_eq!(VxlanTunBackend::overhead(&dual(VXLAN_TUN)), Ok(22));
}

#[test]
fn every_key_has_its_effect() {
    let backend = r#"{"vni":16777215,"port":4789}"#;
    let link =
        &VxlanTunBackend::plan_node(&config(backend), &node(), &own()).unwrap().plan.links[0];
    // The longest name there can be, of 15.
    assert_eq!((link.name.as_str(), link.mtu), ("vtun.16777215", 1472));
    assert_eq!(link.kind, LinkKind::Tun(Tun { local: vec![ip("192.168.0.72")], port: 4789 }));
    for (backend, expected) in [
        (
            r#"{"VNI":16777216}"#,
            "Backend.VNI is 16777216: expected a whole number from 0 to 16777215",
        ),
        (r#"{"Port":65536}"#, "Backend.Port is 65536: expected a whole number from 0 to 65535"),
    ] {
        let advertised = VxlanTunBackend::advertise(&config(backend), &node()).unwrap_err();
        let planned = VxlanTunBackend::plan_node(&config(backend), &node(), &own()).unwrap_err();
        assert_eq!([advertised.to_string(), planned.to_string()], [expected, expected]);
    }
}

#[test]
fn an_interface_too_small_for_the_headers_is_an_error() {
    let plan = |mtu| {
        let mut node = node();
        node.underlay.mtu = mtu;
        VxlanTunBackend::plan_node(&dual(VXLAN_TUN), &node, &own_dual())
    };
    assert_eq!(
        plan(1349).unwrap_err().to_string(),
        "Backend.Type is for interfaces with an MTU of 1350 or more: that of eth0 is 1349"
    );
    assert_eq!(plan(1350).unwrap().mtu, 1280 + 22);
}

#[test]
fn the_lease_says_which_end_point_a_node_takes_frames_for() {
    let advertisements = VxlanTunBackend::advertise(&dual(VNI_7), &node()).unwrap();
    assert_eq!(advertisements.backend_type.as_deref(), Some("vxlan-tun"));
    let macs = [Family::V4, Family::V6].map(|family| node().device_mac(family, "vtun.7"));
    assert_ne!(macs[0], macs[1]);
    let data = macs.map(|mac| Some(format!(r#"{{"VNI":7,"VtepMAC":"{mac}"}}"#)));
    assert_eq!(advertisements.backend_data, data);
}

#[test]
fn a_peer_takes_nothing_of_the_kernel_and_has_an_end_point() {
    let plan = |peer: &Lease| VxlanTunBackend::plan_peer(&dual(VNI_7), &node(), &own_dual(), peer);
    assert_eq!(plan(&peer_dual()), Ok(Plan::default()));

    let other = Lease { backend_type: Some("vxlan".into()), ..peer_dual() };
    assert_eq!(plan(&other), Err(PeerError::OtherBackend("vxlan".into())));
    let other = Lease { backend_type: None, ..peer_dual() };
    assert_eq!(plan(&other), Err(PeerError::OtherBackend("udp".into())));

    let invalid = |change: fn(&mut LeaseFamily)| {
        let mut peer = peer_dual();
        change(&mut peer.families[1]);
        match plan(&peer) {
            Err(PeerError::Invalid(message)) => message,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        invalid(|part| part.backend_data = Some(vtep::backend_data(8, PEER))),
        "BackendV6Data.VNI is 8: expected 7, as in the network config"
    );
    assert_eq!(
        invalid(|part| part.backend_data = None),
        r#"BackendV6Data is missing: expected an object such as {"VNI":7,"VtepMAC":"3a:8b:71:f2:2e:de"}"#
    );
    assert_eq!(
        invalid(|part| part.public_address = ip("fd00::72")),
        "its public address fd00::72 is this node's own: expected the address of another node"
    );
}

#[test]
fn a_packet_goes_to_the_peer_whose_subnet_its_destination_is_in() {
    for (destination, expected) in [
        ("10.244.36.7", Some(1)),
        ("fc00:0:0:36::7", Some(1)),
        ("10.244.37.7", None),
        ("fc00:0:0:37::7", None),
    ] {
        assert_eq!(backend().steer(ip(destination)), expected, "{destination}");
    }
}
