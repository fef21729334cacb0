//! Unusable network configs: the daemon reports the reason, waits, and continues once the config is
//! corrected.

use heddle_lab::Families;
use heddle_tests::{Cluster, SOON, wait_unready};

const GOOD: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;

#[test]
fn missing_config_is_waited_for() {
    let cluster = Cluster::with_config(Families::V4, None);
    let mut node = cluster.starting_node("a", &[]);
    wait_unready(node.daemon(), &["/coreos.com/network/config"], SOON);
    node.daemon().wait_log(&["/coreos.com/network/config"], SOON).unwrap();
    assert_eq!(node.daemon().health("/healthz").unwrap().0, 200);
    assert!(!node.host.subnet_file().exists());
    assert!(node.link("flannel.1").is_null());

    cluster.store().put_config(GOOD).unwrap();
    node.daemon().wait_ready().unwrap();
    assert_eq!(node.daemon().health("/readyz").unwrap().0, 200);
}

#[test]
fn unknown_backend_is_reported_with_searched_locations() {
    let cluster = Cluster::with_config(
        Families::V4,
        Some(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"wormhole"}}"#),
    );
    let plugins = cluster.lab().directory().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    let flag = format!("--plugin-dir={}", plugins.display());
    let mut node = cluster.starting_node("a", &[&flag]);
    let place = plugins.display().to_string();
    wait_unready(node.daemon(), &["wormhole", &place], SOON);
    node.daemon().wait_log(&["wormhole", &place], SOON).unwrap();
    assert!(cluster.etcd().leases().unwrap().is_empty(), "no lease without a backend");

    cluster.store().put_config(GOOD).unwrap();
    node.daemon().wait_ready().unwrap();
}

#[test]
fn broken_config_rule_is_reported_with_its_key() {
    let cluster = Cluster::with_config(Families::V4, Some("{"));
    let mut node = cluster.starting_node("a", &[]);
    wait_unready(node.daemon(), &["config", "JSON"], SOON);
    for (config, key) in [
        ("[]", "JSON object"),
        ("{}", "`Network`"),
        (r#"{"Network":"10.244.0.0"}"#, "`Network`"),
        (r#"{"Network":"10.244.0.0/29"}"#, "`Network`"),
        (r#"{"Network":"10.244.0.0/16","SubnetLen":31}"#, "`SubnetLen`"),
        (r#"{"Network":"10.244.0.0/16","SubnetLen":17}"#, "`SubnetLen`"),
        (r#"{"Network":"10.244.0.0/16","SubnetLen":"24"}"#, "`SubnetLen`"),
        (r#"{"Network":"10.244.0.0/16","SubnetMin":"10.245.0.0"}"#, "`SubnetMin`"),
        (r#"{"Network":"10.244.0.0/16","SubnetMin":"10.244.1.7"}"#, "`SubnetMin`"),
        (r#"{"Network":"10.244.0.0/16","SubnetMax":"10.243.0.0"}"#, "`SubnetMax`"),
        (
            r#"{"Network":"10.244.0.0/16","SubnetMin":"10.244.9.0","SubnetMax":"10.244.8.0"}"#,
            "`SubnetMin`",
        ),
        (r#"{"Network":"10.244.0.0/16","EnableIPv4":"yes"}"#, "`EnableIPv4`"),
        (r#"{"Network":"10.244.0.0/16","EnableIPv4":false}"#, "`EnableIPv4`"),
        (r#"{"Network":"10.244.0.0/16","EnableIPv6":true}"#, "`IPv6Network`"),
        (
            r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/125"}"#,
            "`IPv6Network`",
        ),
        (
            r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48","IPv6SubnetLen":127}"#,
            "`IPv6SubnetLen`",
        ),
        (r#"{"Network":"10.244.0.0/16","Backend":"vxlan"}"#, "`Backend`"),
        (r#"{"Network":"10.244.0.0/16","Backend":{}}"#, "`Backend.Type`"),
        (r#"{"Network":"10.244.0.0/16","Backend":{"Type":7}}"#, "`Backend.Type`"),
        (r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","VNI":16777216}}"#, "Backend.VNI"),
        (r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","Port":"x"}}"#, "Backend.Port"),
        (
            r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","DirectRouting":1}}"#,
            "Backend.DirectRouting",
        ),
    ] {
        cluster.store().put_config(config).unwrap();
        wait_unready(node.daemon(), &[key], SOON);
    }
    node.daemon().check_running().unwrap();
    assert!(cluster.etcd().leases().unwrap().is_empty());

    cluster.store().put_config(GOOD).unwrap();
    node.daemon().wait_ready().unwrap();
}

#[test]
fn full_network_is_reported_and_freed_subnet_is_leased() {
    // The network has three subnets to lease.
    let config = r#"{"Network":"10.244.0.0/22","SubnetLen":24,"Backend":{"Type":"vxlan"}}"#;
    let cluster = Cluster::with_config(Families::V4, Some(config));
    for number in 1..=3 {
        let value = format!(
            r#"{{"PublicIP":"172.16.0.{number}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:00:0{number}"}}}}"#
        );
        cluster.put_lease(&format!("10.244.{number}.0-24"), &value);
    }
    let mut node = cluster.starting_node("a", &[]);
    wait_unready(node.daemon(), &["10.244.0.0/22"], SOON);
    cluster.delete_lease("10.244.2.0-24");
    node.daemon().wait_ready().unwrap();
    assert!(cluster.lease(&node).key.ends_with("/10.244.2.0-24"));
}
