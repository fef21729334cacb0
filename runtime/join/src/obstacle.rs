//! The reasons why a node does not get a plan.

use heddle_core::allocation::AllocationError;
use heddle_core::config::ConfigErrors;
use heddle_core::interface::SelectionError;
use heddle_plugin::{CallError, PluginError};

/// Reason why a node does not get to the next step. Each program decides whether it waits, ends or
/// reports the obstacle.
#[derive(Debug, thiserror::Error)]
pub enum Obstacle {
    /// There is no network config at this key.
    #[error("{0} does not exist")]
    NoConfig(String),
    /// The network config is invalid.
    #[error("{key}: {error}")]
    Config {
        /// The key of the network config.
        key: String,
        /// All errors in it.
        error: ConfigErrors,
    },
    /// There is no usable plugin of a requested name.
    #[error("{origin}: {error}")]
    Plugin {
        /// The key or flag that requests the plugin.
        origin: String,
        /// The plugin's error.
        error: Box<PluginError>,
    },
    /// No interface can be chosen.
    #[error(transparent)]
    Interface(#[from] SelectionError),
    /// The backend rejects the config, or fails.
    #[error("{key}: {error}")]
    Backend {
        /// The key of the network config.
        key: String,
        /// The failed call.
        error: Box<CallError>,
    },
    /// No subnet can be leased.
    #[error(transparent)]
    Lease(#[from] AllocationError),
}
