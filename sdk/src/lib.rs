//! SDK for Heddle plugins in Rust.
//!
//! A plugin is a WebAssembly component. It plans and never acts: from the cluster's network config,
//! the node and the leases it computes the desired kernel state, and the host applies it. This
//! crate offers the interface (`wit/v0.1`) with everyday types, above all [`std::net::IpAddr`] and
//! [`ipnet::IpNet`].
//!
//! # Backends
//!
//! There are three kinds, each based on the one before:
//!
//! - A [`Backend`] plans, and the kernel carries the packets: devices, routes and the other objects
//!   of a [`Plan`].
//! - A [`PacketBackend`] also plans a TUN device ([`Tunnel`]), and selects the peer for each packet
//!   that the kernel routes into it. The host carries the packets, one in each UDP datagram.
//! - A [`Transform`] also defines the format of the packets between hosts. Payloads then pass
//!   through the plugin.
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
//! Built with `crate-type = ["cdylib", "rlib"]` for `wasm32-wasip2` (`cargo build --release
//! --target wasm32-wasip2`), that is a plugin. `heddle-sdk` is a dependency by `path` or `git`: it
//! needs the directory `wit/` next to it.
//!
//! `heddle plugin new` creates such a crate, with tests. Cargo names the file after the crate;
//! copied to `/etc/heddle/plugins/direct.wasm`, with the name given to the macro, `heddle plugin
//! inspect direct` shows it. It runs once `Backend.Type` is `direct` and heddled is restarted,
//! which compiles it with the `heddle` next to it or in `PATH`.
//!
//! On any other target the macro expands to nothing, so that `cargo test` can call the plugin's
//! functions as plain functions; `heddle-testkit` has scenarios to run them in, natively and as the
//! component.
//!
//! # Settings
//!
//! A backend's keys in the network config are read by serde into a type of the plugin, with
//! [`NetworkConfig::settings`]; a problem is a [`ConfigError`] that names the key.
//! [`LeaseFamily::data`] reads a peer's backend data in the same way.
//!
//! # Capabilities
//!
//! Devices, their sysctls and UDP ports, routes beyond the overlay, and an emitter's files are
//! [requested](export_backend#capabilities) where the plugin is exported, and granted by the
//! operator.
//!
//! The type of a packet backend is its table of peers. [`PrefixTable`] suits most of them:
//!
//! ```
//! # use heddle_sdk::*;
//! struct Carried {
//!     peers: PrefixTable<PeerIndex>,
//! }
//!
//! # impl Backend for Carried {
//! #     fn advertise(_: &NetworkConfig, _: &Node) -> Result<Advertisements, ConfigError> { todo!() }
//! #     fn plan_node(_: &NetworkConfig, _: &Node, _: &Lease) -> Result<NodePlan, ConfigError> { todo!() }
//! #     fn plan_peer(_: &NetworkConfig, _: &Node, _: &Lease, _: &Lease) -> Result<Plan, PeerError> { todo!() }
//! # }
//! impl PacketBackend for Carried {
//!     fn with_peers(_: &NetworkConfig, _: &Node, _: &Lease, peers: &[Lease]) -> Self {
//!         Self { peers: PrefixTable::of_peers(peers) }
//!     }
//!
//!     fn steer(&self, destination: std::net::IpAddr) -> Option<PeerIndex> {
//!         self.peers.find(destination).copied()
//!     }
//! }
//!
//! export_packet_backend!(Carried, name = "carried");
//! ```
//!
//! Most implement `plan_node` with [`Tunnel::plan`]. `plugins/udp` is a complete packet backend,
//! `plugins/vxlan-tun` a complete transform.
//!
//! # Purity
//!
//! The same arguments must give the same result, independent of earlier calls: the host calls the
//! functions in any order, on any instance, and discards instances. A table of peers counts as an
//! argument: steering has an instance of its own, which the host may replace at any time. There is
//! no clock to wait on, no file and no socket. A panic is a trap: it fails the call that it happens
//! in, is reported with the panic's message, and has no other effect.

#[doc(hidden)]
pub mod bindings;
mod convert;
mod display;
#[doc(hidden)]
pub mod export;
pub mod json;
pub mod log;
mod mac;
mod packet;
mod prefix;
pub mod subnet_env;
mod tunnel;
mod types;
pub mod vtep;

