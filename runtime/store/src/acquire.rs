//! Getting a lease for this node.
//!
//! `heddle_core::allocation::choose` says what to try; here it is tried, and decided anew whenever another node was
//! quicker. There is no limit to that: somebody wins each race, so of any number of nodes that boot together each
//! gets its subnet.

use heddle_core::allocation::{AllocationError, Choice, Claimant, Holdings, choose, overlap};
use heddle_core::config::NetworkConfig;
use heddle_core::lease::{Lease, LeaseKey};
use tracing::warn;

use crate::outage::Outage;
use crate::retry::Backoff;
use crate::{LeaseStore, OwnLease, Record, StoreError};

/// No lease can be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcquireError {
    /// The store refuses, and will do so again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is none for this node.
    #[error(transparent)]
    Allocation(#[from] AllocationError),
}

/// Gets the lease that is this node's already, or a new one.
///
/// `value` says what to publish for a subnet. Waits for a store that cannot be reached for as long as that lasts,
/// and starts again after each lost race; a limit is the caller's matter.
///
/// # Errors
///
/// [`AcquireError`], when waiting would not help.
pub async fn acquire(
    store: &dyn LeaseStore,
    config: &NetworkConfig,
    claimant: &Claimant<'_>,
    value: impl Fn(LeaseKey) -> Lease + Send,
) -> Result<OwnLease, AcquireError> {
    let mut outage = Outage::new("acquiring a lease");
    let mut backoff = Backoff::new();
    loop {
        match attempt(store, config, claimant, &value).await {
            Ok(Some(own)) => {
                outage.end();
                return Ok(own);
            }
            Ok(None) => {}
            Err(AcquireError::Store(error)) if error.is_transient() => {
                outage.begin(&error.to_string());
            }
            Err(error) => return Err(error),
        }
        backoff.wait().await;
    }
}

/// One decision and its execution. None when another node was quicker.
async fn attempt(
    store: &dyn LeaseStore,
    config: &NetworkConfig,
    claimant: &Claimant<'_>,
    value: &impl Fn(LeaseKey) -> Lease,
) -> Result<Option<OwnLease>, AcquireError> {
    let records = store.list().await?;
    let holdings: Holdings = records.iter().map(Record::as_read).collect();
    let mut pick = |count: usize| rand::random_range(0..count);
    let choice = choose(config, &holdings, claimant, &mut pick)?;
    let record_of = |key: LeaseKey| records.iter().find(|r| r.key.parse() == Ok(key));
    let record = match choice {
        Choice::Create(key) => create(store, &value(key)).await?,
        Choice::TakeOver(key) => match record_of(key) {
            Some(record) => publish(store, record, &value(key)).await?,
            None => None,
        },
        Choice::Discard(key) => {
            if let Some(conflict) = claimant.conflict(key) {
                warn!(%key, "lease: given up for another subnet, because the host needs it: {conflict}");
            }
            if let Some(record) = record_of(key) {
                store.delete(record).await?;
            }
            // Whoever deleted it, there is a new decision to make.
            return Ok(None);
        }
    };
    let Some(record) = record else { return Ok(None) };
    let (Choice::Create(key) | Choice::TakeOver(key) | Choice::Discard(key)) = choice;
    Ok(OwnLease::renewed(store, value(key), record).await?)
}

/// Creates a lease whose subnets are nobody else's. None when another node was quicker.
///
/// The key alone does not guard that: two dual-stack leases may share one family's subnet, and a lease from before
/// a change of the subnet length may lie across another. So the others are read once more, and this lease yields
/// to whatever is there. Of two that were created at once the later one sees the earlier, and perhaps both yield.
pub(crate) async fn create(
    store: &dyn LeaseStore,
    lease: &Lease,
) -> Result<Option<Record>, StoreError> {
    let key = lease.key;
    let value = lease.to_value();
    let Some(record) = store.create(&key.to_string(), value.as_bytes()).await? else {
        return Ok(None);
    };
    if overlapping(&store.list().await?, key).is_none() {
        return Ok(Some(record));
    }
    store.delete(&record).await?;
    Ok(None)
}

/// Another record that shares an address with the key.
pub(crate) fn overlapping(records: &[Record], own: LeaseKey) -> Option<&Record> {
    records.iter().find(|record| {
        let other = record.key.parse::<LeaseKey>();
        other.is_ok_and(|other| other != own && overlap(other, own))
    })
}

/// Puts our value into a record that is ours. None when somebody changed it meanwhile.
pub(crate) async fn publish(
    store: &dyn LeaseStore,
    record: &Record,
    lease: &Lease,
) -> Result<Option<Record>, StoreError> {
    if read(record).as_ref() == Some(lease) {
        return Ok(Some(record.clone()));
    }
    store.replace(record, lease.to_value().as_bytes()).await
}

/// The record as a lease, if it is one.
pub(crate) fn read(record: &Record) -> Option<Lease> {
    Lease::from_value(record.key.parse().ok()?, &record.value).ok()
}
