//! Log lines and history events of the reconcile loop. Of many events at once, only the first are
//! named.

use heddle_control::EventKind;
use heddle_core::diff::ObjectChange;
use heddle_core::host_network::HostNetwork;
use heddle_core::lease::LeaseKey;
use heddle_core::object::{Object, ObjectKey};
use heddle_core::peers::{Delta, GRACE, Peers};
use heddle_core::site::Site;
use heddle_core::text::{list, one_line};
use heddle_probe::{News, State};
use heddle_telemetry::History;

/// Maximum number of events of one kind that are named one by one.
const LIMIT: usize = 5;

/// Maximum length of a record's key in a message, in characters. Anyone who can write to the store
/// chooses keys.
const KEY_LIMIT: usize = 120;

/// Reports an update of leases. `known` returns true if the peer was there before.
pub(super) fn record_leases(
    history: &History,
    delta: &Delta,
    peers: &Peers,
    known: impl Fn(&LeaseKey) -> bool,
) {
    if !delta.missing.is_empty() {
        tracing::warn!(
            peers = delta.missing.len(),
            "store: lost data, leases of peers are missing; keeping their routes until {} s after this node's own lease \
             is stored again",
            GRACE.as_secs(),
        );
    }
    for (key, rejection) in delta.rejected.iter().take(LIMIT) {
        let key = one_line(key, KEY_LIMIT);
        let text = format!("lease {key}: not used: {rejection}");
        tracing::warn!(subject = key, "{text}");
        history.note_about(EventKind::Record, &key, text);
    }
    record_many("leases", "not used", delta.rejected.len() + delta.rejected_unnamed);
    if delta.changed.len() + delta.removed.len() > LIMIT {
        let (changed, removed) = (delta.changed.len(), delta.removed.len());
        let text = format!("peers: {changed} joined or changed, {removed} left");
        tracing::info!(subject = "peers", "{text}");
        history.note_about(EventKind::PeerChanged, "peers", text);
        return;
    }
    for key in &delta.changed {
        if let Some(peer) = peers.get(*key) {
            let (kind, event) = match known(key) {
                true => (EventKind::PeerChanged, "changed"),
                false => (EventKind::PeerJoined, "joined"),
            };
            let text = format!("peer {key}: {event}: {}", peer.owner());
            tracing::info!(subject = %key, "{text}");
            history.note_about(kind, &key.to_string(), text);
        }
    }
    for key in &delta.removed {
        let text = format!("peer {key}: left");
        tracing::info!(subject = %key, "{text}");
        history.note_about(EventKind::PeerLeft, &key.to_string(), text);
    }
}

/// Reports peers that have this node's id: machines that were cloned from one image.
pub(super) fn record_namesakes(
    history: &History,
    delta: &Delta,
    peers: &Peers,
    site: &Site,
    known: impl Fn(&LeaseKey) -> bool,
) {
    let new = delta.changed.iter().filter(|key| !known(key)).filter_map(|key| peers.get(*key));
    let namesakes = new.filter(|peer| peer.node_id.as_ref() == Some(&site.node.id));
    for peer in namesakes.take(LIMIT) {
        let (key, owner) = (peer.key, peer.owner());
        let own = list(site.node.underlay.public_addresses);
        let text = format!(
            "lease {key}: {owner} has the id of this node, which is at {own}; treated as another node. Give each node its \
             own id (--node-id)"
        );
        tracing::error!(subject = %key, "{text}");
        history.note_about(EventKind::Record, &key.to_string(), text);
    }
}

/// Reports routes of other programs that were replaced by planned routes with the same key.
pub(super) fn record_replaced(routes: &[Object]) {
    for route in routes.iter().take(LIMIT) {
        tracing::warn!(subject = %route.key(), "kernel: replaced {route} of another program by the overlay's route");
    }
    record_many("kernel", "routes of other programs replaced", routes.len());
}

/// Reports networks of the host that overlap the overlay and did not before.
pub(super) fn record_host(history: &History, before: &HostNetwork, now: &HostNetwork) {
    let known = before.warnings();
    for warning in now.warnings().iter().filter(|warning| !known.contains(warning)) {
        tracing::warn!(subject = %warning, "network: {warning}");
        history.note_about(EventKind::Network, warning, warning);
    }
}

