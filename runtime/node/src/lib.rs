//! The decisions of a node: joining, the reconcile loop, the timing of traffic rules, files for
//! other programs, readiness and status.
//!
//! Decisions reach the kernel, the store and plugins through the traits in [`ports`] only. The real
//! ones are in [`adapters`], `packets` and `files`; `heddled` wires both together, and `runtime/sim`
//! substitutes models.
//!
//! | module | job |
//! | --- | --- |
//! | [`ports`] | traits: the data plane, plugins, the packet path, traffic rules, probes |
//! | [`adapters`] | the ports, implemented by the kernel, the plugin runtime and the packet path |
//! | `lifecycle` | the node's life: join, plan, write the files, keep the lease |
//! | `join` | turns flags into membership: config, plugins, interface, subnet, packet path |
//! | `missing_config` | looks for a missing network config in etcd's v2 API |
//! | `reconcile` | the loop: leases in, kernel state out |
//! | `host_network` | follows the store's addresses, restores routes of the host |
//! | `leftovers` | removes leftovers of an earlier run |
//! | `underlay` | follows the interface between hosts |
//! | `egress` | finds the devices behind an interface that carries no packets itself |
//! | `packets` | the packet path of backends in user space: its peers, and the plugin that steers it |
//! | `probing` | probes peers over the overlay |
//! | `rules` | the timing of traffic rules |
//! | `clock` | the clock of all decisions |
//! | `emit`, `files` | files for other programs |
//! | [`readiness`] | the conditions of readiness |
//! | [`status`] | the answers on the control socket |

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test begins at the present time"))]

pub mod adapters;
pub mod ports;
pub mod readiness;
pub mod status;

mod clock;
mod egress;
mod emit;
mod files;
mod host_network;
mod join;
mod leftovers;
mod lifecycle;
mod missing_config;
mod packets;
mod probing;
mod reconcile;
mod rules;
#[cfg(test)]
mod testing;
mod underlay;

pub use files::HostFiles;
pub use join::{Identity, identity};
pub use lifecycle::Node;
pub use packets::PacketCounters;

/// Reason why a node ends by itself. Only a restart or an operator can fix it.
pub type Fatal = Box<dyn std::error::Error + Send + Sync>;