pub use ipnet::{IpNet, Ipv4Net, Ipv6Net};
pub use mac::{InvalidMacAddress, MacAddress};
pub use packet::{Output, PacketBackend, PeerIndex, Transform};
pub use prefix::PrefixTable;
pub use tunnel::Tunnel;
pub use types::*;

/// A backend: defines how nodes reach each other. Exported with [`export_backend!`].
pub trait Backend {
    /// The backend's keys in the network config, without `Type`. They become part of the manifest,
    /// and the host warns of every other key in `Backend`, which is ignored. None if the backend
    /// does not declare its keys.
    const KEYS: Option<&'static [&'static str]> = None;

    /// Returns the backend's part of this node's lease. Called before the node has a lease, at each
    /// attempt to get one.
    ///
    /// # Errors
    ///
    /// If one of the backend's keys in the network config is wrong.
    fn advertise(config: &NetworkConfig, node: &Node) -> Result<Advertisements, ConfigError>;

    /// Plans the devices, addresses and sysctls of this node itself.
    ///
    /// # Errors
    ///
    /// If one of the backend's keys in the network config is wrong.
    fn plan_node(
        config: &NetworkConfig,
        node: &Node,
        lease: &Lease,
    ) -> Result<NodePlan, ConfigError>;

    /// Plans the objects through which one peer is reached. `lease` is this node's own, `peer` the
    /// other node's.
    ///
    /// # Errors
    ///
    /// The reason why there is no plan for this peer.
    fn plan_peer(
        config: &NetworkConfig,
        node: &Node,
        lease: &Lease,
        peer: &Lease,
    ) -> Result<Plan, PeerError>;
}

/// An emitter: turns the node's lease into files for other programs. Exported with [`export_emitter!`].
pub trait Emitter {
    /// Returns the files for this lease.
    ///
    /// # Errors
    ///
    /// A message that names the setting or the field, and the expected value.
    fn emit(view: &View, settings: &[Setting]) -> Result<Vec<File>, String>;
}

/// Exports a crate as a backend plugin: `export_backend!(Type, name = "vxlan")`, with a type that
/// implements [`Backend`].
///
/// The name is the value of `Backend.Type`, and must be that of the file: `vxlan.wasm`. It has 1 to
/// 32 characters of `a–z`, `0–9` and `-`. The plugin's version is the crate's.
///
/// # Capabilities
///
/// Routes of the overlay need no capability. Anything else must be requested, and granted by an
/// operator:
///
/// ```ignore
/// export_backend!(
///     Tunnels,
///     name = "tunnels",
///     links = ["heddle-*"],     // devices by these names, `*` for any characters
///     link_kinds = ["vxlan"],   // of these kinds: vxlan, tun
///     udp_ports = ["4000-4999"], // one port of these at a time
///     sysctls = ["accept_ra"],  // settings of its own devices
///     routes = ["10.96.0.0/12"], // destinations beyond the overlay, through its own devices
///     files = ["/run/heddle/"], // an emitter's files: a path, or a directory and all below it
/// );
/// ```
///
/// `heddle plugin inspect` shows the requested and the granted capabilities.
#[macro_export]
macro_rules! export_backend {
    ($plugin:ty, name = $name:literal $(, $capability:ident = $values:tt)* $(,)?) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            $crate::__manifest!(
                $name, "backend-plugin", <$plugin as $crate::Backend>::KEYS $(, $capability $values)*
            );
            type Exported = $crate::export::Export<$plugin>;
            $crate::bindings::backend::export!(
                Exported with_types_in $crate::bindings::backend
            );
        };
    };
}

/// Exports a crate as a packet backend plugin: `export_packet_backend!(Type, name = "udp")`, with a
/// type that implements [`PacketBackend`].
///
/// Name and version are as in [`export_backend!`].
#[macro_export]
macro_rules! export_packet_backend {
    ($plugin:ty, name = $name:literal $(, $capability:ident = $values:tt)* $(,)?) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            $crate::__manifest!(
                $name, "packet-backend-plugin", <$plugin as $crate::Backend>::KEYS $(, $capability $values)*
            );
            type Exported = $crate::export::Export<$plugin>;
            $crate::bindings::backend::export!(
                Exported with_types_in $crate::bindings::backend
            );
            $crate::bindings::steering::export!(
                Exported with_types_in $crate::bindings::steering
            );
        };
    };
}

