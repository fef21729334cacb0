//! The question to the holder of a lease whether it is there.
//!
//! A daemon renews its lease once a day, so the lease itself does not tell. But every version of
//! heddled restores its record within a second when somebody alters it. So the question is an
//! alteration that nobody's packets depend on: of `NodeName`. A daemon that is cut off from the
//! store for the whole time counts as gone, as it does a day later in any case.

use std::time::Duration;

use heddle_core::allocation::Holder;
use heddle_core::lease::Lease;
use tokio::time::{Instant, sleep};

use crate::claim::read;
use crate::{LeaseStore, StoreError, Stored};

/// Time to wait for an answer. Longer than any delay between two attempts of a daemon to reach the
/// store.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Interval at which the record is read.
const STEP: Duration = Duration::from_millis(500);

/// Beginning of what is added to `NodeName`.
const QUESTION: &str = " (is it there? asks ";

/// Asks the holder of a lease whether it is there, in the name of `asker`. Returns the outcome and
/// the record as last seen, or None if the record has changed in another way, so that the caller has
/// to read it again.
///
/// Without an answer, the record stays altered until the caller replaces it.
///
/// # Errors
///
/// [`StoreError`], when the store cannot be reached or written.
pub async fn ask(
    store: &dyn LeaseStore,
    stored: &Stored,
    asker: &str,
) -> Result<Option<(Holder, Stored)>, StoreError> {
    let Some(lease) = read(&stored.record) else { return Ok(None) };
    let name = lease.node_name.as_deref().unwrap_or_default();
    let name = name.split(QUESTION).next().unwrap_or_default();
    let altered = Lease { node_name: Some(format!("{name}{QUESTION}{asker})")), ..lease.clone() };
    let Some(asked) = store.replace(stored, altered.to_value().as_bytes()).await? else {
        return Ok(None);
    };
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        sleep(STEP).await;
        let Some(found) = store.get(stored.key()).await? else { return Ok(None) };
        if found.handle.version != asked.handle.version {
            let answers = |found: &Lease| {
                let is_question = found.node_name.as_ref().is_some_and(|it| it.contains(QUESTION));
                found.node_id == lease.node_id && !is_question
            };
            let answered = read(&found.record).is_some_and(|found| answers(&found));
            return Ok(answered.then_some((Holder::Alive, found)));
        }
    }
    Ok(Some((Holder::Gone, asked)))
}

/// Takes back a question that nobody has answered, if the record still has it.
///
/// # Errors
///
/// [`StoreError`], when the store cannot be reached or written.
pub async fn take_back(store: &dyn LeaseStore, key: &str) -> Result<(), StoreError> {
    let Some(stored) = store.get(key).await? else { return Ok(()) };
    let Some(lease) = read(&stored.record) else { return Ok(()) };
    let asked = lease.node_name.as_deref().and_then(|name| name.split_once(QUESTION));
    let Some((name, _)) = asked else { return Ok(()) };
    let node_name = (!name.is_empty()).then(|| name.to_owned());
    let before = Lease { node_name, ..lease };
    store.replace(&stored, before.to_value().as_bytes()).await?;
    Ok(())
}
