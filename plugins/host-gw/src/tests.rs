//! `UPDATE_EXPECT=1 cargo test` updates the expected plans; `git diff` then shows the changes.

use expect_test::expect;
use heddle_testkit::Scenario;

use super::*;

const HOST_GW: &str = r#"{"Type":"host-gw"}"#;

#[test]
fn node_is_gateway_to_its_subnets_with_full_mtu() {
    let expected = expect![[r#"
        advertise
          host-gw
        node
          mtu 1500
        peer 10.244.2.0-24&fd00:10:244:2::-64
          route 10.244.2.0/24 via 192.168.0.2 dev eth0
          route fd00:10:244:2::/64 via fd00::2 dev eth0
        peer 10.244.3.0-24&fd00:10:244:3::-64
          route 10.244.3.0/24 via 192.168.0.3 dev eth0
          route fd00:10:244:3::/64 via fd00::3 dev eth0
    "#]];
    expected.assert_eq(&Scenario::dual(HOST_GW).plan::<HostGwBackend>());
}

#[test]
fn mtu_of_loopback_is_capped_at_longest_packet() {
    let mut scenario = Scenario::v4(HOST_GW);
    scenario.node.underlay.mtu = 65_536;
    scenario.node.underlay.link = "lo".into();
    let expected = expect![[r#"
        advertise
          host-gw
        node
          mtu 65535
        peer 10.244.2.0-24
          route 10.244.2.0/24 via 192.168.0.2 dev lo
        peer 10.244.3.0-24
          route 10.244.3.0/24 via 192.168.0.3 dev lo
    "#]];
    expected.assert_eq(&scenario.plan::<HostGwBackend>());
}

#[test]
fn public_address_not_on_interface_is_refused() {
    let planned = |public: [&str; 2], addresses: &[&str]| {
        let mut scenario = Scenario::dual(HOST_GW);
        let addresses = addresses.iter().map(|address| address.parse().unwrap());
        scenario.node.underlay.addresses = addresses.collect();
        scenario.node.underlay.public_addresses = public.map(|text| text.parse().unwrap()).into();
        scenario.plan::<HostGwBackend>()
    };
    let addresses = ["192.168.0.1/24", "192.168.1.1/24", "fd00::1/64"];
    let expected = expect![[r#"
        advertise
          ! Backend.Type is host-gw, and this node's public address 203.0.113.7 is not an address of eth0 (NAT): expected another backend, such as vxlan, or --public-ip to be one of 192.168.0.1, 192.168.1.1
    "#]];
    expected.assert_eq(&planned(["203.0.113.7", "fd00::1"], &addresses));
    let expected = expect![[r#"
        advertise
          ! Backend.Type is host-gw, and this node's public address 2001:db8::7 is not an address of eth0 (NAT): expected another backend, such as vxlan, or --public-ipv6 to be one of fd00::1
    "#]];
    expected.assert_eq(&planned(["192.168.0.1", "2001:db8::7"], &addresses));
    let expected = expect![[r#"
        advertise
          ! Backend.Type is host-gw, and this node's public address 203.0.113.7 is not an address of eth0 (NAT): expected another backend, such as vxlan
    "#]];
    expected.assert_eq(&planned(["203.0.113.7", "fd00::1"], &["fd00::1/64"]));
    let both = planned(["203.0.113.7", "2001:db8::7"], &addresses);
    assert!(both.contains("203.0.113.7 is not") && both.contains("2001:db8::7 is not"), "{both}");
}

const PEERS: &str = r#"{
    "10.244.2.0-24&fd00:10:244:2::-64": {
        "PublicIP": "192.168.0.2", "PublicIPv6": "fd00::2", "BackendType": "host-gw"
    },
    "10.244.3.0-24": {"PublicIP": "192.168.0.3", "BackendType": "host-gw"},
    "10.244.4.0-24": {"PublicIP": "192.168.0.4", "BackendType": "vxlan"},
    "10.244.5.0-24": {"PublicIP": "192.168.0.5"},
    "10.244.6.0-24": {"PublicIP": "192.168.0.1", "BackendType": "host-gw"}
}"#;

#[test]
fn peer_is_gateway_in_common_families_or_refused() {
    let planned = |subnets: &str, addresses: &str| {
        let scenario = Scenario::parse(&format!(
            r#"{{
                "config": {{
                    "Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48",
                    "Backend": {HOST_GW}
                }},
                "node": {{
                    "id": "alpha", "subnets": {subnets},
                    "link": "eth0", "mtu": 1500, "addresses": {addresses}
                }},
                "leases": {PEERS}
            }}"#
        ));
        scenario.plan::<HostGwBackend>()
    };
    let dual = planned(
        r#"["10.244.1.0/24", "fd00:10:244:1::/64"]"#,
        r#"["192.168.0.1/24", "fd00::1/64"]"#,
    );
    let expected = expect![[r#"
        advertise
          host-gw
        node
          mtu 1500
        peer 10.244.2.0-24&fd00:10:244:2::-64
          route 10.244.2.0/24 via 192.168.0.2 dev eth0
          route fd00:10:244:2::/64 via fd00::2 dev eth0
        peer 10.244.3.0-24
          route 10.244.3.0/24 via 192.168.0.3 dev eth0
        peer 10.244.4.0-24
          ! the lease is for the backend vxlan
        peer 10.244.5.0-24
          ! the lease is for the backend udp
        peer 10.244.6.0-24
          ! the lease cannot be used: its public address 192.168.0.1 is this node's own: expected the address of another node
    "#]];
    expected.assert_eq(&dual);
    let v4 = planned(r#"["10.244.1.0/24"]"#, r#"["192.168.0.1/24"]"#);
    let expected = expect![[r#"
        advertise
          host-gw
        node
          mtu 1500
        peer 10.244.2.0-24&fd00:10:244:2::-64
          route 10.244.2.0/24 via 192.168.0.2 dev eth0
        peer 10.244.3.0-24
          route 10.244.3.0/24 via 192.168.0.3 dev eth0
        peer 10.244.4.0-24
          ! the lease is for the backend vxlan
        peer 10.244.5.0-24
          ! the lease is for the backend udp
        peer 10.244.6.0-24
          ! the lease cannot be used: its public address 192.168.0.1 is this node's own: expected the address of another node
    "#]];
    expected.assert_eq(&v4);
}
