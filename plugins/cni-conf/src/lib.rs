//! The `cni-conf` emitter: the overlay as a CNI network, for podman, containerd, CRI-O and other
//! users of CNI plugins. Containers are attached to a bridge, with addresses of the node's subnet
//! and the overlay's MTU, as with Docker.
//!
//! | setting | meaning | default |
//! | --- | --- | --- |
//! | `path` | path of the file | `/etc/cni/net.d/10-heddle.conflist` |
//! | `name` | name of the network: `podman run --network heddle` | `heddle` |
//! | `bridge` | name of the bridge, which the first container creates | `cni0` |
//!
//! It needs the plugins `bridge`, `host-local` and `portmap` of
//! <https://github.com/containernetworking/plugins>. `portmap` does nothing until a port is
//! published.

#![forbid(unsafe_code)]

use heddle_sdk::*;
use serde_json::{Value, json};

const DEFAULT_PATH: &str = "/etc/cni/net.d/10-heddle.conflist";

/// 1.0.0 is out, but the runtimes of stable distributions write 0.4.0 themselves, and those that
/// read later versions read it as well.
const CNI_VERSION: &str = "0.4.0";

/// The emitter.
pub struct CniConf;

impl Emitter for CniConf {
    fn emit(view: &View, settings: &[Setting]) -> Result<Vec<File>, String> {
        let (mut path, mut name, mut bridge) = (DEFAULT_PATH, "heddle", "cni0");
        for setting in settings {
            match setting.name.as_str() {
                "path" => path = &setting.value,
                "name" => name = network_name(setting)?,
                "bridge" => bridge = device_name(setting)?,
                _ => return Err(setting.unknown(&["path", "name", "bridge"])),
            }
        }
        let contents = format!("{:#}\n", network(view, name, bridge)).into_bytes();
        Ok(vec![File { path: path.to_owned(), mode: 0o644, contents }])
    }
}

fn network(view: &View, name: &str, bridge: &str) -> Value {
    // A list of lists: a container gets an address from each set.
    let ranges: Vec<_> = view
        .lease
        .families
        .iter()
        .map(|part| json!([{ "subnet": part.subnet.to_string() }]))
        .collect();
    json!({
        "cniVersion": CNI_VERSION,
        "name": name,
        "plugins": [
            {
                "type": "bridge",
                "bridge": bridge,
                // The bridge has each subnet's first usable address, host-local's default for the
                // gateway.
                "isGateway": true,
                "isDefaultGateway": true,
                "ipMasq": !view.ip_masq,
                "hairpinMode": true,
                "mtu": view.mtu,
                "ipam": { "type": "host-local", "ranges": ranges },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

/// Returns the network name if libcni accepts it (`utils.ValidateNetworkName`): it becomes a
/// directory of host-local.
fn network_name(setting: &Setting) -> Result<&str, String> {
    let name = setting.value.as_str();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(allowed) {
        Ok(name)
    } else {
        Err(setting.error("expected letters, digits, `_`, `.` and `-`, a letter or digit first"))
    }
}

/// Returns the device name if Linux accepts it (`dev_valid_name` in `net/core/dev.c`).
fn device_name(setting: &Setting) -> Result<&str, String> {
    let name = setting.value.as_str();
    let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace();
    if (1..=15).contains(&name.len()) && name != "." && name != ".." && !name.contains(forbidden) {
        Ok(name)
    } else {
        Err(setting.error("expected 1 to 15 bytes without `/`, `:` and white space"))
    }
}

export_emitter!(CniConf, name = "cni-conf", files = ["/etc/cni/net.d/10-heddle.conflist"]);

#[cfg(test)]
mod tests {
    use super::*;

    fn view(subnets: &[&str]) -> View {
        let part = |subnet: &&str| LeaseFamily {
            subnet: subnet.parse().unwrap(),
            public_address: "192.168.0.72".parse().unwrap(),
            backend_data: None,
        };
        View {
            config: NetworkConfig { networks: Vec::new(), backend: "{}".into() },
            lease: Lease { families: subnets.iter().map(part).collect(), backend_type: None },
            mtu: 1450,
            ip_masq: true,
        }
    }

    fn emit(view: &View, settings: &[(&str, &str)]) -> Result<(String, Value), String> {
        let setting =
            |&(name, value): &(&str, &str)| Setting { name: name.into(), value: value.into() };
        let settings: Vec<_> = settings.iter().map(setting).collect();
        CniConf::emit(view, &settings).map(|files| {
            assert_eq!((files.len(), files[0].mode), (1, 0o644));
            (files[0].path.clone(), serde_json::from_slice(&files[0].contents).unwrap())
        })
    }

    #[test]
    fn containers_use_a_bridge_with_addresses_of_subnet() {
        let (path, network) = emit(&view(&["10.244.8.0/24"]), &[]).unwrap();
        assert_eq!(path, "/etc/cni/net.d/10-heddle.conflist");
        let expected = json!({
            "cniVersion": "0.4.0",
            "name": "heddle",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": true,
                    "isDefaultGateway": true,
                    "ipMasq": false,
                    "hairpinMode": true,
                    "mtu": 1450,
                    "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.244.8.0/24" }]] },
                },
                { "type": "portmap", "capabilities": { "portMappings": true } },
            ],
        });
        assert_eq!(network, expected);
    }

    #[test]
    fn container_has_an_address_of_each_family() {
        let (_, network) = emit(&view(&["10.244.8.0/24", "fc00:0:0:8::/64"]), &[]).unwrap();
        assert_eq!(
            network["plugins"][0]["ipam"]["ranges"],
            json!([[{ "subnet": "10.244.8.0/24" }], [{ "subnet": "fc00:0:0:8::/64" }]])
        );
    }

    #[test]
    fn bridge_masquerades_if_daemon_does_not() {
        let view = View { ip_masq: false, ..view(&["10.244.8.0/24"]) };
        assert_eq!(emit(&view, &[]).unwrap().1["plugins"][0]["ipMasq"], true);
    }

    #[test]
    fn names_and_path_are_configurable() {
        let settings = [("path", "/srv/net.conflist"), ("name", "blue"), ("bridge", "cni-blue")];
        let (path, network) = emit(&view(&["10.244.8.0/24"]), &settings).unwrap();
        assert_eq!(path, "/srv/net.conflist");
        assert_eq!(network["name"], "blue");
        assert_eq!(network["plugins"][0]["bridge"], "cni-blue");
    }

    #[test]
    fn bad_setting_is_reported() {
        for (name, value, expected) in [
            ("pth", "/x", "setting `pth` is unknown: expected `path`, `name`, `bridge`"),
            (
                "name",
                "../x",
                "setting `name` is \"../x\": expected letters, digits, `_`, `.` and `-`, a letter or digit first",
            ),
            (
                "bridge",
                "a-name-of-16-byt",
                "setting `bridge` is \"a-name-of-16-byt\": expected 1 to 15 bytes without `/`, `:` and white space",
            ),
        ] {
            assert_eq!(emit(&view(&[]), &[(name, value)]).unwrap_err(), expected);
        }
        for value in ["", "a/b", "-x", "a b"] {
            assert!(emit(&view(&[]), &[("name", value)]).is_err(), "{value}");
        }
        for value in ["", ".", "..", "a:b", "a b"] {
            assert!(emit(&view(&[]), &[("bridge", value)]).is_err(), "{value}");
        }
    }
}
