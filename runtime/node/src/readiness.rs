//! The readiness of this node: the conditions that do not hold, with reasons.

use std::collections::BTreeMap;
use std::fmt;

use heddle_control::{EventKind, STARTING};
use heddle_core::text::one_line;
use heddle_telemetry::History;
use tokio::sync::watch;

/// A prerequisite of readiness, in the order in which a start meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// The store can be read.
    Store,
    /// There is a network config, and its backend's plugin accepts it.
    Config,
    /// The backend's plugin is loaded, and answers.
    Plugins,
    /// The underlay interface is up and has its addresses.
    Underlay,
    /// This node has a lease.
    Lease,
    /// The packet path is open, if the backend has one.
    Packets,
    /// The first complete plan is in the kernel.
    Kernel,
    /// Traffic rules are in place.
    Rules,
    /// Every emitter is loaded and has written its files, and they are as written.
    Emitters,
    /// The watch delivers changes of leases.
    Watch,
}

impl Condition {
    /// All conditions, in order.
    pub const ALL: [Self; 10] = [
        Self::Store,
        Self::Config,
        Self::Plugins,
        Self::Underlay,
        Self::Lease,
        Self::Packets,
        Self::Kernel,
        Self::Rules,
        Self::Emitters,
        Self::Watch,
    ];
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Store => "store",
            Self::Config => "network config",
            Self::Plugins => "plugins",
            Self::Underlay => "underlay",
            Self::Lease => "lease",
            Self::Packets => "packet path",
            Self::Kernel => "kernel",
            Self::Rules => "traffic rules",
            Self::Emitters => "emitters",
            Self::Watch => "watch",
        })
    }
}

/// Prefix of the reason while the first snapshot of leases is read.
const READING: &str = "reading leases: ";

/// Returns the reason while the first snapshot of leases is read, with the number of records so
/// far.
pub(crate) fn reading(records: usize) -> String {
    format!("{READING}{records} records so far")
}
/// Maximum length of a reason, in characters.
const REASON_LIMIT: usize = 2000;

/// The conditions that do not hold, with reasons. The node is ready if this is empty.
pub type Unmet = BTreeMap<Condition, String>;

/// The daemon's readiness: set by its parts, read by the health server and systemd.
#[derive(Clone, Debug)]
pub struct Readiness {
    unmet: watch::Sender<Unmet>,
    warnings: watch::Sender<Vec<String>>,
}

impl Readiness {
    /// Creates the readiness of a node that has just started: no condition holds.
    pub(crate) fn new() -> Self {
        let unmet = Condition::ALL.map(|condition| (condition, STARTING.to_owned()));
        Self { unmet: watch::Sender::new(unmet.into()), warnings: watch::Sender::default() }
    }

    /// Marks all conditions as met that a start meets before this one.
    pub(crate) fn met_before(&self, condition: Condition) {
        Condition::ALL.into_iter().filter(|earlier| *earlier < condition).for_each(|c| self.met(c));
    }

    /// Records that a condition has not been checked yet, whatever was found before.
    pub(crate) fn unchecked(&self, condition: Condition) {
        self.unmet(condition, STARTING);
    }

    /// Records that a condition holds.
    pub(crate) fn met(&self, condition: Condition) {
        self.unmet.send_if_modified(|unmet| unmet.remove(&condition).is_some());
    }

    /// Records that a condition does not hold. Returns true if that, or the reason, is new.
    pub(crate) fn unmet(&self, condition: Condition, reason: impl fmt::Display) -> bool {
        // The reason may contain foreign text, and logs, probes and systemd take each line for a
        // statement.
        let reason = one_line(&reason.to_string(), REASON_LIMIT);
        self.unmet.send_if_modified(|unmet| {
            if unmet.get(&condition) == Some(&reason) {
                return false;
            }
            unmet.insert(condition, reason);
            true
        })
    }

    /// Replaces the warnings: problems that need an operator while all conditions may hold.
    pub(crate) fn warn(&self, warnings: Vec<String>) {
        self.warnings.send_replace(warnings);
    }

    /// Subscribes to the warnings.
    pub fn warnings(&self) -> watch::Receiver<Vec<String>> {
        self.warnings.subscribe()
    }

    /// Subscribes to the unmet conditions.
    pub fn subscribe(&self) -> watch::Receiver<Unmet> {
        self.unmet.subscribe()
    }
}

/// Starts a task that records every change of readiness in the history.
pub(crate) fn chronicle(mut readiness: watch::Receiver<Unmet>, history: History) {
    tokio::spawn(async move {
        let mut before = readiness.borrow_and_update().clone();
        while readiness.changed().await.is_ok() {
            let now = readiness.borrow_and_update().clone();
            for (kind, text) in turns(&before, &now) {
                history.note(kind, text);
            }
            before = now;
        }
    });
}

/// Returns the history's events for a change of the unmet conditions.
fn turns(before: &Unmet, now: &Unmet) -> Vec<(EventKind, String)> {
    let mut events = Vec::new();
    match (before.get(&Condition::Watch), now.get(&Condition::Watch)) {
        (None, Some(reason)) => events.push((EventKind::StoreLost, reason.clone())),
        (Some(reason), None) if reason != STARTING && !reason.starts_with(READING) => {
            events.push((EventKind::StoreBack, "lease changes are received again".to_owned()));
        }
        _ => {}
    }
    match (before.is_empty(), now.iter().next()) {
        (true, Some((condition, reason))) => {
            events.push((EventKind::NotReady, format!("{condition}: {reason}")));
        }
        (false, None) => events.push((EventKind::Ready, "all conditions are met".to_owned())),
        _ => {}
    }
    events
}

#[cfg(test)]
mod tests;
