//! Whether this node is ready, and if not, why not.

use std::collections::BTreeMap;
use std::fmt;

use tokio::sync::watch;

/// What has to hold for the node to be ready. In the order in which a start gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Condition {
    /// There is a network config, and a plugin for its backend that accepts it.
    Config,
    /// The interface that the plan rests on is up and has its addresses.
    Underlay,
    /// This node has a lease.
    Lease,
    /// The packet path is open, where the backend has one.
    Packets,
    /// The first complete plan is in the kernel.
    Kernel,
    /// Traffic rules are in place.
    Rules,
    /// Every emitter has written its files.
    Emitters,
    /// Changes of leases are heard.
    Watch,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "network config",
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

/// The conditions that do not hold, with reasons. Ready when there is none.
pub(crate) type Unmet = BTreeMap<Condition, String>;

/// The daemon's readiness: told by the daemon, read by the health server and systemd.
#[derive(Clone, Debug)]
pub(crate) struct Readiness(watch::Sender<Unmet>);

impl Readiness {
    /// Nothing holds yet.
    pub(crate) fn new() -> Self {
        use Condition::{Config, Emitters, Kernel, Lease, Packets, Rules, Underlay, Watch};
        let unmet = [Config, Underlay, Lease, Packets, Kernel, Rules, Emitters, Watch]
            .map(|c| (c, "starting".to_owned()));
        Self(watch::Sender::new(unmet.into()))
    }

    /// A condition holds now.
    pub(crate) fn met(&self, condition: Condition) {
        self.0.send_if_modified(|unmet| unmet.remove(&condition).is_some());
    }

    /// A condition does not hold. Returns whether that, or the reason, is news.
    pub(crate) fn unmet(&self, condition: Condition, reason: impl fmt::Display) -> bool {
        let reason = reason.to_string();
        self.0.send_if_modified(|unmet| {
            if unmet.get(&condition) == Some(&reason) {
                return false;
            }
            unmet.insert(condition, reason);
            true
        })
    }

    /// To read it, and to be woken by changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Unmet> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_when_nothing_is_missing() {
        use Condition::{Config, Emitters, Kernel, Lease, Packets, Rules, Underlay, Watch};
        let readiness = Readiness::new();
        let seen = readiness.subscribe();
        for condition in [Config, Underlay, Lease, Packets, Kernel, Rules, Emitters, Watch] {
            assert!(seen.borrow().contains_key(&condition));
            readiness.met(condition);
        }
        assert!(seen.borrow().is_empty());
        assert!(readiness.unmet(Watch, "etcd is gone"));
        assert!(!readiness.unmet(Watch, "etcd is gone"));
        assert!(readiness.unmet(Watch, "etcd is still gone"));
        assert_eq!(seen.borrow()[&Watch], "etcd is still gone");
    }
}
