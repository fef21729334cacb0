//! Tests of keeping a lease.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use heddle_core::lease::Lease;
use heddle_requires::requires;
use heddle_store::{LeaseStore, LostLease, OwnLease, keep, release};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::behaviour::for_both_stores;
use crate::fixture::*;

for_both_stores!(
    lease_deleted_is_recreated_with_the_same_subnet,
    lease_of_foreign_owner_is_never_overwritten,
    lease_of_clone_with_our_id_is_never_overwritten,
    lease_overlapping_our_former_subnet_is_left_alone,
    lease_value_invalid_is_restored,
);

/// A task that keeps a node's lease.
pub(crate) struct Keeper {
    task: JoinHandle<LostLease>,
    pub(crate) poke: Arc<Notify>,
}

impl Keeper {
    pub(crate) fn start(world: &World, own: OwnLease, margin: Duration) -> Self {
        let (store, poke) = (world.store(), Arc::new(Notify::new()));
        let poked = poke.clone();
        let task = tokio::spawn(async move { keep(&*store, own, margin, &poked, |_| {}).await });
        Self { task, poke }
    }

    async fn lost(mut self) -> LostLease {
        timeout(PATIENCE, &mut self.task).await.unwrap().unwrap()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) const MARGIN: Duration = Duration::from_secs(3600);

async fn acquired(world: &World) -> (OwnLease, Keeper, String) {
    let own = TestNode::new(72).acquire(&*world.store(), &network()).await.unwrap();
    let keeper = Keeper::start(world, own.clone(), MARGIN);
    let path = format!("subnets/{}", own.key());
    (own, keeper, path)
}

/// Returns the lease as stored.
async fn stored(world: &World, own: &OwnLease) -> Option<Lease> {
    let stored = world.store().get(&own.key().to_string()).await.unwrap()?;
    Lease::from_value(own.key(), &stored.record.value).ok()
}

async fn lease_deleted_is_recreated_with_the_same_subnet(world: World) {
    let (own, keeper, path) = acquired(&world).await;
    for _ in 0..2 {
        world.delete(&path).await;
        keeper.poke.notify_one();
        let again = patiently("the lease", async || stored(&world, &own).await).await;
        assert_eq!(&again, own.lease());
    }
    let stored = world.store().get(&own.key().to_string()).await.unwrap().unwrap();
    assert_eq!(stored.is_reservation(), own.stored().is_reservation());
}

async fn lease_of_foreign_owner_is_never_overwritten(world: World) {
    let (own, keeper, path) = acquired(&world).await;
    let theirs = r#"{"PublicIP":"192.168.0.99","NodeID":"them","NodeName":"web-2"}"#;
    world.put(&path, theirs).await;
    keeper.poke.notify_one();
    let lost = keeper.lost().await;
    assert_eq!(
        lost.to_string(),
        format!(
            "lease {} now belongs to web-2 (node id them) at 192.168.0.99; giving it up",
            own.key()
        )
    );
    let stored = world.store().get(&own.key().to_string()).await.unwrap().unwrap();
    assert_eq!(stored.record.value, theirs.as_bytes());
}

async fn lease_of_clone_with_our_id_is_never_overwritten(world: World) {
    let (own, keeper, path) = acquired(&world).await;
    let theirs = r#"{"PublicIP":"192.168.0.99","NodeID":"node-72"}"#;
    world.put(&path, theirs).await;
    keeper.poke.notify_one();
    let owner = "node id node-72 at 192.168.0.99".into();
    assert_eq!(keeper.lost().await, LostLease::Taken { key: own.key(), owner });
    let stored = world.store().get(&own.key().to_string()).await.unwrap().unwrap();
    assert_eq!(stored.record.value, theirs.as_bytes());
}

async fn lease_overlapping_our_former_subnet_is_left_alone(world: World) {
    let node = TestNode::new(72);
    let own = node.acquire(&*world.store(), &network()).await.unwrap();
    world.delete(&format!("subnets/{}", own.key())).await;
    world.put("subnets/10.244.0.0-16", r#"{"PublicIP":"192.168.0.99"}"#).await;
    let keeper = Keeper::start(&world, own.clone(), MARGIN);
    keeper.poke.notify_one();
    let expected = LostLease::Overlapped { key: own.key(), other: "10.244.0.0-16".into() };
    assert_eq!(keeper.lost().await, expected);
    assert_eq!(keys(&world.store().list().await.unwrap()), ["10.244.0.0-16"]);
}

async fn lease_value_invalid_is_restored(world: World) {
    let (own, keeper, path) = acquired(&world).await;
    world.put(&path, "nonsense").await;
    keeper.poke.notify_one();
    let again = patiently("the lease", async || stored(&world, &own).await).await;
    assert_eq!(&again, own.lease());
}

#[tokio::test]
async fn lease_is_renewed_before_expiry() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    let mut client = etcd.client().await;
    let value = r#"{"PublicIP":"192.168.0.72"}"#;
    let id = put_with_ttl(&mut client, "10.244.8.0-24", value, 6).await;
    let world = World::Etcd(etcd);
    let own = TestNode::new(72).acquire(&*world.store(), &network()).await.unwrap();
    assert_eq!(own.key().to_string(), "10.244.8.0-24");
    let _keeper = Keeper::start(&world, own, Duration::from_secs(5));
    sleep(Duration::from_secs(9)).await;
    assert_eq!(lease_of(&mut client, "10.244.8.0-24").await, id);
}

#[tokio::test]
async fn lease_expired_is_recreated_with_a_new_expiry() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    let mut client = etcd.client().await;
    let world = World::Etcd(etcd);
    let (own, keeper, _) = acquired(&world).await;
    let former = own.stored().handle.lease_id.unwrap();
    client.lease_revoke(former).await.unwrap();
    keeper.poke.notify_one();
    patiently("the lease", async || stored(&world, &own).await).await;
    let id = lease_of(&mut client, &own.key().to_string()).await;
    assert_ne!(id, former);
    let ttl = client.lease_time_to_live(id, None).await.unwrap();
    assert_eq!(ttl.granted_ttl(), 86_400);
}

