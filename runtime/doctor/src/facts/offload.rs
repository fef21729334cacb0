//! What the kernel is, and whether it leaves checksums of a device's packets for later.

use std::fs;

use heddle_core::address::LinkName;

/// The kernel's release: `6.1.0-18-amd64`.
pub(crate) fn kernel_release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// Whether checksums of packets through the device are left for later, as ethtool(8) says.
pub(crate) async fn checksums_deferred(link: LinkName) -> Option<bool> {
    let printed = super::printed("ethtool", &["-k", link.as_str()]).await?;
    let line = printed.lines().find_map(|line| line.trim().strip_prefix("tx-checksumming:"))?;
    Some(line.trim_start().starts_with("on"))
}
