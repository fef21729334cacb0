//! Settings of wasmtime, defined in this module only.
//!
//! Used by the library and, through `#[path]`, by `heddle-compiler`. Compiled code only loads into
//! an engine with the same settings, so there must not be a second definition.

/// Returns the settings of all our engines, for compiling as well as for running.
pub(crate) fn settings() -> wasmtime::Config {
    let mut config = wasmtime::Config::new();
    config.wasm_component_model(true);
    // Epoch interruption stops a call that takes too long.
    config.epoch_interruption(true);
    // Calls are plain and blocking. Support for concurrent calls makes each call three times as
    // expensive.
    config.concurrency_support(false);
    // The position of a trap in the plugin's code does not help an operator, and costs memory.
    config.generate_address_map(false);
    config.wasm_backtrace_max_frames(None);
    config
}
