//! The `docker-opts` emitter: options for dockerd, in a file that a systemd unit reads as its
//! `EnvironmentFile`. For IPv4, the output is that of flannel's `mk-docker-opts.sh` for a
//! `subnet.env`.
//!
//! | setting | meaning | default |
//! | --- | --- | --- |
//! | `path` | path of the file | `/run/flannel/docker.env` |
//! | `key` | name of the variable with all options | `DOCKER_OPTS` |
//! | `individual` | `true`: only a variable for each option | `false` |
//! | `combined` | `true`: only the variable with all options | `false` |
//! | `ip-masq` | `false` leaves `--ip-masq` out | `true` |
//! | `subnet-env` | `true`: the lines of `subnet.env` come first, replacing a separate file | `false` |
//!
//! With neither or both of `individual` and `combined`, all lines are written.
//!
//! If the overlay has IPv6, `--ipv6` and `--fixed-cidr-v6` are added, which flannel's script leaves
//! to the operator. Docker's bridge always has IPv4: without IPv4 in the overlay there is no
//! `--bip`, and Docker uses a network of its own for it, which other nodes cannot reach.

#![forbid(unsafe_code)]

mod options;

pub use options::{DockerOptions, InvalidKey, Key, Lines};

use heddle_sdk::*;

const DEFAULT_PATH: &str = "/run/flannel/docker.env";

/// The emitter.
pub struct DockerOpts;

impl Emitter for DockerOpts {
    fn emit(view: &View, settings: &[Setting]) -> Result<Vec<File>, String> {
        let mut path = DEFAULT_PATH;
        let mut key = Key::default();
        let (mut individual, mut combined) = (false, false);
        let (mut ip_masq, mut with_subnet_env) = (true, false);
        for setting in settings {
            match setting.name.as_str() {
                "path" => path = &setting.value,
                "key" => key = setting.value.parse().map_err(|error| setting.error(error))?,
                "individual" => individual = setting.flag()?,
                "combined" => combined = setting.flag()?,
                "ip-masq" => ip_masq = setting.flag()?,
                "subnet-env" => with_subnet_env = setting.flag()?,
                _ => {
                    let known = ["path", "key", "individual", "combined", "ip-masq", "subnet-env"];
                    return Err(setting.unknown(&known));
                }
            }
        }
        let mut text = if with_subnet_env { subnet_env::text(view)? } else { String::new() };
        text += &options(view, ip_masq).text(Lines::chosen(individual, combined), &key, "");
        Ok(vec![File { path: path.to_owned(), mode: 0o644, contents: text.into_bytes() }])
    }
}

fn options(view: &View, ip_masq: bool) -> DockerOptions {
    let mut options = DockerOptions::default();
    for part in &view.lease.families {
        match part.family() {
            Family::V4 => options.bip(subnet_env::bridge_address(part.subnet)),
            Family::V6 => options.ipv6(part.subnet),
        }
    }
    if ip_masq {
        options.ip_masq(view.ip_masq);
    }
    options.mtu(view.mtu);
    options
}

export_emitter!(DockerOpts, name = "docker-opts", files = ["/run/flannel/docker.env"]);

#[cfg(test)]
mod tests;
