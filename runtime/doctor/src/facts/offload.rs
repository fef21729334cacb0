//! The kernel's release, and the checksum offload of devices.

use heddle_core::address::LinkName;

use super::kernel_file;

/// Returns the kernel's release: `6.1.0-18-amd64`.
pub(crate) fn kernel_release() -> String {
    let release = kernel_file("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// Returns true if checksum offload is on for packets sent through the device, according to
/// ethtool(8).
pub(crate) async fn checksums_deferred(link: LinkName) -> Option<bool> {
    let printed = super::printed("ethtool", &["-k", link.as_str()]).await?;
    let line = printed.lines().find_map(|line| line.trim().strip_prefix("tx-checksumming:"))?;
    Some(line.trim_start().starts_with("on"))
}
