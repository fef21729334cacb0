//! The tables of `docs/configuration.md`: keys of the network config, keys of the built-in
//! backends, and the daemon's flags. `UPDATE_EXPECT=1 cargo test -p heddle configuration` writes
//! them.

use std::fmt::Write;
use std::path::Path;

use clap::{Arg, CommandFactory};
use heddle_core::config::{KEYS, NetworkConfig};
use heddle_flags::Flags;
use heddle_plugin::Role;
use serde_json::{Map, Value};

use crate::config::problems_and_warnings;
use crate::plugin::Places;

/// A key with its type, default, example and meaning.
type Key = (&'static str, &'static str, &'static str, &'static str, &'static str);

const NETWORK: [Key; 12] = [
    ("EnableIPv4", "true or false", "true", "false", "Gives nodes and containers IPv4 addresses"),
    ("EnableIPv6", "true or false", "false", "true", "Gives nodes and containers IPv6 addresses"),
    (
        "Network",
        "IPv4 network",
        "required with IPv4",
        "\"10.244.0.0/16\"",
        "All of the overlay, /28 or larger. No host may need an address in it; bits after the prefix are ignored",
    ),
    (
        "SubnetLen",
        "whole number",
        "24; with a `Network` smaller than /22, its prefix length + 2",
        "25",
        "Prefix length of each node's subnet, from that of `Network` + 2 to 30. 0 selects the default",
    ),
    (
        "SubnetMin",
        "IPv4 address",
        "the second subnet of `Network`",
        "\"10.244.16.0\"",
        "First subnet that nodes get: the first address of a subnet inside `Network`",
    ),
    (
        "SubnetMax",
        "IPv4 address",
        "the last subnet of `Network`",
        "\"10.244.99.0\"",
        "Last subnet that nodes get, given in the same way",
    ),
    (
        "IPv6Network",
        "IPv6 network",
        "required with IPv6",
        "\"fd00:10:244::/48\"",
        "All of the overlay in IPv6, /124 or larger",
    ),
    (
        "IPv6SubnetLen",
        "whole number",
        "64; with an `IPv6Network` smaller than /62, its prefix length + 2",
        "80",
        "Prefix length of each node's IPv6 subnet, from that of `IPv6Network` + 2 to 126. 0 selects the default",
    ),
    (
        "IPv6SubnetMin",
        "IPv6 address",
        "the second subnet of `IPv6Network`",
        "\"fd00:10:244:100::\"",
        "First IPv6 subnet that nodes get",
    ),
    (
        "IPv6SubnetMax",
        "IPv6 address",
        "the last subnet of `IPv6Network`",
        "\"fd00:10:244:1ff::\"",
        "Last IPv6 subnet that nodes get",
    ),
    (
        "EnableNFTables",
        "true or false",
        "false",
        "true",
        "Sets traffic rules with `nft` instead of `iptables`",
    ),
    (
        "Backend",
        "object",
        "{\"Type\":\"vxlan\"}",
        "{\"Type\":\"host-gw\"}",
        "The backend, `Type`, and its own keys. `Type` is the name of a built-in backend or of a plugin",
    ),
];

const BACKENDS: [(&str, &[Key]); 5] = [
    (
        "vxlan",
        &[
            (
                "VNI",
                "whole number",
                "1",
                "7",
                "VXLAN network identifier, and the number in the device's name, `flannel.7`: 0 to 9999999, with IPv6 to 9999",
            ),
            (
                "Port",
                "whole number",
                "8472",
                "4789",
                "UDP port of all nodes. 0 selects the default",
            ),
            ("GBP", "true or false", "false", "true", "Group based policy extension of VXLAN"),
            (
                "Learning",
                "true or false",
                "false",
                "true",
                "Lets the device learn addresses from packets. Heddle programs all of them, so this is for other programs",
            ),
            (
                "DirectRouting",
                "true or false",
                "false",
                "true",
                "Plans routes without encapsulation to peers on the same network, as `host-gw` does",
            ),
            (
                "MTU",
                "whole number",
                "the external interface's MTU",
                "9000",
                "MTU between the hosts, at least 118, and 1350 with IPv6. The device's is 50 bytes smaller, in IPv6 70. 0 selects the default",
            ),
        ],
    ),
    ("host-gw", &[]),
    (
        "udp",
        &[("Port", "whole number", "8285", "8286", "UDP port of all nodes. 0 selects the default")],
    ),
    ("alloc", &[]),
    (
        "vxlan-tun",
        &[
            ("VNI", "whole number", "1", "7", "VXLAN network identifier: 0 to 16777215"),
            (
                "Port",
                "whole number",
                "8472",
                "4789",
                "UDP port of all nodes. 0 selects the default",
            ),
        ],
    ),
];

/// An example for each flag, without its dashes.
const FLAGS: [&str; 38] = [
    "store=dir:/srv/heddle",
    "etcd-endpoints=https://etcd1:2379,https://etcd2:2379",
    "etcd-prefix=/blue/network",
    "etcd-keyfile=/etc/heddle/client.key",
    "etcd-certfile=/etc/heddle/client.crt",
    "etcd-cafile=/etc/heddle/ca.crt",
    "etcd-username=heddle",
    "etcd-password=secret",
    "subnet-lease-renew-margin=120",
    "node-id=rack4-7",
    "iface=eth1",
    "iface-regex=^10\\.0\\.",
    "iface-can-reach=10.0.0.1",
    "public-ip=203.0.113.7",
    "public-ipv6=2001:db8::7",
    "ip-masq=true",
    "ip-masq-fully-random-disable=true",
    "iptables-resync=30",
    "iptables-forward-rules=false",
    "ip-blackhole-route=true",
    "allow-destinations=192.0.2.0/24",
    "subnet-file=/run/heddle/subnet.env",
    "plugin-dir=/srv/plugins",
    "plugin-policy=/srv/plugins.toml",
    "cache-dir=/srv/cache",
    "state-dir=/srv/state",
    "emit=docker-opts:key=DOCKER_NETWORK_OPTIONS",
    "environment-file=-/etc/default/heddled",
    "control-socket=/run/heddle/blue.sock",
    "control-group=wheel",
    "probe-interval=10",
    "healthz-ip=127.0.0.1",
    "healthz-port=8471",
    "status-address=127.0.0.1:8470",
    "v=2",
    "kube-subnet-mgr=false",
    "help",
    "version",
];

fn keys_table(prefix: &str, keys: &[Key]) -> String {
    let mut table =
        "| key | value | default | example | meaning |\n| --- | --- | --- | --- | --- |\n"
            .to_owned();
    for (key, kind, default, example, meaning) in keys {
        let _ = writeln!(
            table,
            "| `{prefix}{key}` | {kind} | {} | `{example}` | {meaning} |",
            literal(default)
        );
    }
    table
}

/// Returns a default as code if it is a value, and as it is if it describes one.
fn literal(default: &str) -> String {
    let describes = default.contains(' ') && !default.starts_with('{');
    if describes { default.to_owned() } else { format!("`{default}`") }
}

fn backends() -> String {
    let mut text = String::new();
    for (name, keys) in BACKENDS {
        let _ = writeln!(text, "### {name}\n");
        match keys {
            [] => text += "No keys of its own.\n",
            keys => text += &keys_table("", keys),
        }
        text += "\n";
    }
    text.trim_end().to_owned() + "\n"
}

/// Returns the value of an example. None for a flag without one.
fn example(name: &str) -> Option<&'static str> {
    let of = |example: &&'static str| example.split('=').next() == Some(name);
    let found = FLAGS.iter().copied().find(of);
    found
        .unwrap_or_else(|| panic!("--{name} has no example"))
        .split_once('=')
        .map(|(_, value)| value)
}

