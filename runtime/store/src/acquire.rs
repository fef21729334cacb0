//! Acquisition of this node's lease.
//!
//! `heddle_core::allocation::choose` decides which subnet to try. This module carries the decision
//! out, and decides anew whenever another node won the race. The number of attempts is unlimited:
//! each race has a winner, so any number of nodes that boot together all get a subnet.

use std::net::IpAddr;

use heddle_core::allocation::{
    AllocationError, Choice, Claimant, Holder, Holdings, Relation, choose,
};
use heddle_core::config::NetworkConfig;
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::node::NodeId;
use heddle_core::text::list;
use tracing::{error, info, warn};

use crate::claim::{create, publish, read, rename};
use crate::holder::{ask, take_back};
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
    let mut holders = claimant.holders.clone();
    loop {
        let claimant = Claimant { holders: &holders, ..*claimant };
        match attempt(store, config, &claimant, &value, report).await {
            Ok(Attempt::Done(own)) => {
                outage.end();
                return Ok(*own);
            }
            Ok(Attempt::Asked(key, holder)) => _ = holders.insert(key, holder),
            Ok(Attempt::Again) => {}
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

/// Outcome of an attempt to acquire a lease.
enum Attempt {
    /// The node has a lease.
    Done(Box<OwnLease>),
    /// The holder of a lease was asked.
    Asked(LeaseKey, Holder),
    /// A new decision is needed: another node won the race, or the lease was discarded.
    Again,
}

/// Makes one allocation decision and carries it out.
async fn attempt(
    store: &dyn LeaseStore,
    config: &NetworkConfig,
    claimant: &Claimant<'_>,
    value: &impl Fn(LeaseKey) -> Lease,
    report: &(dyn Fn(&str) + Send + Sync),
) -> Result<Attempt, AcquireError> {
    let holdings = holdings(store, report).await?;
    let mut pick = |count: usize| fastrand::usize(..count);
    let choice = choose(config, &holdings, claimant, &mut pick)?;
    let (key, stored) = match choice {
        Choice::Create(key) => (key, create(store, &value(key)).await?),
        Choice::TakeOver(key) => match unchanged(store, &holdings, key).await? {
            Some(stored) => (key, publish(store, &stored, &value(key)).await?),
            None => return Ok(Attempt::Again),
        },
        Choice::Move { from, to } => match unchanged(store, &holdings, from).await? {
            Some(stored) => (to, rename(store, &stored, &value(to)).await?),
            None => return Ok(Attempt::Again),
        },
        Choice::Discard(key) => {
            if let Some(conflict) = claimant.conflict(key) {
                warn!(error = %conflict, "lease {key}: released; choosing another subnet");
            }
            if let Some(stored) = unchanged(store, &holdings, key).await? {
                store.delete(&stored).await?;
            }
            // Whether this node or another one deleted it, the allocation has to be decided anew.
            return Ok(Attempt::Again);
        }
        Choice::Ask(key) => return question(store, &holdings, claimant, key, report).await,
    };
    let Some(stored) = stored else { return Ok(Attempt::Again) };
    let Some(own) = OwnLease::renewed(store, value(key), stored).await? else {
        return Ok(Attempt::Again);
    };
    release_others(store, &holdings, claimant, choice).await?;
    Ok(Attempt::Done(Box::new(own)))
}

/// Asks the holder of a lease whether it is there.
async fn question(
    store: &dyn LeaseStore,
    holdings: &Holdings,
    claimant: &Claimant<'_>,
    key: LeaseKey,
    report: &(dyn Fn(&str) + Send + Sync),
) -> Result<Attempt, AcquireError> {
    let Some(stored) = unchanged(store, holdings, key).await? else { return Ok(Attempt::Again) };
    let owner = holdings.get(key).map(Lease::owner).unwrap_or_default();
    report(&format!("asking {owner} whether it still needs lease {key}"));
    let asker = format!("{} at {}", claimant.id, list(claimant.public_addresses));
    match ask(store, &stored, &asker).await? {
        Some((Holder::Alive, _)) => {
            error!("lease {key}: {owner} keeps it, so it is not for this node, {asker}");
            Ok(Attempt::Asked(key, Holder::Alive))
        }
        Some((Holder::Gone, _)) => {
            warn!("lease {key}: {owner} did not answer this node, {asker}; counted as gone");
            Ok(Attempt::Asked(key, Holder::Gone))
        }
        None => Ok(Attempt::Again),
    }
}

/// Releases the other leases that are this node's, such as those from before a change of its
/// address, and takes back questions about leases that it did not need. Reservations stay.
async fn release_others(
    store: &dyn LeaseStore,
    holdings: &Holdings,
    claimant: &Claimant<'_>,
    choice: Choice,
) -> Result<(), StoreError> {
    let is_used = |key: LeaseKey| match choice {
        Choice::Move { from, to } => key == from || key == to,
        Choice::TakeOver(own) | Choice::Create(own) => key == own,
        Choice::Discard(_) | Choice::Ask(_) => false,
    };
    let others = holdings.leases().iter().filter(|lease| !is_used(lease.key));
    for lease in others.filter(|lease| claimant.relation(lease) == Relation::Own) {
        let key = lease.key;
        if let Some(stored) = unchanged(store, holdings, key).await?
            && !stored.is_reservation()
            && store.delete(&stored).await?
        {
            info!("lease {key}: released, because this node has another one");
        }
    }
    let asked = claimant.holders.iter().filter(|(_, holder)| **holder == Holder::Gone);
    for (key, _) in asked.filter(|(key, _)| !is_used(**key)) {
        take_back(store, &key.to_string()).await?;
    }
    Ok(())
}

/// Returns the public addresses in the leases of a node.
///
/// # Errors
///
/// [`StoreError`], when the store cannot be read.
pub async fn published_addresses(
    store: &dyn LeaseStore,
    id: &NodeId,
) -> Result<Vec<IpAddr>, StoreError> {
    Ok(holdings(store, &|_| ()).await?.published(id))
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
