//! Finds, loads, runs and confines plugins. The only crate that uses wasmtime.
//!
//! [`Catalogue::find`] finds a plugin by name: a file in one of the plugin directories, or one
//! embedded in the binary. The result can be started as a [`Backend`] or an [`Emitter`], each on a
//! thread of its own. Their functions take and return `heddle-core`'s types. A backend that steers
//! packets also provides a [`PacketPlugin`], whose instances are called on the threads that handle
//! the packets.
//!
//! A plugin is not trusted. It has no access to anything; its time and memory are limited; and each
//! of its answers is checked, for being possible and for being allowed, before anyone sees it. A
//! failed call is an error that names the plugin, the call, the peer and the reason, and it affects
//! no other call.
//!
//! Plugin functions are pure, so instances are disposable: each request gets a fresh one, and so
//! does the call after a trap. Only a [`PacketInstance`] is kept, because it holds the peers.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may run programs and wait"))]

mod backend;
mod bindings;
mod breaker;
mod cache;
mod caller;
mod catalogue;
mod compiler;
mod embedded;
mod emitter;
mod engine;
mod error;
mod from_wit;
mod guest_output;
#[cfg(test)]
mod guests;
mod host;
mod limits;
mod metrics;
mod packets;
mod plugin;
mod plugin_error;
mod settings;
#[cfg(test)]
mod tests;
mod ticker;
mod to_wit;
mod worker;

pub use backend::{Advertisements, Backend};
pub use cache::CacheError;
pub use catalogue::{Catalogue, Entry, read_component};
pub use compiler::{CompileError, compile};
pub use embedded::embedded_component;
pub use emitter::{Emitter, View};
pub use error::{CallError, Reason};
pub use heddle_core::plugin_source::PluginSource;
// The items of `heddle-grant` that callers need to use a plugin.
pub use heddle_grant::{
    Capabilities, Capability, File, Inspection, InvalidCapability, InvalidName, Kind, Limits,
    Manifest, ManifestError, NamePattern, NodePlan, PathPattern, Policy, PolicyError, Ports,
    Refusal, Role, Setting, Tunnel, WIT_VERSION, World, check_name, inspect, with_manifest,
};
pub use metrics::Metrics;
pub use packets::{PacketInstance, PacketPlugin};
pub use plugin::Plugin;
pub use plugin_error::PluginError;
