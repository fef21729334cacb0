//! Stores with more data than a reader should hold in memory.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use etcd_client::{Client, KvClient, Txn, TxnOp};
use heddle_core::lease::{KEY_LIMIT, VALUE_LIMIT};
use heddle_core::record::{RecordChange, Unread};
use heddle_requires::requires;
use heddle_store::{DirectoryStore, LeaseStore, Page, Stored, Update, Watch, WatchEvent};
use rustix::fs::OFlags;
use tokio::time::timeout;

use crate::behaviour::for_both_stores;
use crate::fixture::*;

/// Value length a little below etcd's limit on a request (`--max-request-bytes`), in bytes.
const HUGE: usize = 1_400_000;

for_both_stores!(
    value_beyond_limit_is_reported_and_not_delivered,
    record_beyond_limit_is_replaced_and_deleted,
    key_beyond_limit_is_truncated,
);

async fn value_beyond_limit_is_reported_and_not_delivered(world: World) {
    let store = world.store();
    let mut watch = store.watch();
    assert_eq!(snapshot(&mut watch).await, []);
    for (key, length) in [("a", VALUE_LIMIT), ("b", VALUE_LIMIT + 1), ("c", HUGE)] {
        world.put(&format!("subnets/{key}"), &"x".repeat(length)).await;
    }
    let listed = store.list().await.unwrap();
    let found: Vec<_> = listed
        .iter()
        .map(|Stored { record, .. }| (record.key.as_str(), record.value.len(), record.unread))
        .collect();
    let too_long = |length: usize| Some(Unread::TooLong(length as u64));
    assert_eq!(
        found,
        [("a", VALUE_LIMIT, None), ("b", 0, too_long(VALUE_LIMIT + 1)), ("c", 0, too_long(HUGE))]
    );
    assert_eq!(snapshot(&mut store.watch()).await, listed);
    assert_eq!(store.get("c").await.unwrap().as_ref(), listed.last());
    let told = changes(&mut watch, 3).await;
    assert_eq!(
        told,
        listed.into_iter().map(|stored| RecordChange::Put(stored.record)).collect::<Vec<_>>()
    );
}

async fn record_beyond_limit_is_replaced_and_deleted(world: World) {
    let store = world.store();
    world.put("subnets/10.244.8.0-24", &"x".repeat(HUGE)).await;
    let found = store.get("10.244.8.0-24").await.unwrap().unwrap();
    assert!(store.replace(&found, b"1").await.unwrap().is_some());
    // `found` is outdated now.
    assert_eq!(store.replace(&found, b"2").await.unwrap(), None);
    world.put("subnets/10.244.8.0-24", &"x".repeat(HUGE + 1)).await;
    let found = store.get("10.244.8.0-24").await.unwrap().unwrap();
    assert!(store.delete(&found).await.unwrap());
    assert_eq!(store.get("10.244.8.0-24").await.unwrap(), None);
}

async fn key_beyond_limit_is_truncated(world: World) {
    let store = world.store();
    let mut watch = store.watch();
    assert_eq!(snapshot(&mut watch).await, []);
    // Two keys that differ only at their ends.
    let long = ["1", "2"].map(|end| "k".repeat(KEY_LIMIT) + end);
    for key in &long {
        world.put(&format!("subnets/{key}"), "1").await;
    }
    let mut told: Vec<_> =
        changes(&mut watch, 2).await.iter().map(|change| change.key().to_owned()).collect();
    assert!(told.iter().all(|key| key.starts_with("kkk") && key.contains("129 bytes")), "{told:?}");
    told.sort_unstable();
    let mut listed = store.list().await.unwrap();
    listed.sort_unstable_by(|a, b| a.key().cmp(b.key()));
    assert_eq!(keys(&listed), told);
    world.delete(&format!("subnets/{}", long[0])).await;
    let gone = changes(&mut watch, 1).await;
    assert!(matches!(&gone[..], [RecordChange::Delete(key)] if told.contains(key)), "{gone:?}");
}

/// Puts records below `subnets/` in transactions of `at_once` each.
async fn put_many(client: &mut Client, keys: &[String], value: &[u8], at_once: usize) {
    for keys in keys.chunks(at_once) {
        let put = |key: &String| TxnOp::put(format!("{PREFIX}/subnets/{key}"), value, None);
        let puts: Vec<_> = keys.iter().map(put).collect();
        client.txn(Txn::new().and_then(puts)).await.unwrap();
    }
}

/// Returns `count` lease keys.
fn lease_keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("10.{}.{}.0-24", number / 256, number % 256)).collect()
}

