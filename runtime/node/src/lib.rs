//! What a node decides: joining, the reconcile loop, the timing of traffic rules, files for other programs, readiness and
//! status.
//!
//! Nothing here touches the kernel, the store or a plugin itself: [`ports`] has the traits that stand for them, and
//! [`adapters`] implements these with the real ones. `heddled` wires both together; `runtime/sim` puts models in their place.
//!
//! | module | job |
//! | --- | --- |
//! | [`ports`] | traits: the data plane, plugins, the packet path, traffic rules, probes |
//! | [`adapters`] | the ports, implemented by the kernel, the plugin runtime and the packet path |
//! | `lifecycle` | the node's life: join, plan, write the files, keep the lease |
//! | `join` | from flags to membership: config, plugins, interface, subnet, packet path |
//! | `reconcile` | the loop: leases in, kernel state out |
//! | `host_network` | what the overlay leaves to the host, and what earlier versions took from it |
//! | `leftovers` | removes what an earlier run left |
//! | `underlay` | follows the interface between hosts |
//! | `packets` | the packet path of backends in user space: its peers, and the plugin that steers it |
//! | `probing` | probes peers over the overlay |
//! | `rules` | the timing of traffic rules |
//! | `emit`, `files` | files for other programs |
//! | [`readiness`] | the conditions that hold or do not |
//! | [`status`] | the answers on the control socket |

#![forbid(unsafe_code)]

pub mod adapters;
pub mod ports;
pub mod readiness;
pub mod status;

mod clock;
mod emit;
mod files;
mod host_network;
mod join;
mod leftovers;
mod lifecycle;
mod packets;
mod probing;
mod reconcile;
mod rules;
mod underlay;

pub use files::HostFiles;
pub use join::{Identity, identity};
pub use lifecycle::Node;
pub use packets::PacketCounters;

/// Why a node ends by itself: only another start, or an operator, can put it right.
pub type Fatal = Box<dyn std::error::Error + Send + Sync>;
