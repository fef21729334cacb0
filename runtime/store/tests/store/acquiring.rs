//! Tests of acquiring a lease.

use std::collections::BTreeSet;
use std::time::Duration;

use heddle_core::allocation::overlap;
use heddle_core::record::RecordChange;
use heddle_store::{AcquireError, OtherRelease, release_of_other};

use crate::behaviour::for_both_stores;
use crate::fixture::*;
use crate::keeping::{Keeper, MARGIN};

for_both_stores!(
    two_hundred_concurrent_nodes_get_distinct_subnets,
    concurrent_dual_stack_nodes_share_neither_family,
    node_reacquires_its_lease_with_its_new_value,
    lease_outside_the_network_is_discarded,
    previous_subnet_if_free_is_reused,
    address_of_another_node_is_rejected,
    network_without_free_subnet_is_an_error,
    added_family_is_put_beside_the_leased_one,
    families_added_at_once_are_distinct,
    lease_of_live_holder_is_not_released,
    lease_of_gone_holder_is_released,
);

async fn boot(world: &World, nodes: u8, network: &str) {
    let config = config(network);
    let booting = (1..=nodes).map(|n| {
        let (store, config) = (world.store(), config.clone());
        tokio::spawn(async move { TestNode::new(n).acquire(&*store, &config).await.unwrap() })
    });
    let leases: Vec<_> = futures::future::join_all(booting).await;
    let keys: Vec<_> = leases.into_iter().map(|own| own.unwrap().key()).collect();
    for (index, key) in keys.iter().enumerate() {
        assert!(keys[..index].iter().all(|other| !overlap(*key, *other)), "{keys:?}");
    }
    let stored = world.store().list().await.unwrap();
    let stored: BTreeSet<_> = stored.iter().map(|it| it.key().parse().unwrap()).collect();
    assert_eq!(stored, keys.into_iter().collect());
}

async fn two_hundred_concurrent_nodes_get_distinct_subnets(world: World) {
    // There are 255 subnets, so nodes are sure to lose races.
    boot(&world, 200, r#"{"Network":"10.244.0.0/16"}"#).await;
}

async fn concurrent_dual_stack_nodes_share_neither_family(world: World) {
    // There are 15 IPv6 subnets.
    let config = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/60"}"#;
    boot(&world, 10, config).await;
}

async fn node_reacquires_its_lease_with_its_new_value(world: World) {
    let store = world.store();
    let mut node = TestNode::new(72);
    let first = node.acquire(&*store, &network()).await.unwrap();
    assert_eq!(first.stored(), &store.list().await.unwrap()[0]);
    let same = node.acquire(&*store, &network()).await.unwrap();
    assert_eq!(same.stored(), first.stored());
    // A lease written by flannel has no node ID; its address identifies this node.
    let key = first.key();
    let path = format!("subnets/{key}");
    world.put(&path, r#"{"PublicIP":"192.168.0.72","PublicIPv6":null}"#).await;
    node.previous = None;
    let taken = node.acquire(&*store, &network()).await.unwrap();
    assert_eq!(taken.key(), key);
    let stored = store.list().await.unwrap();
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].record.value, node.lease(key).to_value().as_bytes());
}

const DUAL: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/60"}"#;

async fn added_family_is_put_beside_the_leased_one(world: World) {
    let (store, node) = (world.store(), TestNode::new(72));
    let first = node.acquire(&*store, &network()).await.unwrap();
    let mut watch = store.watch();
    snapshot(&mut watch).await;
    let dual = node.acquire(&*store, &config(DUAL)).await.unwrap();
    assert_eq!(dual.key().subnets().v4, first.key().subnets().v4);
    assert_eq!(dual.stored().handle.lease_id, first.stored().handle.lease_id);
    assert_eq!(keys(&store.list().await.unwrap()), [dual.key().to_string()]);
    // Nobody sees both records or neither. A directory is read again instead.
    if matches!(world, World::Etcd(_)) {
        let changes = changes(&mut watch, 2).await;
        let RecordChange::Put(put) = &changes[1] else { panic!("{changes:?}") };
        assert_eq!(changes[0], RecordChange::Delete(first.key().to_string()));
        assert_eq!(put.key, dual.key().to_string());
    }
    let back = node.acquire(&*store, &network()).await.unwrap();
    assert_eq!(back.key(), first.key());
    assert_eq!(keys(&store.list().await.unwrap()), [first.key().to_string()]);
}

