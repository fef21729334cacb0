//! Parsing of the flags as a whole.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use regex::Regex;

use super::*;

mod compatibility;

/// Parses arguments separated by spaces; `""` is an empty one.
fn read(arguments: &str, environment: &[(&str, &str)]) -> Result<Flags, String> {
    let words = arguments.split_whitespace().map(|word| if word == "\"\"" { "" } else { word });
    let arguments = std::iter::once("heddled").chain(words);
    let variable = |name: &str| {
        let found = environment.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let file = |path: &Path| match path.to_str() {
        Some("/etc/default/heddled") => Ok(FILE.to_owned()),
        Some("/etc/default/bad") => Ok("FLANNELD_V=x".to_owned()),
        Some("/etc/default/shell") => Ok("export FLANNELD_V=5\n".to_owned()),
        Some("/etc/default/wrong") => Ok("\nFLANNELD_ETCD_PREFX=/x\n".to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    Flags::read(arguments.map(OsString::from), variable, file).map_err(|error| error.to_string())
}

const FILE: &str = "# all of it\nFLANNELD_ETCD_PREFIX=/file\nFLANNELD_IFACE=eth7\nFLANNELD_V=\"9\"\n\
                    FLANNELD_PUBLIC_IP=\nGOMAXPROCS=1\nFLANNELD_EMIT=\"subnet-env docker-opts:key=X\"\n";

#[test]
fn environment_file_ranks_between_arguments_and_environment() {
    let environment = [
        ("FLANNELD_ETCD_PREFIX", "/env"),
        ("FLANNELD_PUBLIC_IP", "192.0.2.1"),
        ("FLANNELD_IP_MASQ", "true"),
        ("FLANNELD_ENVIRONMENT_FILE", "/etc/default/heddled"),
    ];
    for arguments in ["--v=3", "--v=3 --environment-file=-/etc/default/heddled"] {
        let flags = read(arguments, &environment).unwrap();
        assert_eq!(flags.lease.etcd_prefix, "/file");
        assert_eq!(flags.interface.iface, ["eth7"]);
        assert_eq!(flags.interface.public_ip, None);
        assert_eq!((flags.health.verbosity, flags.rules.ip_masq), (3, true));
        let emitters: Vec<_> = flags.files.emit.iter().map(Emit::to_string).collect();
        assert_eq!(emitters, ["subnet-env", "docker-opts:key=X"]);
    }
    assert_eq!(read("--environment-file=", &environment).unwrap().lease.etcd_prefix, "/env");
}

#[test]
fn emitters_given_replace_the_default() {
    let emitters = |arguments: &str, environment: &[(&str, &str)]| -> Vec<String> {
        read(arguments, environment).unwrap().files.emit.iter().map(Emit::to_string).collect()
    };
    assert_eq!(emitters("", &[]), ["subnet-env"]);
    assert_eq!(emitters("", &[("FLANNELD_EMIT", " ")]), ["subnet-env"]);
    assert_eq!(emitters("--emit a --emit=b:c=d", &[("FLANNELD_EMIT", "x")]), ["a", "b:c=d"]);
    assert_eq!(emitters("", &[("FLANNELD_EMIT", "a  b")]), ["a", "b"]);
}

#[test]
fn subnet_env_path_follows_the_emitter_setting() {
    for (arguments, expected) in [
        ("", "/run/flannel/subnet.env"),
        ("--subnet-file=/run/a", "/run/a"),
        ("--subnet-file=/run/a --emit=docker-opts:path=/run/b", "/run/a"),
        ("--subnet-file=/run/a --emit=subnet-env:path=/run/c", "/run/c"),
    ] {
        let files = read(arguments, &[]).unwrap().files;
        assert_eq!(files.subnet_env(), Path::new(expected));
        let asked = "subnet-env".parse().unwrap();
        let path = ("path".to_owned(), files.subnet_file.display().to_string());
        assert_eq!(files.settings(&asked), [path]);
        assert!(files.emit.iter().all(
            |asked| asked.setting("path").is_none() || files.settings(asked) == asked.settings
        ));
    }
}

#[test]
fn unusable_environment_file_is_named() {
    for (file, expected) in [
        ("/missing", "--environment-file: cannot read /missing"),
        ("/etc/default/wrong", "/etc/default/wrong, line 2: FLANNELD_ETCD_PREFX is no flag's"),
        ("/etc/default/shell", "/etc/default/shell, line 1: export FLANNELD_V is no flag's"),
        ("/etc/default/bad", "--v <LEVEL> (from FLANNELD_V in /etc/default/bad)"),
    ] {
        let error = read(&format!("--environment-file {file}"), &[]).unwrap_err();
        assert!(error.contains(expected), "{file}: {error}");
    }
    assert!(read("--environment-file=-/missing", &[]).is_ok());
}

#[test]
fn defaults_match_flannel() {
    let flags = read("", &[]).unwrap();
    assert_eq!(flags.lease.etcd_endpoints, ["http://127.0.0.1:4001", "http://127.0.0.1:2379"]);
    assert_eq!(flags.lease.etcd_prefix, "/coreos.com/network");
    assert_eq!(flags.lease.renew_margin(), Duration::from_secs(3600));
    assert_eq!(flags.files.subnet_file.to_str(), Some("/run/flannel/subnet.env"));
    assert_eq!((flags.health.healthz_port, flags.rules.iptables_resync), (0, 5));
    assert!(flags.rules.iptables_forward_rules && !flags.rules.ip_masq);
    assert!(!flags.rules.ip_masq_fully_random_disable && !flags.rules.ip_blackhole_route);
}

#[test]
fn status_address_defaults_to_loopback() {
    let read = |arguments: &str| read(arguments, &[]).map(|flags| flags.health.status_address);
    assert_eq!(read(""), Ok(None));
    assert_eq!(read("--status-address="), Ok(None));
    for (given, expected) in
        [("9981", "127.0.0.1:9981"), ("0.0.0.0:9981", "0.0.0.0:9981"), ("[::1]:9981", "[::1]:9981")]
    {
        let found = read(&format!("--status-address={given}")).unwrap();
        assert_eq!(found, Some(expected.parse().unwrap()), "{given}");
    }
    for given in ["0", "127.0.0.1:0", "127.0.0.1", "localhost:9981", "99999", "::1:x"] {
        let error = read(&format!("--status-address={given}")).unwrap_err();
        assert!(error.contains("192.0.2.1:9981"), "{given}: {error}");
    }
}

#[test]
fn allowed_destinations_are_networks_or_addresses() {
    let read = |arguments: &str, environment: &[_]| {
        read(arguments, environment).map(|flags| flags.rules.allow_destinations)
    };
    let networks =
        |texts: &[&str]| -> Vec<IpNet> { texts.iter().map(|text| text.parse().unwrap()).collect() };
    assert_eq!(read("", &[]).unwrap(), []);
    let variable = [("FLANNELD_ALLOW_DESTINATIONS", "192.0.2.0/24,2001:db8::1")];
    assert_eq!(read("", &variable).unwrap(), networks(&["192.0.2.0/24", "2001:db8::1/128"]));
    let given = read("-allow-destinations=0.0.0.0/0,192.0.2.7", &variable);
    assert_eq!(given.unwrap(), networks(&["0.0.0.0/0", "192.0.2.7/32"]));
    let error = read("--allow-destinations=192.0.2.0/33", &[]).unwrap_err();
    assert!(error.contains("--allow-destinations") && error.contains("a network"), "{error}");
}

#[test]
fn flags_accept_one_or_two_dashes_and_both_value_forms() {
    for arguments in [
        "-etcd-prefix /x -iface eth0 -iface=eth1 -v 5",
        "--etcd-prefix=/x --iface eth0 --iface=eth1 --v=5",
        "-etcd-prefix=/x --iface=eth0 -iface eth1 -v=5",
    ] {
        let flags = read(arguments, &[]).unwrap();
        assert_eq!(flags.lease.etcd_prefix, "/x");
        assert_eq!(flags.interface.iface, ["eth0", "eth1"]);
        assert_eq!(flags.health.verbosity, 5);
    }
}

#[test]
fn booleans_are_bare_or_follow_an_equals_sign() {
    for (argument, value) in
        [("--ip-masq", true), ("-ip-masq=true", true), ("--ip-masq=0", false), ("", false)]
    {
        assert_eq!(read(argument, &[]).unwrap().rules.ip_masq, value, "{argument}");
    }
    assert!(!read("--iptables-forward-rules=false", &[]).unwrap().rules.iptables_forward_rules);
}

#[test]
fn last_value_wins_unless_the_flag_is_a_list() {
    let flags = read(
        "--ip-masq -v=2 --etcd-endpoints=http://a:1,http://b:1 --iface=eth1 --iface-regex=^a --plugin-dir=/a \
         --ip-masq=false --v 5 --etcd-endpoints http://c:1,http://d:1 --iface eth0 --iface-regex ^b --plugin-dir /b",
        &[],
    )
    .unwrap();
    assert!(!flags.rules.ip_masq);
    assert_eq!(flags.health.verbosity, 5);
    assert_eq!(flags.lease.etcd_endpoints, ["http://c:1", "http://d:1"]);
    assert_eq!(flags.interface.iface, ["eth1", "eth0"]);
    let patterns: Vec<_> = flags.interface.iface_regex.iter().map(Regex::as_str).collect();
    assert_eq!(patterns, ["^a", "^b"]);
    assert_eq!(flags.files.plugin_dir, [PathBuf::from("/a"), PathBuf::from("/b")]);
    assert!(read("--ip-masq -ip-masq", &[]).unwrap().rules.ip_masq);
}

#[test]
fn empty_value_stands_for_the_default() {
    let default = format!("{:?}", read("", &[]).unwrap());
    for arguments in [
        "--iface=",
        "-iface \"\" -iface-regex=",
        "--iface-can-reach \"\"",
        "--public-ip= --public-ipv6=",
        "--etcd-cafile= --etcd-certfile= --etcd-keyfile= --etcd-username= --etcd-password=",
        "--etcd-endpoints= --etcd-prefix= --subnet-file= --plugin-dir=",
        "--healthz-port= --v= --store= --node-id=",
        "--public-ip=192.0.2.1 --public-ip=",
        "--etcd-endpoints=http://a,http://b --etcd-endpoints \"\"",
    ] {
        assert_eq!(format!("{:?}", read(arguments, &[]).unwrap()), default, "{arguments}");
    }
    let flags = read("--public-ip= --iface=eth1 --iface= --public-ip=192.0.2.1", &[]).unwrap();
    assert_eq!(flags.interface.public_ip, Some(Ipv4Addr::new(192, 0, 2, 1)));
    assert_eq!(flags.interface.iface, ["eth1"]);
}

#[test]
fn public_address_of_no_host_is_refused() {
    for arguments in [
        "--public-ip=127.0.0.1",
        "--public-ip=0.0.0.0",
        "--public-ip=224.0.0.9",
        "--public-ip=192.0.2.300",
        "--public-ipv6=::1",
    ] {
        let refusal = read(arguments, &[]).unwrap_err();
        let (flag, value) = arguments.split_once('=').unwrap();
        assert!(refusal.contains(flag) && refusal.contains(value), "{refusal}");
        assert!(refusal.contains("at which other hosts reach this one"), "{refusal}");
    }
    assert!(read("--public-ip=192.0.2.1 --public-ipv6=2001:db8::1", &[]).is_ok());
}

#[test]
fn public_address_of_the_other_family_names_the_other_flag() {
    for (arguments, expected) in [
        ("--public-ip=fd00::1", "expected an IPv4 address; the flag for IPv6 is --public-ipv6"),
        ("--public-ip=::1", "expected an IPv4 address; the flag for IPv6 is --public-ipv6"),
        ("--public-ipv6=192.0.2.1", "expected an IPv6 address; the flag for IPv4 is --public-ip"),
    ] {
        let refusal = read(arguments, &[]).unwrap_err();
        assert!(refusal.contains(expected), "{refusal}");
    }
}

#[test]
fn empty_value_overrides_the_environment() {
    let environment = [("FLANNELD_PUBLIC_IP", "192.0.2.1"), ("FLANNELD_IFACE", "eth7")];
    let flags = read("--public-ip= --iface \"\"", &environment).unwrap();
    assert_eq!(flags.interface.public_ip, None);
    assert!(flags.interface.iface.is_empty());
}

#[test]
fn value_that_looks_like_a_flag_is_accepted() {
    let flags = read("--etcd-password -iface --etcd-username --x=y", &[]).unwrap();
    assert_eq!(flags.lease.etcd_password.as_deref(), Some("-iface"));
    assert_eq!(flags.lease.etcd_username.as_deref(), Some("--x=y"));
    assert!(flags.interface.iface.is_empty());
}

#[test]
fn environment_supplies_missing_flags() {
    let environment = [
        ("FLANNELD_ETCD_PREFIX", "/env"),
        ("FLANNELD_IP_MASQ", "true"),
        ("FLANNELD_HEALTHZ_PORT", ""),
        ("FLANNELD_IFACE", "eth7"),
        ("FLANNELD_V", "2"),
    ];
    let flags = read("-iface eth0", &environment).unwrap();
    assert_eq!(flags.lease.etcd_prefix, "/env");
    assert_eq!(flags.interface.iface, ["eth0"]);
    assert_eq!((flags.rules.ip_masq, flags.health.healthz_port), (true, 0));
    assert_eq!(flags.health.verbosity, 2);
}

#[test]
fn invalid_value_is_named_with_its_flag_or_variable() {
    for (arguments, environment, expected) in [
        ("--healthz-port 99999", &[][..], "--healthz-port <PORT>"),
        ("--subnet-lease-renew-margin 1440", &[], "--subnet-lease-renew-margin <MINUTES>"),
        ("--public-ip fd00::1", &[], "--public-ip <IP>"),
        ("--iface-regex (", &[], "--iface-regex <REGEX>"),
        ("--ip-masq=maybe", &[], "expected true or false"),
        ("--ip-masq= --ip-masq", &[], "--ip-masq"),
        ("--etcd-prefix", &[], "--etcd-prefix <KEY>"),
        ("-v=2 stray", &[], "stray"),
        ("--store consul", &[], "dir:PATH"),
        ("--nonsense", &[], "--nonsense"),
        (
            "",
            &[("FLANNELD_HEALTHZ_PORT", "x")],
            "(from the environment variable FLANNELD_HEALTHZ_PORT)",
        ),
        ("", &[("FLANNELD_IP_MASQ", "x")], "FLANNELD_IP_MASQ"),
    ] {
        let error = read(arguments, environment).unwrap_err();
        assert!(error.contains(expected), "{arguments}: {error}");
    }
}

#[test]
fn help_and_version_have_a_short_form() {
    for (arguments, expected) in [("-h", "Usage: heddled"), ("-V", "heddled ")] {
        assert!(read(arguments, &[]).unwrap_err().contains(expected), "{arguments}");
    }
}

#[test]
fn flag_declarations_are_consistent() {
    Flags::command().debug_assert();
}
