//! Behaviour that all stores share.

use std::time::Duration;

use heddle_core::record::RecordChange;
use heddle_store::{Page, Stored, Update, WatchEvent};
use tokio::time::timeout;

use crate::fixture::*;

/// Generates a test of each of these functions for each store.
macro_rules! for_both_stores {
    ($($test:ident),+ $(,)?) => {
        mod in_etcd {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    heddle_requires::requires!(Program("etcd"));
                    super::$test($crate::fixture::World::etcd()).await;
                }
            )+
        }
        mod in_a_directory {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test($crate::fixture::World::directory()).await;
                }
            )+
        }
    };
}
pub(crate) use for_both_stores;

for_both_stores!(
    key_that_exists_is_not_created_again,
    record_of_outdated_version_is_not_replaced,
    record_of_outdated_version_is_not_deleted,
    concurrent_creates_of_one_key_have_one_winner,
    network_config_is_read_verbatim,
    watch_of_empty_store_waits_for_the_first_record,
    watch_delivers_every_change_immediately,
    watch_delivers_records_that_are_no_leases,
    watches_of_one_store_deliver_the_same_changes,
    watch_delivers_changes_of_the_network_config,
    record_age_follows_creation_and_last_write,
    pulse_of_a_quiet_store_advances,
);

async fn key_that_exists_is_not_created_again(world: World) {
    let store = world.store();
    let created = store.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    assert_eq!((created.key(), &*created.record.value), ("10.244.8.0-24", &b"1"[..]));
    assert_eq!(store.create("10.244.8.0-24", b"2").await.unwrap(), None);
    assert_eq!(store.get("10.244.8.0-24").await.unwrap(), Some(created.clone()));
    assert_eq!(store.list().await.unwrap(), [created]);
    assert_eq!(store.get("10.244.9.0-24").await.unwrap(), None);
}

async fn record_of_outdated_version_is_not_replaced(world: World) {
    let store = world.store();
    let first = store.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    let second = store.replace(&first, b"2").await.unwrap().unwrap();
    assert_ne!(first.handle.version, second.handle.version);
    assert_eq!(store.replace(&first, b"3").await.unwrap(), None);
    assert_eq!(store.get("10.244.8.0-24").await.unwrap(), Some(second.clone()));
    world.delete("subnets/10.244.8.0-24").await;
    assert_eq!(store.replace(&second, b"3").await.unwrap(), None);
    assert_eq!(store.get("10.244.8.0-24").await.unwrap(), None);
}

async fn record_of_outdated_version_is_not_deleted(world: World) {
    let store = world.store();
    let first = store.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    let second = store.replace(&first, b"2").await.unwrap().unwrap();
    assert!(!store.delete(&first).await.unwrap());
    assert!(store.delete(&second).await.unwrap());
    assert!(!store.delete(&second).await.unwrap());
    assert_eq!(store.list().await.unwrap(), []);
}

async fn concurrent_creates_of_one_key_have_one_winner(world: World) {
    let many = (0..20).map(|n| {
        let store = world.store();
        async move {
            let value = format!("{n}");
            store.create("10.244.8.0-24", value.as_bytes()).await.unwrap()
        }
    });
    let winners: Vec<_> = futures::future::join_all(many).await.into_iter().flatten().collect();
    assert_eq!(winners, world.store().list().await.unwrap());
    assert_eq!(winners.len(), 1);
}

async fn network_config_is_read_verbatim(world: World) {
    let store = world.store();
    assert_eq!(store.network_config().await.unwrap(), None);
    world.put("config", "{not json").await;
    assert_eq!(store.network_config().await.unwrap().unwrap(), b"{not json");
}

async fn watch_of_empty_store_waits_for_the_first_record(world: World) {
    let store = world.store();
    let mut watch = store.watch();
    let event = next(&mut watch).await;
    let page = Page { records: Vec::new(), first: true, last: true };
    assert_eq!(event, WatchEvent::Update(Update::Snapshot(page)));
    // Longer than the silence after which a watch asks for progress.
    let silence = timeout(Duration::from_secs(2), watch.next()).await;
    assert!(silence.is_err(), "{silence:?}");
    let created = store.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    assert_eq!(changes(&mut watch, 1).await, [RecordChange::Put(created.record)]);
}

async fn watch_delivers_every_change_immediately(world: World) {
    let store = world.store();
    let before = store.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    let mut watch = store.watch();
    assert_eq!(snapshot(&mut watch).await, std::slice::from_ref(&before));
    // Each event is awaited before the next change.
    let replaced = store.replace(&before, b"2").await.unwrap().unwrap();
    assert_eq!(changes(&mut watch, 1).await, [RecordChange::Put(replaced.record.clone())]);
    let other = store.create("10.244.9.0-24", b"1").await.unwrap().unwrap();
    assert_eq!(changes(&mut watch, 1).await, [RecordChange::Put(other.record)]);
    assert!(store.delete(&replaced).await.unwrap());
    assert_eq!(changes(&mut watch, 1).await, [RecordChange::Delete("10.244.8.0-24".into())]);
}

