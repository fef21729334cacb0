//! Writes to the daemon's log, under the plugin's name.
//!
//! Long lines are truncated, and a plugin that writes too many is muted for a while. In native
//! tests, lines go to standard error.

/// Logs one line about a failure.
pub fn error(message: &str) {
    write(Level::Error, message);
}

/// Logs one line about something that the operator should check.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// Logs one line of general interest.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// Logs one line for debugging.
pub fn debug(message: &str) {
    write(Level::Debug, message);
}

use crate::bindings::backend::heddle::overlay::log::Level;

#[cfg(target_family = "wasm")]
use crate::bindings::backend::heddle::overlay::log::write;

#[cfg(not(target_family = "wasm"))]
fn write(level: Level, message: &str) {
    eprintln!("{level:?}: {message}");
}
