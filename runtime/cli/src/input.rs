//! Files that were named on the command line.

use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, anyhow, bail};

/// The largest file, in bytes. A scenario with ten thousand leases takes a fifth of that.
const LIMIT: u64 = 16 << 20;

/// Reads a regular file, or standard input where the path is `-`.
///
/// # Errors
///
/// It is missing, unreadable, larger than 16 MiB, or something else, such as a FIFO.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path != Path::new("-") {
        return read_file(path);
    }
    let mut text = Vec::new();
    let input = io::stdin().lock();
    let length = input.take(LIMIT + 1).read_to_end(&mut text);
    if length.context("standard input cannot be read")? as u64 > LIMIT {
        bail!("standard input has more than {} MiB, which is the limit", LIMIT >> 20);
    }
    Ok(text)
}

/// Reads a regular file.
///
/// # Errors
///
/// As [`read`].
pub(crate) fn read_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    heddle_files::read(path, LIMIT)
        .map_err(|error| anyhow!("{} cannot be read: {}", path.display(), error.reason))
}
