//! The protocol between the daemon and the command-line tool: HTTP/1.1 over a Unix socket, with
//! JSON bodies.
//!
//! `GET /status` returns a [`Status`], `GET /leases` returns [`Leases`]. The daemon [`serve`]s them
//! from the [`Documents`] of a [`Handler`]; a [`Client`] queries them. The socket's permissions
//! control access.
//!
//! The two may have different versions, as during an upgrade. Therefore the types only ever grow: a
//! reader ignores unknown fields, and treats missing ones as empty. Changes beyond that need a new
//! path.

#![forbid(unsafe_code)]

mod client;
mod documents;
mod error;
mod handler;
mod leases;
mod peer_counts;
mod server;
mod status;

use std::path::{Path, PathBuf};

pub use client::Client;
pub use documents::{Documents, RECENT, Snapshot};
pub use error::{CallError, ListenError};
pub use handler::{Handler, Unavailable};
pub use heddle_core::link_counters::LinkCounters;
pub use heddle_core::plugin_source::PluginSource;
pub use leases::{LeaseRecord, Leases};
pub use peer_counts::PeerCounts;
pub use server::{Socket, serve};
pub use status::{
    Changes, Device, Emitter, Event, EventKind, NodeIdentity, OwnLeaseStatus, Peer, PeerHealth,
    PeerState, Plugin, RulesMode, Status, TrafficRules, UnderlayStatus, UnmetCondition,
    WatchStatus,
};

/// The [`UnmetCondition::reason`] of a condition that has not been checked yet.
pub const STARTING: &str = "starting";

/// Directory of the daemons' sockets.
pub const DIRECTORY: &str = "/run/heddle";

/// Default path of the daemon's socket.
pub const DEFAULT_SOCKET: &str = "/run/heddle/heddled.sock";

/// Returns the path of an instance's socket: `/run/heddle/<instance>.sock`; without an instance,
/// [`DEFAULT_SOCKET`].
pub fn socket_of(instance: Option<&str>) -> PathBuf {
    match instance {
        None => DEFAULT_SOCKET.into(),
        Some(name) => Path::new(DIRECTORY).join(format!("{name}.sock")),
    }
}
