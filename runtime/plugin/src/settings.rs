//! How wasmtime is set up: the one place that says so.
//!
//! Used by the library and, through `#[path]`, by the build script. Compiled code only loads into an engine with the
//! same settings, so there must not be a second place.

/// The settings of every engine of ours, whether it compiles or runs.
pub(crate) fn settings() -> wasmtime::Config {
    let mut config = wasmtime::Config::new();
    config.wasm_component_model(true);
    // A call that takes too long is stopped by an epoch that passes.
    config.epoch_interruption(true);
    // Calls are plain and blocking. Support for concurrent ones makes each call three times as dear.
    config.concurrency_support(false);
    // Where in the plugin's code it trapped says nothing to an operator, and costs memory.
    config.generate_address_map(false);
    config.wasm_backtrace_max_frames(None);
    config
}
