//! What the plugin writes. `UPDATE_EXPECT=1 cargo test` puts what it writes now in the place of what is expected here,
//! and `git diff` then shows what has become different.

use std::sync::LazyLock;

use expect_test::expect;
use heddle_testkit::{Component, Scenario};

use my_plugin::Plugin;

/// The backend of the network that the node is part of.
const VXLAN: &str = r#"{"Type":"vxlan"}"#;

/// The library, as Cargo calls it.
const LIBRARY: &str = "my_plugin";

/// What is installed: the plugin as a WebAssembly component.
static COMPONENT: LazyLock<Component> =
    LazyLock::new(|| Component::build(env!("CARGO_MANIFEST_DIR"), LIBRARY));

/// What is written on the node of a scenario, by the function as it is, and by the component in the host: the same.
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
fn the_file_has_the_subnets_and_the_mtu() {
    let expected = expect![[r#"
        file /run/heddle/my-plugin.conf mode 644
          subnet 10.244.1.0/24
          subnet fd00:10:244:1::/64
          mtu 1450
    "#]];
    expected.assert_eq(&written(&Scenario::dual(VXLAN), &[]));
}

#[test]
fn the_operator_says_where_it_goes() {
    let expected = expect![[r#"
        file /srv/subnets mode 644
          subnet 10.244.1.0/24
          mtu 1450
    "#]];
    let settings = [("path", "/srv/subnets")];
    expected.assert_eq(&written(&Scenario::v4(VXLAN), &settings));
}

#[test]
fn a_setting_that_there_is_not_is_named() {
    let expected = expect![[r#"
        ! setting `pth` is unknown: expected `path`
    "#]];
    let settings = [("pth", "/srv/subnets")];
    expected.assert_eq(&written(&Scenario::v4(VXLAN), &settings));
}