/// Exports a crate as a plugin that defines the format of packets between hosts:
/// `export_transform!(Type, name = "vxlan-tun")`, with a type that implements [`Transform`].
///
/// Name and version are as in [`export_backend!`].
#[macro_export]
macro_rules! export_transform {
    ($plugin:ty, name = $name:literal $(, $capability:ident = $values:tt)* $(,)?) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            $crate::__manifest!(
                $name, "transform-plugin", <$plugin as $crate::Backend>::KEYS $(, $capability $values)*
            );
            type Exported = $crate::export::Export<$plugin>;
            $crate::bindings::backend::export!(
                Exported with_types_in $crate::bindings::backend
            );
            $crate::bindings::steering::export!(
                Exported with_types_in $crate::bindings::steering
            );
            $crate::bindings::transform::export!(
                Exported with_types_in $crate::bindings::transform
            );
        };
    };
}

/// Exports a crate as an emitter plugin: `export_emitter!(Type, name = "subnet-env")`, with a type
/// that implements [`Emitter`].
///
/// Name and version are as in [`export_backend!`]. The daemon runs the emitters that `--emit`
/// names.
#[macro_export]
macro_rules! export_emitter {
    ($plugin:ty, name = $name:literal $(, $capability:ident = $values:tt)* $(,)?) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            $crate::__manifest!($name, "emitter-plugin", None $(, $capability $values)*);
            type Exported = $crate::export::Export<$plugin>;
            $crate::bindings::emitter::export!(
                Exported with_types_in $crate::bindings::emitter
            );
        };
    };
}

/// Defines the custom section with the plugin's manifest, which is readable without running it.
#[doc(hidden)]
#[macro_export]
macro_rules! __manifest {
    ($name:literal, $world:literal, $keys:expr $(, $capability:ident $values:tt)*) => {
        const KEYS: ::core::option::Option<&[&str]> = $keys;
        const HEAD: &str = ::core::concat!(
            "{\"name\":\"",
            $name,
            "\",\"version\":\"",
            ::core::env!("CARGO_PKG_VERSION"),
            "\",\"wit\":\"0.1.0\",\"world\":\"",
            $world,
            "\",\"capabilities\":",
            $crate::__capabilities!($($capability $values),*),
        );
        #[used]
        #[unsafe(link_section = "heddle:manifest")]
        static SECTION: [u8; $crate::export::manifest_length(HEAD, KEYS)] =
            $crate::export::manifest(HEAD, KEYS);
    };
}

/// Formats the capabilities of a manifest as JSON.
#[doc(hidden)]
#[macro_export]
macro_rules! __capabilities {
    () => {
        "{}"
    };
    ($first:ident $values:tt $(, $other:ident $others:tt)*) => {
        ::core::concat!(
            "{",
            $crate::__capability!($first $values),
            $(",", $crate::__capability!($other $others),)*
            "}"
        )
    };
}

/// Formats one capability. This is the list of all that exist.
#[doc(hidden)]
#[macro_export]
macro_rules! __capability {
    (links $values:tt) => {
        $crate::__capability!("links" $values)
    };
    (link_kinds $values:tt) => {
        $crate::__capability!("link-kinds" $values)
    };
    (routes $values:tt) => {
        $crate::__capability!("routes" $values)
    };
    (udp_ports $values:tt) => {
        $crate::__capability!("udp-ports" $values)
    };
    (sysctls $values:tt) => {
        $crate::__capability!("sysctls" $values)
    };
    (files $values:tt) => {
        $crate::__capability!("files" $values)
    };
    ($name:literal [$first:literal $(, $other:literal)* $(,)?]) => {
        ::core::concat!("\"", $name, "\":[\"", $first, "\"", $(",\"", $other, "\"",)* "]")
    };
    ($unknown:ident $values:tt) => {
        ::core::compile_error!(::core::concat!(
            "`", ::core::stringify!($unknown),
            "` is no capability: expected links, link_kinds, routes, udp_ports, sysctls or files"
        ))
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn capabilities_are_json() {
        let json = __capabilities!(links["flannel.*", "wg0"], udp_ports[8472, "1024-2048"]);
        assert_eq!(json, r#"{"links":["flannel.*","wg0"],"udp-ports":["8472","1024-2048"]}"#);
        assert_eq!(__capabilities!(), "{}");
    }
}
