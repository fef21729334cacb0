//! Checks the requirements of a demo or trial before anything is created.

use std::path::Path;

use crate::{Error, Lab};

/// The programs that hosts and containers need, with their Debian packages.
pub(crate) const HOSTS: [(&str, &str); 3] =
    [("ip", "iproute2"), ("bridge", "iproute2"), ("ping", "iputils-ping")];

/// Checks for root. `what` names what needs it: "the demo".
pub(crate) fn root(what: &str) -> Result<(), Error> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(missing(format!("{what} needs root, to make network namespaces: run it with sudo")))
}

pub(crate) fn programs(wanted: &[(&str, &str)]) -> Result<(), Error> {
    match wanted.iter().find(|(program, _)| !is_installed(program)) {
        None => Ok(()),
        Some((program, package)) => Err(missing(not_installed(program, package))),
    }
}

pub(crate) fn not_installed(program: &str, package: &str) -> String {
    format!("`{program}` is not installed; on Debian: apt-get install {package}")
}

pub(crate) fn daemon(heddled: &Path) -> Result<(), Error> {
    if heddled.is_file() {
        return Ok(());
    }
    Err(missing(format!(
        "the daemon is not at {}: build it with `make build`, or name another with --heddled",
        heddled.display()
    )))
}

/// Checks that the kernel supports VXLAN, built in or as a module. The only way is to create a
/// device.
pub(crate) fn vxlan(lab: &Lab) -> Result<(), Error> {
    let namespace = &lab.switch;
    namespace
        .ip("link add name probe type vxlan id 1 dstport 8472")
        .and_then(|_| namespace.ip("link del probe"))
        .map(drop)
        .map_err(|error| missing(format!("this kernel gives no VXLAN device: {error}")))
}

pub(crate) fn missing(text: impl Into<String>) -> Error {
    Error::Missing(text.into())
}

pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| Path::new(&directory).join(program).is_file())
}
