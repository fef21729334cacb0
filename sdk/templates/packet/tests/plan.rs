//! Compares the plugin's plans with the expected ones. `UPDATE_EXPECT=1 cargo test` replaces the
//! expected plans with the current ones, and `git diff` then shows the changes.

use std::sync::LazyLock;

use expect_test::expect;
use heddle_sdk::PacketBackend;
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
fn overlay_is_routed_into_one_device() {
    let backend = r#"{"Type":"my-plugin"}"#;
    let expected = expect![[r#"
        advertise
          my-plugin
        node
          mtu 1452
          link heddle0 type tun mtu 1452 up
          tunnel heddle0 local 192.168.0.1,fd00::1 port 7777
          sysctl net.ipv6.conf.heddle0.accept_ra = 0
          address 10.244.1.0/32 dev heddle0
          address fd00:10:244:1::/128 dev heddle0
          route 10.244.0.0/16 dev heddle0
          route fd00:10:244::/48 dev heddle0
        peer 10.244.2.0-24&fd00:10:244:2::-64
        peer 10.244.3.0-24&fd00:10:244:3::-64
    "#]];
    expected.assert_eq(&planned(&Scenario::dual(backend)));
}

#[test]
fn port_is_configurable() {
    let backend = r#"{"Type":"my-plugin","port":4000}"#;
    let expected = expect![[r#"
        advertise
          my-plugin
        node
          mtu 1472
          link heddle0 type tun mtu 1472 up
          tunnel heddle0 local 192.168.0.1 port 4000
          sysctl net.ipv6.conf.heddle0.accept_ra = 0
          address 10.244.1.0/32 dev heddle0
          route 10.244.0.0/16 dev heddle0
        peer 10.244.2.0-24
        peer 10.244.3.0-24
    "#]];
    expected.assert_eq(&planned(&Scenario::v4(backend)));
}

#[test]
fn bad_key_is_named() {
    let backend = r#"{"Type":"my-plugin","Port":53}"#;
    let expected = expect![[r#"
        advertise
          ! Backend.Port is 53: expected 1024 to 65535
    "#]];
    expected.assert_eq(&planned(&Scenario::v4(backend)));
}

#[test]
fn packet_is_steered_by_its_destination() {
    let backend = r#"{"Type":"my-plugin"}"#;
    let scenario = Scenario::dual(backend);
    let own = scenario.lease::<Plugin>().unwrap();
    let peers: Vec<_> = scenario.peers::<Plugin>().unwrap().into_values().collect();
    let plugin = Plugin::with_peers(&scenario.config, &scenario.node, &own, &peers);
    for (destination, expected) in [
        ("10.244.2.7", Some(0)),
        ("10.244.3.7", Some(1)),
        ("fd00:10:244:3::7", Some(1)),
        ("10.244.4.7", None),
    ] {
        assert_eq!(
            plugin.steer(destination.parse().unwrap()),
            expected,
            "{destination}"
        );
    }
}
