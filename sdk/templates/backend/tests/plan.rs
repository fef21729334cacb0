//! Compares the plugin's plans with the expected ones. `UPDATE_EXPECT=1 cargo test` replaces the
//! expected plans with the current ones, and `git diff` then shows the changes.

use std::sync::LazyLock;

use expect_test::expect;
use heddle_testkit::{Component, Scenario};

use my_plugin::Plugin;

/// Name of the library, as Cargo spells it.
const LIBRARY: &str = "my_plugin";

/// The plugin as a WebAssembly component, which is what gets installed.
static COMPONENT: LazyLock<Component> =
    LazyLock::new(|| Component::build(env!("CARGO_MANIFEST_DIR"), LIBRARY));

/// Plans a scenario natively and with the component in the host, and asserts that both plans are
/// the same.
fn planned(scenario: &Scenario) -> String {
    let planned = scenario.plan::<Plugin>();
    let by_component = COMPONENT.plan(scenario);
    assert!(
        by_component == planned,
        "the functions plan\n{planned}\nand the component\n{by_component}"
    );
    planned
}

#[test]
fn node_is_gateway_to_its_subnet() {
    let backend = r#"{"Type":"my-plugin"}"#;
    let expected = expect![[r#"
        advertise
          my-plugin
        node
          mtu 1500
        peer 10.244.2.0-24&fd00:10:244:2::-64
          route 10.244.2.0/24 via 192.168.0.2 dev eth0
          route fd00:10:244:2::/64 via fd00::2 dev eth0
        peer 10.244.3.0-24&fd00:10:244:3::-64
          route 10.244.3.0/24 via 192.168.0.3 dev eth0
          route fd00:10:244:3::/64 via fd00::3 dev eth0
    "#]];
    expected.assert_eq(&planned(&Scenario::dual(backend)));
}

#[test]
fn mtu_is_configurable() {
    let backend = r#"{"Type":"my-plugin","mtu":1400}"#;
    let expected = expect![[r#"
        advertise
          my-plugin
        node
          mtu 1400
        peer 10.244.2.0-24
          route 10.244.2.0/24 via 192.168.0.2 dev eth0
        peer 10.244.3.0-24
          route 10.244.3.0/24 via 192.168.0.3 dev eth0
    "#]];
    expected.assert_eq(&planned(&Scenario::v4(backend)));
}

#[test]
fn bad_key_is_named() {
    let backend = r#"{"Type":"my-plugin","MTU":9000}"#;
    let expected = expect![[r#"
        advertise
          ! Backend.MTU is 9000: expected 68 to 1500
    "#]];
    expected.assert_eq(&planned(&Scenario::v4(backend)));
}

#[test]
fn peers_of_other_network_or_backend_have_no_plan() {
    let scenario = Scenario::parse(
        r#"{
            "config": {"Network": "10.244.0.0/16", "Backend": {"Type": "my-plugin"}},
            "node": {
                "id": "alpha", "subnets": ["10.244.1.0/24"],
                "link": "eth0", "mtu": 1500, "addresses": ["192.168.0.1/24"]
            },
            "nodes": [{
                "id": "beta", "subnets": ["10.244.8.0/24"],
                "link": "eth0", "mtu": 1500, "addresses": ["192.168.7.8/24"]
            }],
            "leases": {
                "10.244.9.0-24": {"PublicIP": "192.168.0.9", "BackendType": "host-gw"}
            }
        }"#,
    );
    let expected = expect![[r#"
        advertise
          my-plugin
        node
          mtu 1500
        peer 10.244.8.0-24
          ! the lease cannot be used: its public address 192.168.7.8 is on no network of eth0: expected all nodes on one network
        peer 10.244.9.0-24
          ! the lease is for the backend host-gw
    "#]];
    expected.assert_eq(&planned(&scenario));
}
