//! `UPDATE_EXPECT=1 cargo test` updates the expected plans; `git diff` then shows the changes.

use expect_test::expect;
use heddle_testkit::Scenario;

use super::*;

const PEER: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x0b]);
const PEER_V6: MacAddress = MacAddress([2, 0, 0, 0, 6, 0x0b]);

/// Returns a scenario with node alpha and others: the first has no end point, the second has PEER
/// and PEER_V6.
fn scenario() -> Scenario {
    Scenario::parse(
        r#"{
            "config": {
                "Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48",
                "Backend": {"Type": "vxlan-tun", "VNI": 7}
            },
            "node": {
                "id": "alpha", "subnets": ["10.244.1.0/24", "fd00:10:244:1::/64"],
                "link": "eth0", "mtu": 1500, "addresses": ["192.168.0.1/24", "fd00::1/64"]
            },
            "leases": {
                "10.244.2.0-24&fd00:10:244:2::-64": {
                    "PublicIP": "192.168.0.2", "PublicIPv6": "fd00::2", "BackendType": "vxlan-tun"
                },
                "10.244.3.0-24&fd00:10:244:3::-64": {
                    "PublicIP": "192.168.0.3", "PublicIPv6": "fd00::3", "BackendType": "vxlan-tun",
                    "BackendData": {"VNI": 7, "VtepMAC": "02:00:00:00:00:0b"},
                    "BackendV6Data": {"VNI": 7, "VtepMAC": "02:00:00:00:06:0b"}
                },
                "10.244.4.0-24&fd00:10:244:4::-64": {
                    "PublicIP": "192.168.0.4", "PublicIPv6": "fd00::4", "BackendType": "vxlan-tun",
                    "BackendData": {"VNI": 7, "VtepMAC": "02:00:00:00:00:0c"},
                    "BackendV6Data": {"VNI": 8, "VtepMAC": "02:00:00:00:06:0c"}
                },
                "10.244.5.0-24&fd00:10:244:5::-64": {
                    "PublicIP": "192.168.0.5", "PublicIPv6": "fd00::1", "BackendType": "vxlan-tun",
                    "BackendData": {"VNI": 7, "VtepMAC": "02:00:00:00:00:0d"}
                },
                "10.244.6.0-24": {"PublicIP": "192.168.0.6", "BackendType": "vxlan"},
                "10.244.7.0-24": {"PublicIP": "192.168.0.7"}
            }
        }"#,
    )
}

/// Creates a node's packet path to these peers.
fn backend(scenario: &Scenario, own: &Lease) -> VxlanTunBackend {
    let peers: Vec<_> = scenario.peers::<VxlanTunBackend>().unwrap().into_values().collect();
    VxlanTunBackend::with_peers(&scenario.config, &scenario.node, own, &peers)
}

fn alpha() -> VxlanTunBackend {
    let scenario = scenario();
    backend(&scenario, &scenario.lease::<VxlanTunBackend>().unwrap())
}

/// Returns the MAC that alpha accepts frames for.
fn end_point(family: Family) -> MacAddress {
    scenario().node.device_mac(family, "vtun.7")
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter(|c| !c.is_whitespace()).collect();
    let octet = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(octet).collect()
}

const VXLAN_TUN: &str = r#"{"Type":"vxlan-tun"}"#;

/// Headers and packets that Linux 6.18 sent through `vxlan id 7` with the MAC 02:00:00:00:00:0a for
/// `ping -s 4` to a neighbour with the MAC 02:00:00:00:00:0b.
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

fn written(write: impl FnOnce(&mut Output<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut Output::new(&mut bytes));
    bytes
}

