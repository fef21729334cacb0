//! Daemons with limited memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use heddle_lab::wait_until;

/// A control group with a memory limit, removed on drop. Processes in it must have ended by then.
#[derive(Debug)]
pub struct MemoryLimit {
    path: PathBuf,
    /// Name of the file that counts processes ended by the OOM killer.
    kills: &'static str,
}

impl MemoryLimit {
    /// Creates a group, in the version of control groups that has the memory controller.
    ///
    /// # Panics
    ///
    /// Without root, or if memory is not accounted.
    pub fn new(mebibytes: u64) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let find = |kind: &str, option: &str| {
            mounts.lines().find_map(|line| {
                let fields: Vec<_> = line.split(' ').collect();
                let fits = fields[2] == kind && fields[3].split(',').any(|found| found == option);
                fits.then(|| PathBuf::from(fields[1]))
            })
        };
        let v1 = find("cgroup", "memory");
        let (root, limit, kills) = match &v1 {
            Some(root) => (root.clone(), "memory.limit_in_bytes", "memory.oom_control"),
            None => (find("cgroup2", "rw").unwrap(), "memory.max", "memory.events"),
        };
        if v1.is_none() {
            fs::write(root.join("cgroup.subtree_control"), "+memory").unwrap();
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("heddle-tests-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let group = Self { path, kills };
        fs::write(group.path.join(limit), (mebibytes << 20).to_string()).unwrap();
        group
    }

    /// Wraps a command so that it runs in the group.
    pub fn wrap(&self, command: &Command) -> Command {
        let mut wrapped = Command::new("sh");
        wrapped.args(["-ec", r#"echo $$ > "$0"; exec "$@""#]).arg(self.path.join("cgroup.procs"));
        wrapped.arg(command.get_program()).args(command.get_args());
        wrapped
    }

    /// Returns the number of processes in the group that the OOM killer has ended.
    pub fn kills(&self) -> u64 {
        let text = fs::read_to_string(self.path.join(self.kills)).unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.unwrap().trim().parse().unwrap()
    }

    /// Returns the group's path in the hierarchy.
    pub fn name(&self) -> String {
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap();
        Path::new("/").join(name).display().to_string()
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // A process that has ended may remain in the group for a moment.
        let removed = wait_until("removing a control group", Duration::from_secs(10), || {
            fs::remove_dir(&self.path).map_err(|error| error.to_string())
        });
        if let Err(error) = removed
            && !std::thread::panicking()
        {
            panic!("{error}");
        }
    }
}
