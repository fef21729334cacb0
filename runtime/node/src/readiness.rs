//! Whether this node is ready, and if not, why not.

use std::collections::BTreeMap;
use std::fmt;

use heddle_control::EventKind;
use heddle_core::text::one_line;
use heddle_telemetry::History;
use tokio::sync::watch;

/// What has to hold for the node to be ready. In the order in which a start gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
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

impl Condition {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Config,
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

/// Why a condition does not hold that nobody has looked at yet.
const STARTING: &str = "starting";

/// Prefix of the reason while the first leases are read.
const READING: &str = "reading leases: ";

/// Returns the reason while leases are read for the first time.
pub fn reading(records: usize) -> String {
    format!("{READING}{records} records so far")
}
/// The longest reason, in characters.
const REASON_LIMIT: usize = 2000;

/// The conditions that do not hold, with reasons. Ready when there is none.
pub type Unmet = BTreeMap<Condition, String>;

/// The daemon's readiness: told by the daemon, read by the health server and systemd.
#[derive(Clone, Debug)]
pub struct Readiness {
    unmet: watch::Sender<Unmet>,
    warnings: watch::Sender<Vec<String>>,
}

impl Readiness {
    /// Nothing holds yet.
    pub fn new() -> Self {
        let unmet = Condition::ALL.map(|condition| (condition, STARTING.to_owned()));
        Self { unmet: watch::Sender::new(unmet.into()), warnings: watch::Sender::default() }
    }

    /// A condition holds now.
    pub fn met(&self, condition: Condition) {
        self.unmet.send_if_modified(|unmet| unmet.remove(&condition).is_some());
    }

    /// A condition does not hold. Returns whether that, or the reason, is news.
    pub fn unmet(&self, condition: Condition, reason: impl fmt::Display) -> bool {
        // Some of it may be somebody else's words, and it goes to logs, probes and systemd, where a line is a statement.
        let reason = one_line(&reason.to_string(), REASON_LIMIT);
        self.unmet.send_if_modified(|unmet| {
            if unmet.get(&condition) == Some(&reason) {
                return false;
            }
            unmet.insert(condition, reason);
            true
        })
    }

    /// Takes what holds and still needs an operator, in place of what was said before.
    pub fn warn(&self, warnings: Vec<String>) {
        self.warnings.send_replace(warnings);
    }

    /// To read the warnings.
    pub fn warnings(&self) -> watch::Receiver<Vec<String>> {
        self.warnings.subscribe()
    }

    /// To read it, and to be woken by changes.
    pub fn subscribe(&self) -> watch::Receiver<Unmet> {
        self.unmet.subscribe()
    }
}

/// Has the history tell of every change of readiness.
pub fn chronicle(mut readiness: watch::Receiver<Unmet>, history: History) {
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

/// What there is to tell of a change.
fn turns(before: &Unmet, now: &Unmet) -> Vec<(EventKind, String)> {
    let mut told = Vec::new();
    match (before.get(&Condition::Watch), now.get(&Condition::Watch)) {
        (None, Some(reason)) => told.push((EventKind::StoreLost, reason.clone())),
        (Some(reason), None) if reason != STARTING && !reason.starts_with(READING) => {
            told.push((EventKind::StoreBack, "changes of leases are heard again".to_owned()));
        }
        _ => {}
    }
    match (before.is_empty(), now.iter().next()) {
        (true, Some((condition, reason))) => {
            told.push((EventKind::NotReady, format!("{condition}: {reason}")));
        }
        (false, None) => told.push((EventKind::Ready, "everything holds".to_owned())),
        _ => {}
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_turned_is_told_once() {
        use EventKind::{NotReady, Ready, StoreBack, StoreLost};
        let unmet = |found: &[(Condition, &str)]| -> Unmet {
            found.iter().map(|(condition, reason)| (*condition, (*reason).to_owned())).collect()
        };
        let kinds = |before: &Unmet, now: &Unmet| -> Vec<_> {
            turns(before, now).into_iter().map(|(kind, _)| kind).collect()
        };
        let start = unmet(&Condition::ALL.map(|condition| (condition, STARTING)));
        let good = unmet(&[]);
        let lost = unmet(&[(Condition::Watch, "etcd is gone")]);
        let refused = unmet(&[(Condition::Kernel, "no")]);
        assert_eq!(kinds(&start, &refused), []);
        assert_eq!(kinds(&start, &good), [Ready]);
        // Leases that are read for the first time were not lost before.
        let first = unmet(&[(Condition::Watch, &reading(7))]);
        assert_eq!((kinds(&start, &first), kinds(&first, &good)), (vec![], vec![Ready]));
        assert_eq!(kinds(&good, &lost), [StoreLost, NotReady]);
        assert_eq!(kinds(&lost, &unmet(&[(Condition::Watch, "etcd is still gone")])), []);
        assert_eq!(kinds(&lost, &refused), [StoreBack]);
        assert_eq!(kinds(&lost, &good), [StoreBack, Ready]);
        assert_eq!(turns(&good, &refused), [(NotReady, "kernel: no".to_owned())]);
    }

    #[test]
    fn reason_of_foreign_text_is_one_visible_line() {
        let readiness = Readiness::new();
        let forged = "no\nMAINPID=1\r\u{1b}[2J \u{202e}\u{200b}";
        assert!(readiness.unmet(Condition::Rules, forged));
        assert!(!readiness.unmet(Condition::Rules, forged));
        let seen = readiness.subscribe();
        assert_eq!(seen.borrow()[&Condition::Rules], "no MAINPID=1 [2J \\u{202e}\\u{200b}");
        readiness.unmet(Condition::Rules, "x".repeat(100_000));
        assert_eq!(seen.borrow()[&Condition::Rules].chars().count(), REASON_LIMIT + 1);
    }

    #[test]
    fn ready_is_when_nothing_is_missing() {
        use Condition::Watch;
        let readiness = Readiness::new();
        let seen = readiness.subscribe();
        for condition in Condition::ALL {
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
