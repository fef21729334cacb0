//! The loop's answers to queries, in the terms of the status document.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::SystemTime;

use heddle_control::{Changes, Peer, PeerHealth, PeerState};
use heddle_core::diff::ObjectChange;
use heddle_core::host_network::HostNetwork;
use heddle_core::lease::{Lease, NODE_NAME_LIMIT};
use heddle_core::peers::Rejection;
use heddle_core::text::one_line;
use heddle_probe::{Health, State};
use tokio::sync::oneshot;

/// Maximum length of a reason that is passed on, in characters.
pub(crate) const REASON_LIMIT: usize = 500;

/// A query to the loop. Any answer shows that the loop is alive.
pub(crate) enum Query {
    /// A liveness check without further data.
    Alive(oneshot::Sender<()>),
    /// The state of peers and kernel.
    Report(oneshot::Sender<Report>),
    /// The host's own network, as of the last resync.
    Host(oneshot::Sender<HostNetwork>),
}

/// The loop's part of the status document.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// Peers and unusable records, in the order of their keys.
    pub(crate) peers: Vec<Peer>,
    /// Number of further unusable records.
    pub(crate) unlisted: u64,
    /// Host networks that overlap the overlay, as a sentence each.
    pub(crate) warnings: Vec<String>,
    pub(crate) changes: Changes,
    /// Difference between the running and the stored network config. None if they mean the same.
    pub(crate) superseded: Option<String>,
}

/// Returns a peer with its lease and the state of its plan. `fault` is the reason why the plan is
/// not in the kernel; None if it is. `missing` is true if the store has lost the peer's lease, which
/// is kept for the grace period.
pub(super) fn peer(lease: &Lease, fault: Option<(PeerState, String)>, missing: bool) -> Peer {
    let (state, reason) = match fault {
        Some((state, reason)) => (state, Some(reason)),
        None => (PeerState::InKernel, remark(lease, missing)),
    };
    Peer {
        key: lease.key.to_string(),
        public_addresses: lease.public_addresses().into_iter().collect(),
        node_id: lease.node_id.as_ref().map(ToString::to_string),
        node_name: lease.node_name.clone(),
        backend: lease.backend_type.clone(),
        state,
        reason: reason.map(|reason| one_line(&reason, REASON_LIMIT)),
        ..Peer::default()
    }
}

/// Returns the remark about a peer whose plan is in the kernel. None if there is nothing to say.
fn remark(lease: &Lease, missing: bool) -> Option<String> {
    if missing {
        let reason =
            "missing lease: the store lost it, and its node has a grace period to write it again";
        return Some(reason.to_owned());
    }
    let cut = || format!("its NodeName is longer than {NODE_NAME_LIMIT} characters and cut");
    lease.is_name_cut().then(cut)
}

/// Adds an unusable record to the peers. A peer with the same key keeps its last usable lease.
pub(super) fn add_rejected(peers: &mut BTreeMap<String, Peer>, key: &str, rejection: &Rejection) {
    match peers.entry(key.to_owned()) {
        Entry::Occupied(mut known) => {
            known.get_mut().reason = Some(format!("the newer record is not used: {rejection}"));
        }
        Entry::Vacant(unknown) => {
            let peer = Peer {
                key: one_line(key, REASON_LIMIT),
                state: PeerState::NotUsed,
                reason: Some(rejection.to_string()),
                conflict: rejection.conflict().map(|conflict| conflict.kind().to_owned()),
                ..Peer::default()
            };
            unknown.insert(peer);
        }
    }
}

/// Returns the health of a probed peer. None as long as there are too few probes to tell.
pub(super) fn health(found: Health) -> Option<PeerHealth> {
    let reachable = match found.state {
        State::Unknown => return None,
        State::Reachable => true,
        State::Unreachable => false,
    };
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Some(PeerHealth {
        reachable,
        rtt_micros: found.round_trip.map(micros),
        loss_percent: found.loss * 100.0,
        since: seconds(found.since),
    })
}

/// Returns the seconds since 1970.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Counts a change of the kernel.
pub(super) fn count(changes: &mut Changes, change: &ObjectChange) {
    match change {
        ObjectChange::Create(_) | ObjectChange::Put(_) => changes.put += 1,
        ObjectChange::Replace(_) => changes.replaced += 1,
        ObjectChange::Remove(_) => changes.removed += 1,
    }
}

#[cfg(test)]
mod tests;