#[tokio::test]
async fn lease_is_kept_through_an_outage() {
    requires!(Program("etcd"));
    let mut etcd = Etcd::start();
    let store = etcd.store();
    let own = TestNode::new(72).acquire(&store, &network()).await.unwrap();
    let poke = Notify::new();
    let key = own.key().to_string();
    let before = own.term();
    let told = Mutex::new(Vec::new());
    etcd.kill();
    poke.notify_one();
    let outage = async {
        sleep(Duration::from_millis(500)).await;
        etcd.restart_empty();
        let store = etcd.store();
        let stored = patiently("the lease", async || store.get(&key).await.ok().flatten()).await;
        let told = async || told.lock().unwrap().get(1).copied();
        (stored, patiently("its new term", told).await)
    };
    tokio::select! {
        lost = keep(&store, own, MARGIN, &poke, |term| told.lock().unwrap().extend(term.ok())) => panic!("{lost}"),
        (stored, after) = outage => {
            assert_eq!(stored.key(), key);
            assert_eq!(told.lock().unwrap()[0], before);
            assert!(after.renewed > before.renewed && after.ends > before.ends, "{after:?}");
        }
    }
}

#[tokio::test]
async fn release_deletes_nothing_but_the_own_lease() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    let store = etcd.store();
    let node = TestNode::new(72);
    let own = node.acquire(&store, &network()).await.unwrap();
    assert!(release(&store, &own).await.unwrap());
    assert!(store.list().await.unwrap().is_empty());
    assert!(!release(&store, &own).await.unwrap());

    // The record belongs to another node by now.
    let own = node.acquire(&store, &network()).await.unwrap();
    let key = own.key().to_string();
    let theirs = TestNode::new(73).lease(own.key()).to_value();
    put_with_ttl(&mut etcd.client().await, &key, &theirs, 3600).await;
    assert!(!release(&store, &own).await.unwrap());
    assert!(store.get(&key).await.unwrap().is_some());

    // A reservation made by the operator.
    let world = World::Etcd(etcd);
    world.put("subnets/10.244.99.0-24", r#"{"PublicIP":"192.168.0.72"}"#).await;
    let own = node.acquire(&store, &network()).await.unwrap();
    assert_eq!(own.key().to_string(), "10.244.99.0-24");
    assert!(!release(&store, &own).await.unwrap());
    assert!(store.get("10.244.99.0-24").await.unwrap().is_some());
}
