//! What the daemon and the command line tool say to each other: HTTP/1.1 over a unix socket, JSON in the bodies.
//!
//! `GET /status` answers with a [`Status`], `GET /leases` with [`Leases`]. The daemon [`serve`]s them out of the
//! [`Documents`] of a [`Handler`]; a [`Client`] asks. Who may ask is decided by the socket's permissions.
//!
//! Both may be of different versions, as during an upgrade. So the types only ever grow: a reader ignores what it does
//! not know, and takes what is missing for empty. What cannot be said that way is a new path.

mod client;
mod documents;
mod error;
mod leases;
mod server;
mod status;

use std::path::{Path, PathBuf};

pub use client::Client;
pub use documents::{Documents, RECENT, Snapshot};
pub use error::{CallError, ListenError};
pub use leases::{Leases, Record};
pub use server::{Handler, Unavailable, serve};
pub use status::{
    Changes, Counters, Device, Emitter, Event, EventKind, Health, Mode, Node, OwnLease, Peer,
    PeerState, Plugin, Source, Status, TrafficRules, Underlay, Unmet, Watch,
};

/// The directory of the daemons' sockets.
const DIRECTORY: &str = "/run/heddle";

/// Where the daemon's socket is if nobody says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/heddle/heddled.sock";

/// Where the socket of an instance is: `/run/heddle/<instance>.sock`; of the only one: [`DEFAULT_SOCKET`].
pub fn socket_of(instance: Option<&str>) -> PathBuf {
    match instance {
        None => DEFAULT_SOCKET.into(),
        Some(name) => Path::new(DIRECTORY).join(format!("{name}.sock")),
    }
}
