//! Files named on the command line.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use heddle_files::{ReadError, Reason};

/// Size limit for a file, in bytes. A scenario with ten thousand leases takes a fifth of it.
const LIMIT: u64 = 16 << 20;

/// Paths that stand for standard input.
const STANDARD_INPUT: [&str; 2] = ["-", "/dev/stdin"];

/// Directories of this process's open descriptors. A shell that is given `<(etcdctl get …)` opens a pipe, and puts a path
/// such as `/dev/fd/63` in its place.
const DESCRIPTORS: [&str; 2] = ["/dev/fd", "/proc/self/fd"];

/// Reads a regular file, standard input where the path is `-` or `/dev/stdin`, or a descriptor that is open already:
/// `/dev/fd/63`, `/proc/self/fd/63`.
///
/// # Errors
///
/// [`ReadError`]: it is missing, unreadable, larger than 16 MiB, or something else, such as a FIFO.
#[expect(clippy::disallowed_methods, reason = "a descriptor that the caller has opened")]
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    let read = if STANDARD_INPUT.map(Path::new).contains(&path) {
        read_stream(io::stdin().lock())
    } else if DESCRIPTORS.map(Path::new).map(Some).contains(&path.parent()) {
        File::open(path).map_err(Reason::Io).and_then(read_stream)
    } else {
        return read_file(path);
    };
    read.map_err(|reason| ReadError { path: PathBuf::from(&*name(path)), reason })
}

fn read_stream(stream: impl Read) -> Result<Vec<u8>, Reason> {
    let mut text = Vec::new();
    let length = stream.take(LIMIT + 1).read_to_end(&mut text)?;
    if length as u64 > LIMIT { Err(Reason::TooLarge(LIMIT)) } else { Ok(text) }
}

/// Reads a regular file.
///
/// # Errors
///
/// Those of [`read`].
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, ReadError> {
    heddle_files::read(path, LIMIT)
}

/// Returns what messages call an argument of [`read`].
pub(crate) fn name(path: &Path) -> Cow<'_, str> {
    if path == Path::new("-") { Cow::Borrowed("standard input") } else { path.to_string_lossy() }
}