#[tokio::test]
async fn list_longer_than_any_message_is_read_in_pages() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    let mut client = etcd.client().await;
    // 64 MB of values, each of a length that a lease can have.
    let keys_put = lease_keys(8000);
    put_many(&mut client, &keys_put, &[b'x'; 8000], 100).await;
    let (mut pages, mut records) = (Vec::new(), Vec::new());
    let visit = &mut |page: Page| {
        pages.push(page.records.iter().map(|stored| stored.record.value.len()).sum::<usize>());
        assert_eq!(page.first, records.is_empty());
        assert!(!collect(&mut records, page) || records.len() == 8000);
    };
    etcd.store().scan(visit).await.unwrap();
    assert!(
        records
            .iter()
            .all(|Stored { record, .. }| record.value.len() == 8000 && record.unread.is_none())
    );
    let mut expected: Vec<_> = keys_put.iter().map(String::as_str).collect();
    expected.sort_unstable();
    assert_eq!(keys(&records), expected);
    assert!(pages.len() > 30 && pages.iter().all(|bytes| *bytes <= 4 << 20), "{pages:?}");
}

#[tokio::test]
async fn leases_between_huge_records_are_found() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    let mut client = etcd.client().await;
    let huge: Vec<_> = lease_keys(60);
    put_many(&mut client, &huge, &vec![b'x'; HUGE], 1).await;
    // Each lease follows a huge record, and many follow at the end.
    let small: Vec<_> = huge.iter().map(|key| format!("{key}-small")).collect();
    put_many(&mut client, &small, b"1", 100).await;
    let crowd: Vec<_> = (0..3000).map(|number| format!("crowd-{number:04}")).collect();
    put_many(&mut client, &crowd, b"1", 100).await;
    let listed = etcd.store().list().await.unwrap();
    let unread: Vec<_> = listed.iter().filter(|stored| stored.record.unread.is_some()).collect();
    assert_eq!((listed.len(), unread.len()), (3120, 60));
    assert!(listed.is_sorted_by(|a, b| a.key() < b.key()));
    assert_eq!(snapshot(&mut etcd.store().watch()).await, listed);
}

/// Returns a client of the library without length limits for requests and responses.
async fn wide(etcd: &Etcd) -> KvClient {
    etcd.client().await.kv_client().max_decoding_message_size(1 << 30)
}

#[tokio::test]
async fn record_beyond_message_limit_is_reported() {
    requires!(Program("etcd"));
    let flags = vec!["--max-request-bytes=20000000".to_owned()];
    let etcd = Etcd::start_with("http", flags);
    let mut client = wide(&etcd).await;
    let mut watch = etcd.store().watch();
    assert_eq!(snapshot(&mut watch).await, []);
    let put = |key: String| format!("{PREFIX}/subnets/{key}");
    client.put(put("a".into()), "1", None).await.unwrap();
    client.put(put("b".into()), vec![b'x'; 10_000_000], None).await.unwrap();
    client.put(put("c".repeat(10_000_000)), "1", None).await.unwrap();
    client.put(put("d".into()), "1", None).await.unwrap();
    let told = changes(&mut watch, 4).await;
    let listed = etcd.store().list().await.unwrap();
    assert_eq!(listed.len(), 4);
    assert_eq!(told.iter().map(RecordChange::key).collect::<Vec<_>>(), keys(&listed));
    assert_eq!(listed[1].record.unread, Some(Unread::TooLong(4 << 20)));
    assert_eq!(etcd.store().get("b").await.unwrap().as_ref(), Some(&listed[1]));
    assert!(listed[2].key().contains("10000000 bytes"), "{listed:?}");
    assert_eq!((listed[3].key(), &*listed[3].record.value), ("d", &b"1"[..]));
}

/// Puts records that make more pages than are queued for a consumer.
async fn put_pages(client: &mut Client) -> Vec<String> {
    let keys = lease_keys(400);
    put_many(client, &keys, &[b'x'; 60_000], 20).await;
    keys
}

async fn page(watch: &mut Watch) -> Page {
    match next(watch).await {
        WatchEvent::Update(Update::Snapshot(page)) => page,
        other => panic!("expected a page, got {other:?}"),
    }
}

#[tokio::test]
async fn snapshot_during_changes_shows_one_revision() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    let mut client = etcd.client().await;
    let all = put_pages(&mut client).await;
    let mut watch = etcd.store().watch();
    let first = page(&mut watch).await;
    assert!(first.first && !first.last);
    let (last, new) = (all.iter().max().unwrap(), "99.99.99.0-24");
    client.delete(format!("{PREFIX}/subnets/{last}"), None).await.unwrap();
    client.put(format!("{PREFIX}/subnets/{new}"), "1", None).await.unwrap();
    let mut records = Vec::new();
    let mut complete = collect(&mut records, first);
    while !complete {
        let page = page(&mut watch).await;
        assert!(!page.first);
        complete = collect(&mut records, page);
    }
    assert_eq!(records.len(), 400);
    assert!(records.iter().any(|stored| stored.key() == *last));
    let told = changes(&mut watch, 2).await;
    assert_eq!(told.iter().map(RecordChange::key).collect::<Vec<_>>(), [last, new]);
}

