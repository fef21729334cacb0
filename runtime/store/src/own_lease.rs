//! Keeping this node's lease: renewal and repair.

use std::future::pending;
use std::time::Duration;

use heddle_core::lease::{Lease, LeaseKey};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use crate::claim::{create, overlapping, publish, read};
use crate::outage::Outage;
use crate::retry::Backoff;
use crate::{LeaseStore, Renewal, StoreError, Stored};

/// Delay after a repair of our value. Two daemons that both believe to be this node would otherwise
/// overwrite each other as fast as the store can write.
const REPAIR_PAUSE: Duration = Duration::from_secs(1);

/// This node's lease, as last seen in the store.
#[derive(Clone, Debug)]
pub struct OwnLease {
    lease: Lease,
    stored: Stored,
    term: Term,
}

/// Validity period of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Time of the acquisition or the last renewal.
    pub renewed: Instant,
    /// Time of expiry unless renewed. None for a lease that never expires.
    pub ends: Option<Instant>,
}

impl OwnLease {
    /// Returns the key, which names the subnets.
    pub fn key(&self) -> LeaseKey {
        self.lease.key
    }

    /// Returns the published lease.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Returns the stored record.
    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    /// Returns the validity period.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Renews `stored`, which holds `lease`. Returns None if it has expired.
    pub(crate) async fn renewed(
        store: &dyn LeaseStore,
        lease: Lease,
        stored: Stored,
    ) -> Result<Option<Self>, StoreError> {
        let remaining = match store.renew(&stored).await? {
            Renewal::Renewed { remaining } => Some(remaining),
            Renewal::Permanent => None,
            Renewal::Gone => return Ok(None),
        };
        let renewed = Instant::now();
        let term = Term { renewed, ends: remaining.map(|remaining| renewed + remaining) };
        Ok(Some(Self { lease, stored, term }))
    }

    /// Returns the time of the next renewal: `margin` before the expiry, or halfway between the
    /// latest renewal and the expiry if that time is not longer than the margin. None if the lease
    /// never expires.
    fn renewal(&self, margin: Duration) -> Option<Instant> {
        let ends = self.term.ends?;
        let whole = ends.saturating_duration_since(self.term.renewed);
        Some(ends - if margin < whole { margin } else { whole / 2 })
    }
}

/// The reason why the lease is no longer this node's. The daemon has to acquire another one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LostLease {
    /// Our key now holds the lease of another node.
    #[error("lease {key} now belongs to {owner}; giving it up")]
    Taken {
        /// Our former key.
        key: LeaseKey,
        /// The node that now holds it.
        owner: String,
    },
    /// Our lease was deleted or expired, and another lease now contains some of our addresses.
    #[error("lease {key} was removed, and its addresses are now part of lease {other}")]
    Overlapped {
        /// Our former key.
        key: LeaseKey,
        /// The key of the overlapping lease.
        other: String,
    },
}

/// Outcome of one check of our lease in the store.
enum Look {
    /// The lease is ours and intact, or was created again.
    Held,
    /// The value had been modified, and was restored.
    Repaired,
    /// The record changed during the check, so another check is needed.
    Again,
    Lost(LostLease),
}

/// Keeps the lease until it is lost.
///
/// Renews it `margin` before it expires. Checks it whenever `poke` is notified, which the daemon
/// does when its watch shows a change of its own key, or a snapshot without it. A key that was
/// deleted or expired is created again if its subnets are still free. A modified value is restored
/// if it is still this node's, or not a valid lease; the value of another node is never
/// overwritten.
///
/// While the store is unreachable, retries with backoff, even beyond the expiry of the lease.
///
/// `on_check` is called with the current term at the start and after every check, or with the error
/// of a check that failed.
pub async fn keep(
    store: &dyn LeaseStore,
    mut own: OwnLease,
    margin: Duration,
    poke: &Notify,
    on_check: impl Fn(Result<Term, &StoreError>),
) -> LostLease {
    let mut outage = Outage::new(format!("lease {}: renewal", own.key()));
    loop {
        on_check(Ok(own.term()));
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
                    on_check(Err(&error));
                }
            }
            backoff.wait().await;
        }
    }
}

