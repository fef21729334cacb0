//! Paged reads of everything below `<prefix>/subnets/`, at one revision.
//!
//! A page is one response of etcd. Its size adapts to the records read so far: anybody with write
//! access to etcd decides how long keys and values are, and a response longer than
//! [`MESSAGE_LIMIT`](super::connection::MESSAGE_LIMIT) is refused before it is read. The next
//! request then asks for fewer records, in the end for a single one, and if that is still too long,
//! for its key alone.

use etcd_client::{GetOptions, GetResponse, KeyValue};
use heddle_core::record::Unread;

use super::connection::{Connection, MESSAGE_LIMIT};
use super::error::{EtcdError, EtcdFailure};
use super::{Shared, wide};
use crate::Page;
use crate::retry::Backoff;

/// Number of records in the first page. Small, because their length is not known yet.
const FIRST: i64 = 16;

/// Maximum number of records in a page. Not small, because etcd up to 3.4 visits all keys of the
/// range for each page, whatever its limit.
const MOST: i64 = 10_000;

/// Target length of a page in bytes.
const TARGET: usize = 2 << 20;

/// Estimated size of a record in bytes, besides its key and value.
const RECORD: usize = 100;

/// Maximum number of restarts of a list whose revision was compacted.
const RESTARTS: usize = 8;

const OPERATION: &str = "list the leases";

/// A point in etcd's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) cluster: u64,
    pub(super) revision: i64,
}

impl Point {
    /// Returns the reason why this cannot come after `before`, if any: another cluster, or a lower
    /// revision. Not valid for responses that later ones may have overtaken.
    pub(super) fn contradicts(self, before: Self) -> Option<String> {
        if self.cluster != before.cluster {
            return Some(format!(
                "etcd: cluster id changed from {:x} to {:x}",
                before.cluster, self.cluster
            ));
        }
        (self.revision < before.revision).then(|| {
            format!(
                "etcd went back from revision {} to {}: it lost data or was restored",
                before.revision, self.revision
            )
        })
    }
}

/// A paged list in progress.
pub(super) struct Pages<'a> {
    shared: &'a Shared,
    keys_only: bool,
    /// The point in etcd's history that the list shows. None before the first page.
    at: Option<Point>,
    /// The first key of the next page.
    next: Vec<u8>,
    /// The number of records to ask for.
    size: i64,
    done: bool,
    restarts: usize,
    backoff: Backoff,
}

impl<'a> Pages<'a> {
    /// Starts a list of all current records.
    pub(super) fn of_records(shared: &'a Shared) -> Self {
        Self {
            shared,
            keys_only: false,
            at: None,
            next: shared.keyspace.leases().into_bytes(),
            size: FIRST,
            done: false,
            restarts: 0,
            backoff: Backoff::new(),
        }
    }

    /// Starts a list of all current records without their values.
    pub(super) fn of_keys(shared: &'a Shared) -> Self {
        Self { keys_only: true, ..Self::of_records(shared) }
    }

    /// Returns the point in etcd's history that the list shows. None before the first page.
    pub(super) fn point(&self) -> Option<Point> {
        self.at
    }

    /// Returns the next page. None after the last one.
    ///
    /// Each page has the deadline of one call. If etcd compacts its history beyond the revision of
    /// this list, or another cluster answers, the list restarts with a page that has `first` set.
    ///
    /// # Errors
    ///
    /// [`EtcdError`], when a page cannot be read, or after too many restarts.
    pub(super) async fn next(&mut self) -> Result<Option<Page>, EtcdError> {
        while !self.done {
            let error = match self.ask(self.size, self.keys_only).await {
                Ok(answer) if self.is_of_another_cluster(&answer) => self.another_cluster(),
                Ok(answer) => return Ok(Some(self.take(answer, None))),
                Err(error) => error,
            };
            if error.is_too_large() && self.size > 1 {
                self.size /= 2;
            } else if error.is_too_large() {
                let unread = Unread::TooLong(MESSAGE_LIMIT as u64);
                let answer = self.ask(1, true).await?;
                return Ok(Some(self.take(answer, Some(unread))));
            } else if error.is_overtaken() && self.restarts < RESTARTS {
                tracing::debug!(%error, "store: snapshot of leases overtaken; restarting it");
                self.restarts += 1;
                (self.at, self.next) = (None, self.shared.keyspace.leases().into_bytes());
                self.backoff.wait().await;
            } else {
                return Err(error);
            }
        }
        Ok(None)
    }

    async fn ask(&self, size: i64, keys_only: bool) -> Result<GetResponse, EtcdError> {
        let mut options =
            GetOptions::new().with_range(self.shared.keyspace.end_of_leases()).with_limit(size);
        if let Some(at) = self.at {
            options = options.with_revision(at.revision);
        }
        // A single key may be longer than a page, and the list cannot continue past it unread.
        let alone = keys_only && size == 1;
        if keys_only {
            options = options.with_keys_only();
        }
        let from = self.next.clone();
        let call = |connection: Connection| async move {
            let mut kv = if alone { wide(connection.kv) } else { connection.kv };
            kv.get(from, Some(options)).await
        };
        self.shared.connector.call(OPERATION, call).await
    }

    fn is_of_another_cluster(&self, answer: &GetResponse) -> bool {
        let cluster = answer.header().map(etcd_client::ResponseHeader::cluster_id);
        self.at.is_some_and(|at| cluster.is_some_and(|cluster| cluster != at.cluster))
    }

    fn another_cluster(&self) -> EtcdError {
        EtcdError::Call {
            endpoint: self.shared.connector.options.endpoints.join(","),
            operation: OPERATION,
            failure: EtcdFailure::AnotherCluster,
        }
    }

    /// Turns a response into a page, and advances the list. `unread` is the reason why its values
    /// are missing.
    fn take(&mut self, mut answer: GetResponse, unread: Option<Unread>) -> Page {
        let first = self.at.is_none();
        if first {
            let point = |header: &etcd_client::ResponseHeader| Point {
                cluster: header.cluster_id(),
                revision: header.revision(),
            };
            self.at = Some(answer.header().map_or(Point { cluster: 0, revision: 0 }, point));
        }
        let more = answer.more();
        let found = answer.take_kvs();
        if let Some(last) = found.last() {
            self.next = [last.key(), b"\0"].concat();
        }
        self.done = !more || found.is_empty();
        self.size = next_size(self.size, &found);
        let keyspace = &self.shared.keyspace;
        let mut records: Vec<_> =
            found.into_iter().filter_map(|found| keyspace.stored(found)).collect();
        if unread.is_some() {
            records.iter_mut().for_each(|stored| stored.record.unread = unread);
        }
        Page { records, first, last: self.done }
    }
}

/// Returns the number of records to ask for after a page with these records: as many as fit
/// [`TARGET`], but at most twice as many as before.
fn next_size(size: i64, found: &[KeyValue]) -> i64 {
    let bytes: usize =
        found.iter().map(|found| RECORD + found.key().len() + found.value().len()).sum();
    let each = (bytes / found.len().max(1)).max(1);
    let fitting = i64::try_from(TARGET / each).unwrap_or(MOST);
    fitting.min(2 * size).clamp(1, MOST)
}
