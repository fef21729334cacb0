//! Writes Heddle plugins in Rust.
//!
//! A plugin is a WebAssembly component. It plans and never acts: from the cluster's network config, the node and the
//! leases it computes the kernel state that should hold, and the host makes it so. This crate gives the interface
//! (`wit/v0.1`) in everyday types, [`std::net::IpAddr`] and [`ipnet::IpNet`] above all.
//!
//! A backend is a type with three functions:
//!
//! ```
//! use heddle_sdk::*;
//!
//! /// Routes to every peer directly: all nodes are on one network.
//! struct Direct;
//!
//! impl Backend for Direct {
//!     fn advertise(config: &NetworkConfig, _: &Node) -> Result<Advertisements, ConfigError> {
//!         Ok(Advertisements {
//!             backend_type: Some("direct".into()),
//!             backend_data: vec![None; config.networks.len()],
//!         })
//!     }
//!
//!     fn plan_node(_: &NetworkConfig, node: &Node, _: &Lease) -> Result<NodePlan, ConfigError> {
//!         Ok(NodePlan { plan: Plan::default(), mtu: node.underlay.mtu })
//!     }
//!
//!     fn plan_peer(
//!         _: &NetworkConfig,
//!         node: &Node,
//!         _: &Lease,
//!         peer: &Lease,
//!     ) -> Result<Plan, PeerError> {
//!         if peer.backend_type.as_deref() != Some("direct") {
//!             let kind = peer.backend_type.as_deref().unwrap_or("udp");
//!             return Err(PeerError::OtherBackend(kind.into()));
//!         }
//!         let mut plan = Plan::default();
//!         for family in &peer.families {
//!             plan.routes.push(Route::via(
//!                 family.subnet,
//!                 family.public_address,
//!                 &node.underlay.link,
//!             ));
//!         }
//!         Ok(plan)
//!     }
//! }
//!
//! export_backend!(Direct, name = "direct");
//! ```
//!
//! Built with `crate-type = ["cdylib", "rlib"]` for `wasm32-wasip2` (`cargo build --release --target wasm32-wasip2`),
//! that is a plugin. Cargo names the file after the crate; copied to `/etc/heddle/plugins/direct.wasm`, the name given to
//! the macro, `heddle plugin inspect direct` shows it. It runs once `Backend.Type` is `direct` and heddled is restarted,
//! which has it compiled by the `heddle` beside it or in `PATH`.
//!
//! On any other target the macro leaves nothing, so that `cargo test` runs the plugin's functions as the plain functions
//! they are.
//!
//! # Purity
//!
//! The same arguments must give the same answer, whatever was asked before: the host calls the functions in any
//! order, on any instance, and throws instances away. There is no clock to wait on, no file and no socket. A panic is
//! a trap: it costs the call it happens in and is reported with the panic's message, and nothing else comes of it.

#[doc(hidden)]
pub mod bindings;
mod convert;
#[doc(hidden)]
pub mod export;
pub mod json;
pub mod log;
mod mac;
mod types;

pub use ipnet::{IpNet, Ipv4Net, Ipv6Net};
pub use mac::{InvalidMacAddress, MacAddress};
pub use types::*;

/// A backend: how nodes reach each other. Exported with [`export_backend!`].
pub trait Backend {
    /// What this node's lease should say. Asked before the node has a lease, at each attempt to get one.
    ///
    /// # Errors
    ///
    /// A complaint about one of the backend's keys in the network config.
    fn advertise(config: &NetworkConfig, node: &Node) -> Result<Advertisements, ConfigError>;

    /// The devices, addresses and settings of this node itself.
    ///
    /// # Errors
    ///
    /// A complaint about one of the backend's keys in the network config.
    fn plan_node(
        config: &NetworkConfig,
        node: &Node,
        lease: &Lease,
    ) -> Result<NodePlan, ConfigError>;

    /// What it takes to reach one peer. `lease` is this node's own, `peer` the other one's.
    ///
    /// # Errors
    ///
    /// Why there is no plan for this peer.
    fn plan_peer(
        config: &NetworkConfig,
        node: &Node,
        lease: &Lease,
        peer: &Lease,
    ) -> Result<Plan, PeerError>;
}

/// An emitter: turns the node's lease into files for other programs. Exported with [`export_emitter!`].
pub trait Emitter {
    /// The files for this lease.
    ///
    /// # Errors
    ///
    /// A text that names the setting or the field and says what would be right.
    fn emit(view: &View, settings: &[Setting]) -> Result<Vec<File>, String>;
}

/// Makes a crate a backend plugin: `export_backend!(Type, name = "vxlan")`, with a type that implements [`Backend`].
///
/// The name is what stands in `Backend.Type`, and must be the file's: `vxlan.wasm`. 1 to 32 of `a–z`, `0–9` and `-`.
/// The plugin's version is the crate's.
#[macro_export]
macro_rules! export_backend {
    ($plugin:ty, name = $name:literal) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            $crate::__manifest!($name, "backend-plugin");
            type Exported = $crate::export::BackendExport<$plugin>;
            $crate::bindings::backend::export!(
                Exported with_types_in $crate::bindings::backend
            );
        };
    };
}

/// Makes a crate an emitter plugin: `export_emitter!(Type, name = "subnet-env")`, with a type that implements
/// [`Emitter`].
///
/// Names and versions as in [`export_backend!`].
/// This version of the daemon runs the emitter named `subnet-env`, and no other.
#[macro_export]
macro_rules! export_emitter {
    ($plugin:ty, name = $name:literal) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            $crate::__manifest!($name, "emitter-plugin");
            type Exported = $crate::export::EmitterExport<$plugin>;
            $crate::bindings::emitter::export!(
                Exported with_types_in $crate::bindings::emitter
            );
        };
    };
}

/// The custom section that says what the plugin is, readable without running it.
#[doc(hidden)]
#[macro_export]
macro_rules! __manifest {
    ($name:literal, $world:literal) => {
        const MANIFEST: &str = ::core::concat!(
            "{\"name\":\"",
            $name,
            "\",\"version\":\"",
            ::core::env!("CARGO_PKG_VERSION"),
            "\",\"wit\":\"0.1.0\",\"world\":\"",
            $world,
            "\"}"
        );
        #[used]
        #[unsafe(link_section = "heddle:manifest")]
        static SECTION: [u8; MANIFEST.len()] = *MANIFEST.as_bytes().first_chunk().unwrap();
    };
}