async fn families_added_at_once_are_distinct(world: World) {
    let nodes: Vec<_> = (1..=10).map(TestNode::new).collect();
    let store = world.store();
    let mut before = Vec::new();
    for node in &nodes {
        before.push(node.acquire(&*store, &network()).await.unwrap().key().subnets().v4);
    }
    let config = config(DUAL);
    let restarting = nodes.into_iter().map(|node| {
        let (store, config) = (world.store(), config.clone());
        tokio::spawn(async move { node.acquire(&*store, &config).await.unwrap().key() })
    });
    let keys: Vec<_> = futures::future::join_all(restarting).await;
    let keys: Vec<_> = keys.into_iter().map(Result::unwrap).collect();
    assert_eq!(keys.iter().map(|key| key.subnets().v4).collect::<Vec<_>>(), before);
    for (index, key) in keys.iter().enumerate() {
        assert!(keys[..index].iter().all(|other| !overlap(*key, *other)), "{keys:?}");
    }
    assert_eq!(store.list().await.unwrap().len(), 10);
}

async fn lease_of_live_holder_is_not_released(world: World) {
    let own = TestNode::new(72).acquire(&*world.store(), &network()).await.unwrap();
    let keeper = Keeper::start(&world, own.clone(), MARGIN);
    let store = world.store();
    let noticing = async {
        loop {
            // The daemon's watch does this.
            tokio::time::sleep(Duration::from_millis(100)).await;
            keeper.poke.notify_one();
        }
    };
    let stored = own.stored();
    let asking = tokio::time::timeout(PATIENCE, release_of_other(&*store, stored, "me", false));
    let outcome = tokio::select! {
        outcome = asking => outcome.unwrap().unwrap(),
        () = noticing => unreachable!("it goes on"),
    };
    assert_eq!(outcome, OtherRelease::Kept("node id node-72 at 192.168.0.72".to_owned()));
    let found = store.get(stored.key()).await.unwrap().unwrap();
    assert_eq!(found.record.value, stored.record.value);
}

async fn lease_of_gone_holder_is_released(world: World) {
    let own = TestNode::new(72).acquire(&*world.store(), &network()).await.unwrap();
    let store = world.store();
    let begun = std::time::Instant::now();
    let outcome = release_of_other(&*store, own.stored(), "me", false).await.unwrap();
    assert_eq!(outcome, OtherRelease::Released);
    assert!(begun.elapsed() >= heddle_store::holder::PATIENCE, "{:?}", begun.elapsed());
    assert_eq!(store.list().await.unwrap(), []);
}

async fn lease_outside_the_network_is_discarded(world: World) {
    let store = world.store();
    world.put("subnets/10.1.8.0-24", r#"{"PublicIP":"192.168.0.72"}"#).await;
    let own = TestNode::new(72).acquire(&*store, &network()).await.unwrap();
    assert_eq!(keys(&store.list().await.unwrap()), [own.key().to_string()]);
    assert_ne!(own.key().to_string(), "10.1.8.0-24");
}

async fn previous_subnet_if_free_is_reused(world: World) {
    let store = world.store();
    let mut node = TestNode::new(72);
    node.previous = Some("10.244.77.0-24".parse().unwrap());
    let own = node.acquire(&*store, &network()).await.unwrap();
    assert_eq!(own.key().to_string(), "10.244.77.0-24");
    let mut late = TestNode::new(73);
    late.previous = node.previous;
    let own = late.acquire(&*store, &network()).await.unwrap();
    assert_ne!(own.key().to_string(), "10.244.77.0-24");
}

async fn address_of_another_node_is_rejected(world: World) {
    let store = world.store();
    TestNode::new(72).acquire(&*store, &network()).await.unwrap();
    let mut clone = TestNode::new(72);
    clone.id = "clone".parse().unwrap();
    let error = clone.acquire(&*store, &network()).await.unwrap_err();
    assert!(matches!(error, AcquireError::Allocation(_)), "{error}");
    assert!(error.to_string().contains("node-72"), "{error}");
    assert_eq!(store.list().await.unwrap().len(), 1);
}

async fn network_without_free_subnet_is_an_error(world: World) {
    let store = world.store();
    let config = config(r#"{"Network":"10.244.0.0/28"}"#);
    for n in 1..=3 {
        TestNode::new(n).acquire(&*store, &config).await.unwrap();
    }
    let error = TestNode::new(4).acquire(&*store, &config).await.unwrap_err();
    assert!(error.to_string().contains("10.244.0.0/28"), "{error}");
}
