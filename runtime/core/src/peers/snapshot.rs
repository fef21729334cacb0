//! Snapshots: complete lists of the records, read in parts.

use std::collections::BTreeMap;
use std::time::Instant;

use super::rejected::Rejected;
use super::rejection::Rejection;
use super::{Delta, Peers};
use crate::lease::{Lease, LeaseKey};
use crate::record::{Age, Record};

/// The part of a snapshot (a complete list of records) that was read so far. It takes effect only
/// when complete.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    records: usize,
    /// Valid leases. The lease itself is None if it is held already, unchanged.
    leases: BTreeMap<LeaseKey, (Option<Box<Lease>>, Age)>,
    rejected: Rejected,
    /// True if the list has a record under this node's own key.
    own: bool,
}

impl Peers {
    /// Begins a snapshot, a complete list of the records that is read in parts. Nothing changes
    /// before its end. An earlier unfinished snapshot is dropped.
    pub fn begin_snapshot(&mut self) {
        let rejected = self.rejected.new_like();
        let (records, leases, own) = (0, BTreeMap::new(), false);
        self.reading = Some(Snapshot { records, leases, rejected, own });
    }

    /// Adds one record to the snapshot. Returns why it cannot be used, regardless of other records.
    pub fn add_to_snapshot(&mut self, record: &Record) -> Option<Rejection> {
        let read = self.read(record);
        let snapshot = self.reading.as_mut()?;
        snapshot.records += 1;
        match read {
            Ok(None) => snapshot.own = true,
            Ok(Some(lease)) => {
                let key = lease.key;
                // A missing lease may be dropped before the snapshot ends, so its record is kept in
                // full.
                let held = self.leases.get(&key).filter(|_| !self.missing.contains(&key));
                let known = held.is_some_and(|held| held.lease == lease);
                snapshot.leases.insert(key, ((!known).then(|| Box::new(lease)), record.age));
            }
            Err(rejection) => {
                let held = record.key.parse().is_ok_and(|key| self.leases.contains_key(&key));
                snapshot.rejected.insert(&record.key, rejection.clone(), held);
                return Some(rejection);
            }
        }
        None
    }

    /// Drops an unfinished snapshot.
    pub fn abandon_snapshot(&mut self) {
        self.reading = None;
    }

    /// Returns the number of records in the unfinished snapshot, if there is one.
    pub fn snapshot_len(&self) -> Option<usize> {
        self.reading.as_ref().map(|snapshot| snapshot.records)
    }

    /// Applies the snapshot as the complete list of records: records not in it are deleted, unless
    /// the store has lost data.
    pub fn end_snapshot(&mut self, now: Instant) -> Delta {
        let mut progress = self.begin();
        let Some(mut snapshot) = self.reading.take() else { return self.finish(progress, now) };
        // A reader of snapshots may have missed changes of this node's own record.
        progress.delta.own = true;
        let is_there = |key: &str| {
            let lease = key.parse().is_ok_and(|key| snapshot.leases.contains_key(&key));
            lease || snapshot.rejected.get(key).is_some()
        };
        let known = self.leases.keys().map(ToString::to_string);
        let known = known.chain(self.rejected.iter().map(|(key, _)| key.to_owned()));
        let gone: Vec<_> = known.filter(|key| !is_there(key)).collect();
        for key in gone {
            self.delete(&key, &mut progress);
        }
        self.own_is_there = snapshot.own;
        progress.delta.rejected_unnamed = self.rejected.replace_unnamed(&mut snapshot.rejected);
        for (key, (lease, age)) in snapshot.leases {
            let lease = lease.map(|lease| *lease);
            if let Some(lease) = lease.or_else(|| Some(self.leases.get(&key)?.lease.clone())) {
                self.put_lease(&key.to_string(), lease, age, &mut progress);
            }
        }
        for (key, rejection) in snapshot.rejected.into_named() {
            self.put_rejected(&key, rejection, &mut progress);
        }
        self.finish(progress, now)
    }
}
