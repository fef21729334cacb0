//! Control groups, each of which contains all processes of a machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::registry::{Cleanup, Registration, Stage};
use crate::{Error, wait_until};

/// Time limit for killed processes to exit.
const END_LIMIT: Duration = Duration::from_secs(10);

/// A control group of version 2. Dropping it kills its processes and removes it.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
    _registration: Registration,
}

/// The directory of a control group, by which it is removed.
struct Directory(PathBuf);

impl Cleanup for Directory {
    fn clean_up(&self) {
        clear(&self.0);
    }
}

impl Cgroup {
    /// Creates a control group below the root of the hierarchy.
    pub(crate) fn create(name: &str) -> Result<Self, Error> {
        let path = root()?.join(name);
        let registration = Registration::new(Stage::Cgroups, Directory(path.clone()));
        std::fs::create_dir(&path).map_err(Error::io(format!("creating {}", path.display())))?;
        Ok(Self { path, _registration: registration })
    }

    /// Returns its directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Kills all of its processes.
    pub(crate) fn kill(&self) {
        kill(&self.path);
    }
}

/// Returns the mount point of the version 2 hierarchy: `/sys/fs/cgroup`, or a directory below it if
/// version 1 is mounted too.
fn root() -> Result<PathBuf, Error> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")
        .map_err(Error::io("reading /proc/self/mounts"))?;
    find_root(&mounts).ok_or_else(|| {
        Error::Missing(
            "control groups of version 2 are not mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup"
                .into(),
        )
    })
}

/// Parses the mount table. The fields of a line are the device, the mount point, the type and its
/// options: fstab(5).
fn find_root(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| point.into())
    })
}

/// Kills the processes of a control group and removes it. Ignores errors, because it runs during
/// cleanup.
fn clear(path: &Path) {
    kill(path);
    let _ = wait_until("processes ending", END_LIMIT, || {
        let events = std::fs::read_to_string(path.join("cgroup.events")).unwrap_or_default();
        if events.contains("populated 1") { Err("some still run") } else { Ok(()) }
    });
    remove(path);
}

fn kill(path: &Path) {
    let _ = std::fs::write(path.join("cgroup.kill"), "1");
}

/// Removes a control group and those below it. The kernel removes their files with them; they
/// cannot be removed one by one.
fn remove(path: &Path) {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_v2_is_found_beside_v1() {
        let mounts = "proc /proc proc rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(find_root(mounts), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(find_root("proc /proc proc rw 0 0\n"), None);
    }
}
