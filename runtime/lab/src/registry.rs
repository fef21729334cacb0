//! Resources to remove when a signal ends the process before their owners are dropped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// A resource that can be removed by its name alone.
pub(crate) trait Cleanup: Send {
    /// Removes the resource, after killing its processes. Ignores errors: nobody could handle them,
    /// and the resource may be gone already.
    fn clean_up(&self);
}

/// The order in which a signal removes resources: processes before what they use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Control groups.
    Cgroups,
    /// Network namespaces.
    Namespaces,
    /// Scratch directories.
    Directories,
}

/// A registered resource. Dropping this removes the resource.
#[derive(Debug)]
pub(crate) struct Registration((Stage, u64));

/// All resources that this process has created and not removed yet, by stage and number.
type Registry = BTreeMap<(Stage, u64), Box<dyn Cleanup>>;

static REGISTRY: Mutex<Registry> = Mutex::new(Registry::new());

/// Locks the registry. A panic elsewhere must not prevent cleanup.
fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registration {
    /// Registers a resource, which may be about to be created.
    pub(crate) fn new(stage: Stage, resource: impl Cleanup + 'static) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        remove_all_on_signals();
        let key = (stage, NUMBER.fetch_add(1, Ordering::Relaxed));
        registry().insert(key, Box::new(resource));
        Self(key)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut registry = registry();
        if let Some(resource) = registry.remove(&self.0) {
            resource.clean_up();
        }
    }
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
                registry.values().for_each(|resource| resource.clean_up());
                // The exit status by which a shell reports a process that was killed by a signal.
                std::process::exit(128 + signal);
            }
        });
    });
}
