//! The `subnet-env` emitter: the file from which Docker, the CNI plugin and people's scripts learn the node's subnet
//! (flannel's `WriteSubnetFile` in `pkg/subnet/subnet.go`).
//!
//! Setting `path`: where it goes, `/run/flannel/subnet.env` unless given.

use std::fmt::Write;
use std::net::IpAddr;

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
                other => return Err(format!("setting `{other}` is unknown: expected `path`")),
            }
        }
        let contents = contents(view)?.into_bytes();
        Ok(vec![File { path: path.to_owned(), mode: 0o644, contents }])
    }
}

fn contents(view: &View) -> Result<String, String> {
    let mut text = String::new();
    for overlay in &view.config.networks {
        let family = Family::of_network(overlay.network);
        let subnet = match view.lease.family(family) {
            Some(part) => part.subnet,
            None => return Err(format!("the lease has no subnet in {}", overlay.network)),
        };
        let prefix = match family {
            Family::V4 => "FLANNEL_",
            Family::V6 => "FLANNEL_IPV6_",
        };
        let bridge = first_usable(subnet);
        line(&mut text, prefix, "NETWORK", overlay.network);
        line(&mut text, prefix, "SUBNET", format_args!("{bridge}/{}", subnet.prefix_len()));
    }
    line(&mut text, "FLANNEL_", "MTU", view.mtu);
    line(&mut text, "FLANNEL_", "IPMASQ", view.ip_masq);
    Ok(text)
}

fn line(text: &mut String, prefix: &str, name: &str, value: impl std::fmt::Display) {
    writeln!(text, "{prefix}{name}={value}").expect("a string takes everything");
}

/// The address after the subnet's own: the bridge's.
fn first_usable(subnet: IpNet) -> IpAddr {
    match subnet.network() {
        IpAddr::V4(address) => IpAddr::V4((u32::from(address) + 1).into()),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) + 1).into()),
    }
}

export_emitter!(SubnetEnv, name = "subnet-env");

#[cfg(test)]
mod tests {
    use super::*;

    fn view(families: &[(&str, &str)]) -> View {
        let mut networks = Vec::new();
        let mut leases = Vec::new();
        for (network, subnet) in families {
            let subnet: IpNet = subnet.parse().unwrap();
            networks.push(OverlayNetwork {
                network: network.parse().unwrap(),
                subnet_length: subnet.prefix_len(),
            });
            leases.push(LeaseFamily {
                subnet,
                public_address: "192.168.0.72".parse().unwrap(),
                backend_data: None,
            });
        }
        View {
            config: NetworkConfig { networks, backend: "{}".into() },
            lease: Lease { families: leases, backend_type: None },
            mtu: 1450,
            ip_masq: true,
        }
    }

    const V4: (&str, &str) = ("10.244.0.0/16", "10.244.8.0/24");
    const V6: (&str, &str) = ("2001:cafe:42::/56", "2001:cafe:42::/64");

    fn text(families: &[(&str, &str)]) -> String {
        let files = SubnetEnv::emit(&view(families), &[]).unwrap();
        assert_eq!(files.len(), 1);
        assert_eq!((files[0].path.as_str(), files[0].mode), (DEFAULT_PATH, 0o644));
        String::from_utf8(files[0].contents.clone()).unwrap()
    }

    #[test]
    fn both_families_are_written_as_flannel_writes_them() {
        assert_eq!(
            text(&[V4, V6]),
            "FLANNEL_NETWORK=10.244.0.0/16\n\
             FLANNEL_SUBNET=10.244.8.1/24\n\
             FLANNEL_IPV6_NETWORK=2001:cafe:42::/56\n\
             FLANNEL_IPV6_SUBNET=2001:cafe:42::1/64\n\
             FLANNEL_MTU=1450\n\
             FLANNEL_IPMASQ=true\n"
        );
    }

    #[test]
    fn a_family_that_is_off_leaves_no_line() {
        assert!(!text(&[V4]).contains("IPV6"));
        assert!(text(&[V6]).starts_with("FLANNEL_IPV6_NETWORK="));
    }

    #[test]
    fn the_operator_says_where_the_file_goes() {
        let setting = |name: &str| Setting { name: name.into(), value: "/etc/subnet.env".into() };
        let files = SubnetEnv::emit(&view(&[V4]), &[setting("path")]).unwrap();
        assert_eq!(files[0].path, "/etc/subnet.env");
        let error = SubnetEnv::emit(&view(&[V4]), &[setting("pth")]).unwrap_err();
        assert_eq!(error, "setting `pth` is unknown: expected `path`");
    }
}
