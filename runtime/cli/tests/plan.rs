//! `heddle plugin plan`: a plugin has the same plan as a component, natively, and in the test kit.

#![allow(clippy::disallowed_methods, reason = "tests may run programs, wait and read files")]

use std::process::Command;

use alloc::AllocBackend;
use heddle_testkit::{Component, Scenario};
use host_gw::HostGwBackend;
use udp::UdpBackend;
use vxlan::VxlanBackend;

const TOOL: &str = env!("CARGO_BIN_EXE_heddle");

/// Returns scenarios with uniform nodes, and one with a device, behind NAT, and with various
/// neighbours.
fn scenarios(backend: &str) -> [Scenario; 4] {
    let recorded = r#"{
        "config": {
            "Network": "10.244.0.0/16", "SubnetLen": 26, "EnableIPv6": true, "IPv6Network": "fc00::/48",
            "Backend": BACKEND
        },
        "node": {
            "id": "alpha", "subnets": ["10.244.1.0/26", "fc00:0:0:1::/64"],
            "link": "ens3", "mtu": 9000, "addresses": ["192.168.0.1/24", "fd00::1/64"],
            "public-addresses": ["203.0.113.1", "fd00::1"],
            "links": [
                {"name": "flannel.1", "kind": "vxlan", "mac": "3a:8b:71:f2:2e:de"},
                {"name": "flannel0", "kind": "tun", "mac": null}
            ]
        },
        "leases": {
            "10.244.9.0-26": {"PublicIP": "192.168.0.9", "BackendType": "vxlan",
                              "BackendData": {"VtepMAC": "0e:00:00:00:00:09"}},
            "10.244.10.0-26": {"PublicIP": "192.168.0.10", "BackendType": "host-gw"},
            "10.244.11.0-26": {"PublicIP": "192.168.0.11"},
            "10.244.12.0-26&fc00:0:0:c::-64": {
                "PublicIP": "203.0.113.1", "PublicIPv6": "fd00::12", "BackendType": "vxlan",
                "BackendData": {"VNI": 7, "VtepMAC": "0e:00:00:00:00:0c"},
                "BackendV6Data": {"VNI": 1, "VtepMAC": "0e:00:00:00:00:0c"}
            }
        }
    }"#;
    let recorded = Scenario::parse(&recorded.replace("BACKEND", backend));
    [Scenario::v4(backend), Scenario::v6(backend), Scenario::dual(backend), recorded]
}

fn component(name: &str) -> Component {
    Component::file(name).with_tool(TOOL)
}

#[test]
fn component_plans_the_same_as_its_functions() {
    for backend in [
        r#"{"Type":"vxlan"}"#,
        r#"{"Type":"vxlan","VNI":7,"port":4789,"DirectRouting":true}"#,
        r#"{"Type":"vxlan","VNI":-1}"#,
        r#"{"Type":"vxlan","MTU":100}"#,
    ] {
        for scenario in scenarios(backend) {
            assert_eq!(component("vxlan").plan(&scenario), scenario.plan::<VxlanBackend>());
        }
    }
    for scenario in scenarios(r#"{"Type":"host-gw"}"#) {
        assert_eq!(component("host-gw").plan(&scenario), scenario.plan::<HostGwBackend>());
    }
    for scenario in scenarios(r#"{"Type":"udp"}"#) {
        assert_eq!(component("udp").plan(&scenario), scenario.plan::<UdpBackend>());
    }
    for scenario in scenarios(r#"{"Type":"alloc"}"#) {
        assert_eq!(component("alloc").plan(&scenario), scenario.plan::<AllocBackend>());
    }
}

#[test]
fn invalid_scenario_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("scenario.json");
    std::fs::write(&file, r#"{"config":{"Network":"10.244.0.0/33"},"node":{}}"#).unwrap();
    let output = Command::new(TOOL).args(["plugin", "plan", "vxlan"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains(&format!("{}: the scenario cannot be used: ", file.display())),
        "{error}"
    );
}
