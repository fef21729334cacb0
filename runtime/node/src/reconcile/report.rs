//! The loop's answers to questions.

use std::collections::BTreeMap;
use std::time::SystemTime;

use heddle_core::diff::ObjectChange;
use heddle_core::host_network::HostNetwork;
use heddle_core::lease::Lease;
use heddle_core::peers::Rejection;
use heddle_probe::Health;
use tokio::sync::oneshot;

/// A question to the loop. Any answer shows that the loop is alive.
pub(crate) enum Question {
    /// A liveness check without further data.
    Alive(oneshot::Sender<()>),
    /// The state of peers and kernel.
    Report(oneshot::Sender<Report>),
    /// The host's own network, as of the last resync.
    Host(oneshot::Sender<HostNetwork>),
}

/// The loop's state of peers and kernel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// The peers, in the order of their keys.
    pub(crate) peers: Vec<PeerReport>,
    /// Unusable records, with the reasons.
    pub(crate) rejected: Vec<(String, Rejection)>,
    /// Number of further unusable records.
    pub(crate) rejected_unnamed: usize,
    /// Host networks that overlap the overlay, as a sentence each.
    pub(crate) warnings: Vec<String>,
    pub(crate) changes: Tally,
    /// Difference between the running and the stored network config. None if they mean the same.
    pub(crate) superseded: Option<String>,
    /// Numbers of drift repairs among the changes, by kind of object.
    pub(crate) repairs: BTreeMap<&'static str, u64>,
}

/// A peer and the state of its plan.
#[derive(Clone, Debug)]
pub(crate) struct PeerReport {
    pub(crate) lease: Lease,
    /// Time at which the peer's record was last seen to change.
    pub(crate) changed: SystemTime,
    pub(crate) objects: usize,
    pub(crate) state: PeerState,
    /// Health of the peer over the overlay, if it is probed.
    pub(crate) health: Option<Health>,
    /// True if the store has lost the peer's lease, which is kept for the grace period.
    pub(crate) missing: bool,
}

/// State of a peer's plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PeerState {
    /// All of it is in the kernel.
    InKernel,
    /// Part of it is not in the kernel, for this reason.
    Incomplete(String),
    /// The plugin returned no plan, for this reason. Objects of an earlier plan may still be there.
    NoPlan(String),
}

/// Numbers of objects that were changed in the kernel, and of changes that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) put: u64,
    pub(crate) replaced: u64,
    pub(crate) removed: u64,
    pub(crate) refused: u64,
}

impl Tally {
    pub(super) fn count(&mut self, change: &ObjectChange) {
        match change {
            ObjectChange::Create(_) | ObjectChange::Put(_) => self.put += 1,
            ObjectChange::Replace(_) => self.replaced += 1,
            ObjectChange::Remove(_) => self.removed += 1,
        }
    }
}
