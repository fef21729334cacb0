//! What the loop answers when it is asked.

use std::collections::BTreeMap;
use std::time::SystemTime;

use heddle_core::diff::Change;
use heddle_core::host_network::HostNetwork;
use heddle_core::lease::Lease;
use heddle_core::peers::Rejection;
use heddle_probe::Health;
use tokio::sync::oneshot;

/// What others ask the loop. That it answers shows that it lives.
pub(crate) enum Question {
    /// Nothing more than that.
    Alive(oneshot::Sender<()>),
    /// What it knows of peers and kernel.
    Report(oneshot::Sender<Report>),
    /// The host's own network, as it was last looked at.
    Host(oneshot::Sender<HostNetwork>),
}

/// What the loop knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// In the order of their keys.
    pub(crate) peers: Vec<PeerReport>,
    /// Records that cannot be used, and why.
    pub(crate) rejected: Vec<(String, Rejection)>,
    /// The number of further such records.
    pub(crate) rejected_unnamed: usize,
    /// Networks of the host's that overlap the overlay, a sentence each.
    pub(crate) warnings: Vec<String>,
    pub(crate) changes: Tally,
    /// Why another start would begin with another network config.
    pub(crate) superseded: Option<String>,
    /// How many of the changes were repairs, by kind of object.
    pub(crate) repairs: BTreeMap<&'static str, u64>,
}

/// A peer, and what became of its plan.
#[derive(Clone, Debug)]
pub(crate) struct PeerReport {
    pub(crate) lease: Lease,
    /// When its record was last seen to change.
    pub(crate) changed: SystemTime,
    pub(crate) objects: usize,
    pub(crate) state: PeerState,
    /// Whether it answers over the overlay, if it is asked.
    pub(crate) health: Option<Health>,
    /// Whether the store has lost its lease, and it is kept for a time.
    pub(crate) missing: bool,
}

/// What became of a peer's plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PeerState {
    /// It is in the kernel.
    InKernel,
    /// A part of it is not, and why.
    Incomplete(String),
    /// The plugin has none, and why. What was planned before may still be there.
    NoPlan(String),
}

/// What was done to the kernel, in objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) put: u64,
    pub(crate) replaced: u64,
    pub(crate) removed: u64,
    pub(crate) refused: u64,
}

impl Tally {
    pub(super) fn count(&mut self, change: &Change) {
        match change {
            Change::Create(_) | Change::Put(_) => self.put += 1,
            Change::Replace(_) => self.replaced += 1,
            Change::Remove(_) => self.removed += 1,
        }
    }
}
