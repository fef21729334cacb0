//! `UPDATE_EXPECT=1 cargo test` updates the expected plans; `git diff` then shows the changes.

use expect_test::expect;
use heddle_testkit::Scenario;

use super::*;

const UDP: &str = r#"{"Type":"udp"}"#;

#[test]
fn node_has_device_and_lease_fields_of_flannel() {
    let expected = expect![[r#"
        advertise
        node
          mtu 1472
          link flannel0 type tun mtu 1472 up
          tunnel flannel0 local 192.168.0.1 port 8285
          sysctl net.ipv6.conf.flannel0.accept_ra = 0
          address 10.244.1.0/32 dev flannel0
          route 10.244.0.0/16 dev flannel0
        peer 10.244.2.0-24
        peer 10.244.3.0-24
    "#]];
    expected.assert_eq(&Scenario::v4(UDP).plan::<UdpBackend>());
}

#[test]
fn dual_stack_has_one_device_with_smaller_mtu() {
    let expected = expect![[r#"
        advertise
        node
          mtu 1452
          link flannel0 type tun mtu 1452 up
          tunnel flannel0 local 192.168.0.1,fd00::1 port 8285
          sysctl net.ipv6.conf.flannel0.accept_ra = 0
          address 10.244.1.0/32 dev flannel0
          address fd00:10:244:1::/128 dev flannel0
          route 10.244.0.0/16 dev flannel0
          route fd00:10:244::/48 dev flannel0
        peer 10.244.2.0-24&fd00:10:244:2::-64
        peer 10.244.3.0-24&fd00:10:244:3::-64
    "#]];
    expected.assert_eq(&Scenario::dual(UDP).plan::<UdpBackend>());
}

#[test]
fn port_is_configurable_with_default_of_flannel() {
    let port = |backend: &str| {
        let scenario = Scenario::v4(backend);
        let lease = scenario.lease::<UdpBackend>()?;
        let planned = UdpBackend::plan_node(&scenario.config, &scenario.node, &lease)?;
        match &planned.plan.links[0].kind {
            LinkKind::Tun(tun) => Ok(tun.port),
            other => panic!("{other:?}"),
        }
    };
    for (backend, expected) in
        [(UDP, 8285), (r#"{"port":0}"#, 8285), (r#"{"Port":1}"#, 1), (r#"{"port":65535}"#, 65_535)]
    {
        assert_eq!(port(backend), Ok(expected), "{backend}");
    }
    for value in ["65536", "-1", "\"8285\""] {
        let error: ConfigError = port(&format!(r#"{{"Port":{value}}}"#)).unwrap_err();
        let expected = format!("Backend.Port is {value}: expected a whole number from 0 to 65535");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn interface_too_small_for_headers_is_an_error() {
    let mtu = |mut scenario: Scenario, underlay| {
        scenario.node.underlay.mtu = underlay;
        let lease = scenario.lease::<UdpBackend>().unwrap();
        let planned = UdpBackend::plan_node(&scenario.config, &scenario.node, &lease);
        planned.map(|planned| planned.mtu).map_err(|error| error.to_string())
    };
    let refused = |least: u32| {
        let found = least - 1;
        Err(format!(
            "Backend.Type is for interfaces with an MTU of {least} or more: that of eth0 is {found}"
        ))
    };
    assert_eq!(mtu(Scenario::v4(UDP), 95), refused(96));
    assert_eq!(mtu(Scenario::v4(UDP), 96), Ok(68));
    assert_eq!(mtu(Scenario::dual(UDP), 1327), refused(1328));
    assert_eq!(mtu(Scenario::dual(UDP), 1328), Ok(1280));
    // The loopback interface's MTU.
    assert_eq!(mtu(Scenario::v4(UDP), 65_536), Ok(65_507));
}

#[test]
fn source_behind_nat_is_address_of_interface() {
    let mut scenario = Scenario::dual(UDP);
    let public = ["203.0.113.7", "2001:db8::7"].map(|address| address.parse().unwrap());
    scenario.node.underlay.public_addresses = public.into();
    let planned = scenario.plan::<UdpBackend>();
    let tunnel = planned.lines().find(|line| line.contains("tunnel"));
    assert_eq!(tunnel, Some("  tunnel flannel0 local 192.168.0.1,fd00::1 port 8285"));
}

#[test]
fn peer_needs_no_kernel_objects_or_is_refused() {
    let scenario = Scenario::parse(
        r#"{
            "config": {"Network": "10.244.0.0/16", "Backend": {"Type": "udp"}},
            "node": {
                "id": "alpha", "subnets": ["10.244.1.0/24"],
                "link": "eth0", "mtu": 1500, "addresses": ["192.168.0.1/24"]
            },
            "leases": {
                "10.244.2.0-24": {"PublicIP": "192.168.0.2"},
                "10.244.3.0-24": {"PublicIP": "192.168.0.3", "BackendType": "udp"},
                "10.244.4.0-24": {"PublicIP": "192.168.0.4", "BackendType": "vxlan"},
                "10.244.5.0-24": {"PublicIP": "192.168.0.1"}
            }
        }"#,
    );
    let planned = scenario.plan::<UdpBackend>();
    let expected = expect![[r#"
        peer 10.244.2.0-24
        peer 10.244.3.0-24
        peer 10.244.4.0-24
          ! the lease is for the backend vxlan
        peer 10.244.5.0-24
          ! the lease cannot be used: its public address 192.168.0.1 is this node's own: expected the address of another node
    "#]];
    expected.assert_eq(&planned[planned.find("peer").unwrap()..]);
}

#[test]
fn packet_is_steered_by_its_destination() {
    let scenario = Scenario::parse(
        r#"{
            "config": {
                "Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48",
                "Backend": {"Type": "udp"}
            },
            "node": {
                "id": "alpha", "subnets": ["10.244.200.0/24", "fd00:10:244:1::/64"],
                "link": "eth0", "mtu": 1500, "addresses": ["192.168.0.1/24", "fd00::1/64"]
            },
            "leases": {
                "10.244.0.0-17": {"PublicIP": "192.168.0.2"},
                "10.244.36.0-24&fd00:10:244:36::-64": {"PublicIP": "192.168.0.3", "PublicIPv6": "fd00::3"}
            }
        }"#,
    );
    let own = scenario.lease::<UdpBackend>().unwrap();
    let peers: Vec<_> = scenario.peers::<UdpBackend>().unwrap().into_values().collect();
    let backend = UdpBackend::with_peers(&scenario.config, &scenario.node, &own, &peers);
    for (destination, expected) in [
        ("10.244.36.7", Some(1)),
        ("10.244.37.7", Some(0)),
        ("10.244.128.7", None),
        ("fd00:10:244:36::7", Some(1)),
        ("fd00:10:244:37::7", None),
    ] {
        assert_eq!(backend.steer(destination.parse().unwrap()), expected, "{destination}");
    }
}
