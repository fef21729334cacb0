//! What has to be removed when the process is told to end before the values that own it are dropped.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cgroup;
use crate::command::run;

/// Everything that this process made and has not removed yet.
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

/// A panic elsewhere must not keep anything from being removed.
fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes note of a control group that is about to be made.
pub(crate) fn add_cgroup(path: PathBuf) {
    remove_all_on_signals();
    registry().cgroups.insert(path);
}

/// Takes note of a namespace that is about to be made.
pub(crate) fn add_namespace(name: &str) {
    remove_all_on_signals();
    registry().namespaces.insert(name.to_owned());
}

/// Takes note of a scratch directory.
pub(crate) fn add_directory(path: PathBuf) {
    remove_all_on_signals();
    registry().directories.insert(path);
}

/// Ends what runs in a control group and removes it.
pub(crate) fn remove_cgroup(path: &Path) {
    let mut registry = registry();
    if registry.cgroups.remove(path) {
        cgroup::clear(path);
    }
}

/// Ends what runs in a namespace and removes it.
pub(crate) fn remove_namespace(name: &str) {
    let mut registry = registry();
    if registry.namespaces.remove(name) {
        clear_namespace(name);
    }
}

/// Forgets a scratch directory that its owner removes.
pub(crate) fn forget_directory(path: &PathBuf) {
    registry().directories.remove(path);
}

/// Ends what runs in a namespace and removes it, still noted: another takes its place.
///
/// Nobody is left to hear of a failure here, and a namespace that is gone already is as it should be.
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
                // Held to the end: whoever is in the middle of something waits instead of complaining about
                // what vanishes under it.
                let _quiet = std::io::stdout().lock();
                let registry = registry();
                registry.cgroups.iter().for_each(|path| cgroup::clear(path));
                registry.namespaces.iter().for_each(|name| clear_namespace(name));
                for directory in &registry.directories {
                    let _ = std::fs::remove_dir_all(directory);
                }
                // As a shell reports a process that a signal ended.
                std::process::exit(128 + signal);
            }
        });
    });
}