/// Checks the lease once. Renews it if that is due, or if the key is now attached to another etcd
/// lease, whose expiry is unknown.
async fn look(
    store: &dyn LeaseStore,
    own: &mut OwnLease,
    due: Option<Instant>,
) -> Result<Look, StoreError> {
    let Some(found) = store.get(own.stored.key()).await? else {
        return create_again(store, own).await;
    };
    let theirs = read(&found.record);
    if let Some(theirs) = theirs.as_ref().filter(|lease| !same_node(&own.lease, lease)) {
        return Ok(Look::Lost(LostLease::Taken { key: own.key(), owner: theirs.owner() }));
    }
    let intact = theirs.as_ref() == Some(&own.lease);
    let Some(stored) = publish(store, &found, &own.lease).await? else {
        return Ok(Look::Again);
    };
    let known = stored.handle.lease_id == own.stored.handle.lease_id;
    own.stored = stored;
    if !known || due.is_some_and(|due| due <= Instant::now()) {
        match OwnLease::renewed(store, own.lease.clone(), own.stored.clone()).await? {
            Some(renewed) => *own = renewed,
            // The etcd lease expired between the read and the renewal.
            None => return Ok(Look::Again),
        }
    }
    if intact {
        return Ok(Look::Held);
    }
    warn!("lease {}: modified by another program; restored", own.stored.key());
    Ok(Look::Repaired)
}

async fn create_again(store: &dyn LeaseStore, own: &mut OwnLease) -> Result<Look, StoreError> {
    if let Some(other) = overlapping(store, own.key()).await? {
        return Ok(Look::Lost(LostLease::Overlapped { key: own.key(), other }));
    }
    let Some(stored) = create(store, &own.lease).await? else {
        return Ok(Look::Again);
    };
    match OwnLease::renewed(store, own.lease.clone(), stored).await? {
        Some(renewed) => {
            *own = renewed;
            let key = own.stored.key();
            info!("lease {key}: deleted or expired; created again with the same subnet");
            Ok(Look::Held)
        }
        None => Ok(Look::Again),
    }
}

/// Returns true if two leases belong to one node: they share a public address, by which flannel
/// tells nodes apart, and their node IDs are equal if both have one.
///
/// Machines cloned from one image have the same node ID. A running daemon's addresses never change,
/// so our ID at other addresses belongs to such a clone.
fn same_node(ours: &Lease, theirs: &Lease) -> bool {
    let ids = ours.node_id.as_ref().zip(theirs.node_id.as_ref());
    ids.is_none_or(|(ours, theirs)| ours == theirs) && ours.shares_address(theirs)
}

#[cfg(test)]
mod tests {
    use heddle_core::record::{Age, Record};

    use super::*;
    use crate::Handle;

    fn lease(value: &str) -> Lease {
        Lease::from_value("10.244.8.0-24".parse().unwrap(), value.as_bytes()).unwrap()
    }

    #[test]
    fn node_is_identified_by_address_and_optional_id() {
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
    fn clone_with_our_id_at_another_address_is_another_node() {
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
    fn lease_renewal_is_due_a_margin_before_expiry() {
        let now = Instant::now();
        let own = |seconds: Option<u64>| OwnLease {
            lease: lease(r#"{"PublicIP":"192.168.0.72"}"#),
            stored: Stored {
                record: Record {
                    key: "10.244.8.0-24".into(),
                    value: Vec::new(),
                    unread: None,
                    age: Age::default(),
                },
                handle: Handle { version: 1, lease_id: None },
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
        // A look in between does not postpone it.
        let mut later = own(Some(40));
        later.term.renewed = now - Duration::from_secs(20);
        let due = later.renewal(Duration::from_secs(3600));
        assert_eq!(due, Some(now + Duration::from_secs(10)));
    }
}
