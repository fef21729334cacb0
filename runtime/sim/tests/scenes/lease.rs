//! The node's own lease: renewal, repair and loss; and the network config that it started with.

use std::time::Duration;

use heddle_node::readiness::Condition;
use heddle_sim::scene::{CONFIG, Scene, key};

/// Waits until the node's lease is as it published it.
async fn restored(scene: &mut Scene) -> Duration {
    let intact = |scene: &Scene| {
        scene.lease(1).is_some_and(|lease| lease.backend_type.as_deref() == Some("vxlan"))
    };
    scene.until("the lease is as published", intact).await
}

#[tokio::test(start_paused = true)]
async fn lease_is_renewed_before_it_expires() {
    let scene = Scene::started().await;
    for _ in 0..60 {
        scene.pass(60.0).await;
        scene.store.expire();
        assert!(scene.lease(1).is_some());
        let remaining = scene.status().await.lease.unwrap().remaining.unwrap();
        // Of 180 s, a minute is the margin.
        assert!((59..=180).contains(&remaining), "{remaining}");
    }
    assert!(scene.is_ready());
}

#[tokio::test(start_paused = true)]
async fn deleted_own_lease_is_created_again() {
    let mut scene = Scene::with_peers(&[7]).await;
    scene.store.delete(&key(1).to_string());
    let took = restored(&mut scene).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(scene.is_ready());
    assert_eq!(scene.objects(7), 3);
}

#[tokio::test(start_paused = true)]
async fn altered_own_lease_is_restored() {
    let mut scene = Scene::started().await;
    scene.store.alter(&key(1).to_string());
    let took = restored(&mut scene).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn own_record_that_is_no_lease_any_more_is_restored() {
    let mut scene = Scene::started().await;
    scene.write_value(1, "nonsense");
    restored(&mut scene).await;
    assert!(scene.is_ready());
}

#[tokio::test(start_paused = true)]
async fn own_lease_that_another_node_has_taken_ends_the_node() {
    let mut scene = Scene::started().await;
    scene.write(1, "192.168.0.50", 50);
    let reason = scene.end().await;
    assert!(reason.starts_with("lease 10.244.1.0-24 now belongs to"), "{reason}");
    let addresses = scene.lease(1).unwrap().public_addresses();
    assert_eq!(addresses, [std::net::IpAddr::from([192, 168, 0, 50])].into());
}

#[tokio::test(start_paused = true)]
async fn own_lease_whose_addresses_another_has_ends_the_node() {
    let mut scene = Scene::started().await;
    scene.store.put("10.244.0.0-20", br#"{"PublicIP":"192.168.0.9"}"#);
    scene.pass(1.0).await;
    assert!(scene.is_ready());
    scene.store.delete(&key(1).to_string());
    let reason = scene.end().await;
    assert_eq!(
        reason,
        "lease 10.244.1.0-24 was removed, and its addresses are now part of lease 10.244.0.0-20"
    );
}

#[tokio::test(start_paused = true)]
async fn lease_that_expires_during_an_outage_is_created_again() {
    let mut scene = Scene::with_peers(&[7]).await;
    scene.store.set_down(0, true);
    scene.unmet_by(Condition::Lease, "keeping 10.244.1.0-24: ").await;
    scene.pass(600.0).await;
    scene.store.expire();
    assert_eq!(scene.lease(1), None);
    assert_eq!(scene.objects(7), 3);
    scene.store.set_down(0, false);
    scene.ready().await;
    assert!(scene.lease(1).is_some());
}

#[tokio::test(start_paused = true)]
async fn store_that_is_back_ends_the_complaint_about_the_lease() {
    let mut scene = Scene::started().await;
    scene.pass(115.0).await;
    scene.store.set_down(0, true);
    scene.unmet_by(Condition::Lease, "keeping").await;
    scene.store.set_down(0, false);
    let took = scene.ready().await;
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn restarted_node_keeps_its_lease() {
    let mut scene = Scene::started().await;
    let before = scene.store.records();
    scene.crash().await;
    scene.start();
    scene.ready().await;
    assert_eq!(scene.store.records(), before);
}

#[tokio::test(start_paused = true)]
async fn changed_config_is_reported_and_not_used() {
    let scene = Scene::with_peers(&[7]).await;
    let made = scene.made();
    assert_eq!(scene.status().await.superseded, None);
    scene.store.set_config(Some(r#"{"Network":"10.99.0.0/16","Backend":{"Type":"vxlan"}}"#));
    scene.pass(60.0).await;
    let superseded = scene.status().await.superseded.unwrap();
    assert!(superseded.contains("`Network`"), "{superseded}");
    assert!(scene.is_ready());
    assert_eq!(scene.made(), made);
}

#[tokio::test(start_paused = true)]
async fn deleted_or_broken_config_is_reported_and_the_node_stays() {
    let scene = Scene::started().await;
    for (config, expected) in [(None, "deleted"), (Some("{"), "JSON")] {
        scene.store.set_config(config);
        scene.pass(1.0).await;
        let superseded = scene.status().await.superseded.unwrap();
        assert!(superseded.contains(expected), "{superseded}");
        assert!(scene.is_ready());
    }
}

#[tokio::test(start_paused = true)]
async fn config_that_is_back_is_not_reported_any_more() {
    let scene = Scene::started().await;
    scene.store.set_config(None);
    scene.pass(1.0).await;
    assert!(scene.status().await.superseded.is_some());
    // Spelled otherwise, it means the same.
    scene.store.set_config(Some(&CONFIG.replace(',', " , ")));
    scene.pass(1.0).await;
    assert_eq!(scene.status().await.superseded, None);
}