async fn watch_delivers_records_that_are_no_leases(world: World) {
    let store = world.store();
    world.put("subnets/nonsense", "more nonsense").await;
    assert_eq!(keys(&store.list().await.unwrap()), ["nonsense"]);
    let mut watch = store.watch();
    assert_eq!(keys(&snapshot(&mut watch).await), ["nonsense"]);
    world.delete("subnets/nonsense").await;
    assert_eq!(changes(&mut watch, 1).await, [RecordChange::Delete("nonsense".into())]);
}

async fn watches_of_one_store_deliver_the_same_changes(world: World) {
    let (one, other) = (world.store(), world.store());
    let mut watches = [one.watch(), one.watch(), other.watch()];
    for watch in &mut watches {
        assert_eq!(snapshot(watch).await, []);
    }
    let created = one.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    for watch in &mut watches {
        assert_eq!(changes(watch, 1).await, [RecordChange::Put(created.record.clone())]);
    }
}

#[tokio::test]
async fn directory_created_or_replaced_later_is_watched() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("not/yet");
    let store = heddle_store::DirectoryStore::new(&path);
    let mut watch = heddle_store::LeaseStore::watch(&store);
    assert_eq!(snapshot(&mut watch).await, []);
    let subnets = path.join("subnets");
    std::fs::create_dir_all(&subnets).unwrap();
    std::fs::write(subnets.join("10.244.8.0-24"), "1").unwrap();
    assert_eq!(last_value(&mut watch, "10.244.8.0-24", "1").await, 1);

    let new = base.path().join("new");
    std::fs::create_dir_all(new.join("subnets")).unwrap();
    std::fs::write(new.join("subnets/10.244.9.0-24"), "2").unwrap();
    std::fs::rename(&path, base.path().join("old")).unwrap();
    std::fs::rename(&new, &path).unwrap();
    assert_eq!(last_value(&mut watch, "10.244.9.0-24", "2").await, 1);
    // The new directory is the one that is watched now.
    std::fs::write(subnets.join("10.244.9.0-24"), "3").unwrap();
    assert_eq!(last_value(&mut watch, "10.244.9.0-24", "3").await, 1);
}

/// Waits until a key has this value. A file written in place may be seen empty first.
async fn last_value(watch: &mut heddle_store::Watch, key: &str, value: &str) -> usize {
    loop {
        if let WatchEvent::Update(Update::Changes(changes)) = next(watch).await {
            let put = |change: &&RecordChange| match change {
                RecordChange::Put(record) => record.key == key && record.value == value.as_bytes(),
                RecordChange::Delete(_) => false,
            };
            match changes.iter().filter(put).count() {
                0 => {}
                count => return count,
            }
        }
    }
}

#[tokio::test]
async fn directory_unreadable_makes_the_watch_stale() {
    let base = tempfile::tempdir().unwrap();
    let subnets = base.path().join("subnets");
    std::fs::write(&subnets, "a file").unwrap();
    let store = heddle_store::DirectoryStore::new(base.path());
    let mut watch = heddle_store::LeaseStore::watch(&store);
    let reason = format!("cannot read {}: Not a directory (os error 20)", subnets.display());
    assert_eq!(next(&mut watch).await, WatchEvent::Stale { reason });
    std::fs::remove_file(&subnets).unwrap();
    assert_eq!(snapshot(&mut watch).await, []);
}

async fn watch_delivers_changes_of_the_network_config(world: World) {
    let store = world.store();
    let mut watch = store.watch();
    let config = |text: &str| WatchEvent::Config(Some(text.into()));
    let first = any(&mut watch).await;
    assert!(matches!(first, WatchEvent::Config(_)), "{first:?}");
    let snapshot = any(&mut watch).await;
    assert!(matches!(snapshot, WatchEvent::Update(Update::Snapshot(_))), "{snapshot:?}");
    for text in ["one", "two"] {
        world.put("config", text).await;
        assert_eq!(any(&mut watch).await, config(text));
    }
    // Writing the same config again is no change: the next event is the lease.
    world.put("config", "two").await;
    store.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    let lease = any(&mut watch).await;
    assert!(matches!(lease, WatchEvent::Update(Update::Changes(_))), "{lease:?}");
    world.delete("config").await;
    assert_eq!(any(&mut watch).await, WatchEvent::Config(None));
}

async fn record_age_follows_creation_and_last_write(world: World) {
    let store = world.store();
    let older = store.create("10.244.9.0-24", b"1").await.unwrap().unwrap();
    let first = store.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    let ages = |one: &Stored, other: &Stored| (one.record.age, other.record.age);
    let (one, other) = ages(&older, &first);
    assert!(one.made < other.made && one.written < other.written);
    let second = store.replace(&first, b"2").await.unwrap().unwrap();
    let (one, other) = ages(&first, &second);
    assert!(one.made <= other.made && one.written < other.written);
    // Reads return the same ages as the writes did.
    assert_eq!(store.list().await.unwrap(), [second, older]);
}

async fn pulse_of_a_quiet_store_advances(world: World) {
    let mut watch = world.store().watch();
    let pulse = watch.pulse();
    next(&mut watch).await;
    let first = pulse.last().unwrap();
    patiently("a sign of life", async || pulse.last().filter(|last| *last > first)).await;
    // No event was delivered meanwhile.
    assert!(timeout(Duration::ZERO, watch.next()).await.is_err());
}
