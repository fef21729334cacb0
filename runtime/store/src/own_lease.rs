//! Keeping the lease of this node.

use std::future::pending;
use std::time::Duration;

use heddle_core::lease::{Lease, LeaseKey};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use crate::acquire::{create, overlapping, publish, read};
use crate::outage::Outage;
use crate::retry::Backoff;
use crate::{LeaseStore, Record, Renewal, StoreError};

/// How long to wait after putting our value back. Two daemons that both believe to be this node would otherwise
/// write in turns as fast as the store can.
const REPAIR_PAUSE: Duration = Duration::from_secs(1);

/// The lease of this node, as it was last seen in the store.
#[derive(Clone, Debug)]
pub struct OwnLease {
    lease: Lease,
    record: Record,
    term: Term,
}

/// How long a lease lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// When it was taken or last renewed.
    pub renewed: Instant,
    /// When it ends unless it is renewed. None: never.
    pub ends: Option<Instant>,
}

impl OwnLease {
    /// The subnets.
    pub fn key(&self) -> LeaseKey {
        self.lease.key
    }

    /// What is published.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// What is stored.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// How long it lasts.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Renews the record, which holds `lease`. None when it has expired.
    pub(crate) async fn renewed(
        store: &dyn LeaseStore,
        lease: Lease,
        record: Record,
    ) -> Result<Option<Self>, StoreError> {
        let remaining = match store.renew(&record).await? {
            Renewal::Renewed { remaining } => Some(remaining),
            Renewal::Permanent => None,
            Renewal::Gone => return Ok(None),
        };
        let renewed = Instant::now();
        let term = Term { renewed, ends: remaining.map(|remaining| renewed + remaining) };
        Ok(Some(Self { lease, record, term }))
    }

    /// When to renew: `margin` before the end, or halfway there if the margin is longer than the lease.
    fn renewal(&self, margin: Duration) -> Option<Instant> {
        let ends = self.term.ends?;
        let left = ends.saturating_duration_since(Instant::now());
        Some(ends - if margin < left { margin } else { left / 2 })
    }
}

/// Why the lease is no longer this node's. The daemon has to acquire another one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LostLease {
    /// Somebody else's value stands under our key.
    #[error("lease {key} now belongs to {owner}; it is left to them")]
    Taken {
        /// Our former key.
        key: LeaseKey,
        /// The node that holds it.
        owner: String,
    },
    /// Our lease was removed or expired, and another one now has some of our addresses.
    #[error("lease {key} was removed, and its addresses are now part of lease {other}")]
    Overlapped {
        /// Our former key.
        key: LeaseKey,
        /// The key that is in the way.
        other: String,
    },
}

/// What a look at the store showed.
enum Look {
    /// The lease is ours and in order.
    Held,
    /// It was not in order and is now.
    Repaired,
    /// Something changed while we looked.
    Again,
    Lost(LostLease),
}

/// Keeps the lease until it is lost.
///
/// Renews it `margin` before it ends. Looks at it whenever `poke` is notified, which the daemon does when its watch
/// shows a change of its own key, or a snapshot without it. A key that was removed or expired is created again if
/// its subnets are still free; a value that is still this node's, or nobody's, is put back; that of another node
/// is never overwritten.
///
/// While the store cannot be reached this waits and tries again, even beyond the end of the lease.
///
/// `told` hears how long the lease lasts, whenever that was looked at, and why not, if it could not be.
pub async fn keep(
    store: &dyn LeaseStore,
    mut own: OwnLease,
    margin: Duration,
    poke: &Notify,
    told: impl Fn(Result<Term, &StoreError>),
) -> LostLease {
    let mut outage = Outage::new(format!("keeping lease {}", own.key()));
    loop {
        told(Ok(own.term()));
        let due = own.renewal(margin);
        let renewal = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = poke.notified() => {}
            () = renewal => {}
        }
        let mut backoff = Backoff::new();
        loop {
            match look(store, &mut own, due).await {
                Ok(Look::Lost(lost)) => return lost,
                Ok(Look::Held) => break outage.end(),
                Ok(Look::Repaired) => {
                    outage.end();
                    break sleep(REPAIR_PAUSE).await;
                }
                Ok(Look::Again) => {}
                Err(error) => {
                    outage.begin(&error.to_string());
                    told(Err(&error));
                }
            }
            backoff.wait().await;
        }
    }
}