/// Reports that a peer answers over the overlay, or stopped answering. `peer` is its key and its
/// owner.
pub(super) fn record_probing(history: &History, peer: &str, News { address, state }: News) {
    match state {
        State::Unreachable => {
            let text = format!("{peer}: does not answer at {address} over the overlay");
            tracing::warn!(subject = %address, "{text}");
            history.note_about(EventKind::PeerSilent, &address.to_string(), text);
        }
        State::Reachable | State::Unknown => {
            let text = format!("{peer}: answers at {address} over the overlay");
            tracing::info!(subject = %address, "{text}");
            history.note_about(EventKind::PeerAnswers, &address.to_string(), text);
        }
    }
}

/// Reports the number of unreachable peers, if too many changed to be named one by one.
pub(super) fn record_many_probed(history: &History, unreachable: usize, peers: usize) {
    let text = format!(
        "peers: {unreachable} of {peers} unreachable over the overlay; see \"heddle status\""
    );
    if unreachable > 0 {
        tracing::warn!(subject = "peers", "{text}");
        history.note_about(EventKind::PeerSilent, "peers", text);
    } else {
        tracing::info!(subject = "peers", "{text}");
        history.note_about(EventKind::PeerAnswers, "peers", text);
    }
}

/// Reports why peers have no plan, or an incomplete one.
pub(super) fn record_plans(history: &History, complaints: &[(LeaseKey, String)]) {
    for (key, complaint) in complaints.iter().take(LIMIT) {
        tracing::warn!(subject = %key, "{complaint}");
        history.note_about(EventKind::Plugin, &key.to_string(), complaint);
    }
    record_many("peers", "without a new plan", complaints.len());
}

/// Reports changes that the kernel refused. Those that packets do not need are warnings.
pub(super) fn record_refusals(history: &History, reasons: &[(ObjectKey, String)]) {
    for (key, reason) in reasons.iter().take(LIMIT) {
        match key.is_optional() {
            true => tracing::warn!(subject = %key, "{reason}; packets pass without it"),
            false => tracing::error!(subject = %key, "{reason}"),
        }
        history.note_about(EventKind::Refused, &key.to_string(), reason);
    }
    record_many("kernel", "changes failed", reasons.len());
}

/// Reports changes of the kernel.
pub(super) fn record_changes(changes: &[ObjectChange]) {
    for change in changes.iter().take(LIMIT) {
        match change {
            ObjectChange::Create(object) | ObjectChange::Put(object) => {
                tracing::info!(subject = %object.key(), "kernel: put {object}");
            }
            ObjectChange::Replace(object) => {
                tracing::info!(subject = %object.key(), "kernel: replaced {object}");
            }
            ObjectChange::Remove(object) => {
                tracing::info!(subject = %object.key(), "kernel: removed {object}");
            }
        }
    }
    if changes.len() > LIMIT {
        tracing::info!(subject = "changes", "kernel: further changes: {}", changes.len() - LIMIT);
    }
}

/// Reports changes that repaired drift.
pub(super) fn record_repairs(history: &History, repairs: &[&ObjectChange]) {
    for change in repairs.iter().take(LIMIT) {
        let text = match change {
            ObjectChange::Create(object) | ObjectChange::Put(object) => {
                format!("{object}: restored")
            }
            ObjectChange::Replace(object) => format!("{object}: replaced by the planned one"),
            ObjectChange::Remove(object) => format!("{object}: removed, because no plan has it"),
        };
        history.note_about(EventKind::Drift, &change.object().key().to_string(), text);
    }
    if repairs.len() > LIMIT {
        let text = format!("further repairs: {}", repairs.len() - LIMIT);
        history.note_about(EventKind::Drift, "repairs", text);
    }
}

fn record_many(subject: &str, what: &str, count: usize) {
    if count > LIMIT {
        tracing::warn!(subject = what, "{subject}: {count} {what}; showing the first {LIMIT}");
    }
}
