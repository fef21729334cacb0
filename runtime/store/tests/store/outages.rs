//! Outages of etcd: it stops, hangs, or loses data.

use heddle_core::record::RecordChange;
use heddle_requires::requires;
use heddle_store::{EtcdStore, LeaseStore, Update, WatchEvent};
use rustix::process::Signal;
use std::time::{Duration, Instant};

use crate::fixture::*;

async fn stale(watch: &mut heddle_store::Watch) -> String {
    match next(watch).await {
        WatchEvent::Stale { reason } => reason,
        other => panic!("expected staleness, got {other:?}"),
    }
}

/// Returns the reason of the next set-back event, which must come before any snapshot.
async fn set_back(watch: &mut heddle_store::Watch) -> String {
    loop {
        match next(watch).await {
            WatchEvent::SetBack { reason } => return reason,
            WatchEvent::Stale { .. } => {}
            other => panic!("expected to hear that the store went back, got {other:?}"),
        }
    }
}

#[tokio::test]
async fn watch_continues_after_etcd_was_killed() {
    requires!(Program("etcd"));
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
    assert_eq!(changes(&mut watch, 1).await, [RecordChange::Put(after.record)]);
}

#[tokio::test]
async fn watch_started_before_etcd_recovers() {
    requires!(Program("etcd"));
    let mut etcd = Etcd::start();
    // An etcd killed before it has written its first data would not recover by itself.
    etcd.client().await;
    etcd.kill();
    let mut watch = etcd.store().watch();
    assert!(stale(&mut watch).await.contains("connection refused"));
    etcd.restart();
    assert_eq!(snapshot(&mut watch).await, []);
}

#[tokio::test]
async fn watch_reports_that_etcd_lost_its_data() {
    requires!(Program("etcd"));
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
    assert!(set_back(&mut watch).await.contains("went back from revision 21 to 1"));
    assert_eq!(snapshot(&mut watch).await, []);
    // The revision of this record existed in the old etcd as well.
    let new =
        patiently("etcd", async || store.create("10.244.99.0-24", b"1").await.ok()).await.unwrap();
    assert_eq!(changes(&mut watch, 1).await, [RecordChange::Put(new.record)]);
}

#[tokio::test]
async fn watch_reports_that_etcd_was_restored_from_an_old_copy() {
    requires!(Program("etcd"));
    let mut etcd = Etcd::start();
    let store = etcd.store();
    etcd.client().await;
    let first = store.create("10.244.1.0-24", b"1").await.unwrap().unwrap();
    etcd.kill();
    let copy = etcd.copy_data();
    etcd.restart();
    patiently("etcd", async || store.create("10.244.2.0-24", b"1").await.ok()).await.unwrap();
    let mut watch = store.watch();
    assert_eq!(snapshot(&mut watch).await.len(), 2);
    // Delivered by the running watch, not with the snapshot.
    store.create("10.244.3.0-24", b"1").await.unwrap();
    changes(&mut watch, 1).await;
    etcd.kill();
    etcd.restart_with(copy);
    assert!(set_back(&mut watch).await.contains("went back from revision 4 to 2"));
    assert_eq!(snapshot(&mut watch).await, [first]);
}

#[tokio::test]
async fn watch_of_a_hanging_etcd_turns_stale_and_recovers() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    let store = etcd.store();
    etcd.client().await;
    let mut watch = store.watch();
    snapshot(&mut watch).await;
    etcd.signal(Signal::STOP);
    let stopped = Instant::now();
    let reason = stale(&mut watch).await;
    // After 500 ms of silence the watch asks for progress, and waits 1 s for the answer.
    assert!(stopped.elapsed() < Duration::from_secs(5), "{:?}", stopped.elapsed());
    assert!(reason.contains("no answer within 1000 ms"), "{reason}");
    etcd.signal(Signal::CONT);
    snapshot(&mut watch).await;
    store.create("10.244.8.0-24", b"1").await.unwrap();
    changes(&mut watch, 1).await;
}

#[tokio::test]
async fn watch_survives_suspension_of_this_process() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    let store = etcd.store();
    etcd.client().await;
    let mut watch = store.watch();
    snapshot(&mut watch).await;
    // Longer than etcd may take for a progress notification. This blocks the only thread of the
    // runtime, so the watch is suspended.
    std::thread::sleep(Duration::from_secs(5));
    let after = store.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    assert_eq!(changes(&mut watch, 1).await, [RecordChange::Put(after.record)]);
}

#[tokio::test]
async fn compaction_while_disconnected_leads_to_a_snapshot() {
    requires!(Program("etcd"));
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
    client.compact(i64::try_from(stays.handle.version).unwrap(), None).await.unwrap();
    line.mend().await;
    assert_eq!(snapshot(&mut watch).await, [stays]);
}

#[tokio::test]
async fn watch_behind_compaction_restarts_from_a_snapshot() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    let mut client = etcd.client().await;
    let store = etcd.store();
    let mut watch = store.watch();
    assert_eq!(snapshot(&mut watch).await, []);
    // More than all buffers between etcd and a stalled consumer can hold.
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
            WatchEvent::Update(Update::Snapshot(page)) => {
                assert!(page.first && page.last);
                break assert_eq!(page.records, []);
            }
            WatchEvent::Update(Update::Changes(_)) | WatchEvent::Config(_) => {}
            WatchEvent::Stale { reason } => reasons.push(reason),
            WatchEvent::SetBack { reason } => panic!("{reason}"),
        }
    }
    assert!(reasons[0].contains("compacted"), "{reasons:?}");
}

/// Leases and config are watched by two requests, so events of one watch may arrive before the
/// other is created.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_started_during_changes_misses_none() {
    requires!(Program("etcd"));
    const WRITERS: usize = 16;
    const EACH: usize = 60;
    let etcd = Etcd::start();
    let store = etcd.store();
    let writing = (0..WRITERS).map(|writer| {
        let store = etcd.store();
        tokio::spawn(async move {
            for number in 0..EACH {
                let key = format!("10.{writer}.{number}.0-24");
                store.create(&key, b"1").await.unwrap().unwrap();
            }
        })
    });
    let writing: Vec<_> = writing.collect();
    let mut watches = Vec::new();
    while writing.iter().any(|writer| !writer.is_finished()) {
        // More watches would slow the writers down.
        if watches.len() < 200 {
            watches.push(store.watch());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for writer in writing {
        writer.await.unwrap();
    }
    assert!(watches.len() > 10, "{}", watches.len());
    for mut watch in watches {
        let mut known = 0;
        let mut records = Vec::new();
        while known < WRITERS * EACH {
            known = match next(&mut watch).await {
                WatchEvent::Update(Update::Snapshot(page)) => {
                    collect(&mut records, page);
                    records.len()
                }
                WatchEvent::Update(Update::Changes(changes)) => known + changes.len(),
                // The watch's events were not consumed meanwhile, and a connection buffers only so
                // much. A snapshot follows.
                WatchEvent::Stale { .. } | WatchEvent::Config(_) | WatchEvent::SetBack { .. } => {
                    known
                }
            };
        }
    }
}
