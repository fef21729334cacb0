//! Release of this node's lease.

use crate::claim::read;
use crate::retry::Backoff;
use crate::{LeaseStore, OwnLease, StoreError};

/// Releases this node's lease, so that its subnet is free at once and peers stop sending to its
/// addresses. Keeps a reservation, and a record whose value is not this node's. Returns true if the
/// record was deleted.
///
/// Retries with backoff and without a limit while the store is unreachable; a time limit is up to
/// the caller.
///
/// # Errors
///
/// [`StoreError`], when a retry would not help. The lease then expires by itself.
pub async fn release(store: &dyn LeaseStore, own: &OwnLease) -> Result<bool, StoreError> {
    let mut backoff = Backoff::new();
    loop {
        match attempt(store, own).await {
            Err(error) if error.is_transient() => backoff.wait().await,
            outcome => return outcome,
        }
    }
}

async fn attempt(store: &dyn LeaseStore, own: &OwnLease) -> Result<bool, StoreError> {
    match store.get(own.stored().key()).await? {
        Some(found)
            if !found.is_reservation() && read(&found.record).as_ref() == Some(own.lease()) =>
        {
            store.delete(&found).await
        }
        _ => Ok(false),
    }
}
