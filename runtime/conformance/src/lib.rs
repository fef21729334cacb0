//! What every plugin has to do, whatever it plans.
//!
//! A [`Scenario`] is a situation to ask a plugin in: a network config, this node, and others. [`examine`] asks a plugin in
//! many, most of them made up, and reports by rule what it found. Answers come through the host's own code, so what the
//! host refuses is found as well. No root, and nothing of this machine's.

mod backend;
mod chance;
mod emitter;
mod files;
mod measure;
mod packets;
mod plan;
mod report;
mod scenario;

pub use files::Files;
pub use measure::{MeasureError, Measurement, measure};
pub use plan::Plans;
pub use report::{Finding, Report, Rule};
pub use scenario::{InvalidScenario, Scenario};

use heddle_plugin::{Plugin, PluginError, Role};

/// How thorough an examination is.
#[derive(Clone, Debug)]
pub struct Thoroughness {
    /// How many made-up configs, leases and batches of packets are tried.
    pub rounds: u32,
    /// What the made-up ones follow from: the same for the same.
    pub seed: u64,
}

impl Default for Thoroughness {
    fn default() -> Self {
        Self { rounds: 200, seed: 1 }
    }
}

/// Examines a plugin. `backend` is the object `Backend` that a backend is tried with, or the settings of an emitter.
///
/// Call it on a tokio runtime.
///
/// # Errors
///
/// The plugin cannot be started at all.
pub async fn examine(
    plugin: &Plugin,
    settings: &Settings,
    thoroughness: &Thoroughness,
) -> Result<Report, PluginError> {
    match plugin.manifest().world.role() {
        Role::Backend => backend::examine(plugin, &settings.backend, thoroughness).await,
        Role::Emitter => emitter::examine(plugin, &settings.emitter, thoroughness).await,
    }
}

/// Does something on a thread of its own, and waits for it.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let done = std::thread::scope(|scope| scope.spawn(work).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What a plugin is configured with while it is examined.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The object `Backend` of the network config, `Type` included.
    pub backend: serde_json::Value,
    /// An emitter's settings, names and values.
    pub emitter: Vec<heddle_plugin::Setting>,
}

impl Settings {
    /// Nothing but what has to be.
    pub fn least(plugin: &str) -> Self {
        Self { backend: serde_json::json!({ "Type": plugin }), emitter: Vec::new() }
    }
}
