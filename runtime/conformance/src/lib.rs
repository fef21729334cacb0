//! Rules that every plugin must follow, whatever it plans.
//!
//! A [`Scenario`] is a situation for a plugin: a network config, this node, and others. [`examine`]
//! calls a plugin in many of them, most of them generated, and reports its findings by rule. Calls
//! go through the host's own code, so results that the host refuses are found as well. Needs no
//! root, and uses nothing of this machine.

#![forbid(unsafe_code)]

mod arbitrary;
mod backend;
mod baseline;
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

/// Thoroughness of an examination.
#[derive(Clone, Debug)]
pub struct Thoroughness {
    /// Number of generated configs, leases and batches of packets to try.
    pub rounds: u32,
    /// Seed of the generator; the same seed generates the same inputs.
    pub seed: u64,
}

impl Default for Thoroughness {
    fn default() -> Self {
        Self { rounds: 200, seed: 1 }
    }
}

/// Examines a plugin. `settings` has the object `Backend` for a backend, and the settings for an
/// emitter.
///
/// Must be called on a Tokio runtime.
///
/// # Errors
///
/// If the plugin cannot be started at all.
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

/// Runs `work` on a separate thread, and waits for its result.
fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let done = std::thread::scope(|scope| scope.spawn(work).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Configuration of the plugin during the examination.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Object `Backend` of the network config, including `Type`.
    pub backend: serde_json::Value,
    /// Names and values of an emitter's settings.
    pub emitter: Vec<heddle_plugin::Setting>,
}

impl Settings {
    /// Returns the minimal settings.
    pub fn least(plugin: &str) -> Self {
        Self { backend: serde_json::json!({ "Type": plugin }), emitter: Vec::new() }
    }
}