fn visible_flags() -> Vec<Arg> {
    let mut command = Flags::command();
    command.build();
    command.get_arguments().filter(|flag| !flag.is_hide_set()).cloned().collect()
}

fn flags() -> String {
    let mut text = String::new();
    let mut heading = None;
    for flag in visible_flags() {
        let name = flag.get_long().expect("every flag has a name");
        let Some(example) = example(name) else { continue };
        let group = flag.get_help_heading().expect("every flag is in a group").to_owned();
        if heading.as_ref() != Some(&group) {
            let _ = write!(
                text,
                "{}### {group}\n\n| flag, variable | value | default | example | meaning |\n| --- | --- | --- | --- | --- |\n",
                if heading.is_some() { "\n" } else { "" },
            );
            heading = Some(group);
        }
        let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
        let (meaning, stated) = match help.split_once(" [default: ") {
            Some((meaning, stated)) => {
                (meaning.to_owned(), Some(stated.trim_end_matches(']').to_owned()))
            }
            None => (help, None),
        };
        let values: Vec<_> =
            flag.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let default = match (values.as_slice(), stated) {
            ([], Some(stated)) => stated,
            ([], None) => "none".to_owned(),
            (values, _) => {
                values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ")
            }
        };
        let value = flag.get_value_names().map(|names| names.join(" ")).unwrap_or_default();
        let _ = writeln!(
            text,
            "| `--{name}`, `FLANNELD_{}` | {} | {default} | `{example}` | {} |",
            name.to_uppercase().replace('-', "_"),
            value.replace('|', " or "),
            meaning.replace('|', "\\|"),
        );
    }
    text
}

