//! Watch of the leases and the network config in etcd.
//!
//! A session is a snapshot, delivered page by page, followed by a watch of the leases and one of
//! the config from the revision after it. The last page is delivered once both watches run. Any
//! failure, however small, ends the session, and the next one starts with a new snapshot. So Heddle
//! never has to guess what it missed: not after a broken connection, not after compaction, and not
//! after etcd lost its data and counts revisions anew.

use std::convert::Infallible;
use std::sync::Arc;

use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};
use futures::{FutureExt, StreamExt};
use heddle_core::record::RecordChange;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::connection::Connection;
use super::error::{EtcdError, EtcdFailure};
use super::pages::{Pages, Point};
use super::{Keyspace, Shared};
use crate::outage::Outage;
use crate::retry::{Backoff, LONGEST};
use crate::watch::{Page, Pulse, Update, WatchEvent};

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
    let outage = Outage::new("store: watch of leases in etcd");
    let mut consumer = Consumer { events, pulse, outage, config: None, latest: None };
    let mut backoff = Backoff::new();
    loop {
        let started = Instant::now();
        let Err(end) = follow(&shared, &mut consumer).await;
        let reason = match end {
            End::Dropped => return,
            End::Renewed => continue,
            End::Failed(error) => error.to_string(),
            End::Invalid(reason) => reason,
        };
        if consumer.outage.begin(&reason)
            && consumer.send(WatchEvent::Stale { reason }).await.is_err()
        {
            return;
        }
        // A session that ends soon after its start is no success, so the backoff continues.
        if started.elapsed() > 2 * LONGEST {
            backoff.reset();
        }
        backoff.wait().await;
    }
}

/// Runs one session until it ends.
async fn follow(shared: &Shared, consumer: &mut Consumer) -> Result<Infallible, End> {
    let mut renewals = shared.connector.renewals();
    let mut session = Session::open(shared, consumer, &mut renewals).await?;
    loop {
        let message = session.next_message(&mut renewals).await?;
        let reached = session.absorb(message, &consumer.pulse).await?;
        session.deliver(consumer, reached).await?;
    }
}

/// The consumer of the watch, with what it was told in all sessions so far.
struct Consumer {
    events: mpsc::Sender<WatchEvent>,
    pulse: Pulse,
    outage: Outage,
    /// The network config last delivered, if any was.
    config: Option<Option<Vec<u8>>>,
    /// The newest point in etcd's history that was delivered so far.
    latest: Option<Point>,
}

impl Consumer {
    async fn send(&self, event: WatchEvent) -> Result<(), End> {
        self.events.send(event).await.map_err(|_| End::Dropped)
    }

    async fn update(&self, update: Update) -> Result<(), End> {
        self.send(WatchEvent::Update(update)).await
    }

    /// Delivers the network config if it is not the one last delivered.
    async fn set_config(&mut self, config: Option<Vec<u8>>) -> Result<(), End> {
        if self.config.as_ref() == Some(&config) {
            return Ok(());
        }
        self.config = Some(config.clone());
        self.send(WatchEvent::Config(config)).await
    }

    /// Delivers all pages of a snapshot except the last. Returns the last page, and the point in
    /// etcd's history at which the snapshot was started.
    async fn read_to_last_page(&mut self, shared: &Shared) -> Result<(Point, Page), End> {
        let mut pages = Pages::of_records(shared);
        let mut set_back = false;
        while let (Some(page), Some(begin)) = (pages.next().await?, pages.point()) {
            self.pulse.beat();
            if let Some(reason) = self.latest.and_then(|latest| begin.contradicts(latest))
                && !std::mem::replace(&mut set_back, true)
            {
                self.send(WatchEvent::SetBack { reason }).await?;
            }
            if page.last {
                return Ok((begin, page));
            }
            // The consumer of an incomplete snapshot must be told if it is interrupted, even for
            // the same reason as before.
            self.outage.progress();
            self.update(Update::Snapshot(page)).await?;
        }
        Err(End::Invalid("etcd ended the list of the leases without its last page".to_owned()))
    }
}

/// A message of the watches: a response or an error, or None after the last one.
type Message = Option<Result<WatchResponse, etcd_client::Error>>;

/// A snapshot, and the watches that continue it.
struct Session<'a> {
    shared: &'a Shared,
    connection: Arc<Connection>,
    stream: WatchStream,
    /// The point in etcd's history at which the snapshot was started.
    begin: Point,
    /// The snapshot's last page, until it is delivered.
    last_page: Option<Page>,
    /// The network config, as far as the watches have told it.
    config: Option<Vec<u8>>,
    /// Number of watches that etcd has created.
    created: usize,
    /// Changes that are not delivered yet. Also those of one watch while the other is not created.
    changes: Changes,
    /// The time of the last message, or of the session's start.
    heard: Instant,
    /// The time of a request for progress that has no answer yet.
    asked: Option<Instant>,
}

