//! Compares the plugin's files with the expected ones. `UPDATE_EXPECT=1 cargo test` replaces the
//! expected files with the current ones, and `git diff` then shows the changes.

use std::sync::LazyLock;

use expect_test::expect;
use heddle_testkit::{Component, Scenario};

use my_plugin::Plugin;

/// Backend of the network that the node is part of.
const VXLAN: &str = r#"{"Type":"vxlan"}"#;

/// Name of the library, as Cargo spells it.
const LIBRARY: &str = "my_plugin";

/// The plugin as a WebAssembly component, which is what gets installed.
static COMPONENT: LazyLock<Component> =
    LazyLock::new(|| Component::build(env!("CARGO_MANIFEST_DIR"), LIBRARY));

/// Emits the files of a scenario natively and with the component in the host, and asserts that both
/// are the same.
fn written(scenario: &Scenario, settings: &[(&str, &str)]) -> String {
    let written = scenario.emit::<Plugin>(settings);
    let by_component = COMPONENT.emit(scenario, settings);
    assert!(
        by_component == written,
        "the function writes\n{written}\nand the component\n{by_component}"
    );
    written
}

#[test]
fn file_has_subnets_and_mtu() {
    let expected = expect![[r#"
        file /run/heddle/my-plugin.conf mode 644
          subnet 10.244.1.0/24
          subnet fd00:10:244:1::/64
          mtu 1450
    "#]];
    expected.assert_eq(&written(&Scenario::dual(VXLAN), &[]));
}

#[test]
fn path_is_configurable() {
    let expected = expect![[r#"
        file /srv/subnets mode 644
          subnet 10.244.1.0/24
          mtu 1450
    "#]];
    let settings = [("path", "/srv/subnets")];
    expected.assert_eq(&written(&Scenario::v4(VXLAN), &settings));
}

#[test]
fn unknown_setting_is_named() {
    let expected = expect![[r#"
        ! setting `pth` is unknown: expected `path`
    "#]];
    let settings = [("pth", "/srv/subnets")];
    expected.assert_eq(&written(&Scenario::v4(VXLAN), &settings));
}
