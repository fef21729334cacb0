//! What holds for every store.

use std::time::Duration;

use heddle_store::{Page, RecordChange, Update, WatchEvent};
use tokio::time::timeout;

use crate::fixture::*;

/// Makes a test of each of these functions, for each store.
macro_rules! for_both_stores {
    ($($test:ident),+ $(,)?) => {
        mod in_etcd {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
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
    a_key_is_created_once,
    only_the_current_version_is_replaced,
    only_the_current_version_is_deleted,
    of_many_that_create_one_key_one_succeeds,
    the_network_config_is_read_as_it_is,
    an_empty_store_is_watched_until_something_comes,
    every_change_is_told_at_once,
    records_that_are_no_leases_are_told_as_well,
    a_second_watch_sees_what_the_first_sees,
    the_network_config_is_watched,
    a_record_is_as_old_as_its_key_and_its_value,
    a_store_without_news_is_heard,
);

async fn a_key_is_created_once(world: World) {
    let store = world.store();
    let created = store.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    assert_eq!((&*created.key, &*created.value), ("10.244.8.0-24", &b"1"[..]));
    assert_eq!(store.create("10.244.8.0-24", b"2").await.unwrap(), None);
    assert_eq!(store.get("10.244.8.0-24").await.unwrap(), Some(created.clone()));
    assert_eq!(store.list().await.unwrap(), [created]);
    assert_eq!(store.get("10.244.9.0-24").await.unwrap(), None);
}

async fn only_the_current_version_is_replaced(world: World) {
    let store = world.store();
    let first = store.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    let second = store.replace(&first, b"2").await.unwrap().unwrap();
    assert_ne!(first.version, second.version);
    assert_eq!(store.replace(&first, b"3").await.unwrap(), None);
    assert_eq!(store.get("10.244.8.0-24").await.unwrap(), Some(second.clone()));
    world.delete("subnets/10.244.8.0-24").await;
    assert_eq!(store.replace(&second, b"3").await.unwrap(), None);
    assert_eq!(store.get("10.244.8.0-24").await.unwrap(), None);
}

async fn only_the_current_version_is_deleted(world: World) {
    let store = world.store();
    let first = store.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    let second = store.replace(&first, b"2").await.unwrap().unwrap();
    assert!(!store.delete(&first).await.unwrap());
    assert!(store.delete(&second).await.unwrap());
    assert!(!store.delete(&second).await.unwrap());
    assert_eq!(store.list().await.unwrap(), []);
}

async fn of_many_that_create_one_key_one_succeeds(world: World) {
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

async fn the_network_config_is_read_as_it_is(world: World) {
    let store = world.store();
    assert_eq!(store.network_config().await.unwrap(), None);
    world.put("config", "{not json").await;
    assert_eq!(store.network_config().await.unwrap().unwrap(), b"{not json");
}

async fn an_empty_store_is_watched_until_something_comes(world: World) {
    let store = world.store();
    let mut watch = store.watch();
    let event = next(&mut watch).await;
    let page = Page { records: Vec::new(), first: true, last: true };
    assert_eq!(event, WatchEvent::Update(Update::Snapshot(page)));
    // Longer than the watch may be silent.
    let silence = timeout(Duration::from_secs(2), watch.next()).await;
    assert!(silence.is_err(), "{silence:?}");
    let created = store.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    assert_eq!(changes(&mut watch, 1).await, [RecordChange::Put(created)]);
}

async fn every_change_is_told_at_once(world: World) {
    let store = world.store();
    let before = store.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    let mut watch = store.watch();
    assert_eq!(snapshot(&mut watch).await, std::slice::from_ref(&before));
    // Each is awaited before the next is made.
    let replaced = store.replace(&before, b"2").await.unwrap().unwrap();
    assert_eq!(changes(&mut watch, 1).await, [RecordChange::Put(replaced.clone())]);
    let other = store.create("10.244.9.0-24", b"1").await.unwrap().unwrap();
    assert_eq!(changes(&mut watch, 1).await, [RecordChange::Put(other)]);
    assert!(store.delete(&replaced).await.unwrap());
    assert_eq!(changes(&mut watch, 1).await, [RecordChange::Delete("10.244.8.0-24".into())]);
}

async fn records_that_are_no_leases_are_told_as_well(world: World) {
    let store = world.store();
    world.put("subnets/nonsense", "more nonsense").await;
    assert_eq!(keys(&store.list().await.unwrap()), ["nonsense"]);
    let mut watch = store.watch();
    assert_eq!(keys(&snapshot(&mut watch).await), ["nonsense"]);
    world.delete("subnets/nonsense").await;
    assert_eq!(changes(&mut watch, 1).await, [RecordChange::Delete("nonsense".into())]);
}

async fn a_second_watch_sees_what_the_first_sees(world: World) {
    let (one, other) = (world.store(), world.store());
    let mut watches = [one.watch(), one.watch(), other.watch()];
    for watch in &mut watches {
        assert_eq!(snapshot(watch).await, []);
    }
    let created = one.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    for watch in &mut watches {
        assert_eq!(changes(watch, 1).await, [RecordChange::Put(created.clone())]);
    }
}

#[tokio::test]
async fn a_directory_that_is_created_or_replaced_later_is_noticed() {
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
    // It is the new directory that is listened to.
    std::fs::write(subnets.join("10.244.9.0-24"), "3").unwrap();
    assert_eq!(last_value(&mut watch, "10.244.9.0-24", "3").await, 1);
}

/// Waits for a value. A file that is written in place may be seen empty first.
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
async fn a_directory_that_cannot_be_read_makes_the_watch_stale() {
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

async fn the_network_config_is_watched(world: World) {
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
    // The same again is no news: the next is the lease's.
    world.put("config", "two").await;
    store.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    let lease = any(&mut watch).await;
    assert!(matches!(lease, WatchEvent::Update(Update::Changes(_))), "{lease:?}");
    world.delete("config").await;
    assert_eq!(any(&mut watch).await, WatchEvent::Config(None));
}

async fn a_record_is_as_old_as_its_key_and_its_value(world: World) {
    let store = world.store();
    let older = store.create("10.244.9.0-24", b"1").await.unwrap().unwrap();
    let first = store.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    assert!(older.age.made < first.age.made && older.age.written < first.age.written);
    let second = store.replace(&first, b"2").await.unwrap().unwrap();
    assert!(first.age.made <= second.age.made && first.age.written < second.age.written);
    // What is read is what was told at the time.
    assert_eq!(store.list().await.unwrap(), [second, older]);
}

async fn a_store_without_news_is_heard(world: World) {
    let mut watch = world.store().watch();
    let pulse = watch.pulse();
    next(&mut watch).await;
    let first = pulse.last().unwrap();
    patiently("a sign of life", async || pulse.last().filter(|last| *last > first)).await;
    // Nothing was told meanwhile.
    assert!(timeout(Duration::ZERO, watch.next()).await.is_err());
}
