//! Acquisition of this node's lease.
//!
//! `heddle_core::allocation::choose` decides which subnet to try. This module carries the decision
//! out, and decides anew whenever another node won the race. The number of attempts is unlimited:
//! each race has a winner, so any number of nodes that boot together all get a subnet.

use heddle_core::allocation::{AllocationError, Choice, Claimant, Holdings, choose};
use heddle_core::config::NetworkConfig;
use heddle_core::lease::{Lease, LeaseKey};
use tracing::warn;

use crate::claim::{create, publish, read};
use crate::outage::Outage;
use crate::retry::Backoff;
use crate::{LeaseStore, OwnLease, Page, StoreError, Stored};

/// Error of [`acquire`]: this node cannot get a lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcquireError {
    /// The store failed, and a retry would fail as well.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The allocation found no subnet for this node.
    #[error(transparent)]
    Allocation(#[from] AllocationError),
}

/// Acquires a lease: the one that this node already holds, or a new one.
///
/// `value` returns the lease to publish for a subnet. `report` is called with what the call is
/// waiting for: the number of records read so far from a large store, or the reason why the store
/// cannot be read. Retries with backoff and without a limit while the store is unreachable, and
/// after each lost race; a time limit is up to the caller.
///
/// # Errors
///
/// [`AcquireError`], when a retry would not help.
pub async fn acquire(
    store: &dyn LeaseStore,
    config: &NetworkConfig,
    claimant: &Claimant<'_>,
    value: impl Fn(LeaseKey) -> Lease + Send,
    report: &(dyn Fn(&str) + Send + Sync),
) -> Result<OwnLease, AcquireError> {
    let mut outage = Outage::new("lease: acquisition");
    let mut backoff = Backoff::new();
    loop {
        match attempt(store, config, claimant, &value, report).await {
            Ok(Some(own)) => {
                outage.end();
                return Ok(own);
            }
            Ok(None) => {}
            Err(AcquireError::Store(error)) if error.is_transient() => {
                let reason = error.to_string();
                outage.begin(&reason);
                report(&reason);
            }
            Err(error) => return Err(error),
        }
        backoff.wait().await;
    }
}

/// Makes one allocation decision and carries it out. Returns None if a new decision is needed:
/// another node won the race, or the lease was discarded.
async fn attempt(
    store: &dyn LeaseStore,
    config: &NetworkConfig,
    claimant: &Claimant<'_>,
    value: &impl Fn(LeaseKey) -> Lease,
    report: &(dyn Fn(&str) + Send + Sync),
) -> Result<Option<OwnLease>, AcquireError> {
    let holdings = holdings(store, report).await?;
    let mut pick = |count: usize| fastrand::usize(..count);
    let choice = choose(config, &holdings, claimant, &mut pick)?;
    let stored = match choice {
        Choice::Create(key) => create(store, &value(key)).await?,
        Choice::TakeOver(key) => match unchanged(store, &holdings, key).await? {
            Some(stored) => publish(store, &stored, &value(key)).await?,
            None => None,
        },
        Choice::Discard(key) => {
            if let Some(conflict) = claimant.conflict(key) {
                warn!(error = %conflict, "lease {key}: released; choosing another subnet");
            }
            if let Some(stored) = unchanged(store, &holdings, key).await? {
                store.delete(&stored).await?;
            }
            // Whether this node or another one deleted it, the allocation has to be decided anew.
            return Ok(None);
        }
    };
    let Some(stored) = stored else { return Ok(None) };
    let (Choice::Create(key) | Choice::TakeOver(key) | Choice::Discard(key)) = choice;
    Ok(OwnLease::renewed(store, value(key), stored).await?)
}

/// Reads all leases of a store into the form that an allocation decision needs. `report` is called
/// after each page of a large store except the last one.
///
/// # Errors
///
/// [`StoreError`], when the store cannot be read.
pub async fn holdings(
    store: &dyn LeaseStore,
    report: &(dyn Fn(&str) + Send + Sync),
) -> Result<Holdings, StoreError> {
    let mut holdings = Holdings::default();
    let mut read = 0;
    let mut visit = |page: Page| {
        if page.first {
            (holdings, read) = (Holdings::default(), 0);
        }
        read += page.records.len();
        page.records.iter().for_each(|stored| holdings.add(&stored.record));
        if !page.last {
            report(&format!("reading leases: {read} records so far"));
        }
    };
    store.scan(&mut visit).await?;
    Ok(holdings)
}

/// Returns the current record of a lease. None if it no longer holds the lease that the decision
/// was based on.
async fn unchanged(
    store: &dyn LeaseStore,
    holdings: &Holdings,
    key: LeaseKey,
) -> Result<Option<Stored>, StoreError> {
    let stored = store.get(&key.to_string()).await?;
    Ok(stored.filter(|stored| read(&stored.record).as_ref() == holdings.get(key)))
}
