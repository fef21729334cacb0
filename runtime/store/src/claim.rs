//! Compare-and-swap on the record of this node's lease.

use heddle_core::allocation::overlap;
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::record::Record;
use tracing::info;

use crate::{LeaseStore, StoreError, Stored};

/// Creates a lease whose subnets overlap no other lease. Returns None if another node won the race.
///
/// The compare-and-swap on the key does not rule out overlaps: two dual-stack leases may share one
/// family's subnet, and a lease from before a change of the subnet length may overlap another. So
/// the other keys are read once more after the write, and this lease yields to any overlap. Of two
/// leases created at the same time, the later one sees the earlier one; possibly both yield.
pub(crate) async fn create(
    store: &dyn LeaseStore,
    lease: &Lease,
) -> Result<Option<Stored>, StoreError> {
    let key = lease.key;
    let value = lease.to_value();
    let Some(stored) = store.create(&key.to_string(), value.as_bytes()).await? else {
        return Ok(None);
    };
    if overlapping(store, key).await?.is_none() {
        return Ok(Some(stored));
    }
    store.delete(&stored).await?;
    Ok(None)
}

/// Puts a lease whose subnets overlap no other lease in the place of our record. Returns None if
/// the record was changed meanwhile or the new lease overlaps another one, which the caller's next
/// decision has to settle: this lease may be the senior one.
pub(crate) async fn rename(
    store: &dyn LeaseStore,
    current: &Stored,
    lease: &Lease,
) -> Result<Option<Stored>, StoreError> {
    let (from, key) = (current.key(), lease.key);
    let renamed = store.rename(current, &key.to_string(), lease.to_value().as_bytes()).await?;
    let Some(stored) = renamed else { return Ok(None) };
    info!("lease {from}: replaced by {key}, which keeps what the config allows");
    Ok(overlapping(store, key).await?.is_none().then_some(stored))
}

/// Returns the key of another record whose subnets overlap those of this lease, if there is one.
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

/// Writes our lease into a record that is ours, unless it already holds it. Returns None if the
/// record was changed meanwhile.
pub(crate) async fn publish(
    store: &dyn LeaseStore,
    current: &Stored,
    lease: &Lease,
) -> Result<Option<Stored>, StoreError> {
    if read(&current.record).as_ref() == Some(lease) {
        return Ok(Some(current.clone()));
    }
    store.replace(current, lease.to_value().as_bytes()).await
}

/// Parses a record as a lease. None if it is not a valid one.
pub(crate) fn read(record: &Record) -> Option<Lease> {
    record.lease(record.key.parse().ok()?).ok()
}
