use super::*;

fn read(key: &str, value: &str) -> Result<Lease, InvalidLease> {
    Lease::from_value(key.parse().unwrap(), value.as_bytes())
}

#[test]
fn lease_key_parsed_displays_as_written() {
    for key in ["10.244.8.0-24", "10.244.8.0-24&fc00:0:0:8::-64", "0.0.0.0-0&2001:cafe:42:8::-64"] {
        assert_eq!(key.parse::<LeaseKey>().unwrap().to_string(), key);
    }
    let v6 = "0.0.0.0-0&fc00::-64".parse::<LeaseKey>().unwrap();
    assert_eq!(v6.subnets(), ["fc00::/64".parse::<IpNet>().unwrap()].into());
}

#[test]
fn lease_key_of_all_ipv4_is_none() {
    let all = "0.0.0.0/0".parse().unwrap();
    assert_eq!(LeaseKey::new([all].into()), None);
    let key = LeaseKey::new([all, "fc00::/64".parse().unwrap()].into()).unwrap();
    assert_eq!(key.to_string().parse(), Ok(key));
}

#[test]
fn malformed_or_noncanonical_keys_are_rejected() {
    for key in [
        "",
        "nonsense",
        "0.0.0.0-0",
        "10.244.8.0",
        "10.244.8.0-33",
        "10.244.8.0-+24",
        "10.244.8.1-24",
        "10.244.8.0-024",
        "10.244.8.0-24&FC00:0:0:8::-64",
        "10.244.8.0-24&fc00:0:0:8:0:0:0:0-64",
        "10.244.8.0-24/x",
        "10.244.8.0-24&",
        "10.244.8.0-24&fc00::1-64",
        "fc00::-64",
    ] {
        assert_eq!(key.parse::<LeaseKey>(), Err(InvalidLeaseKey(key.into())), "{key}");
    }
}

#[test]
fn vxlan_lease_is_written_as_flannel_writes_it() {
    let value = r#"{"PublicIP":"192.168.0.72","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"3a:8b:71:f2:2e:de"}}"#;
    let lease = read("10.244.8.0-24", value).unwrap();
    assert_eq!(lease.to_value(), value);
    assert_eq!(lease.key.to_string(), "10.244.8.0-24");
}

