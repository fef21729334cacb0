//! `UPDATE_EXPECT=1 cargo test` updates the expected plans; `git diff` then shows the changes.

use expect_test::expect;
use heddle_testkit::Scenario;

use super::*;

const VXLAN: &str = r#"{"Type":"vxlan"}"#;

/// Plans the node, without leases.
fn node_plan(scenario: &Scenario) -> Result<NodePlan, ConfigError> {
    VxlanBackend::plan_node(&scenario.config, &scenario.node, &scenario.lease::<VxlanBackend>()?)
}

/// Returns the plans for peers, as text.
fn peers(scenario: &Scenario) -> String {
    let planned = scenario.plan::<VxlanBackend>();
    planned[planned.find("peer").unwrap()..].to_owned()
}

#[test]
fn plan_has_device_and_peer_objects_of_flannel() {
    let expected = expect![[r#"
        advertise
          vxlan
          {"VNI":1,"VtepMAC":"26:3f:a3:3d:47:5d"}
        node
          mtu 1450
          link flannel.1 type vxlan mtu 1450 address 26:3f:a3:3d:47:5d id 1 local 192.168.0.1 dev eth0 dstport 8472 nolearning up
          sysctl net.ipv6.conf.flannel.1.accept_ra = 0
          address 10.244.1.0/32 dev flannel.1
        peer 10.244.2.0-24
          fdb 56:8e:7a:62:71:9a dev flannel.1 dst 192.168.0.2
          neighbour 10.244.2.0 dev flannel.1 lladdr 56:8e:7a:62:71:9a
          route 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink
        peer 10.244.3.0-24
          fdb b2:71:df:20:79:ea dev flannel.1 dst 192.168.0.3
          neighbour 10.244.3.0 dev flannel.1 lladdr b2:71:df:20:79:ea
          route 10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink
    "#]];
    expected.assert_eq(&Scenario::v4(VXLAN).plan::<VxlanBackend>());
}

#[test]
fn dual_stack_has_two_devices_and_smaller_mtu() {
    let scenario = Scenario::dual(VXLAN);
    let expected = expect![[r#"
        advertise
          vxlan
          {"VNI":1,"VtepMAC":"26:3f:a3:3d:47:5d"}
          {"VNI":1,"VtepMAC":"e2:8d:5c:84:28:45"}
        node
          mtu 1430
          link flannel-v6.1 type vxlan mtu 1430 address e2:8d:5c:84:28:45 id 1 local fd00::1 dev eth0 dstport 8472 nolearning up
          link flannel.1 type vxlan mtu 1450 address 26:3f:a3:3d:47:5d id 1 local 192.168.0.1 dev eth0 dstport 8472 nolearning up
          sysctl net.ipv6.conf.flannel-v6.1.accept_ra = 0
          sysctl net.ipv6.conf.flannel.1.accept_ra = 0
          address 10.244.1.0/32 dev flannel.1
          address fd00:10:244:1::/128 dev flannel-v6.1
        peer 10.244.2.0-24&fd00:10:244:2::-64
          fdb 56:8e:7a:62:71:9a dev flannel.1 dst 192.168.0.2
          fdb de:55:3a:0c:52:3a dev flannel-v6.1 dst fd00::2
          neighbour 10.244.2.0 dev flannel.1 lladdr 56:8e:7a:62:71:9a
          neighbour fd00:10:244:2:: dev flannel-v6.1 lladdr de:55:3a:0c:52:3a
          route 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink
          route fd00:10:244:2::/64 via fd00:10:244:2:: dev flannel-v6.1 onlink
        peer 10.244.3.0-24&fd00:10:244:3::-64
          fdb 96:2a:56:88:6b:a4 dev flannel-v6.1 dst fd00::3
          fdb b2:71:df:20:79:ea dev flannel.1 dst 192.168.0.3
          neighbour 10.244.3.0 dev flannel.1 lladdr b2:71:df:20:79:ea
          neighbour fd00:10:244:3:: dev flannel-v6.1 lladdr 96:2a:56:88:6b:a4
          route 10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink
          route fd00:10:244:3::/64 via fd00:10:244:3:: dev flannel-v6.1 onlink
    "#]];
    expected.assert_eq(&scenario.plan::<VxlanBackend>());
    assert_eq!(node_plan(&scenario).unwrap().mtu, 1430);
}

#[test]
fn every_key_has_an_effect() {
    let backend = r#"{"Type":"vxlan","vni":7,"port":4789,"gbp":true,"learning":true,"mtu":9000}"#;
    let expected = expect![[r#"
        link flannel.7 type vxlan mtu 8950 address 86:6b:df:34:90:df id 7 local 192.168.0.1 dev eth0 dstport 4789 learning gbp up
        sysctl net.ipv6.conf.flannel.7.accept_ra = 0
        address 10.244.1.0/32 dev flannel.7
    "#]];
    expected.assert_eq(&node_plan(&Scenario::v4(backend)).unwrap().plan.to_string());
}

#[test]
fn zero_selects_default_port_and_mtu() {
    let zero = Scenario::v4(r#"{"Type":"vxlan","Port":0,"MTU":0}"#);
    assert_eq!(node_plan(&zero), node_plan(&Scenario::v4(VXLAN)));
}

#[test]
fn key_out_of_range_is_reported_with_its_rule() {
    let said = |scenario: Scenario| match node_plan(&scenario) {
        Err(error) => error.to_string(),
        Ok(planned) => planned.plan.links.last().unwrap().name.clone(),
    };
    for (backend, expected) in [
        (
            r#"{"VNI":16777216}"#,
            "Backend.VNI is 16777216: expected a whole number from 0 to 9999999",
        ),
        (
            r#"{"VNI":16777215}"#,
            "Backend.VNI is 16777215: expected a whole number from 0 to 9999999",
        ),
        (r#"{"VNI":9999999}"#, "flannel.9999999"),
        (r#"{"Port":65536}"#, "Backend.Port is 65536: expected a whole number from 0 to 65535"),
        (
            r#"{"MTU":117}"#,
            "Backend.MTU is 117: expected 118 to 65535, the external interface's MTU",
        ),
    ] {
        assert_eq!(said(Scenario::v4(backend)), expected);
    }
    for (backend, expected) in [
        (r#"{"VNI":10000}"#, "Backend.VNI is 10000: expected a whole number from 0 to 9999"),
        (r#"{"VNI":9999}"#, "flannel-v6.9999"),
        (
            r#"{"MTU":1300}"#,
            "Backend.MTU is 1300: expected 1350 to 65535, the external interface's MTU",
        ),
    ] {
        assert_eq!(said(Scenario::dual(backend)), expected);
    }
}

#[test]
fn all_wrong_keys_are_reported_at_once() {
    let wrong = r#"{"vni":"1","Port":-1,"GBP":1,"Learning":"x","directRouting":0,"MTU":60}"#;
    let error = node_plan(&Scenario::v4(wrong)).unwrap_err().to_string();
    let found: Vec<_> = error.split("; ").filter_map(|error| error.split(' ').next()).collect();
    let mut expected = VxlanBackend::KEYS.unwrap().iter().map(|key| format!("Backend.{key}"));
    assert!(found.iter().all(|found| expected.next().as_deref() == Some(found)), "{error}");
    assert_eq!(expected.next(), None, "{error}");
    let two = node_plan(&Scenario::dual(r#"{"VNI":10000,"MTU":1300}"#)).unwrap_err().to_string();
    assert!(
        two.contains("VNI is 10000: expected a whole number from 0 to 9999;")
            && two.contains("; Backend.MTU is 1300"),
        "{two}"
    );
}

#[test]
fn interface_too_small_for_overhead_is_an_error() {
    let mut scenario = Scenario::dual(VXLAN);
    scenario.node.underlay.mtu = 1300;
    assert_eq!(
        node_plan(&scenario).unwrap_err().to_string(),
        "Backend.MTU is not given, and 1300, the MTU of eth0, is too small: expected 1350 or more"
    );
}

#[test]
fn lease_describes_the_device() {
    let scenario = Scenario::dual(VXLAN);
    let lease = scenario.lease::<VxlanBackend>().unwrap();
    assert_eq!(lease.backend_type.as_deref(), Some("vxlan"));
    let links = node_plan(&scenario).unwrap().plan.links;
    let data = |link: &Link| Some(format!(r#"{{"VNI":1,"VtepMAC":"{}"}}"#, link.mac.unwrap()));
    let data: Vec<_> = links.iter().map(data).collect();
    let advertised: Vec<_> = lease.families.into_iter().map(|part| part.backend_data).collect();
    assert_eq!(advertised, data);
}

#[test]
fn existing_device_keeps_its_mac() {
    let mac = MacAddress([0x3a, 0x8b, 0x71, 0xf2, 0x2e, 0xde]);
    let planned = |kind: &str| {
        let mut scenario = Scenario::v4(VXLAN);
        let existing = ExistingLink { name: "flannel.1".into(), kind: kind.into(), mac: Some(mac) };
        scenario.node.links = vec![existing];
        node_plan(&scenario).unwrap().plan.links[0].mac
    };
    assert_eq!(planned("vxlan"), Some(mac));
    assert_ne!(planned("bridge"), Some(mac));
}

#[test]
fn mac_depends_on_node_address_and_vni_only() {
    let mac = |backend: &str, change: fn(&mut Node)| {
        let mut scenario = Scenario::v4(backend);
        change(&mut scenario.node);
        node_plan(&scenario).unwrap().plan.links[0].mac.unwrap()
    };
    let first = mac(VXLAN, |_| ());
    assert!(first.is_unicast());
    assert_eq!(first, mac(r#"{"VNI":1,"Port":4789}"#, |_| ()));
    assert_ne!(first, mac(r#"{"VNI":2}"#, |_| ()));
    assert_ne!(first, mac(VXLAN, |node| node.id = "omega".into()));
    let moved = |node: &mut Node| {
        node.underlay.public_addresses = vec!["192.168.0.73".parse().unwrap()];
    };
    assert_ne!(first, mac(VXLAN, moved));
}

#[test]
fn source_behind_nat_is_address_of_interface() {
    let mut scenario = Scenario::dual(VXLAN);
    let public = ["203.0.113.7", "2001:db8::7"].map(|address| address.parse().unwrap());
    scenario.node.underlay.public_addresses = public.into();
    let locals = node_plan(&scenario).unwrap().plan.links.into_iter().map(|link| match link.kind {
        LinkKind::Vxlan(vxlan) => vxlan.local.to_string(),
        other => panic!("{other:?}"),
    });
    assert!(locals.eq(["192.168.0.1", "fd00::1"]));
}

/// Returns a scenario with node alpha and leases in etcd's format.
fn among(families: &[Family], backend: &str, leases: &str) -> Scenario {
    let (mut subnets, mut addresses) = (Vec::new(), Vec::new());
    for family in families {
        let (subnet, address) = match family {
            Family::V4 => ("10.244.1.0/24", "192.168.0.1/24"),
            Family::V6 => ("fd00:10:244:1::/64", "fd00::1/64"),
        };
        subnets.push(subnet);
        addresses.push(address);
    }
    let v6 = families.contains(&Family::V6);
    Scenario::parse(&format!(
        r#"{{
            "config": {{
                "Network": "10.244.0.0/16", "EnableIPv6": {v6}, "IPv6Network": "fd00:10:244::/48",
                "Backend": {backend}
            }},
            "node": {{
                "id": "alpha", "subnets": {subnets:?},
                "link": "eth0", "mtu": 1500, "addresses": {addresses:?}
            }},
            "leases": {leases}
        }}"#
    ))
}

/// Leases of flannel: in both families, in IPv4 only, and of flannel 0.14, which has no VNI.
const FLANNEL: &str = r#"{
    "10.244.2.0-24&fd00:10:244:2::-64": {
        "PublicIP": "192.168.0.2", "PublicIPv6": "fd00::2", "BackendType": "vxlan",
        "BackendData": {"VNI": 1, "VtepMAC": "3a:8b:71:f2:2e:de"},
        "BackendV6Data": {"VNI": 1, "VtepMAC": "3a:8b:71:f2:2e:df"}
    },
    "10.244.3.0-24": {
        "PublicIP": "192.168.0.3", "BackendType": "vxlan",
        "BackendData": {"VNI": 1, "VtepMAC": "3a:8b:71:f2:2e:dc"}
    },
    "10.244.4.0-24": {
        "PublicIP": "192.168.7.4", "BackendType": "vxlan",
        "BackendData": {"VtepMAC": "12:b9:d6:fb:f8:e3"}
    }
}"#;

#[test]
fn peer_is_planned_in_common_families() {
    let dual = among(&[Family::V4, Family::V6], VXLAN, FLANNEL);
    let expected = expect![[r#"
        peer 10.244.2.0-24&fd00:10:244:2::-64
          fdb 3a:8b:71:f2:2e:de dev flannel.1 dst 192.168.0.2
          fdb 3a:8b:71:f2:2e:df dev flannel-v6.1 dst fd00::2
          neighbour 10.244.2.0 dev flannel.1 lladdr 3a:8b:71:f2:2e:de
          neighbour fd00:10:244:2:: dev flannel-v6.1 lladdr 3a:8b:71:f2:2e:df
          route 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink
          route fd00:10:244:2::/64 via fd00:10:244:2:: dev flannel-v6.1 onlink
        peer 10.244.3.0-24
          fdb 3a:8b:71:f2:2e:dc dev flannel.1 dst 192.168.0.3
          neighbour 10.244.3.0 dev flannel.1 lladdr 3a:8b:71:f2:2e:dc
          route 10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink
        peer 10.244.4.0-24
          fdb 12:b9:d6:fb:f8:e3 dev flannel.1 dst 192.168.7.4
          neighbour 10.244.4.0 dev flannel.1 lladdr 12:b9:d6:fb:f8:e3
          route 10.244.4.0/24 via 10.244.4.0 dev flannel.1 onlink
    "#]];
    expected.assert_eq(&peers(&dual));
    let v4 = among(&[Family::V4], VXLAN, FLANNEL);
    let expected = expect![[r#"
        peer 10.244.2.0-24&fd00:10:244:2::-64
          fdb 3a:8b:71:f2:2e:de dev flannel.1 dst 192.168.0.2
          neighbour 10.244.2.0 dev flannel.1 lladdr 3a:8b:71:f2:2e:de
          route 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink
        peer 10.244.3.0-24
          fdb 3a:8b:71:f2:2e:dc dev flannel.1 dst 192.168.0.3
          neighbour 10.244.3.0 dev flannel.1 lladdr 3a:8b:71:f2:2e:dc
          route 10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink
        peer 10.244.4.0-24
          fdb 12:b9:d6:fb:f8:e3 dev flannel.1 dst 192.168.7.4
          neighbour 10.244.4.0 dev flannel.1 lladdr 12:b9:d6:fb:f8:e3
          route 10.244.4.0/24 via 10.244.4.0 dev flannel.1 onlink
    "#]];
    expected.assert_eq(&peers(&v4));
}

#[test]
fn direct_routing_bypasses_device_for_neighbours() {
    let direct = r#"{"Type":"vxlan","DirectRouting":true}"#;
    let expected = expect![[r#"
        peer 10.244.2.0-24&fd00:10:244:2::-64
          route 10.244.2.0/24 via 192.168.0.2 dev eth0
        peer 10.244.3.0-24
          route 10.244.3.0/24 via 192.168.0.3 dev eth0
        peer 10.244.4.0-24
          fdb 12:b9:d6:fb:f8:e3 dev flannel.1 dst 192.168.7.4
          neighbour 10.244.4.0 dev flannel.1 lladdr 12:b9:d6:fb:f8:e3
          route 10.244.4.0/24 via 10.244.4.0 dev flannel.1 onlink
    "#]];
    expected.assert_eq(&peers(&among(&[Family::V4], direct, FLANNEL)));
}

#[test]
fn invalid_peer_is_reported() {
    let leases = r#"{
        "10.244.2.0-24": {
            "PublicIP": "192.168.0.2", "BackendType": "vxlan",
            "BackendData": {"VNI": 2, "VtepMAC": "3a:8b:71:f2:2e:de"}
        },
        "10.244.3.0-24": {"PublicIP": "192.168.0.3", "BackendType": "vxlan", "BackendData": {"VNI": 1}},
        "10.244.4.0-24": {
            "PublicIP": "192.168.0.4", "BackendType": "vxlan", "BackendData": {"VNI": 1, "VtepMAC": "3a:8b"}
        },
        "10.244.5.0-24": {
            "PublicIP": "192.168.0.5", "BackendType": "vxlan",
            "BackendData": {"VNI": 1, "VtepMAC": "01:00:5e:00:00:01"}
        },
        "10.244.6.0-24": {
            "PublicIP": "192.168.0.6", "BackendType": "vxlan", "BackendData": {"VNI": 1, "VtepMAC": 7}
        },
        "10.244.7.0-24": {"PublicIP": "192.168.0.7", "BackendType": "vxlan", "BackendData": "garbage"},
        "10.244.8.0-24": {"PublicIP": "192.168.0.8", "BackendType": "vxlan"},
        "10.244.9.0-24": {
            "PublicIP": "192.168.0.1", "BackendType": "vxlan",
            "BackendData": {"VNI": 1, "VtepMAC": "3a:8b:71:f2:2e:de"}
        },
        "10.244.10.0-24": {"PublicIP": "192.168.0.10", "BackendType": "host-gw"},
        "10.244.11.0-24": {"PublicIP": "192.168.0.11"}
    }"#;
    let expected = expect![[r#"
        peer 10.244.10.0-24
          ! the lease is for the backend host-gw
        peer 10.244.11.0-24
          ! the lease is for the backend udp
        peer 10.244.2.0-24
          ! the lease cannot be used: BackendData.VNI is 2: expected 1, as in the network config
        peer 10.244.3.0-24
          ! the lease cannot be used: BackendData.VtepMAC is missing: expected the MAC address of the peer's device
        peer 10.244.4.0-24
          ! the lease cannot be used: BackendData.VtepMAC is "3a:8b": expected six hexadecimal octets with colons, 3a:8b:71:f2:2e:de
        peer 10.244.5.0-24
          ! the lease cannot be used: BackendData.VtepMAC is 01:00:5e:00:00:01: expected a unicast address
        peer 10.244.6.0-24
          ! the lease cannot be used: BackendData.VtepMAC is 7: expected a text
        peer 10.244.7.0-24
          ! the lease cannot be used: BackendData is not a JSON object: invalid type: string "garbage", expected a map at line 1 column 9
        peer 10.244.8.0-24
          ! the lease cannot be used: BackendData is missing: expected an object such as {"VNI":1,"VtepMAC":"3a:8b:71:f2:2e:de"}
        peer 10.244.9.0-24
          ! the lease cannot be used: its public address 192.168.0.1 is this node's own: expected the address of another node
    "#]];
    expected.assert_eq(&peers(&among(&[Family::V4], VXLAN, leases)));
}
