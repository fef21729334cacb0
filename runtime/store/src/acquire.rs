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
use crate::{LeaseStore, OwnLease, Page, Record, StoreError};

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
/// `value` says what to publish for a subnet. `report` hears what is being waited for: the pages of a large store, or why it
/// cannot be read. Waits for a store that cannot be reached for as long as that lasts,
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
    report: &(dyn Fn(&str) + Send + Sync),
) -> Result<OwnLease, AcquireError> {
    let mut outage = Outage::new("acquiring a lease");
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

/// One decision and its execution. None when another node was quicker.
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
    let record = match choice {
        Choice::Create(key) => create(store, &value(key)).await?,
        Choice::TakeOver(key) => match unchanged(store, &holdings, key).await? {
            Some(record) => publish(store, &record, &value(key)).await?,
            None => None,
        },
        Choice::Discard(key) => {
            if let Some(conflict) = claimant.conflict(key) {
                warn!("lease {key}: released, because {conflict}; choosing another subnet");
            }
            if let Some(record) = unchanged(store, &holdings, key).await? {
                store.delete(&record).await?;
            }
            // Whoever deleted it, there is a new decision to make.
            return Ok(None);
        }
    };
    let Some(record) = record else { return Ok(None) };
    let (Choice::Create(key) | Choice::TakeOver(key) | Choice::Discard(key)) = choice;
    Ok(OwnLease::renewed(store, value(key), record).await?)
}

/// Reads all leases of a store, as far as a choice depends on them. `report` hears of each page of a large store.
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
        page.records.iter().for_each(|record| holdings.add(&record.as_read()));
        if !page.last {
            report(&format!("reading leases: {read} records so far"));
        }
    };
    store.scan(&mut visit).await?;
    Ok(holdings)
}

/// Returns the record of a lease as it is now. None if it is no longer the lease that a decision rests on.
async fn unchanged(
    store: &dyn LeaseStore,
    holdings: &Holdings,
    key: LeaseKey,
) -> Result<Option<Record>, StoreError> {
    let record = store.get(&key.to_string()).await?;
    Ok(record.filter(|record| read(record).as_ref() == holdings.get(key)))
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
    if overlapping(store, key).await?.is_none() {
        return Ok(Some(record));
    }
    store.delete(&record).await?;
    Ok(None)
}

/// The key of another record that shares an address with this one.
pub(crate) async fn overlapping(
    store: &dyn LeaseStore,
    own: LeaseKey,
) -> Result<Option<String>, StoreError> {
    let overlaps = |text: &str| {
        let other = text.parse::<LeaseKey>();
        other.is_ok_and(|other| other != own && overlap(other, own))
    };
    store.find_key(&overlaps).await
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
    record.as_read().lease(record.key.parse().ok()?).ok()
}