#[test]
fn headers_equal_those_of_linux() {
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
fn packet_has_end_points_of_node_and_peer() {
    for (family, _, packet) in LINUX {
        let packet = bytes(packet);
        let payload = written(|payload| alpha().encapsulate(1, &packet, payload));
        let destination = match family {
            Family::V4 => PEER,
            Family::V6 => PEER_V6,
        };
        let source = end_point(family);
        let frame = Frame { vni: 7, destination, source, family };
        assert_eq!(Frame::read(&payload), Some((frame, packet.as_slice())));
        assert_eq!(payload.len() - packet.len(), 22);
    }
}

#[test]
fn packet_for_peer_without_end_point_is_dropped() {
    let v4 = bytes(LINUX[0].2);
    // The peer's lease has no end point, so there was no plan for it either.
    assert!(written(|payload| alpha().encapsulate(0, &v4, payload)).is_empty());
    // Neither version 4 nor version 6.
    assert!(written(|payload| alpha().encapsulate(1, &[0x50, 0], payload)).is_empty());
    assert!(written(|payload| alpha().encapsulate(1, &[], payload)).is_empty());
    // A family that this node lacks.
    let scenario = scenario();
    let mut own = scenario.lease::<VxlanTunBackend>().unwrap();
    own.families.truncate(1);
    let mut only_v4 = backend(&scenario, &own);
    assert!(!written(|payload| only_v4.encapsulate(1, &v4, payload)).is_empty());
    assert!(written(|payload| only_v4.encapsulate(1, &bytes(LINUX[1].2), payload)).is_empty());
}

/// Decapsulates a modified frame from a peer, and returns the packet.
fn taken(family: Family, packet: &str, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let destination = end_point(family);
    let frame = Frame { vni: 7, destination, source: PEER, family };
    let mut payload = [frame.headers().to_vec(), bytes(packet)].concat();
    change(&mut payload);
    written(|packet| alpha().decapsulate(1, &payload, packet))
}

#[test]
fn frame_for_own_end_point_is_accepted() {
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
fn frame_for_other_end_point_is_dropped() {
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
        payload[8..14].copy_from_slice(&end_point(Family::V6).0);
    };
    assert!(taken(Family::V4, LINUX[0].2, swapped).is_empty());
}

#[test]
fn frame_of_one_node_is_accepted_by_another() {
    let scenario = |this: &str, other: &str| {
        let node = |node: &str| {
            format!(
                r#"{{
                    "id": "node {node}", "subnets": ["10.244.{node}.0/24", "fd00:10:244:{node}::/64"],
                    "link": "eth0", "mtu": 1500, "addresses": ["192.168.0.{node}/24", "fd00::{node}/64"]
                }}"#
            )
        };
        Scenario::parse(&format!(
            r#"{{
                "config": {{
                    "Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48",
                    "Backend": {VXLAN_TUN}
                }},
                "node": {}, "nodes": [{}]
            }}"#,
            node(this),
            node(other)
        ))
    };
    let [mut here, mut there] = [scenario("1", "2"), scenario("2", "1")]
        .map(|scenario| backend(&scenario, &scenario.lease::<VxlanTunBackend>().unwrap()));
    for (_, _, packet) in LINUX {
        let packet = bytes(packet);
        let payload = written(|payload| here.encapsulate(0, &packet, payload));
        assert_eq!(written(|packet| there.decapsulate(0, &payload, packet)), packet);
        // A node does not accept its own frames.
        assert!(written(|packet| here.decapsulate(0, &payload, packet)).is_empty());
    }
}

