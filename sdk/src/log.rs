//! The daemon's log, under the plugin's name.
//!
//! Long lines are cut, and a plugin that writes too many is silenced for a while. Natively, in tests, lines go to
//! standard error.

/// Writes one line about something that is broken.
pub fn error(message: &str) {
    write(Level::Error, message);
}

/// Writes one line about something that the operator should look at.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// Writes one line about something worth knowing.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// Writes one line for someone who looks for a fault.
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
