//! Finds, loads, runs and confines plugins. The only crate that knows wasmtime.
//!
//! [`Catalogue::find`] finds a plugin by name: a file in one of the plugin directories, or one that ships inside the
//! binary. What it finds is started as a [`Backend`] or an [`Emitter`], each with a thread of its own. Their functions
//! take and give `heddle-core`'s types. A backend that steers packets is a [`PacketPlugin`] as well, whose instances are
//! called on the threads that the packets are on.
//!
//! A plugin is not trusted. It has no access to anything; its time and memory are bounded; and everything it answers
//! is checked, for being possible and for being its business, before anyone sees it. A call that goes wrong is an
//! error that names the plugin, the call, the peer and the reason, and touches no other call.
//!
//! Functions are pure, so instances are disposable: each request gets a fresh one, and so does the call after a trap.
//! Only a [`PacketInstance`] is kept, because of the peers that it was told of.

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
#[cfg(test)]
mod guests;
mod host;
mod limits;
mod metrics;
mod packets;
mod settings;
#[cfg(test)]
mod tests;
mod ticker;
mod to_wit;
mod voice;
mod worker;

pub use backend::{Advertisements, Backend};
pub use cache::CacheError;
pub use catalogue::{Catalogue, Entry, Plugin, PluginError, Source, read_component};
pub use compiler::{CompileError, compile};
pub use embedded::embedded_component;
pub use emitter::{Emitter, View};
pub use error::{CallError, Reason};
// What callers need of it to use a plugin.
pub use heddle_grant::{
    Capabilities, Capability, File, Inspection, InvalidCapability, InvalidName, Kind, Limits,
    Manifest, ManifestError, NamePattern, NodePlan, PathPattern, Policy, PolicyError, Ports,
    Refusal, Role, Setting, Tunnel, WIT_VERSION, World, check_name, inspect, with_manifest,
};
pub use metrics::Metrics;
pub use packets::{PacketInstance, PacketPlugin};