#[test]
fn node_has_one_device_and_peers_need_no_kernel_objects() {
    // The host lowers the MTU by the overhead.
    let scenario = Scenario::dual(VXLAN_TUN);
    let expected = expect![[r#"
        advertise
          vxlan-tun
          {"VNI":1,"VtepMAC":"66:54:55:07:3f:06"}
          {"VNI":1,"VtepMAC":"da:00:72:1b:7e:f2"}
        node
          mtu 1452
          link vtun.1 type tun mtu 1452 up
          tunnel vtun.1 local 192.168.0.1,fd00::1 port 8472
          sysctl net.ipv6.conf.vtun.1.accept_ra = 0
          address 10.244.1.0/32 dev vtun.1
          address fd00:10:244:1::/128 dev vtun.1
          route 10.244.0.0/16 dev vtun.1
          route fd00:10:244::/48 dev vtun.1
        peer 10.244.2.0-24&fd00:10:244:2::-64
        peer 10.244.3.0-24&fd00:10:244:3::-64
    "#]];
    expected.assert_eq(&scenario.plan::<VxlanTunBackend>());
    assert_eq!(VxlanTunBackend::overhead(&scenario.config), Ok(22));
}

#[test]
fn invalid_peer_is_reported() {
    let planned = scenario().plan::<VxlanTunBackend>();
    let expected = expect![[r#"
        peer 10.244.2.0-24&fd00:10:244:2::-64
          ! the lease cannot be used: BackendData is missing: expected an object such as {"VNI":7,"VtepMAC":"3a:8b:71:f2:2e:de"}
        peer 10.244.3.0-24&fd00:10:244:3::-64
        peer 10.244.4.0-24&fd00:10:244:4::-64
          ! the lease cannot be used: BackendV6Data.VNI is 8: expected 7, as in the network config
        peer 10.244.5.0-24&fd00:10:244:5::-64
          ! the lease cannot be used: its public address fd00::1 is this node's own: expected the address of another node
        peer 10.244.6.0-24
          ! the lease is for the backend vxlan
        peer 10.244.7.0-24
          ! the lease is for the backend udp
    "#]];
    expected.assert_eq(&planned[planned.find("peer").unwrap()..]);
}

#[test]
fn every_key_has_an_effect() {
    let said = |backend: &str| Scenario::v4(backend).plan::<VxlanTunBackend>();
    // The longest possible name, of 15 bytes.
    let expected = expect![[r#"
        advertise
          vxlan-tun
          {"VNI":16777215,"VtepMAC":"b6:16:4f:d1:00:42"}
        node
          mtu 1472
          link vtun.16777215 type tun mtu 1472 up
          tunnel vtun.16777215 local 192.168.0.1 port 4789
          sysctl net.ipv6.conf.vtun.16777215.accept_ra = 0
          address 10.244.1.0/32 dev vtun.16777215
          route 10.244.0.0/16 dev vtun.16777215
        peer 10.244.2.0-24
        peer 10.244.3.0-24
    "#]];
    expected.assert_eq(&said(r#"{"vni":16777215,"port":4789}"#));
    let expected = expect![[r#"
        advertise
          ! Backend.VNI is 16777216: expected a whole number from 0 to 16777215
    "#]];
    expected.assert_eq(&said(r#"{"VNI":16777216}"#));
    let expected = expect![[r#"
        advertise
          ! Backend.Port is 65536: expected a whole number from 0 to 65535
    "#]];
    expected.assert_eq(&said(r#"{"Port":65536}"#));
}

#[test]
fn interface_too_small_for_headers_is_an_error() {
    let mtu = |underlay| {
        let mut scenario = Scenario::dual(VXLAN_TUN);
        scenario.node.underlay.mtu = underlay;
        let lease = scenario.lease::<VxlanTunBackend>().unwrap();
        let planned = VxlanTunBackend::plan_node(&scenario.config, &scenario.node, &lease);
        planned.map(|planned| planned.mtu).map_err(|error| error.to_string())
    };
    let small = "Backend.Type is for interfaces with an MTU of 1350 or more: that of eth0 is 1349";
    assert_eq!(mtu(1349), Err(small.to_owned()));
    assert_eq!(mtu(1350), Ok(1280 + 22));
}

#[test]
fn lease_has_end_point_of_node() {
    let lease = scenario().lease::<VxlanTunBackend>().unwrap();
    assert_eq!(lease.backend_type.as_deref(), Some("vxlan-tun"));
    let macs = [Family::V4, Family::V6].map(end_point);
    assert_ne!(macs[0], macs[1]);
    let data = macs.map(|mac| Some(format!(r#"{{"VNI":7,"VtepMAC":"{mac}"}}"#)));
    let advertised: Vec<_> = lease.families.into_iter().map(|part| part.backend_data).collect();
    assert_eq!(advertised, data);
}

#[test]
fn packet_is_steered_by_its_destination() {
    for (destination, expected) in [
        ("10.244.3.7", Some(1)),
        ("fd00:10:244:3::7", Some(1)),
        ("10.244.36.7", None),
        ("fd00:10:244:36::7", None),
    ] {
        assert_eq!(alpha().steer(destination.parse().unwrap()), expected, "{destination}");
    }
}