/// Looks once, and renews the lease if that is due, or if it is no longer the one that we know the end of.
async fn look(
    store: &dyn LeaseStore,
    own: &mut OwnLease,
    due: Option<Instant>,
) -> Result<Look, StoreError> {
    let Some(found) = store.get(&own.record.key).await? else {
        return create_again(store, own).await;
    };
    let theirs = read(&found);
    if let Some(theirs) = theirs.as_ref().filter(|lease| !same_node(&own.lease, lease)) {
        return Ok(Look::Lost(LostLease::Taken { key: own.key(), owner: theirs.owner() }));
    }
    let intact = theirs.as_ref() == Some(&own.lease);
    let Some(record) = publish(store, &found, &own.lease).await? else {
        return Ok(Look::Again);
    };
    let known = record.lease_id == own.record.lease_id;
    own.record = record;
    if !known || due.is_some_and(|due| due <= Instant::now()) {
        match OwnLease::renewed(store, own.lease.clone(), own.record.clone()).await? {
            Some(renewed) => *own = renewed,
            // It expired this very moment.
            None => return Ok(Look::Again),
        }
    }
    if intact {
        return Ok(Look::Held);
    }
    warn!(key = own.record.key, "our lease had been changed; it is as it was again");
    Ok(Look::Repaired)
}

async fn create_again(store: &dyn LeaseStore, own: &mut OwnLease) -> Result<Look, StoreError> {
    if let Some(other) = overlapping(store, own.key()).await? {
        return Ok(Look::Lost(LostLease::Overlapped { key: own.key(), other }));
    }
    let Some(record) = create(store, &own.lease).await? else {
        return Ok(Look::Again);
    };
    match OwnLease::renewed(store, own.lease.clone(), record).await? {
        Some(renewed) => {
            *own = renewed;
            info!(key = own.record.key, "our lease was gone; the same subnet is ours again");
            Ok(Look::Held)
        }
        None => Ok(Look::Again),
    }
}

/// Whether two leases are one node's: they share a public address, by which flannel tells nodes apart, and their
/// node ids are equal where both have one.
///
/// Machines cloned from one image have the same node id. A running daemon's addresses never change, so our id at
/// other addresses is such a clone.
fn same_node(ours: &Lease, theirs: &Lease) -> bool {
    let ids = ours.node_id.as_ref().zip(theirs.node_id.as_ref());
    ids.is_none_or(|(ours, theirs)| ours == theirs) && ours.shares_address(theirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(value: &str) -> Lease {
        Lease::from_value("10.244.8.0-24".parse().unwrap(), value.as_bytes()).unwrap()
    }

    #[test]
    fn a_node_is_known_by_its_address_and_its_id_if_there_is_one() {
        let ours = lease(r#"{"PublicIP":"192.168.0.72","NodeID":"me"}"#);
        for (value, same) in [
            (r#"{"PublicIP":"192.168.0.72","NodeID":"me"}"#, true),
            (r#"{"PublicIP":"192.168.0.72","NodeID":"you"}"#, false),
            (r#"{"PublicIP":"192.168.0.72"}"#, true),
            (r#"{"PublicIP":"192.168.0.73"}"#, false),
        ] {
            assert_eq!(same_node(&ours, &lease(value)), same, "{value}");
        }
    }

    #[test]
    fn a_clone_with_our_id_at_another_address_is_another_node() {
        let dual = |v4: &str, v6: &str| {
            let key = "10.244.8.0-24&fd42:0:0:8::-64".parse().unwrap();
            let value = format!(r#"{{"PublicIP":"{v4}","PublicIPv6":"{v6}","NodeID":"me"}}"#);
            Lease::from_value(key, value.as_bytes()).unwrap()
        };
        let ours = dual("192.168.0.72", "2001:db8::72");
        assert!(!same_node(&ours, &dual("192.168.0.73", "2001:db8::73")));
        assert!(same_node(&ours, &dual("192.168.0.72", "2001:db8::73")));
        assert!(same_node(&ours, &dual("192.168.0.73", "2001:db8::72")));
        assert!(!same_node(&ours, &lease(r#"{"PublicIP":"192.168.0.73","NodeID":"me"}"#)));
    }

    #[test]
    fn a_lease_is_renewed_a_margin_before_its_end() {
        let now = Instant::now();
        let own = |seconds: Option<u64>| OwnLease {
            lease: lease(r#"{"PublicIP":"192.168.0.72"}"#),
            record: Record {
                key: "10.244.8.0-24".into(),
                value: Vec::new(),
                unread: None,
                version: 1,
                age: heddle_core::lease::Age::default(),
                lease_id: None,
            },
            term: Term {
                renewed: now,
                ends: seconds.map(|seconds| now + Duration::from_secs(seconds)),
            },
        };
        let renewal = |seconds, margin| {
            let at = own(seconds).renewal(Duration::from_secs(margin));
            at.map(|at| (at - now).as_secs())
        };
        assert_eq!(renewal(Some(86_400), 3600), Some(82_800));
        assert_eq!(renewal(Some(60), 3600), Some(30));
        assert_eq!(renewal(Some(0), 3600), Some(0));
        assert_eq!(renewal(None, 3600), None);
    }
}
