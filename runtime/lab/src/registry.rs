//! Resources to remove when a signal ends the process before their owners are dropped.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cgroup;
use crate::command::run;

/// All resources that this process has created and not removed yet.
#[derive(Default)]
struct Registry {
    cgroups: BTreeSet<PathBuf>,
    namespaces: BTreeSet<String>,
    directories: BTreeSet<PathBuf>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    cgroups: BTreeSet::new(),
    namespaces: BTreeSet::new(),
    directories: BTreeSet::new(),
});

/// Locks the registry. A panic elsewhere must not prevent cleanup.
fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Registers a control group that is about to be created.
pub(crate) fn add_cgroup(path: PathBuf) {
    remove_all_on_signals();
    registry().cgroups.insert(path);
}

/// Registers a namespace that is about to be created.
pub(crate) fn add_namespace(name: &str) {
    remove_all_on_signals();
    registry().namespaces.insert(name.to_owned());
}

/// Registers a scratch directory.
pub(crate) fn add_directory(path: PathBuf) {
    remove_all_on_signals();
    registry().directories.insert(path);
}

/// Kills the processes of a control group and removes it.
pub(crate) fn remove_cgroup(path: &Path) {
    let mut registry = registry();
    if registry.cgroups.remove(path) {
        cgroup::clear(path);
    }
}

/// Kills the processes of a namespace and removes it.
pub(crate) fn remove_namespace(name: &str) {
    let mut registry = registry();
    if registry.namespaces.remove(name) {
        clear_namespace(name);
    }
}

/// Unregisters a scratch directory, which its owner removes.
pub(crate) fn forget_directory(path: &PathBuf) {
    registry().directories.remove(path);
}

/// Kills the processes of a namespace and removes it, but keeps it registered, because a new one
/// replaces it.
///
/// Ignores errors, because it runs during cleanup and the namespace may be gone already.
pub(crate) fn clear_namespace(namespace: &str) {
    let pids = run(Command::new("ip").args(["netns", "pids", namespace])).unwrap_or_default();
    for pid in pids.lines().filter_map(|line| line.trim().parse().ok()) {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    let _ = run(Command::new("ip").args(["netns", "del", namespace]));
}

fn remove_all_on_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok(mut signals) = Signals::new([SIGHUP, SIGINT, SIGTERM]) else {
            return;
        };
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                // Locked until the exit, so that a thread in the middle of something blocks instead
                // of reporting errors about vanishing resources.
                let _quiet = std::io::stdout().lock();
                let registry = registry();
                registry.cgroups.iter().for_each(|path| cgroup::clear(path));
                registry.namespaces.iter().for_each(|name| clear_namespace(name));
                for directory in &registry.directories {
                    let _ = std::fs::remove_dir_all(directory);
                }
                // The exit status by which a shell reports a process that was killed by a signal.
                std::process::exit(128 + signal);
            }
        });
    });
}
