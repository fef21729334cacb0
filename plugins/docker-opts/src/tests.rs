use super::*;

const V4: (&str, &str) = ("10.244.0.0/16", "10.244.8.0/24");
const V6: (&str, &str) = ("2001:cafe:42::/56", "2001:cafe:42:8::/64");

fn view(families: &[(&str, &str)]) -> View {
    let network = |(network, subnet): &(&str, &str)| OverlayNetwork {
        network: network.parse().unwrap(),
        subnet_length: subnet.parse::<IpNet>().unwrap().prefix_len(),
    };
    let part = |(_, subnet): &(&str, &str)| LeaseFamily {
        subnet: subnet.parse().unwrap(),
        public_address: "192.168.0.72".parse().unwrap(),
        backend_data: None,
    };
    View {
        config: NetworkConfig {
            networks: families.iter().map(network).collect(),
            backend: "{}".into(),
        },
        lease: Lease { families: families.iter().map(part).collect(), backend_type: None },
        mtu: 1450,
        ip_masq: true,
    }
}

/// Parses settings in the syntax of `--emit`, and returns the emitted file.
fn emit(families: &[(&str, &str)], settings: &str) -> Result<File, String> {
    let settings: Vec<_> = settings
        .split_terminator(',')
        .map(|setting| setting.split_once('=').unwrap())
        .map(|(name, value)| Setting { name: name.into(), value: value.into() })
        .collect();
    DockerOpts::emit(&view(families), &settings).map(|mut files| {
        assert_eq!(files.len(), 1);
        files.remove(0)
    })
}

fn text(families: &[(&str, &str)], settings: &str) -> String {
    String::from_utf8(emit(families, settings).unwrap().contents).unwrap()
}

#[test]
fn every_option_is_in_its_own_and_the_combined_variable() {
    let file = emit(&[V4], "").unwrap();
    assert_eq!((file.path.as_str(), file.mode), ("/run/flannel/docker.env", 0o644));
    assert_eq!(
        String::from_utf8(file.contents).unwrap(),
        "DOCKER_OPT_BIP=\"--bip=10.244.8.1/24\"\n\
         DOCKER_OPT_IPMASQ=\"--ip-masq=false\"\n\
         DOCKER_OPT_MTU=\"--mtu=1450\"\n\
         DOCKER_OPTS=\" --bip=10.244.8.1/24 --ip-masq=false --mtu=1450\"\n"
    );
}

#[test]
fn lines_key_and_path_are_configurable() {
    assert_eq!(emit(&[V4], "path=/etc/docker.env").unwrap().path, "/etc/docker.env");
    let individual = "DOCKER_OPT_BIP=\"--bip=10.244.8.1/24\"\nDOCKER_OPT_MTU=\"--mtu=1450\"\n";
    assert_eq!(text(&[V4], "individual=true,ip-masq=false"), individual);
    let combined = "DOCKER_NETWORK_OPTIONS=\" --bip=10.244.8.1/24 --mtu=1450\"\n";
    let settings = "combined=true,ip-masq=false,key=DOCKER_NETWORK_OPTIONS";
    assert_eq!(text(&[V4], settings), combined);
    let all = text(&[V4], "");
    for settings in ["individual=true,combined=true", "individual=false,combined=false"] {
        assert_eq!(text(&[V4], settings), all);
    }
}

#[test]
fn file_may_include_subnet_env() {
    assert_eq!(
        text(&[V4], "subnet-env=true,combined=true,ip-masq=false"),
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.8.1/24\n\
         FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n\
         DOCKER_OPTS=\" --bip=10.244.8.1/24 --mtu=1450\"\n"
    );
}

#[test]
fn ipv6_is_enabled_if_overlay_has_it() {
    assert_eq!(
        text(&[V4, V6], ""),
        "DOCKER_OPT_BIP=\"--bip=10.244.8.1/24\"\n\
         DOCKER_OPT_FIXED_CIDR_V6=\"--fixed-cidr-v6=2001:cafe:42:8::/64\"\n\
         DOCKER_OPT_IPMASQ=\"--ip-masq=false\"\n\
         DOCKER_OPT_IPV6=\"--ipv6\"\n\
         DOCKER_OPT_MTU=\"--mtu=1450\"\n\
         DOCKER_OPTS=\" --bip=10.244.8.1/24 --fixed-cidr-v6=2001:cafe:42:8::/64 --ip-masq=false --ipv6 --mtu=1450\"\n"
    );
    assert_eq!(
        text(&[V6], "combined=true"),
        "DOCKER_OPTS=\" --fixed-cidr-v6=2001:cafe:42:8::/64 --ip-masq=false --ipv6 --mtu=1450\"\n"
    );
}

#[test]
fn bad_setting_is_reported() {
    for (settings, expected) in [
        (
            "pth=/x",
            "setting `pth` is unknown: expected `path`, `key`, `individual`, `combined`, `ip-masq`, `subnet-env`",
        ),
        ("ip-masq=no", "setting `ip-masq` is \"no\": expected true or false"),
        ("subnet-env=", "setting `subnet-env` is \"\": expected true or false"),
        (
            "key=A-B",
            "setting `key` is \"A-B\": expected the name of a variable: letters, digits and `_`, no digit first",
        ),
    ] {
        assert_eq!(emit(&[V4], settings).unwrap_err(), expected);
    }
    for key in ["", "1A", "A B", "A\"", "ß"] {
        assert!(emit(&[V4], &format!("key={key}")).is_err(), "{key}");
    }
}

#[test]
fn variables_set_already_have_precedence() {
    let options: DockerOptions =
        [("DOCKER_OPT_ICC", "--icc=false"), ("PATH", "/bin"), ("DOCKER_OPTS", "--debug")]
            .into_iter()
            .collect();
    assert_eq!(
        options.text(Lines::All, &Key::default(), "--debug"),
        "DOCKER_OPT_ICC=\"--icc=false\"\nDOCKER_OPTS=\"--debug  --icc=false\"\n"
    );
}
