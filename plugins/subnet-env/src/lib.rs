//! The `subnet-env` emitter: the file from which Docker, the CNI plugin and users' scripts learn
//! the node's subnet.
//!
//! Setting `path`: path of the file, `/run/flannel/subnet.env` by default.

#![forbid(unsafe_code)]

use heddle_sdk::*;

const DEFAULT_PATH: &str = "/run/flannel/subnet.env";

/// The emitter.
pub struct SubnetEnv;

impl Emitter for SubnetEnv {
    fn emit(view: &View, settings: &[Setting]) -> Result<Vec<File>, String> {
        let mut path = DEFAULT_PATH;
        for setting in settings {
            match setting.name.as_str() {
                "path" => path = &setting.value,
                _ => return Err(setting.unknown(&["path"])),
            }
        }
        let contents = subnet_env::text(view)?.into_bytes();
        Ok(vec![File { path: path.to_owned(), mode: 0o644, contents }])
    }
}

export_emitter!(SubnetEnv, name = "subnet-env", files = ["/run/flannel/subnet.env"]);

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        View {
            config: NetworkConfig {
                networks: vec![OverlayNetwork {
                    network: "10.244.0.0/16".parse().unwrap(),
                    subnet_length: 24,
                }],
                backend: "{}".into(),
            },
            lease: Lease {
                families: vec![LeaseFamily {
                    subnet: "10.244.8.0/24".parse().unwrap(),
                    public_address: "192.168.0.72".parse().unwrap(),
                    backend_data: None,
                }],
                backend_type: None,
            },
            mtu: 1450,
            ip_masq: false,
        }
    }

    #[test]
    fn file_has_path_and_content_of_flannel() {
        let contents = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.8.1/24\n\
                        FLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";
        let file =
            File { path: "/run/flannel/subnet.env".into(), mode: 0o644, contents: contents.into() };
        assert_eq!(SubnetEnv::emit(&view(), &[]), Ok(vec![file]));
    }

    #[test]
    fn path_is_configurable() {
        let setting = |name: &str| Setting { name: name.into(), value: "/etc/subnet.env".into() };
        let files = SubnetEnv::emit(&view(), &[setting("path")]).unwrap();
        assert_eq!(files[0].path, "/etc/subnet.env");
        let error = SubnetEnv::emit(&view(), &[setting("pth")]).unwrap_err();
        assert_eq!(error, "setting `pth` is unknown: expected `path`");
    }
}
