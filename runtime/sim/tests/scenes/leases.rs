//! The watch: outages, snapshots and stores that lose data.

use std::collections::BTreeSet;
use std::time::Duration;

use heddle_control::{EventKind, PeerState};
use heddle_node::readiness::Condition;
use heddle_sim::scene::{Scene, key};

fn lose(scene: &Scene, numbers: &[u8]) {
    let keys: BTreeSet<_> = numbers.iter().map(|number| key(*number).to_string()).collect();
    scene.store.lose(&keys);
}

#[tokio::test(start_paused = true)]
async fn outage_of_the_store_is_named_and_leaves_the_kernel_alone() {
    let mut scene = Scene::with_peers(&[7, 8]).await;
    let made = scene.made();
    scene.store.set_down(0, true);
    scene.unmet_by(Condition::Watch, "refuses connections").await;
    scene.pass(3600.0).await;
    assert_eq!((scene.objects(7), scene.objects(8)), (3, 3));
    assert_eq!(scene.made(), made);
    scene.store.set_down(0, false);
    scene.ready().await;
}

#[tokio::test(start_paused = true)]
async fn changes_during_an_outage_are_applied_after_it() {
    let mut scene = Scene::with_peers(&[7, 8]).await;
    scene.store.set_down(0, true);
    scene.unmet_by(Condition::Watch, "refuses").await;
    scene.delete_peer(7);
    scene.add_peer(9);
    scene.pass(60.0).await;
    assert_eq!((scene.objects(7), scene.objects(9)), (3, 0));
    scene.store.set_down(0, false);
    scene.until("the new peer is there", |scene| scene.objects(9) == 3).await;
    scene.until("the old one is gone", |scene| scene.objects(7) == 0).await;
    assert_eq!(scene.objects(8), 3);
}

#[tokio::test(start_paused = true)]
async fn loss_and_return_of_the_store_are_in_the_history() {
    let mut scene = Scene::started().await;
    scene.store.set_down(0, true);
    scene.unmet_by(Condition::Watch, "refuses").await;
    scene.store.set_down(0, false);
    scene.ready().await;
    scene.pass(1.0).await;
    assert_eq!(scene.events(EventKind::StoreLost).await.len(), 1);
    assert_eq!(scene.events(EventKind::StoreBack).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn compacted_store_loses_no_change() {
    let mut scene = Scene::with_peers(&[7]).await;
    scene.add_peer(8);
    scene.delete_peer(7);
    scene.store.compact();
    scene
        .until("the change is applied", |scene| scene.objects(8) == 3 && scene.objects(7) == 0)
        .await;
}

#[tokio::test(start_paused = true)]
async fn deleted_lease_gets_no_grace_period() {
    let mut scene = Scene::with_peers(&[7]).await;
    scene.delete_peer(7);
    scene.store.compact();
    let took = scene.until("it is gone", |scene| scene.objects(7) == 0).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn lost_leases_are_kept_for_two_minutes() {
    let mut scene = Scene::with_peers(&[7, 8]).await;
    lose(&scene, &[7]);
    scene.pass(100.0).await;
    assert_eq!(scene.objects(7), 3);
    let peer = scene.peer(7).await.unwrap();
    assert_eq!(peer.state, PeerState::InKernel);
    assert!(peer.reason.unwrap().starts_with("missing lease: "));
    assert_eq!(scene.peer(8).await.unwrap().reason, None);
    let took = scene.until("it is gone", |scene| scene.objects(7) == 0).await;
    assert!((19..22).contains(&took.as_secs()), "{took:?}");
    assert_eq!(scene.objects(8), 3);
}

#[tokio::test(start_paused = true)]
async fn lost_lease_that_is_written_again_stays() {
    let scene = Scene::with_peers(&[7]).await;
    let made = scene.made();
    lose(&scene, &[7]);
    scene.pass(60.0).await;
    scene.add_peer(7);
    scene.pass(300.0).await;
    assert_eq!(scene.objects(7), 3);
    assert_eq!(scene.peer(7).await.unwrap().reason, None);
    assert_eq!(scene.made(), made);
}

#[tokio::test(start_paused = true)]
async fn store_that_lost_everything_gets_the_own_lease_again() {
    let mut scene = Scene::with_peers(&[7, 8]).await;
    lose(&scene, &[1, 7, 8]);
    let took = scene.until("the lease is back", |scene| scene.lease(1).is_some()).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    scene.pass(100.0).await;
    assert_eq!((scene.objects(7), scene.objects(8)), (3, 3));
    scene.until("both are gone", |scene| scene.objects(7) + scene.objects(8) == 0).await;
    assert!(scene.is_ready());
}

#[tokio::test(start_paused = true)]
async fn lost_lease_of_a_peer_gives_way_to_a_new_one() {
    let mut scene = Scene::with_peers(&[7]).await;
    lose(&scene, &[7]);
    scene.pass(1.0).await;
    let value = r#"{"PublicIP":"192.168.0.9","BackendType":"vxlan","BackendData":{"VtepMAC":"02:00:00:00:01:09"}}"#;
    scene.store.put("10.244.7.0-25", value.as_bytes());
    let took = scene.until("the old route is gone", |scene| !scene.has_route(7)).await;
    assert!(took < Duration::from_millis(300), "{took:?}");
    assert_eq!(scene.peer(7).await, None);
}

#[tokio::test(start_paused = true)]
async fn peer_without_a_plan_goes_with_the_grace_period() {
    let mut scene = Scene::with_peers(&[7]).await;
    scene.crash().await;
    scene.plugins.with(|faults| faults.traps.insert(key(7), u32::MAX));
    scene.start();
    scene.ready().await;
    lose(&scene, &[7]);
    scene.pass(60.0).await;
    assert_eq!(scene.objects(7), 3);
    scene.until("it is gone", |scene| scene.objects(7) == 0).await;
}
