//! The few files that the daemon itself reads and writes.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Once;

use heddle_files::RegularFile;
use heddle_flags::FileFlags;
use heddle_plugin::{File, Setting};

use crate::ports::{FileError, Files};

fn failed<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError::new(verb, path.to_owned(), source)
}

/// The files of this host.
#[derive(Clone, Debug)]
pub struct HostFiles {
    flags: FileFlags,
}

impl HostFiles {
    /// Creates a reader and writer of the files that the flags name.
    pub fn new(flags: FileFlags) -> Self {
        Self { flags }
    }
}

impl Files for HostFiles {
    fn subnet_env(&self) -> String {
        static TOLD: Once = Once::new();
        self.flags.read_subnet_env().unwrap_or_else(|error| {
            TOLD.call_once(|| {
                tracing::warn!(%error, "subnet.env: unreadable; starting without the previous subnet");
            });
            String::new()
        })
    }

    /// Inspects all paths before it writes the first file. If a file cannot be written after all,
    /// files that are new are removed again: a plugin may choose other names the next time.
    fn replace(&self, files: Vec<File>, named: &[Setting]) -> Result<Vec<PathBuf>, FileError> {
        let is_named = |file: &File| named.iter().any(|setting| setting.names(&file.path));
        for file in files.iter().filter(|file| !is_named(file)) {
            inspect_place(&file.path)?;
        }
        let mut made = Vec::new();
        let mut written = Vec::new();
        for file in files {
            if file.path.symlink_metadata().is_err() {
                made.push((file.path.clone(), first_missing(&file.path)));
            }
            match write(&file.path, &file.contents, file.mode) {
                Ok(true) => tracing::info!("emitters: wrote {}", file.path.display()),
                Ok(false) => {}
                Err(error) => {
                    for (path, first_made) in made.iter().rev() {
                        unmake(path, first_made.as_deref());
                    }
                    return Err(error);
                }
            }
            written.push(file.path);
        }
        Ok(written)
    }
}

/// Makes a file hold `contents`, atomically: a reader sees the whole old or the whole new file.
/// Creates its directory if needed. Leaves a file alone that has the right contents and mode.
/// Returns true if the file was written.
///
/// # Errors
///
/// [`FileError`] with the file's path. The previous file stays. A FIFO, socket, device or directory
/// is an error, and stays as well.
pub(crate) fn write(path: &Path, contents: &[u8], mode: u32) -> Result<bool, FileError> {
    inspect_target(path)?;
    let right = RegularFile::open(path).is_ok_and(|file| {
        file.metadata().permissions().mode() & 0o7777 == mode
            && file.read(contents.len() as u64).is_ok_and(|found| found == contents)
    });
    if right {
        return Ok(false);
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(failed("create directory", directory))?;
    let replace = || -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(contents)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    replace().map_err(failed("write", path))?;
    Ok(true)
}

/// Removes a file that did not exist before, and those of the directories above it that were
/// created for it.
fn unmake(path: &Path, first_made: Option<&Path>) {
    // Best effort: anything that cannot be removed was written here before.
    let _ = fs::remove_file(path);
    let Some(first_made) = first_made else { return };
    for directory in path.ancestors().skip(1).take_while(|above| above.starts_with(first_made)) {
        if fs::remove_dir(directory).is_err() {
            return;
        }
    }
}

/// Returns the outermost of the missing directories above a path.
fn first_missing(path: &Path) -> Option<PathBuf> {
    let missing = path.ancestors().skip(1).take_while(|above| !above.exists());
    missing.last().map(Path::to_owned)
}

/// Checks the path of a file that a plugin chose. The directories above must not be symbolic links,
/// which might lead anywhere, and the file must not replace a socket, device or directory.
///
/// # Errors
///
/// [`FileError`] with the path of the obstacle.
fn inspect_place(path: &Path) -> Result<(), FileError> {
    let in_the_way = |found: &Path, what: &str| failed("use", found)(io::Error::other(what));
    for above in path.ancestors().skip(1) {
        match fs::symlink_metadata(above) {
            Ok(found) if found.is_symlink() => {
                return Err(in_the_way(above, "it is a symbolic link: expected a directory"));
            }
            Ok(found) if !found.is_dir() => {
                return Err(in_the_way(above, "it exists and is not a directory"));
            }
            _ => {}
        }
    }
    inspect_target(path)
}

/// Checks what a file would replace. A regular file, a symbolic link or nothing is fine. A FIFO,
/// socket, device or directory is an error.
fn inspect_target(path: &Path) -> Result<(), FileError> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() && !found.is_symlink() => {
            let what =
                "it exists and is not a regular file: expected a regular file or an unused path";
            Err(failed("write", path)(io::Error::other(what)))
        }
        _ => Ok(()),
    }
}

/// Returns this host's name, for display. None if it is empty or cannot be read.
#[expect(clippy::disallowed_methods, reason = "a file of the kernel")]
pub(crate) fn node_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests;
