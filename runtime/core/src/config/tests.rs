use super::*;

fn parse(text: &str) -> Result<NetworkConfig, ConfigErrors> {
    NetworkConfig::parse(text.as_bytes())
}

/// Returns the error for IPv4 or IPv6 keys that are added to an otherwise valid config.
fn error(members: &str) -> String {
    parse(&format!("{{{members}}}")).unwrap_err().to_string()
}

fn v4(text: &str) -> OverlayNetwork {
    parse(text).unwrap().networks.v4.unwrap()
}

fn overlay(network: &str, subnet_length: u8, min: &str, max: &str) -> OverlayNetwork {
    OverlayNetwork {
        network: network.parse().unwrap(),
        subnet_length,
        subnet_min: min.parse().unwrap(),
        subnet_max: max.parse().unwrap(),
    }
}

#[test]
fn reserved_range_is_set_only_by_subnet_min_or_max() {
    let range = |text: &str| {
        let config = NetworkConfig::parse(text.as_bytes()).unwrap();
        config.networks.first().unwrap().reserved_range().map(|(min, max)| format!("{min}-{max}"))
    };
    assert_eq!(range(r#"{"Network":"10.1.0.0/16"}"#), None);
    assert_eq!(range(r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48"}"#), None);
    assert_eq!(
        range(r#"{"Network":"10.1.0.0/16","SubnetMin":"10.1.128.0"}"#).as_deref(),
        Some("10.1.128.0-10.1.255.255")
    );
    assert_eq!(
        range(r#"{"Network":"10.0.0.0/8","SubnetMin":"10.1.128.0","SubnetMax":"10.1.200.0"}"#)
            .as_deref(),
        Some("10.1.128.0-10.1.200.255")
    );
}

#[test]
fn config_beyond_limit_is_rejected_unparsed() {
    let config = |length| {
        let text = r#"{"Network":"10.244.0.0/16"}"#;
        format!("{text}{}", " ".repeat(length - text.len()))
    };
    assert!(NetworkConfig::parse(config(CONFIG_LIMIT).as_bytes()).is_ok());
    assert_eq!(
        NetworkConfig::parse(config(CONFIG_LIMIT + 1).as_bytes()).unwrap_err().to_string(),
        "too long: 65537 bytes, and the limit is 65536"
    );
}

#[test]
fn config_with_same_meaning_supersedes_nothing() {
    let started =
        parse(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","VNI":1}}"#).unwrap();
    let now = |text: &str| started.superseded_by(Some(text.as_bytes())).map(|it| it.to_string());
    let same =
        r#"{ "backend": {"VNI":1, "Type":"vxlan"}, "Network": "10.244.0.0/16", "SubnetLen": 24 }"#;
    assert_eq!(now(same), None);
    let unusable = now(r#"{"Network":"10.244.0.0/40"}"#).unwrap();
    assert!(unusable.contains("`Network`") && unusable.contains("cannot restart"));
    assert_eq!(started.superseded_by(None), Some(Superseded::Gone));
}

#[test]
fn each_changed_key_is_named_with_both_values() {
    let started =
        parse(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","VNI":1}}"#).unwrap();
    let check = |now: &str, expected: &str| {
        let superseded = started.superseded_by(Some(now.as_bytes())).unwrap().to_string();
        let expected = format!(
            "changed in the store: {expected}; this node keeps the running config until it restarts"
        );
        assert_eq!(superseded, expected);
    };
    check(
        r#"{"Network":"10.245.0.0/16","Backend":{"Type":"vxlan","VNI":2}}"#,
        "`Network` from 10.244.0.0/16 to 10.245.0.0/16, `Backend.VNI` from 1 to 2",
    );
    check(
        r#"{"Network":"10.244.0.0/16","SubnetLen":25,"EnableNFTables":true,"Backend":{"Type":"vxlan","VNI":1}}"#,
        "`SubnetLen` from 24 to 25, `EnableNFTables` from false to true",
    );
    check(
        r#"{"Network":"10.244.0.0/16","SubnetMin":"10.244.9.0","Backend":{"Type":"vxlan","Port":9}}"#,
        "`SubnetMin` from 10.244.1.0 to 10.244.9.0, `Backend.Port` added (9), `Backend.VNI` removed (1)",
    );
    check(
        r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48","Backend":{"Type":"host-gw"}}"#,
        "`IPv6Network` added (fd00::/48), `Backend.Type` from vxlan to host-gw",
    );
}

#[test]
fn config_with_only_a_network_gets_defaults() {
    let config = parse(r#"{"Network":"10.244.0.0/16"}"#).unwrap();
    let backend = BackendConfig { kind: "vxlan".into(), json: r#"{"Type":"vxlan"}"#.into() };
    assert_eq!(
        config,
        NetworkConfig {
            networks: PerFamily {
                v4: Some(overlay("10.244.0.0/16", 24, "10.244.1.0", "10.244.255.0")),
                v6: None,
            },
            nftables: false,
            backend,
        }
    );
}

#[test]
fn config_check_reports_all_errors() {
    let config = r#"{"EnableIPv4":1,"Network":"10.244.0.0/16","SubnetLen":99,"EnableIPv6":true,
            "IPv6Network":"fd00::/48","IPv6SubnetMin":"fd01::","IPv6SubnetMax":7,
            "EnableNFTables":"no","Backend":{"Port":1}}"#;
    let errors = NetworkConfig::parse(config.as_bytes()).unwrap_err();
    let errors: Vec<_> = errors.into_iter().map(|error| error.to_string()).collect();
    let keys = [
        "EnableIPv4",
        "SubnetLen",
        "IPv6SubnetMin",
        "IPv6SubnetMax",
        "EnableNFTables",
        "Backend.Type",
    ];
    assert_eq!(errors.len(), keys.len(), "{errors:#?}");
    for (error, key) in errors.iter().zip(keys) {
        assert!(error.starts_with(&format!("`{key}` is ")), "{key}: {error}");
    }
}

fn errors(text: &str) -> Vec<String> {
    let errors = NetworkConfig::parse(text.as_bytes()).err().into_iter().flatten();
    errors.map(|error| error.to_string()).collect()
}

fn warnings(text: &str) -> Vec<String> {
    let warnings = NetworkConfig::warnings(text.as_bytes());
    warnings.iter().map(ToString::to_string).collect()
}

/// Configs, and what each error about them begins with.
const BROKEN: [(&str, &[&str]); 20] = [
    (
        r#"{"Network":"127.0.0.0/8","SubnetMin":"10.1.1.1","SubnetLen":33}"#,
        &[
            "`Network` is 127.0.0.0/8: lies in 127.0.0.0/8 (loopback)",
            "`SubnetLen` is 33: must be 10 to 30",
            "`SubnetMin` is 10.1.1.1: must lie in `Network` 127.0.0.0/8, and must be the first",
        ],
    ),
    (r#"{"Network":"224.1.0.0/16"}"#, &["`Network` is 224.1.0.0/16: lies in 224.0.0.0/4"]),
    (
        r#"{"Network":"127.0.0.0/29"}"#,
        &["`Network` is 127.0.0.0/29: too small", "`Network` is 127.0.0.0/29: lies in"],
    ),
    (
        r#"{"EnableIPv6":true,"IPv6Network":"fe80::/64","Network":"10.1.0.0/16"}"#,
        &["`IPv6Network` is fe80::/64: lies in fe80::/10 (link-local"],
    ),
    (
        r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"ff02::/64"}"#,
        &["`IPv6Network` is ff02::/64: lies in ff00::/8 (multicast)"],
    ),
    (
        r#"{"SubnetLen":31,"SubnetMin":"10.1.0.1","SubnetMax":"x"}"#,
        &[
            "`Network` is missing",
            "`SubnetLen` is 31: must be 2 to 30",
            "`SubnetMin` is 10.1.0.1: must be the first address of a subnet",
            "`SubnetMax` is \"x\"",
        ],
    ),
    (
        r#"{"Network":"x","SubnetLen":20,"SubnetMin":"10.1.8.0","SubnetMax":"10.1.0.0"}"#,
        &["`Network` is \"x\"", "`SubnetMin` is 10.1.8.0: must be the first address of a /20"],
    ),
    (
        r#"{"Network":"x","SubnetMin":"10.1.8.0","SubnetMax":"10.1.0.0"}"#,
        &[
            "`Network` is \"x\"",
            "`SubnetMin` is 10.1.8.0: must not come after `SubnetMax` 10.1.0.0",
        ],
    ),
    (
        r#"{"Network":"10.1.0.0/16","SubnetLen":true,"SubnetMin":"10.2.0.2"}"#,
        &["`SubnetLen` is true", "`SubnetMin` is 10.2.0.2: must lie in `Network` 10.1.0.0/16, and"],
    ),
    (
        r#"{"Network":"10.1.0.0/16","SubnetMax":"10.1.0.0"}"#,
        &["`SubnetMax` is 10.1.0.0: must not come before the first subnet, 10.1.1.0"],
    ),
    (
        r#"{"Network":"10.1.0.0/16","SubnetMin":"10.2.0.0","SubnetMax":"10.0.0.0"}"#,
        &["`SubnetMin` is 10.2.0.0: must lie in", "`SubnetMax` is 10.0.0.0: must lie in"],
    ),
    (
        r#"{"Network":"10.1.0.0/30","SubnetLen":31}"#,
        &["`Network` is 10.1.0.0/30: too small", "`SubnetLen` is 31: must be 2 to 30"],
    ),
    (
        r#"{"EnableIPv4":"no","EnableIPv6":1}"#,
        &["`EnableIPv4` is \"no\"", "`EnableIPv6` is 1", "`IPv6Network` is missing"],
    ),
    (
        r#"{"EnableIPv4":"yes","EnableIPv6":0}"#,
        &["`EnableIPv4` is \"yes\"", "`EnableIPv6` is 0", "`Network` is missing"],
    ),
    (r#"{"EnableIPv4":"no","EnableNFTables":"x"}"#, &["`EnableIPv4` is", "`EnableNFTables` is"]),
    (
        r#"{"Network":"10.1.0.0/16","EnableIPv6":true,"Backend":{"Type":7}}"#,
        &["`IPv6Network` is missing", "`Backend.Type` is 7"],
    ),
    (
        r#"{"Network":1,"SubnetLen":"","SubnetMin":2,"SubnetMax":[],"Backend":[]}"#,
        &[
            "`Network` is 1",
            "`SubnetLen` is",
            "`SubnetMin` is 2",
            "`SubnetMax` is []",
            "`Backend` is []",
        ],
    ),
    (
        r#"{"Network":"10.1.0.0/16","network":"10.2.0.0/16","SubnetLen":99,"Backend":{}}"#,
        &[
            "`network` is given more than once",
            "`SubnetLen` is 99: must be 2 to 30",
            "`Backend.Type` is missing",
        ],
    ),
    (
        r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48","IPv6SubnetLen":48,
            "IPv6SubnetMin":"fd01::","IPv6SubnetMax":"fd00::1"}"#,
        &[
            "`IPv6SubnetLen` is 48: must be 50 to 126",
            "`IPv6SubnetMin` is fd01::: must lie in `IPv6Network` fd00::/48",
            "`IPv6SubnetMax` is fd00::1: must be the first address of a subnet",
        ],
    ),
    (
        r#"{"Network":"10.1.0.0/16","SubnetMin":"fd00::","SubnetMax":"10.1.0.0/24"}"#,
        &["`SubnetMin` is \"fd00::\"", "`SubnetMax` is \"10.1.0.0/24\""],
    ),
];

#[test]
fn twenty_broken_configs_have_all_their_errors_and_no_other() {
    for (config, expected) in BROKEN {
        let found = errors(config);
        assert_eq!(found.len(), expected.len(), "{config}: {found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{config}: {found} instead of {expected}");
        }
    }
}

#[test]
fn unknown_keys_have_a_warning_and_a_suggestion() {
    let config = r#"{"network":"10.244.0.0/16","Subnetlen":24,"SubnetLength":24,"vni":1,"BACKEND":{"Type":"x"}}"#;
    assert_eq!(
        warnings(config),
        [
            "`SubnetLength` is not a known key; ignored (did you mean `SubnetLen`?)",
            "`vni` is not a known key; ignored"
        ]
    );
    assert!(warnings("[").is_empty() && warnings("[1]").is_empty());
}

#[test]
fn unknown_backend_keys_have_a_warning() {
    let config =
        parse(r#"{"Network":"10.244.0.0/16","Backend":{"type":"udp","Prot":1,"PORT":2,"mtu":3}}"#);
    let warnings = config.unwrap().backend.unknown_keys(&["Port".to_owned()]);
    let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "`Backend.Prot` is not a known key of udp; ignored (did you mean `Port`?)",
            "`Backend.mtu` is not a known key of udp; ignored"
        ]
    );
}

#[test]
fn network_with_an_error_has_no_warning_besides() {
    for network in ["127.0.0.0/8", "224.1.0.0/16"] {
        let config = format!(r#"{{"Network":"{network}"}}"#);
        assert_eq!(errors(&config).len(), 1, "{config}");
        assert_eq!(warnings(&config), [""; 0], "{config}");
    }
}

#[test]
fn unwise_networks_are_used_with_a_warning() {
    for (config, expected) in [
        (r#""Network":"10.244.0.0/16""#, &[][..]),
        (r#""Network":"10.244.3.7/16""#, &["`Network` is 10.244.3.7/16, which has bits"]),
        (r#""Network":"169.254.0.0/16""#, &["`Network` is 169.254.0.0/16, and nodes may get"]),
        (
            r#""Network":"0.0.0.0/0""#,
            &["`Network` is 0.0.0.0/0, and nodes may get subnets in 127."],
        ),
        (r#""Network":"0.0.0.0/0","SubnetMin":"10.0.0.0","SubnetMax":"10.9.0.0""#, &[]),
        (r#""Network":"240.1.0.0/16""#, &["`Network` is 240.1.0.0/16, and nodes may get"]),
        (
            r#""Network":"10.1.0.0/16","IPv6Network":"x","IPv6SubnetLen":64"#,
            &["`IPv6Network`, `IPv6SubnetLen` have no effect, because `EnableIPv6` is not true"],
        ),
        (
            r#""EnableIPv4":false,"Network":"10.1.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::1/48""#,
            &[
                "`Network` has no effect, because `EnableIPv4` is",
                "`IPv6Network` is fd00::1/48, which",
            ],
        ),
        (
            r#""Network":"10.1.0.0/16","EnableIPv6":true,"IPv6Network":"::/0""#,
            &["`IPv6Network` is ::/0"],
        ),
    ] {
        let config = format!("{{{config}}}");
        assert_eq!(errors(&config), [""; 0], "{config}");
        let found = warnings(&config);
        assert_eq!(found.len(), expected.len(), "{config}: {found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{config}: {found}");
        }
    }
}

#[test]
fn backend_type_is_in_lower_case_as_in_flannel() {
    let config = parse(r#"{"Network":"10.1.0.0/16","Backend":{"type":"VXLAN","VNI":1}}"#).unwrap();
    assert_eq!(config.backend.kind, "vxlan");
    assert_eq!(config.backend.json, r#"{"VNI":1,"type":"vxlan"}"#);
    let other = r#"{"Network":"10.1.0.0/16","Backend":{"type":"vxlan","VNI":1}}"#;
    assert_eq!(config.superseded_by(Some(other.as_bytes())), None);
}

#[test]
fn capacity_counts_subnets_and_addresses() {
    for (config, expected) in [
        (r#""Network":"10.244.0.0/16""#, "255 subnets of 254 addresses"),
        (r#""Network":"10.244.0.0/16","SubnetMin":"10.244.0.0""#, "256 subnets of 254 addresses"),
        (r#""Network":"10.0.0.0/8""#, "65,535 subnets of 254 addresses"),
        (r#""Network":"10.1.0.16/28""#, "3 subnets of 2 addresses"),
        (
            r#""Network":"10.1.0.0/16","SubnetMin":"10.1.9.0","SubnetMax":"10.1.9.0""#,
            "1 subnet of 254 addresses",
        ),
        (
            r#""EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48""#,
            "65,535 subnets of 2^64 addresses",
        ),
        (
            r#""EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"::/0","IPv6SubnetLen":126"#,
            "2^126 subnets of 3 addresses",
        ),
    ] {
        let config = parse(&format!("{{{config}}}")).unwrap();
        assert_eq!(config.networks.first().unwrap().capacity().to_string(), expected, "{config:?}");
    }
}

#[test]
fn small_networks_have_four_subnets() {
    assert_eq!(v4(r#"{"Network":"10.1.0.0/22"}"#).subnet_length, 24);
    assert_eq!(
        v4(r#"{"Network":"10.1.0.0/23"}"#),
        overlay("10.1.0.0/23", 25, "10.1.0.128", "10.1.1.128")
    );
    assert_eq!(
        v4(r#"{"Network":"10.1.0.16/28"}"#),
        overlay("10.1.0.16/28", 30, "10.1.0.20", "10.1.0.28")
    );
}

#[test]
fn largest_networks_are_accepted() {
    let config = parse(
        r#"{"Network":"0.0.0.0/0","EnableIPv6":true,"IPv6Network":"::/0","IPv6SubnetLen":126}"#,
    )
    .unwrap();
    let (v4, v6) = (config.networks.v4.unwrap(), config.networks.v6.unwrap());
    assert_eq!(v4, overlay("0.0.0.0/0", 24, "0.0.1.0", "255.255.255.0"));
    assert_eq!(v6.subnet_max.to_string(), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc");
}

#[test]
fn ipv6_network_follows_ipv4_rules() {
    let config =
        parse(r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"2001:cafe:42::/56"}"#)
            .unwrap();
    assert_eq!(
        config.networks.into_iter().collect::<Vec<_>>(),
        [overlay("2001:cafe:42::/56", 64, "2001:cafe:42:1::", "2001:cafe:42:ff::")]
    );
    assert_eq!(
        parse(r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/63"}"#)
            .unwrap()
            .networks
            .v6
            .unwrap()
            .subnet_length,
        65
    );
}

#[test]
fn dual_stack_lists_ipv4_first() {
    let config =
        parse(r#"{"EnableIPv6":true,"IPv6Network":"fd00::/48","Network":"10.244.0.0/16"}"#)
            .unwrap();
    let families: Vec<_> = config.networks.iter().map(InFamily::family).collect();
    assert_eq!(families, [Family::V4, Family::V6]);
}

#[test]
fn keys_ignore_case_and_unknown_keys_are_skipped() {
    let config = parse(
        r#"{"network":"10.244.0.0/16","SUBNETLEN":25,"enableNfTables":true,"backend":{"type":"host-gw","x":1},"Future":{}}"#,
    )
    .unwrap();
    assert_eq!(config.networks.v4.unwrap().subnet_length, 25);
    assert!(config.nftables);
    assert_eq!(config.backend.kind, "host-gw");
    assert_eq!(config.backend.json, r#"{"type":"host-gw","x":1}"#);
}

#[test]
fn network_host_bits_are_truncated() {
    assert_eq!(v4(r#"{"Network":"10.244.3.4/16"}"#).network, "10.244.0.0/16".parse().unwrap());
}

#[test]
fn subnets_fit_by_length_and_range() {
    let overlay =
        v4(r#"{"Network":"10.244.0.0/16","SubnetMin":"10.244.8.0","SubnetMax":"10.244.9.0"}"#);
    let fits = |subnet: &str| overlay.fits(subnet.parse().unwrap());
    assert!(fits("10.244.8.0/24") && fits("10.244.9.0/24"));
    assert!(!fits("10.244.7.0/24") && !fits("10.244.10.0/24"));
    assert!(!fits("10.244.8.0/25") && !fits("10.1.8.0/24") && !fits("fd00::/24"));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of configs and errors")]
fn errors_name_the_key_and_the_rule() {
    for (members, message) in [
        (
            "",
            "`Network` is missing: expected the overlay's IPv4 network, such as 10.244.0.0/16, or `EnableIPv4` false",
        ),
        (
            r#""Network":"10.244.0.0""#,
            "`Network` is \"10.244.0.0\": expected an IPv4 network as text, such as \"10.244.0.0/16\"",
        ),
        (
            r#""Network":"10.244.0.0/29""#,
            "`Network` is 10.244.0.0/29: too small to be split: expected /28 or larger",
        ),
        (
            r#""Network":"10.244.0.0/16","SubnetLen":17"#,
            "`SubnetLen` is 17: must be 18 to 30 for `Network` 10.244.0.0/16",
        ),
        (
            r#""Network":"10.244.0.0/16","SubnetLen":31"#,
            "`SubnetLen` is 31: must be 18 to 30 for `Network` 10.244.0.0/16",
        ),
        (
            r#""Network":"10.244.0.0/16","SubnetLen":"24""#,
            "`SubnetLen` is \"24\": expected a whole number",
        ),
        (
            r#""Network":"10.244.0.0/16","SubnetMin":"10.1.0.0""#,
            "`SubnetMin` is 10.1.0.0: must lie in `Network` 10.244.0.0/16",
        ),
        (
            r#""Network":"10.244.0.0/16","SubnetMax":"10.244.9.1""#,
            "`SubnetMax` is 10.244.9.1: must be the first address of a /24",
        ),
        (
            r#""Network":"10.244.0.0/16","SubnetMin":"10.244.9.0","SubnetMax":"10.244.8.0""#,
            "`SubnetMin` is 10.244.9.0: must not come after `SubnetMax` 10.244.8.0",
        ),
        (
            r#""EnableIPv4":false"#,
            "`EnableIPv4` is false: `EnableIPv4` or `EnableIPv6` must be true",
        ),
        (
            r#""EnableIPv4":false,"EnableIPv6":true"#,
            "`IPv6Network` is missing: expected the overlay's IPv6 network, such as fd00:10:244::/48, or `EnableIPv6` false",
        ),
        (
            r#""EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/125""#,
            "`IPv6Network` is fd00::/125: too small to be split: expected /124 or larger",
        ),
        (
            r#""EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/64","IPv6SubnetLen":127"#,
            "`IPv6SubnetLen` is 127: must be 66 to 126 for `IPv6Network` fd00::/64",
        ),
        (
            r#""EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48","IPv6SubnetMin":"fe00::""#,
            "`IPv6SubnetMin` is fe00::: must lie in `IPv6Network` fd00::/48",
        ),
        (
            r#""Network":"10.244.0.0/16","network":"10.0.0.0/8""#,
            "`network` is given more than once (keys are matched without regard to case)",
        ),
        (
            r#""Network":"10.244.0.0/16","EnableIPv6":"no""#,
            "`EnableIPv6` is \"no\": expected true or false",
        ),
        (
            r#""Network":"10.244.0.0/16","Backend":"vxlan""#,
            "`Backend` is \"vxlan\": expected an object with a `Type`",
        ),
        (
            r#""Network":"10.244.0.0/16","Backend":{}"#,
            "`Backend.Type` is missing: expected the name of a backend, such as vxlan",
        ),
        (
            r#""Network":"10.244.0.0/16","Backend":{"Type":1}"#,
            "`Backend.Type` is 1: expected the name of a backend",
        ),
    ] {
        assert_eq!(error(members), message, "{members}");
    }
}

#[test]
fn config_not_an_object_is_rejected() {
    assert_eq!(parse("[]").unwrap_err().to_string(), "not a JSON object: found a list");
    assert!(parse("{").unwrap_err().to_string().starts_with("not a JSON object: EOF"));
}