#[test]
fn dual_stack_lease_has_data_per_family() {
    let value = r#"{"PublicIP":"192.168.0.72","PublicIPv6":"fd00::72","BackendType":"vxlan","BackendData":{"VNI":1},"BackendV6Data":{"VNI":2}}"#;
    let lease = read("10.244.8.0-24&fc00:0:0:8::-64", value).unwrap();
    assert_eq!(lease.to_value(), value);
    assert_eq!(lease.families.v6.as_ref().unwrap().backend_data.as_deref(), Some(r#"{"VNI":2}"#));
}

#[test]
fn ipv6_only_lease_writes_unspecified_ipv4_address() {
    let value = r#"{"PublicIP":"0.0.0.0","PublicIPv6":"fd00::72","BackendType":"vxlan","BackendV6Data":{"VNI":1}}"#;
    let lease = read("0.0.0.0-0&fc00::-64", value).unwrap();
    assert_eq!(lease.to_value(), value);
    assert_eq!(lease.families.len(), 1);
}

#[test]
fn lease_of_flannel_0_14_is_parsed() {
    let lease = read(
        "10.1.16.0-21",
        r#"{"PublicIP":"192.168.1.132","BackendType":"vxlan","BackendData":{"VtepMAC":"12:b9:d6:fb:f8:e3"}}"#,
    )
    .unwrap();
    assert_eq!(lease.backend_type.as_deref(), Some("vxlan"));
    assert_eq!(
        lease.families.v4.unwrap().backend_data.as_deref(),
        Some(r#"{"VtepMAC":"12:b9:d6:fb:f8:e3"}"#)
    );
}

#[test]
fn udp_lease_has_no_backend_type() {
    let value = r#"{"PublicIP":"192.168.0.72","PublicIPv6":null}"#;
    let lease = read("10.244.8.0-24", value).unwrap();
    assert_eq!(lease.backend_type, None);
    assert_eq!(lease.to_value(), value);
}

#[test]
fn family_without_address_keeps_the_key_unchanged() {
    let lease = read("10.244.8.0-24&fc00::-64", r#"{"PublicIP":"1.2.3.4"}"#).unwrap();
    assert_eq!(
        (lease.key.to_string().as_str(), lease.families.len()),
        ("10.244.8.0-24&fc00::-64", 1)
    );
}

#[test]
fn node_name_with_newline_cannot_forge_a_log_line() {
    let value = r#"{"PublicIP":"1.2.3.4","NodeName":"x\n<3>y"}"#;
    assert_eq!(read("10.244.8.0-24", value).unwrap().owner(), "x <3>y at 1.2.3.4");
}

#[test]
fn field_names_ignore_case_and_unknown_fields_are_skipped() {
    let lease = read("10.244.8.0-24", r#"{"publicip":"192.168.0.72","Future":{"a":[1]}}"#).unwrap();
    assert_eq!(lease.families.v4.unwrap().public_address.to_string(), "192.168.0.72");
}

#[test]
fn invalid_field_is_named_in_the_error() {
    assert_eq!(
        read("10.244.8.0-24", r#"{"PublicIP":"192.168.0.720"}"#).unwrap_err().to_string(),
        "`PublicIP` is \"192.168.0.720\": expected an IPv4 address as text"
    );
    assert_eq!(
        read("10.244.8.0-24", r#"{"PublicIP":"1.2.3.4","BackendType":7}"#).unwrap_err().to_string(),
        "`BackendType` is 7: expected a text"
    );
    for (field, address) in [
        ("PublicIP", "127.0.0.1"),
        ("PublicIP", "224.0.0.9"),
        ("PublicIP", "255.255.255.255"),
        ("PublicIPv6", "::1"),
        ("PublicIPv6", "ff02::1"),
        ("PublicIPv6", "::ffff:127.0.0.1"),
    ] {
        let value = format!(r#"{{"{field}":"{address}"}}"#);
        let found = read("10.244.8.0-24&fc00::-64", &value).unwrap_err().to_string();
        assert!(found.starts_with(&format!("`{field}` is {address}, which is a ")), "{found}");
    }
    assert!(matches!(read("10.244.8.0-24", "[1]"), Err(InvalidLease::NotAnObject(_))));
    assert_eq!(read("10.244.8.0-24", "{}"), Err(InvalidLease::NoAddress("PublicIP")));
    assert_eq!(
        read("0.0.0.0-0&fc00::-64", r#"{"PublicIP":"1.2.3.4"}"#),
        Err(InvalidLease::NoAddress("PublicIPv6"))
    );
}

#[test]
fn value_beyond_limit_is_rejected_unparsed() {
    let value = |length: usize| {
        let head = r#"{"PublicIP":"1.2.3.4","Future":""#;
        format!("{head}{}\"}}", "x".repeat(length - head.len() - 2))
    };
    assert_eq!(value(VALUE_LIMIT).len(), VALUE_LIMIT);
    assert!(read("10.244.8.0-24", &value(VALUE_LIMIT)).is_ok());
    let error = read("10.244.8.0-24", &value(VALUE_LIMIT + 1)).unwrap_err();
    assert_eq!(error, InvalidLease::Unread(Unread::TooLong(65_537)));
    assert_eq!(
        error.to_string(),
        "its value is too long: 65537 bytes or more, and the limit is 65536"
    );
}

#[test]
fn field_beyond_limit_is_rejected_by_name() {
    let field = |name: &str, length: usize| {
        let text = "x".repeat(length);
        let value = format!(r#"{{"PublicIP":"1.2.3.4","PublicIPv6":"fd00::1","{name}":"{text}"}}"#);
        read("10.244.8.0-24&fc00::-64", &value)
    };
    for (name, longest, limit) in [
        ("BackendType", BACKEND_TYPE_LIMIT, BACKEND_TYPE_LIMIT),
        // The length includes the quotes.
        ("BackendData", BACKEND_DATA_LIMIT - 2, BACKEND_DATA_LIMIT),
        ("BackendV6Data", BACKEND_DATA_LIMIT - 2, BACKEND_DATA_LIMIT),
    ] {
        assert!(field(name, longest).is_ok(), "{name}");
        assert_eq!(
            field(name, longest + 1).unwrap_err().to_string(),
            format!("`{name}` is too long: {} bytes, and the limit is {limit}", limit + 1)
        );
    }
    assert!(matches!(field("NodeID", 65), Err(InvalidLease::Field { field: "NodeID", .. })));
}

#[test]
fn node_name_beyond_limit_is_cut_and_lease_kept() {
    for (length, cut) in [(NODE_NAME_LIMIT, false), (NODE_NAME_LIMIT + 1, true), (60_000, true)] {
        let name = "ü".repeat(length);
        let value =
            format!(r#"{{"PublicIP":"1.2.3.4","NodeName":"{}"}}"#, &name[..length.min(30_000) * 2]);
        let lease = read("10.244.8.0-24", &value).unwrap();
        assert_eq!(lease.is_name_cut(), cut, "{length}");
        assert!(lease.node_name.as_ref().unwrap().chars().count() <= NODE_NAME_LIMIT);
        assert_eq!(read("10.244.8.0-24", &lease.to_value()), Ok(lease));
    }
}

#[test]
fn error_about_foreign_text_is_short() {
    let error = read("10.244.8.0-24", &format!("\"{}\"", "x".repeat(60_000))).unwrap_err();
    assert!(error.to_string().len() < 300, "{error}");
}

#[test]
fn ipv6_data_without_an_ipv6_subnet_is_ignored() {
    let lease = read(
        "10.244.8.0-24",
        r#"{"PublicIP":"1.2.3.4","PublicIPv6":"fd00::1","BackendV6Data":{}}"#,
    )
    .unwrap();
    assert_eq!(lease.families.len(), 1);
}
