//! Availability of TUN devices.

use std::fs::File;
use std::io;

/// Character device for creating TUN devices (`linux/if_tun.h`).
pub(crate) const DEVICE: &str = "/dev/net/tun";

/// Opens the device, which makes the kernel load the module if needed.
///
/// # Errors
///
/// If the file or the module is missing, or permission is denied.
pub(crate) fn open() -> io::Result<()> {
    File::options().read(true).write(true).open(DEVICE).map(|_| ())
}