#[tokio::test]
async fn compaction_between_pages_restarts_the_list() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    let mut client = etcd.client().await;
    let all = put_pages(&mut client).await;
    let mut watch = etcd.store().watch();
    let mut records = Vec::new();
    assert!(!collect(&mut records, page(&mut watch).await));
    // More pages than are queued for the consumer remain, and are read after the compaction.
    let gone = all.iter().min().unwrap();
    let answer = client.delete(format!("{PREFIX}/subnets/{gone}"), None).await.unwrap();
    client.compact(answer.header().unwrap().revision(), None).await.unwrap();
    let mut begun = 1;
    loop {
        let page = page(&mut watch).await;
        begun += usize::from(page.first);
        if collect(&mut records, page) {
            break;
        }
    }
    assert_eq!((begun, records.len()), (2, 399));
    assert!(records.iter().all(|stored| stored.key() != *gone));
    // The watch continues from the new snapshot.
    client.put(format!("{PREFIX}/subnets/{gone}"), "1", None).await.unwrap();
    assert_eq!(changes(&mut watch, 1).await[0].key(), gone);
}

#[tokio::test]
async fn find_key_among_huge_values_returns_the_first_match() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    let mut client = etcd.client().await;
    put_many(&mut client, &lease_keys(20), &vec![b'x'; HUGE], 1).await;
    let store = etcd.store();
    let found = store.find_key(&|key| key > "10.0.17.0-24").await.unwrap();
    assert_eq!(found.as_deref(), Some("10.0.18.0-24"));
    assert_eq!(store.find_key(&|_| false).await.unwrap(), None);
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    // An opener that blocks on the FIFO would keep the test from ending, so a thread opens the
    // other end once the test has failed. By then the FIFO may have been unlinked.
    let flags = OFlags::PATH.bits().cast_signed();
    let fifo = fs::File::options().read(true).custom_flags(flags).open(path).unwrap();
    std::thread::spawn(move || {
        std::thread::sleep(PATIENCE + Duration::from_secs(1));
        let path = format!("/proc/self/fd/{}", fifo.as_raw_fd());
        let _ = fs::File::options().read(true).write(true).open(path);
    });
}

#[tokio::test]
async fn fifo_among_lease_files_is_reported_without_blocking() {
    let directory = tempfile::tempdir().unwrap();
    let subnets = directory.path().join("subnets");
    fs::create_dir(&subnets).unwrap();
    make_fifo(&subnets.join("10.244.1.0-24"));
    fs::write(subnets.join("10.244.2.0-24"), "1").unwrap();
    let store = DirectoryStore::new(directory.path());
    let listed = timeout(PATIENCE, store.list()).await.expect("a FIFO hangs it").unwrap();
    let found = |stored: &Stored| (stored.record.value.len(), stored.record.unread);
    assert_eq!(
        listed.iter().map(found).collect::<Vec<_>>(),
        [(0, Some(Unread::NotAFile)), (1, None)]
    );
    assert_eq!(snapshot(&mut store.watch()).await, listed);
    // The store can replace it like any other record.
    assert!(store.replace(&listed[0], b"1").await.unwrap().is_some());
    assert_eq!(store.list().await.unwrap()[0].record.value, b"1");
}

#[tokio::test]
async fn fifo_as_config_or_lock_is_reported_without_blocking() {
    let directory = tempfile::tempdir().unwrap();
    let store = DirectoryStore::new(directory.path());
    make_fifo(&directory.path().join("config"));
    make_fifo(&directory.path().join(".lock"));
    let read = timeout(PATIENCE, store.network_config()).await.expect("a FIFO hangs it");
    assert_eq!(
        read.unwrap_err().to_string(),
        format!(
            "{}: it is not a regular file: replace it by one, or delete it",
            directory.path().join("config").display()
        )
    );
    let created = timeout(PATIENCE, store.create("10.244.8.0-24", b"1")).await;
    let error = created.expect("a FIFO hangs it").unwrap_err().to_string();
    assert!(error.contains(".lock"), "{error}");
}

#[tokio::test]
async fn config_beyond_limit_is_rejected() {
    let directory = tempfile::tempdir().unwrap();
    // A sparse file: its bytes are neither written nor read.
    let config = fs::File::create(directory.path().join("config")).unwrap();
    config.set_len(2 << 30).unwrap();
    let error = DirectoryStore::new(directory.path()).network_config().await.unwrap_err();
    assert!(error.to_string().contains("too long: 2147483648 bytes"), "{error}");
}
