//! Files named on the command line.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, anyhow, bail};

/// Size limit for a file, in bytes. A scenario with ten thousand leases takes a fifth of it.
const LIMIT: u64 = 16 << 20;

/// Reads a regular file, standard input if the path is `-`, or a descriptor that the shell has
/// opened: `<(etcdctl get …)` becomes `/dev/fd/63`.
///
/// # Errors
///
/// If the file is missing, unreadable, larger than 16 MiB, or not a regular file, such as a FIFO.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path == Path::new("-") {
        return read_stream("standard input", io::stdin().lock());
    }
    if path.starts_with("/dev/fd") {
        let name = path.display().to_string();
        return read_stream(
            &name,
            File::open(path).with_context(|| format!("{name} cannot be read"))?,
        );
    }
    read_file(path)
}

fn read_stream(name: &str, stream: impl Read) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    let length = stream.take(LIMIT + 1).read_to_end(&mut text);
    if length.with_context(|| format!("{name} cannot be read"))? as u64 > LIMIT {
        bail!("{name} has more than {} MiB, which is the limit", LIMIT >> 20);
    }
    Ok(text)
}

/// Reads a regular file.
///
/// # Errors
///
/// Those of [`read`].
pub(crate) fn read_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    heddle_files::read(path, LIMIT)
        .map_err(|error| anyhow!("{} cannot be read: {}", path.display(), error.reason))
}