impl<'a> Session<'a> {
    /// Delivers the snapshot up to its last page, and opens the watches.
    async fn open(
        shared: &'a Shared,
        consumer: &mut Consumer,
        renewals: &mut watch::Receiver<u64>,
    ) -> Result<Self, End> {
        consumer.set_config(shared.config().await?.0).await?;
        let (begin, last) = tokio::select! {
            read = consumer.read_to_last_page(shared) => read?,
            _ = renewals.changed() => return Err(End::Renewed),
        };
        // Reading the pages may have taken so long that the revision of the first config is
        // compacted by now.
        let (config, config_revision) = shared.config().await?;
        let connector = &shared.connector;
        let connection = connector.connection().await?;

        let options = |revision| {
            let options = WatchOptions::new().with_start_revision(revision + 1);
            options.with_progress_notify().with_fragment()
        };
        let mut watch = connection.watch.clone();
        let of_leases = options(begin.revision).with_prefix();
        let opening = async {
            let mut stream = watch.watch(shared.keyspace.leases(), Some(of_leases)).await?;
            stream.watch(shared.keyspace.config(), Some(options(config_revision))).await?;
            Ok(stream)
        };
        let stream = match connector.answer(connector.options.timing.call, opening).await {
            Ok(stream) => stream,
            Err(failure) => {
                return Err(connector.failed(&connection, OPERATION, failure).await.into());
            }
        };
        Ok(Self {
            shared,
            connection,
            stream,
            begin,
            last_page: Some(last),
            config,
            created: 0,
            changes: Changes::default(),
            heard: Instant::now(),
            asked: None,
        })
    }

    /// Returns the next message. Asks etcd for progress if there is none for a while.
    async fn next_message(&mut self, renewals: &mut watch::Receiver<u64>) -> Result<Message, End> {
        let timing = self.shared.connector.options.timing;
        loop {
            // The deadline counts from the request, not from the last message: this process may
            // have been suspended before the request.
            let limit =
                self.asked.map_or(self.heard + timing.quiet, |asked| asked + timing.progress);
            tokio::select! {
                biased;
                message = self.stream.next() => {
                    self.heard = Instant::now();
                    self.asked = None;
                    return Ok(message);
                }
                // This cannot be an error: the sender lives as long as the connector.
                _ = renewals.changed() => return Err(End::Renewed),
                () = sleep_until(limit) => {}
            }
            if self.asked.is_some() {
                return Err(self.failed(EtcdFailure::Deadline(timing.progress)).await);
            }
            self.asked = Some(Instant::now());
            // A request that cannot be sent gets no answer, so the deadline covers it.
            let _ = self.stream.request_progress().await;
        }
    }

    /// Collects the changes of a message, and of those after it that are ready. Returns the revision
    /// that they have reached.
    async fn absorb(&mut self, message: Message, pulse: &Pulse) -> Result<i64, End> {
        let mut reached = self.begin.revision;
        let mut next = Some(message);
        while let Some(message) = next {
            let response = match message {
                Some(Ok(response)) => response,
                Some(Err(error)) => {
                    let failure = self.shared.connector.failure(error);
                    return Err(self.failed(failure).await);
                }
                None => {
                    let failure = EtcdFailure::Transport("etcd ended the watch".to_owned());
                    return Err(self.failed(failure).await);
                }
            };
            let point = check(&response, self.begin).map_err(End::Invalid)?;
            self.created += usize::from(response.created());
            pulse.beat();
            collect(&self.shared.keyspace, &response, &mut self.changes, &mut self.config);
            reached = reached.max(point.revision);
            let more = self.changes.weight < JOINED;
            next = if more { self.stream.next().now_or_never() } else { None };
        }
        Ok(reached)
    }

    /// Delivers what was collected, as soon as both watches run.
    async fn deliver(&mut self, consumer: &mut Consumer, reached: i64) -> Result<(), End> {
        if self.created < WATCHES {
            return Ok(());
        }
        // The snapshot is completed only once the watch that continues it runs, so that a store
        // that cannot be watched never counts as up to date.
        consumer.set_config(self.config.clone()).await?;
        if let Some(page) = self.last_page.take() {
            consumer.outage.end();
            consumer.latest = Some(self.begin);
            consumer.update(Update::Snapshot(page)).await?;
        }
        if let Some(latest) = &mut consumer.latest {
            latest.revision = latest.revision.max(reached);
        }
        if !self.changes.list.is_empty() {
            let changes = std::mem::take(&mut self.changes).list;
            consumer.update(Update::Changes(changes)).await?;
        }
        Ok(())
    }

    async fn failed(&self, failure: EtcdFailure) -> End {
        self.shared.connector.failed(&self.connection, OPERATION, failure).await.into()
    }
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
            EventType::Put => {
                keyspace.stored(kv.clone()).map(|stored| RecordChange::Put(stored.record))
            }
            EventType::Delete => keyspace.key_of(kv.key()).map(RecordChange::Delete),
        };
        changes.weight += change.as_ref().map_or(0, weight);
        changes.list.extend(change);
    }
}
