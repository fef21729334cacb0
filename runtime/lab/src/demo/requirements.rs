//! What the demo cannot do without, checked before anything is made.

use std::path::Path;

use super::{Options, StoreKind};
use crate::{Error, Lab};

pub(super) fn check(options: &Options) -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        return Err(missing("the demo needs root, to make network namespaces: run it with sudo"));
    }
    if options.hosts < 2 {
        return Err(missing("the demo needs at least 2 hosts"));
    }
    let mut programs = vec![
        ("ip", "iproute2"),
        ("bridge", "iproute2"),
        ("ping", "iputils-ping"),
        ("busybox", "busybox-static"),
    ];
    if options.store == StoreKind::Etcd {
        programs.push(("etcd", "etcd-server"));
    }
    for (program, package) in programs {
        if !is_installed(program) {
            return Err(missing(format!(
                "`{program}` is not installed; on Debian: apt-get install {package}"
            )));
        }
    }
    if !options.heddled.is_file() {
        return Err(missing(format!(
            "the daemon is not at {}: build it with `make build`",
            options.heddled.display()
        )));
    }
    Ok(())
}

/// The only way to know whether a kernel has VXLAN, built in or as a module, is to ask for a device.
pub(super) fn check_vxlan(lab: &Lab) -> Result<(), Error> {
    let namespace = &lab.switch;
    namespace
        .ip("link add name probe type vxlan id 1 dstport 8472")
        .and_then(|_| namespace.ip("link del probe"))
        .map(drop)
        .map_err(|error| missing(format!("this kernel gives no VXLAN device: {error}")))
}

fn missing(text: impl Into<String>) -> Error {
    Error::Missing(text.into())
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| Path::new(&directory).join(program).is_file())
}
