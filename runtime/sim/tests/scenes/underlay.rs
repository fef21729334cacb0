//! The interface between hosts: down, without its address, or elsewhere.

use std::time::Duration;

use heddle_node::readiness::Condition;
use heddle_sim::scene::Scene;

#[tokio::test(start_paused = true)]
async fn interface_that_is_down_is_named_until_it_is_up() {
    let mut scene = Scene::with_peers(&[7]).await;
    scene.set_underlay(false);
    let reason = scene.unmet_by(Condition::Underlay, "is down").await;
    assert_eq!(reason, "interface eth0 is down");
    scene.pass(3600.0).await;
    assert_eq!(scene.reason(Condition::Underlay), reason);
    scene.set_underlay(true);
    let took = scene.ready().await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(scene.objects(7), 3);
}

#[tokio::test(start_paused = true)]
async fn interface_without_its_address_is_named_until_it_is_back() {
    let mut scene = Scene::started().await;
    scene.set_address(None);
    scene.unmet_by(Condition::Underlay, "interface eth0 has lost 192.168.0.1").await;
    scene.pass(600.0).await;
    scene.set_address(Some(1));
    let took = scene.ready().await;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn other_address_for_ten_seconds_ends_the_node() {
    let mut scene = Scene::started().await;
    let begun = tokio::time::Instant::now();
    scene.set_address(Some(9));
    let reason = scene.end().await;
    assert!((10..12).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert!(reason.starts_with("underlay: interface eth0 has lost 192.168.0.1: "), "{reason}");
    assert!(reason.contains("would use eth0 with 192.168.0.9"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn node_with_another_address_releases_its_lease() {
    let mut scene = Scene::started().await;
    scene.set_address(Some(9));
    scene.end().await;
    assert_eq!(scene.store.records(), []);
    scene.start();
    scene.ready().await;
    let addresses = scene.lease(1).unwrap().public_addresses();
    assert_eq!(addresses, [std::net::IpAddr::from([192, 168, 0, 9])].into());
}

#[tokio::test(start_paused = true)]
async fn lease_is_left_to_end_if_the_store_is_out_of_reach() {
    let mut scene = Scene::started().await;
    scene.store.set_down(0, true);
    scene.set_address(Some(9));
    scene.end().await;
    assert!(scene.lease(1).is_some());
}

#[tokio::test(start_paused = true)]
async fn other_address_for_five_seconds_is_borne() {
    let mut scene = Scene::started().await;
    for _ in 0..5 {
        scene.set_address(Some(9));
        scene.unmet_by(Condition::Underlay, "would use eth0 with 192.168.0.9").await;
        scene.pass(5.0).await;
        scene.set_address(Some(1));
        scene.ready().await;
    }
    assert!(scene.lease(1).is_some());
}

#[tokio::test(start_paused = true)]
async fn kernel_is_compared_after_a_change_of_the_underlay() {
    let scene = Scene::started().await;
    scene.pass(1.0).await;
    let looks = |scene: &Scene| scene.kernel.with(|state| state.looks);
    let before = looks(&scene);
    scene.set_underlay(false);
    scene.pass(1.0).await;
    assert_eq!(looks(&scene) - before, 1);
}

#[tokio::test(start_paused = true)]
async fn underlay_is_checked_without_events_as_well() {
    let mut scene = Scene::started().await;
    scene.kernel.with(|state| state.underlay_down = true);
    let begun = tokio::time::Instant::now();
    scene.unmet_by(Condition::Underlay, "is down").await;
    assert!(begun.elapsed() <= Duration::from_secs(31), "{:?}", begun.elapsed());
}
