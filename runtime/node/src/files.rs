//! The few files that the daemon itself reads and writes.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, PoisonError};

use async_trait::async_trait;
use heddle_files::{
    Found, Print, ReadError, RegularFile, Written, is_recorded_beside, look, read_record,
    record_path, record_text, vouch,
};
use heddle_flags::{FileFlags, Flags};
use heddle_plugin::{File, Setting};
use heddle_watches::Watches;
use tokio::sync::Notify;

use crate::adapters::on_thread;
use crate::ports::{FileError, Files, Removal};

/// Size limit of a file that is to be removed, in bytes. A larger one stays.
const REMOVABLE: u64 = 16 << 20;

fn failed<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError::new(verb, path.to_owned(), source)
}

/// The files of this host.
pub struct HostFiles {
    flags: FileFlags,
    /// The directory of this network's daemon, with the record of the files that it wrote.
    directory: PathBuf,
    /// The watched files. Locked on a thread for blocking calls.
    watches: Arc<Mutex<(Vec<PathBuf>, Watches)>>,
    changed: Arc<Notify>,
}

impl HostFiles {
    /// Creates a reader and writer of the files that the flags name.
    pub fn new(flags: &Flags) -> Self {
        Self {
            flags: flags.files.clone(),
            directory: flags.state_directory(),
            watches: Arc::default(),
            changed: Arc::default(),
        }
    }
}

#[async_trait]
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

    async fn look(&self, path: &Path, limit: u64) -> Result<Found, ReadError> {
        let path = path.to_owned();
        on_thread(move || look(&path, limit)).await
    }

    async fn replace(
        &self,
        files: Vec<File>,
        named: &[Setting],
    ) -> Result<Vec<PathBuf>, FileError> {
        let named = named.to_vec();
        on_thread(move || replace(files, &named)).await
    }

    async fn remove(
        &self,
        path: &Path,
        prints: &[Print],
        kept: &[PathBuf],
    ) -> Result<Removal, FileError> {
        let (path, prints, kept) = (path.to_owned(), prints.to_vec(), kept.to_vec());
        let directory = self.directory.clone();
        on_thread(move || remove(&path, &prints, &kept, &directory)).await
    }

    async fn recorded(&self) -> Vec<Written> {
        let directory = self.directory.clone();
        on_thread(move || read_record(&directory)).await.unwrap_or_else(|error| {
            tracing::warn!(
                %error,
                "emitters: the record of written files is not used; files that no emitter writes any more stay"
            );
            Vec::new()
        })
    }

    async fn record(&self, written: &[Written]) -> Result<(), FileError> {
        let (path, text) = (record_path(&self.directory), record_text(written));
        on_thread(move || write(&path, text.as_bytes(), 0o600)).await.map(drop)
    }

    async fn watch(&self, paths: &[PathBuf]) {
        let (watches, paths, changed) =
            (self.watches.clone(), paths.to_vec(), self.changed.clone());
        let follow = move || {
            let mut watched = watches.lock().unwrap_or_else(PoisonError::into_inner);
            if watched.0 != paths {
                *watched = (paths.clone(), Watches::default());
            }
            let directories: Vec<_> = paths.iter().filter_map(|path| path.parent()).collect();
            let concerns = {
                let paths = paths.clone();
                move |changed: &Path| paths.iter().any(|path| path.starts_with(changed))
            };
            watched.1.follow(directories, concerns, move || changed.notify_one())
        };
        if let Err(error) = on_thread(follow).await {
            static TOLD: Once = Once::new();
            TOLD.call_once(|| {
                tracing::warn!(
                    %error,
                    "emitters: no notifications of changed files; checking every half minute instead"
                );
            });
        }
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// Replaces files. Inspects all paths before it writes the first file. If a file cannot be written
/// after all, files that are new are removed again: a plugin may choose other names the next time.
/// Returns the paths of the files that were not right already.
fn replace(files: Vec<File>, named: &[Setting]) -> Result<Vec<PathBuf>, FileError> {
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
            Ok(true) => written.push(file.path),
            Ok(false) => {}
            Err(error) => {
                for (path, first_made) in made.iter().rev() {
                    unmake(path, first_made.as_deref());
                }
                return Err(error);
            }
        }
    }
    Ok(written)
}

/// Removes a file that an earlier run wrote, unless somebody else has changed it or uses it. The
/// record in `directory` is this daemon's own.
fn remove(
    path: &Path,
    prints: &[Print],
    kept: &[PathBuf],
    directory: &Path,
) -> Result<Removal, FileError> {
    let unreadable = |error: ReadError| failed("remove", path)(error.into());
    let found = look(path, REMOVABLE).map_err(unreadable)?;
    if found == Found::Missing {
        return Ok(Removal::Missing);
    }
    let is_own = prints.iter().any(|print| found.difference(print).is_none());
    // Whoever can change a directory above can have the path lead to a file elsewhere.
    if !is_own || path.parent().is_none_or(|above| vouch(above).is_err()) {
        return Ok(Removal::Foreign);
    }
    // A directory above may be reachable under two names, such as /run and /var/run.
    let identity =
        |path: &Path| path.symlink_metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
    let is_kept = kept.iter().any(|kept| identity(kept) == identity(path));
    if is_kept || is_recorded_beside(directory, path).map_err(unreadable)? {
        return Ok(Removal::InUse);
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Removal::Missing),
        removed => removed.map(|()| Removal::Removed).map_err(failed("remove", path)),
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
    let right = RegularFile::open_nofollow(path).is_ok_and(|file| {
        file.metadata().permissions().mode() & 0o7777 == mode
            && file.read(contents.len() as u64).is_ok_and(|found| found == contents)
    });
    if right {
        return Ok(false);
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    make_directory(directory).map_err(failed("create directory", directory))?;
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

/// Creates a directory and those above it, if they are missing. Whoever reads the files has to get
/// there, whatever the umask: the packaged unit's is 0077.
fn make_directory(directory: &Path) -> io::Result<()> {
    let missing: Vec<_> = directory.ancestors().take_while(|above| !above.exists()).collect();
    fs::create_dir_all(directory)?;
    for made in missing {
        fs::set_permissions(made, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
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
