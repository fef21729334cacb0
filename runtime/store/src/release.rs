//! Release of this node's lease, and of one whose holder is gone.

use heddle_core::allocation::Holder;

use crate::claim::read;
use crate::holder::ask;
use crate::retry::Backoff;
use crate::{LeaseStore, OwnLease, StoreError, Stored};

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

/// Outcome of [`release_of_other`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OtherRelease {
    /// The record was deleted.
    Released,
    /// The record was deleted or replaced by somebody else meanwhile.
    Changed,
    /// The holder keeps its lease. It names itself so.
    Kept(String),
}

/// Releases the lease of another node if its holder does not answer, or by force without asking.
/// `asker` is named in the question.
///
/// # Errors
///
/// [`StoreError`], when the store cannot be reached or written.
pub async fn release_of_other(
    store: &dyn LeaseStore,
    found: &Stored,
    asker: &str,
    force: bool,
) -> Result<OtherRelease, StoreError> {
    let Some(lease) = read(&found.record).filter(|_| !force) else {
        let deleted = store.delete(found).await?;
        return Ok(if deleted { OtherRelease::Released } else { OtherRelease::Changed });
    };
    match ask(store, found, asker).await? {
        Some((Holder::Gone, asked)) if store.delete(&asked).await? => Ok(OtherRelease::Released),
        Some((Holder::Alive, _)) => Ok(OtherRelease::Kept(lease.owner())),
        _ => Ok(OtherRelease::Changed),
    }
}
