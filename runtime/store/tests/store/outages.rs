//! etcd stops, hangs, forgets.

use heddle_store::{EtcdStore, LeaseStore, RecordChange, Update, WatchEvent};
use rustix::process::Signal;
use std::time::{Duration, Instant};

use crate::fixture::*;

async fn stale(watch: &mut heddle_store::Watch) -> String {
    match next(watch).await {
        WatchEvent::Stale { reason } => reason,
        other => panic!("expected staleness, got {other:?}"),
    }
}

#[tokio::test]
async fn a_watch_goes_on_after_etcd_was_killed() {
    let mut etcd = Etcd::start();
    let store = etcd.store();
    etcd.client().await;
    let before = store.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    let mut watch = store.watch();
    assert_eq!(snapshot(&mut watch).await, std::slice::from_ref(&before));
    etcd.kill();
    stale(&mut watch).await;
    etcd.restart();
    assert_eq!(snapshot(&mut watch).await, std::slice::from_ref(&before));
    let after = store.replace(&before, b"2").await.unwrap().unwrap();
    assert_eq!(changes(&mut watch, 1).await, [RecordChange::Put(after)]);
}

#[tokio::test]
async fn a_watch_starts_when_etcd_does() {
    let mut etcd = Etcd::start();
    // Killed before it has written its first data, etcd would not come back by itself.
    etcd.client().await;
    etcd.kill();
    let mut watch = etcd.store().watch();
    assert!(stale(&mut watch).await.contains("connection refused"));
    etcd.restart();
    assert_eq!(snapshot(&mut watch).await, []);
}

#[tokio::test]
async fn a_watch_notices_that_etcd_lost_its_data() {
    let mut etcd = Etcd::start();
    let store = etcd.store();
    etcd.client().await;
    for n in 0..20 {
        store.create(&format!("10.244.{n}.0-24"), b"1").await.unwrap();
    }
    let mut watch = store.watch();
    assert_eq!(snapshot(&mut watch).await.len(), 20);
    etcd.kill();
    etcd.restart_empty();
    assert_eq!(snapshot(&mut watch).await, []);
    // Its revision is one that the old etcd had long ago.
    let new =
        patiently("etcd", async || store.create("10.244.99.0-24", b"1").await.ok()).await.unwrap();
    assert_eq!(changes(&mut watch, 1).await, [RecordChange::Put(new)]);
}

#[tokio::test]
async fn a_watch_of_a_hanging_etcd_is_stale_in_time_and_recovers() {
    let etcd = Etcd::start();
    let store = etcd.store();
    etcd.client().await;
    let mut watch = store.watch();
    snapshot(&mut watch).await;
    etcd.signal(Signal::STOP);
    let stopped = Instant::now();
    let reason = stale(&mut watch).await;
    // 500 ms of silence are normal, and 1 s is given for an answer.
    assert!(stopped.elapsed() < Duration::from_secs(5), "{:?}", stopped.elapsed());
    assert!(reason.contains("no answer within 1000 ms"), "{reason}");
    etcd.signal(Signal::CONT);
    snapshot(&mut watch).await;
    store.create("10.244.8.0-24", b"1").await.unwrap();
    changes(&mut watch, 1).await;
}

#[tokio::test]
async fn history_that_was_compacted_while_the_connection_was_down_is_not_missed() {
    let etcd = Etcd::start();
    let mut client = etcd.client().await;
    let mut line = Line::to(&etcd).await;
    let store = EtcdStore::new(options([line.endpoint()])).unwrap();
    let gone = store.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    let mut watch = store.watch();
    snapshot(&mut watch).await;
    line.cut();
    stale(&mut watch).await;
    let other = etcd.store();
    assert!(other.delete(&gone).await.unwrap());
    let stays = other.create("10.244.9.0-24", b"1").await.unwrap().unwrap();
    client.compact(i64::try_from(stays.version).unwrap(), None).await.unwrap();
    line.mend().await;
    assert_eq!(snapshot(&mut watch).await, [stays]);
}

#[tokio::test]
async fn a_watch_that_falls_behind_compaction_starts_again_from_a_snapshot() {
    let etcd = Etcd::start();
    let mut client = etcd.client().await;
    let store = etcd.store();
    let mut watch = store.watch();
    assert_eq!(snapshot(&mut watch).await, []);
    // More than fits into all buffers between etcd and a consumer that does not consume.
    let value = vec![b'x'; 400_000];
    let key = format!("{PREFIX}/subnets/10.244.8.0-24");
    let mut revision = 0;
    for _ in 0..400 {
        let answer = client.put(key.clone(), value.clone(), None).await.unwrap();
        revision = answer.header().unwrap().revision();
    }
    client.delete(key, None).await.unwrap();
    client.compact(revision + 1, None).await.unwrap();
    let mut reasons = Vec::new();
    loop {
        match next(&mut watch).await {
            WatchEvent::Update(Update::Snapshot(records)) => break assert_eq!(records, []),
            WatchEvent::Update(Update::Changes(_)) | WatchEvent::Config(_) => {}
            WatchEvent::Stale { reason } => reasons.push(reason),
        }
    }
    assert!(reasons[0].contains("compacted"), "{reasons:?}");
}
