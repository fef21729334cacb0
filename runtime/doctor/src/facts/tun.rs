//! Whether this process can have a TUN device.

use std::fs::File;
use std::io;

/// The file that TUN devices are made with (`linux/if_tun.h`).
pub(crate) const DEVICE: &str = "/dev/net/tun";

/// Opens it, which has the module loaded if need be.
///
/// # Errors
///
/// Without the file, the module, or the right to use it.
pub(crate) fn open() -> io::Result<()> {
    File::options().read(true).write(true).open(DEVICE).map(|_| ())
}
