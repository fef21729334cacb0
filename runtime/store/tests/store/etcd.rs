//! Behaviour of the etcd store alone: leases that expire, transactions, prefixes.

use etcd_client::{LeaseTimeToLiveOptions, Txn, TxnOp};
use heddle_core::record::RecordChange;
use heddle_requires::requires;
use heddle_store::{LeaseStore, Renewal};

use crate::fixture::*;

#[tokio::test]
async fn lease_created_expires_after_a_day() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    let stored = etcd.store().create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    let id = stored.handle.lease_id.unwrap();
    let mut client = etcd.client().await;
    assert_eq!(lease_of(&mut client, "10.244.8.0-24").await, id);
    let options = LeaseTimeToLiveOptions::new().with_keys();
    let lease = client.lease_time_to_live(id, Some(options)).await.unwrap();
    assert_eq!(lease.granted_ttl(), 86_400);
    assert_eq!(lease.keys().len(), 1);
}

#[tokio::test]
async fn lost_race_leaves_no_etcd_lease_behind() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    let store = etcd.store();
    store.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    assert_eq!(store.create("10.244.8.0-24", b"2").await.unwrap(), None);
    let leases = etcd.client().await.leases().await.unwrap();
    assert_eq!(leases.leases().len(), 1);
}

#[tokio::test]
async fn lease_taken_over_keeps_its_etcd_lease() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    let mut client = etcd.client().await;
    let value = r#"{"PublicIP":"192.168.0.72","PublicIPv6":null,"BackendType":"vxlan"}"#;
    let id = put_with_ttl(&mut client, "10.244.8.0-24", value, 1000).await;
    let node = TestNode::new(72);
    let own = node.acquire(&etcd.store(), &network()).await.unwrap();
    assert_eq!(own.stored().handle.lease_id, Some(id));
    assert_eq!(own.stored().record.value, node.lease(own.key()).to_value().as_bytes());
    assert_eq!(lease_of(&mut client, "10.244.8.0-24").await, id);
}

#[tokio::test]
async fn reservation_acquired_stays_a_reservation() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    let key = format!("{PREFIX}/subnets/10.244.8.0-24");
    let mut client = etcd.client().await;
    client.put(key, r#"{"PublicIP":"192.168.0.72"}"#, None).await.unwrap();
    let store = etcd.store();
    let own = TestNode::new(72).acquire(&store, &network()).await.unwrap();
    assert!(own.stored().is_reservation());
    assert_eq!(own.stored().record.value, own.lease().to_value().as_bytes());
    assert_eq!(lease_of(&mut client, "10.244.8.0-24").await, 0);
    assert_eq!(store.renew(own.stored()).await.unwrap(), Renewal::Permanent);
}

#[tokio::test]
async fn lease_renewed_restarts_its_ttl() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    let mut client = etcd.client().await;
    put_with_ttl(&mut client, "10.244.8.0-24", "1", 1000).await;
    let store = etcd.store();
    let stored = store.get("10.244.8.0-24").await.unwrap().unwrap();
    let Renewal::Renewed { remaining } = store.renew(&stored).await.unwrap() else {
        panic!("the lease is there");
    };
    assert_eq!(remaining.as_secs(), 1000);
    client.lease_revoke(stored.handle.lease_id.unwrap()).await.unwrap();
    assert_eq!(store.renew(&stored).await.unwrap(), Renewal::Gone);
}

#[tokio::test]
async fn keys_outside_the_prefix_are_ignored() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    let mut client = etcd.client().await;
    let store = etcd.store();
    let mut watch = store.watch();
    snapshot(&mut watch).await;
    for key in ["subnets", "subnets-old/10.244.1.0-24", "subnet", "config", "subnetsx"] {
        client.put(format!("{PREFIX}/{key}"), "1", None).await.unwrap();
    }
    client.put(format!("{PREFIX}2/subnets/10.244.2.0-24"), "1", None).await.unwrap();
    let own = store.create("10.244.3.0-24", b"1").await.unwrap().unwrap();
    assert_eq!(changes(&mut watch, 1).await, [RecordChange::Put(own.record)]);
    assert_eq!(keys(&store.list().await.unwrap()), ["10.244.3.0-24"]);
    assert_eq!(keys(&snapshot(&mut store.watch()).await), ["10.244.3.0-24"]);
}

/// Puts 100 keys in one transaction.
async fn put_hundred(client: &mut etcd_client::Client, n: usize, value: &str) {
    let puts: Vec<_> = (0..100)
        .map(|host| TxnOp::put(format!("{PREFIX}/subnets/10.{n}.{host}.0-24"), value, None))
        .collect();
    client.txn(Txn::new().and_then(puts)).await.unwrap();
}

#[tokio::test]
async fn watch_delivers_every_event_of_every_response() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    let mut client = etcd.client().await;
    let mut watch = etcd.store().watch();
    snapshot(&mut watch).await;
    for n in 0..20 {
        put_hundred(&mut client, n, "1").await;
    }
    let changes = changes(&mut watch, 2000).await;
    let keys: std::collections::BTreeSet<_> = changes.iter().map(RecordChange::key).collect();
    assert_eq!(keys.len(), 2000);
}

#[tokio::test]
async fn ten_thousand_leases_are_listed_and_watched() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    let mut client = etcd.client().await;
    // 6 MB, more than gRPC's default length limit.
    let value = "x".repeat(600);
    for n in 0..100 {
        put_hundred(&mut client, n, &value).await;
    }
    let store = etcd.store();
    assert_eq!(store.list().await.unwrap().len(), 10_000);
    assert_eq!(snapshot(&mut store.watch()).await.len(), 10_000);
}