/// Returns the page with current tables between its markers.
fn current(page: &str) -> String {
    let mut page = page.to_owned();
    for (name, table) in
        [("network", keys_table("", &NETWORK)), ("backends", backends()), ("flags", flags())]
    {
        let (begin, end) =
            (format!("<!-- {name}: generated -->\n"), format!("<!-- end of {name} -->"));
        let from = page.find(&begin).unwrap_or_else(|| panic!("{begin}")) + begin.len();
        let to = from + page[from..].find(&end).unwrap_or_else(|| panic!("{end}"));
        page.replace_range(from..to, &format!("\n{table}\n"));
    }
    page
}

#[test]
fn configuration_page_has_every_key_and_flag() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let written = std::fs::read_to_string(&path).unwrap();
    let current = current(&written);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &current).unwrap();
        return;
    }
    let differs =
        written.lines().zip(current.lines()).find(|(written, current)| written != current);
    assert!(
        written == current,
        "docs/configuration.md is stale: run `make reference`; first line that differs: {differs:?}"
    );
}

#[test]
fn tables_have_exactly_the_keys_that_are_read() {
    let mut listed = NETWORK.map(|(key, ..)| key);
    let mut known = KEYS;
    listed.sort_unstable();
    known.sort_unstable();
    assert_eq!(listed, known);
    let catalogue = Places::none().catalogue().unwrap();
    for (backend, keys) in BACKENDS {
        let manifest = catalogue.find(backend, Role::Backend).unwrap().manifest().clone();
        let listed: Vec<_> = keys.iter().map(|(key, ..)| (*key).to_owned()).collect();
        assert_eq!(Some(listed), manifest.keys, "{backend}");
    }
}

#[test]
fn every_example_of_a_key_is_valid() {
    const BOTH: &str =
        r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48"}"#;
    for (key, _, _, example, _) in NETWORK {
        let mut config: Map<String, Value> = serde_json::from_str(BOTH).unwrap();
        config.insert(key.to_owned(), serde_json::from_str(example).unwrap());
        let config = Value::from(config).to_string();
        NetworkConfig::parse(config.as_bytes()).unwrap_or_else(|error| panic!("{config}: {error}"));
    }
    for (backend, keys) in BACKENDS {
        for (key, _, _, example, _) in keys {
            let config = format!(
                r#"{{"Network":"10.244.0.0/16","Backend":{{"Type":"{backend}","{key}":{example}}}}}"#
            );
            assert_eq!(problems_and_warnings(&config), [""; 0], "{config}");
        }
    }
}

#[test]
fn examples_of_all_flags_are_valid_as_variables() {
    let variable = |name: &str| format!("FLANNELD_{}", name.to_uppercase().replace('-', "_"));
    let flags = visible_flags();
    // All at once, because some need others, such as a certificate its key.
    let value = |asked: &str| {
        let mut names = flags.iter().filter_map(Arg::get_long);
        example(names.find(|name| variable(name) == asked)?).map(str::to_owned)
    };
    let no_file = |_: &Path| Ok(String::new());
    let read = Flags::read(["heddled".into()], value, no_file).unwrap();
    assert_eq!(read.lease.etcd_prefix, "/blue/network");
    assert_eq!(read.health.verbosity, 2);
}
