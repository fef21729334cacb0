//! Watch of the leases and the network config in etcd.
//!
//! A session is a snapshot, delivered page by page, followed by a watch of the leases and one of
//! the config from the revision after it. The last page is delivered once both watches run. Any
//! failure, however small, ends the session, and the next one starts with a new snapshot. So Heddle
//! never has to guess what it missed: not after a broken connection, not after compaction, and not
//! after etcd lost its data and counts revisions anew.
//!
//! A silent watch is asked for its progress, which shows that it can deliver. Not every server
//! answers that: etcd's gRPC proxy does not. What the session knows is then compared with what etcd
//! has, by reads on the same connection.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    EventType, GetOptions, Txn, TxnOp, TxnOpResponse, WatchOptions, WatchResponse, WatchStream,
};
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

/// Number of comparisons by number of leases until one by revision, for which etcd reads all
/// leases: two minutes.
const THOROUGH: u32 = 12;

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
        let message = session.next_message(&mut renewals, &consumer.pulse).await?;
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

    /// Delivers all pages of a snapshot except the last. Returns the last page, the point in etcd's
    /// history at which the snapshot was started, and the number of records in all pages.
    async fn read_to_last_page(&mut self, shared: &Shared) -> Result<(Point, Page, usize), End> {
        let mut pages = Pages::of_records(shared);
        let mut set_back = false;
        let mut count = 0;
        while let (Some(page), Some(begin)) = (pages.next().await?, pages.point()) {
            self.pulse.beat();
            if let Some(reason) = self.latest.and_then(|latest| begin.contradicts(latest))
                && !std::mem::replace(&mut set_back, true)
            {
                self.send(WatchEvent::SetBack { reason }).await?;
            }
            count = if page.first { 0 } else { count } + page.records.len();
            if page.last {
                return Ok((begin, page, count));
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

/// The server's answers to requests for progress.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// None was requested so far.
    Unknown,
    /// The server answers them, so one that it does not answer is a failure.
    Answered,
    /// The server does not answer them, although it answers reads.
    Unanswered,
}

/// The state of a watch that has no message to deliver.
#[derive(Clone, Copy)]
enum Silence {
    /// Nothing is expected.
    Quiet,
    /// The watch was asked for progress at this time.
    Asked(Instant),
    /// At this time, etcd had a change that the watch had not delivered.
    Behind(Instant),
}

/// The leases as the snapshot and the watch have told them.
struct Told {
    /// Number of leases.
    count: i64,
    /// The highest revision of a change.
    revision: i64,
}

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
    silence: Silence,
    progress: Progress,
    told: Told,
    /// The time of the last thorough comparison, or of the session's start.
    compared: Instant,
}

impl<'a> Session<'a> {
    /// Delivers the snapshot up to its last page, and opens the watches.
    async fn open(
        shared: &'a Shared,
        consumer: &mut Consumer,
        renewals: &mut watch::Receiver<u64>,
    ) -> Result<Self, End> {
        consumer.set_config(shared.config().await?.0).await?;
        let (begin, last, count) = tokio::select! {
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
            silence: Silence::Quiet,
            progress: Progress::Unknown,
            told: Told {
                count: i64::try_from(count).unwrap_or(i64::MAX),
                revision: begin.revision,
            },
            compared: Instant::now(),
        })
    }

    /// Returns the next message. If there is none for a while, checks that the watch can deliver.
    async fn next_message(
        &mut self,
        renewals: &mut watch::Receiver<u64>,
        pulse: &Pulse,
    ) -> Result<Message, End> {
        loop {
            let limit = self.end_of_silence();
            tokio::select! {
                biased;
                message = self.stream.next() => {
                    self.heard = Instant::now();
                    self.silence = Silence::Quiet;
                    return Ok(message);
                }
                // This cannot be an error: the sender lives as long as the connector.
                _ = renewals.changed() => return Err(End::Renewed),
                () = sleep_until(limit) => {}
            }
            self.silence = self.after_silence(pulse).await?;
        }
    }

    /// Returns the time until which the present silence is acceptable. It counts from the request,
    /// not from the last message: this process may have been suspended before the request.
    fn end_of_silence(&self) -> Instant {
        let timing = self.shared.connector.options.timing;
        match (self.silence, self.progress) {
            (Silence::Quiet, _) => self.heard + timing.quiet,
            // The other half is for the read that takes the place of the answer.
            (Silence::Asked(at), Progress::Unknown) => at + timing.progress / 2,
            (Silence::Asked(at) | Silence::Behind(at), _) => at + timing.progress,
        }
    }

    /// Takes the next step to find out if a silent watch can deliver.
    async fn after_silence(&mut self, pulse: &Pulse) -> Result<Silence, End> {
        let limit = self.shared.connector.options.timing.progress;
        match (self.silence, self.progress) {
            (Silence::Behind(_), _) => {
                let reason = "etcd has changes that its watch did not deliver";
                Err(End::Invalid(reason.to_owned()))
            }
            (Silence::Quiet, Progress::Unanswered) => self.compare(limit, pulse).await,
            (Silence::Quiet, _) => {
                // A request that cannot be sent gets no answer, so the deadline covers it.
                let _ = self.stream.request_progress().await;
                Ok(Silence::Asked(Instant::now()))
            }
            (Silence::Asked(_), Progress::Unknown) if self.created == WATCHES => {
                let silence = self.compare(limit / 2, pulse).await?;
                let endpoint = &self.connection.endpoint;
                tracing::debug!(
                    endpoint,
                    "store: etcd does not answer progress requests; checking the watch by reads"
                );
                self.progress = Progress::Unanswered;
                Ok(silence)
            }
            (Silence::Asked(_), _) => Err(self.failed(EtcdFailure::Deadline(limit)).await),
        }
    }

    /// Compares what the watches have told with what etcd has.
    async fn compare(&mut self, limit: Duration, pulse: &Pulse) -> Result<Silence, End> {
        let Shared { connector, keyspace } = self.shared;
        let thorough = self.compared.elapsed() >= connector.options.timing.quiet * THOROUGH;
        let options = GetOptions::new().with_range(keyspace.end_of_leases());
        let options = if thorough {
            options.with_keys_only().with_limit(1).with_min_mod_revision(self.told.revision + 1)
        } else {
            options.with_count_only()
        };
        let txn = Txn::new().and_then([
            TxnOp::get(keyspace.config(), None),
            TxnOp::get(keyspace.leases(), Some(options)),
        ]);
        let mut kv = self.connection.kv.clone();
        let answer = match connector.answer(limit, async move { kv.txn(txn).await }).await {
            Ok(answer) => answer,
            Err(EtcdFailure::Deadline(_)) => {
                let limit = connector.options.timing.progress;
                return Err(self.failed(EtcdFailure::Deadline(limit)).await);
            }
            Err(failure) => return Err(self.failed(failure).await),
        };
        if let Some(header) = answer.header() {
            let point = Point { cluster: header.cluster_id(), revision: header.revision() };
            let told = Point { revision: self.told.revision, ..self.begin };
            point.contradicts(told).map_or(Ok(()), |reason| Err(End::Invalid(reason)))?;
        }
        pulse.beat();
        self.heard = Instant::now();
        if thorough {
            self.compared = self.heard;
        }
        Ok(if self.agrees(answer.op_responses()) {
            Silence::Quiet
        } else {
            Silence::Behind(self.heard)
        })
    }

    /// Returns true if etcd's config and leases are those that the watches have told.
    fn agrees(&self, answers: Vec<TxnOpResponse>) -> bool {
        let mut answers = answers.into_iter();
        let (Some(TxnOpResponse::Get(mut config)), Some(TxnOpResponse::Get(leases))) =
            (answers.next(), answers.next())
        else {
            return false;
        };
        let config = config.take_kvs().pop().map(|kv| kv.into_key_value().1);
        config == self.config && leases.count() == self.told.count && leases.kvs().is_empty()
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
            // The answer to a request for progress concerns no single watch, unlike the
            // notifications that a proxy passes on.
            if response.watch_id() < 0 {
                self.progress = Progress::Answered;
            }
            pulse.beat();
            self.told.learn(&self.shared.keyspace, &response);
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

impl Told {
    fn learn(&mut self, keyspace: &Keyspace, response: &WatchResponse) {
        for event in response.events() {
            let Some(kv) = event.kv().filter(|kv| keyspace.key_of(kv.key()).is_some()) else {
                continue;
            };
            self.revision = self.revision.max(kv.mod_revision());
            self.count += match event.event_type() {
                EventType::Put => i64::from(kv.create_revision() == kv.mod_revision()),
                EventType::Delete => -1,
            };
        }
    }
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
