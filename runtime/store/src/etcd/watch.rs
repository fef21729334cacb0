//! Watch of the leases and the network config in etcd.
//!
//! A session is a snapshot, delivered page by page, followed by a watch of the leases and one of
//! the config from the revision after it. The last page is delivered once both watches run. Any
//! failure, however small, ends the session, and the next one starts with a new snapshot. So Heddle
//! never has to guess what it missed: not after a broken connection, not after compaction, and not
//! after etcd lost its data and counts revisions anew.

use std::convert::Infallible;
use std::sync::Arc;

use etcd_client::{EventType, WatchOptions, WatchResponse};
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::error::{EtcdError, EtcdFailure};
use super::pages::{Pages, Point};
use super::{Keyspace, Shared};
use crate::outage::Outage;
use crate::retry::{Backoff, LONGEST};
use crate::watch::{Page, Pulse, RecordChange, Update, WatchEvent};

const OPERATION: &str = "watch the leases";

/// Number of watches in a session: one of the leases and one of the config.
const WATCHES: usize = 2;

/// Size, in bytes as counted by [`weight`], at which an update stops coalescing responses that are
/// ready.
const JOINED: usize = 1 << 20;

/// The reason why a session ended.
enum End {
    /// The consumer has dropped the watch.
    Dropped,
    /// A call failed.
    Failed(EtcdError),
    /// The watch cannot continue, although the connection may still work.
    Invalid(String),
    /// Another connection replaced this one.
    Renewed,
}

impl From<EtcdError> for End {
    fn from(error: EtcdError) -> Self {
        Self::Failed(error)
    }
}

/// Runs one session after the other until the consumer drops the watch.
pub(super) async fn run(shared: Arc<Shared>, events: mpsc::Sender<WatchEvent>, pulse: Pulse) {
    let mut outage = Outage::new("store: watch of leases in etcd");
    let mut latest = None;
    let mut backoff = Backoff::new();
    let mut known = None;
    loop {
        let started = Instant::now();
        let end = follow(&shared, &events, &pulse, &mut known, &mut outage, &mut latest);
        let Err(end) = end.await;
        let reason = match end {
            End::Dropped => return,
            End::Renewed => continue,
            End::Failed(error) => error.to_string(),
            End::Invalid(reason) => reason,
        };
        if outage.begin(&reason) && events.send(WatchEvent::Stale { reason }).await.is_err() {
            return;
        }
        // A session that ends soon after its start is no success, so the backoff continues.
        if started.elapsed() > 2 * LONGEST {
            backoff.reset();
        }
        backoff.wait().await;
    }
}

/// The network config last delivered, if any was.
type Known = Option<Option<Vec<u8>>>;

/// Runs one watch session until it fails. `latest` is the newest point in etcd's history that was
/// delivered so far.
async fn follow(
    shared: &Shared,
    events: &mpsc::Sender<WatchEvent>,
    pulse: &Pulse,
    known: &mut Known,
    outage: &mut Outage,
    latest: &mut Option<Point>,
) -> Result<Infallible, End> {
    let connector = &shared.connector;
    let timing = connector.options.timing;
    let mut renewals = connector.renewals();
    let config = shared.config().await?.0;
    if known.as_ref() != Some(&config) {
        *known = Some(config.clone());
        send(events, WatchEvent::Config(config)).await?;
    }
    let reading = read_to_last_page(shared, events, pulse, outage, *latest);
    let (begin, last) = tokio::select! {
        read = reading => read?,
        _ = renewals.changed() => return Err(End::Renewed),
    };
    // Reading the pages may have taken so long that the revision of the first config is compacted
    // by now.
    let (mut config, config_revision) = shared.config().await?;
    let connection = connector.connection().await?;

    let options = |revision| {
        let options = WatchOptions::new().with_start_revision(revision + 1);
        options.with_progress_notify().with_fragment()
    };
    let prefix = shared.keyspace.leases();
    let mut watch = connection.watch.clone();
    let of_leases = options(begin.revision).with_prefix();
    let opening = async {
        let mut stream = watch.watch(prefix, Some(of_leases)).await?;
        stream.watch(shared.keyspace.config(), Some(options(config_revision))).await?;
        Ok(stream)
    };
    let mut stream = match connector.answer(timing.call, opening).await {
        Ok(stream) => stream,
        Err(failure) => return Err(connector.failed(&connection, OPERATION, failure).await.into()),
    };

    let mut opened = 0;
    // Also collects the events of one watch while the other is not created yet.
    let mut changes = Changes::default();
    let mut heard = Instant::now();
    let mut asked = None;
    let mut last = Some(last);
    loop {
        // The deadline counts from the request, not from the last message: this process may have
        // been suspended before the request.
        let limit = asked.map_or(heard + timing.quiet, |asked| asked + timing.progress);
        let message = tokio::select! {
            biased;
            message = stream.next() => message,
            // This cannot be an error: the sender lives as long as the connector.
            _ = renewals.changed() => return Err(End::Renewed),
            () = sleep_until(limit) => {
                if asked.is_some() {
                    let failure = EtcdFailure::Deadline(timing.progress);
                    return Err(connector.failed(&connection, OPERATION, failure).await.into());
                }
                asked = Some(Instant::now());
                // A request that cannot be sent gets no answer, so the deadline covers it.
                let _ = stream.request_progress().await;
                continue;
            }
        };
        heard = Instant::now();
        asked = None;

        let mut reached = begin.revision;
        let mut next = Some(message);
        while let Some(message) = next {
            let response = match message {
                Some(Ok(response)) => response,
                Some(Err(error)) => {
                    let failure = connector.failure(error);
                    return Err(connector.failed(&connection, OPERATION, failure).await.into());
                }
                None => {
                    let failure = EtcdFailure::Transport("etcd ended the watch".to_owned());
                    return Err(connector.failed(&connection, OPERATION, failure).await.into());
                }
            };
            let point = check(&response, begin).map_err(End::Invalid)?;
            opened += usize::from(response.created());
            pulse.beat();
            collect(&shared.keyspace, &response, &mut changes, &mut config);
            reached = reached.max(point.revision);
            next = if changes.weight < JOINED { stream.next().now_or_never() } else { None };
        }
        if opened < WATCHES {
            continue;
        }
        // The snapshot is completed only once the watch that continues it runs, so that a store
        // that cannot be watched never counts as up to date.
        if known.as_ref() != Some(&config) {
            *known = Some(config.clone());
            send(events, WatchEvent::Config(config.clone())).await?;
        }
        if let Some(page) = last.take() {
            outage.end();
            *latest = Some(begin);
            deliver(events, Update::Snapshot(page)).await?;
        }
        if let Some(latest) = latest {
            latest.revision = latest.revision.max(reached);
        }
        if !changes.list.is_empty() {
            deliver(events, Update::Changes(std::mem::take(&mut changes).list)).await?;
        }
    }
}

