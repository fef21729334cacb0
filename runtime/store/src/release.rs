//! Giving a lease up.

use crate::acquire::read;
use crate::retry::Backoff;
use crate::{LeaseStore, OwnLease, StoreError};

/// Gives this node's lease up, so that its subnet is free at once and nobody sends to the addresses in it any more. A
/// reservation stays, and so does what is not this node's value. Returns whether it is gone.
///
/// Waits for a store that cannot be reached for as long as that lasts; a limit is the caller's matter.
///
/// # Errors
///
/// [`StoreError`], when waiting would not help. The lease ends by itself then.
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
    match store.get(&own.record().key).await? {
        Some(found) if !found.is_reservation() && read(&found).as_ref() == Some(own.lease()) => {
            store.delete(&found).await
        }
        _ => Ok(false),
    }
}