/// Delivers all pages of a snapshot except the last. Returns the last page, and the point in etcd's
/// history at which the snapshot was started.
async fn read_to_last_page(
    shared: &Shared,
    events: &mpsc::Sender<WatchEvent>,
    pulse: &Pulse,
    outage: &mut Outage,
    latest: Option<Point>,
) -> Result<(Point, Page), End> {
    let mut pages = Pages::of_records(shared);
    let mut set_back = false;
    while let (Some(page), Some(begin)) = (pages.next().await?, pages.point()) {
        pulse.beat();
        if let Some(reason) = latest.and_then(|latest| begin.contradicts(latest))
            && !std::mem::replace(&mut set_back, true)
        {
            send(events, WatchEvent::SetBack { reason }).await?;
        }
        if page.last {
            return Ok((begin, page));
        }
        // The consumer of an incomplete snapshot must be told if it is interrupted, even for the
        // same reason as before.
        outage.progress();
        deliver(events, Update::Snapshot(page)).await?;
    }
    Err(End::Invalid("etcd ended the list of the leases without its last page".to_owned()))
}

async fn deliver(events: &mpsc::Sender<WatchEvent>, update: Update) -> Result<(), End> {
    send(events, WatchEvent::Update(update)).await
}

async fn send(events: &mpsc::Sender<WatchEvent>, event: WatchEvent) -> Result<(), End> {
    events.send(event).await.map_err(|_| End::Dropped)
}

/// Checks that a response continues the snapshot taken at `begin`. Returns the point in etcd's
/// history that it has reached, or the reason why it does not continue.
fn check(response: &WatchResponse, begin: Point) -> Result<Point, String> {
    if response.compact_revision() > 0 {
        return Err(format!(
            "etcd has compacted its history up to revision {}, and the watch was behind that",
            response.compact_revision()
        ));
    }
    if response.canceled() {
        let reason = match response.cancel_reason() {
            "" => "no reason given",
            reason => reason,
        };
        return Err(format!("etcd cancelled the watch: {reason}"));
    }
    let Some(header) = response.header() else { return Ok(begin) };
    let point = Point { cluster: header.cluster_id(), revision: header.revision() };
    // Compared with the revision of the snapshot only, never with a later one: a progress
    // notification may overtake events.
    point.contradicts(begin).map_or(Ok(point), Err)
}

/// Changes that are not delivered yet.
#[derive(Default)]
struct Changes {
    list: Vec<RecordChange>,
    weight: usize,
}

/// Returns the approximate size of a change in bytes.
fn weight(change: &RecordChange) -> usize {
    let value = match change {
        RecordChange::Put(record) => record.value.len(),
        RecordChange::Delete(_) => 0,
    };
    size_of::<RecordChange>() + change.key().len() + value
}

fn collect(
    keyspace: &Keyspace,
    response: &WatchResponse,
    changes: &mut Changes,
    config: &mut Option<Vec<u8>>,
) {
    for event in response.events() {
        let Some(kv) = event.kv() else { continue };
        if kv.key() == keyspace.config().as_bytes() {
            let put = event.event_type() == EventType::Put;
            *config = put.then(|| kv.value().to_vec());
            continue;
        }
        let change = match event.event_type() {
            EventType::Put => keyspace.record(kv.clone()).map(RecordChange::Put),
            EventType::Delete => keyspace.key_of(kv.key()).map(RecordChange::Delete),
        };
        changes.weight += change.as_ref().map_or(0, weight);
        changes.list.extend(change);
    }
}
