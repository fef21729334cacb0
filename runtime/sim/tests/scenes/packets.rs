//! Backends that carry packets themselves: which peers the path steers to.

use std::net::IpAddr;
use std::time::Duration;

use heddle_core::lease::LeaseKey;
use heddle_plugin::Reason;
use heddle_sim::scene::{Scene, key};

/// Returns the peers that packets are steered to.
fn steered(scene: &Scene) -> Vec<LeaseKey> {
    let peers = scene.plugins.with(|faults| faults.steered.clone());
    peers.expect("the packet path is open").into_keys().collect()
}

fn address_of(scene: &Scene, number: u8) -> Option<IpAddr> {
    let peers = scene.plugins.with(|faults| faults.steered.clone())?;
    peers.get(&key(number))?.public_addresses().first().copied()
}

#[tokio::test(start_paused = true)]
async fn peers_of_the_first_snapshot_are_steered_to() {
    let scene = Scene::with_tunnel(&[7, 8]).await;
    assert_eq!(steered(&scene), [key(7), key(8)]);
}

#[tokio::test(start_paused = true)]
async fn backend_in_the_kernel_has_no_packet_path() {
    let scene = Scene::with_peers(&[7]).await;
    assert!(scene.plugins.with(|faults| faults.steered.is_none()));
    assert_eq!(scene.status().await.packets, None);
}

#[tokio::test(start_paused = true)]
async fn new_changed_and_removed_peers_reach_the_path_at_once() {
    let mut scene = Scene::with_tunnel(&[7]).await;
    scene.add_peer(8);
    scene.until("the new one is known", |scene| address_of(scene, 8).is_some()).await;
    scene.write(7, "192.168.0.77", 7);
    let moved = Some(IpAddr::from([192, 168, 0, 77]));
    scene.until("the address is known", |scene| address_of(scene, 7) == moved).await;
    scene.delete_peer(7);
    let took = scene.until("it is gone", |scene| address_of(scene, 7).is_none()).await;
    assert!(took < Duration::from_millis(200), "{took:?}");
    assert_eq!(steered(&scene), [key(8)]);
}

#[tokio::test(start_paused = true)]
async fn peer_of_another_backend_is_not_steered_to_any_more() {
    let mut scene = Scene::with_tunnel(&[7]).await;
    let other = Reason::OtherBackend("vxlan".to_owned());
    scene.plugins.with(|faults| faults.no_plan.insert(key(7), other));
    scene.write(7, "192.168.0.77", 7);
    scene.until("it is gone", |scene| address_of(scene, 7).is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn peer_whose_plan_fails_is_steered_to_as_before() {
    let mut scene = Scene::with_tunnel(&[7]).await;
    scene.plugins.with(|faults| faults.traps.insert(key(7), 4));
    scene.write(7, "192.168.0.77", 7);
    scene.pass(2.0).await;
    assert_eq!(address_of(&scene, 7), Some([192, 168, 0, 7].into()));
    let moved = Some(IpAddr::from([192, 168, 0, 77]));
    scene.until("the new lease is used", |scene| address_of(scene, 7) == moved).await;
}

#[tokio::test(start_paused = true)]
async fn peer_without_any_plan_is_not_steered_to() {
    let mut scene = Scene::new();
    scene.plugins.with(|faults| {
        faults.tunnel = true;
        faults.traps.insert(key(7), u32::MAX);
    });
    scene.add_peer(7);
    scene.add_peer(8);
    scene.start();
    scene.ready().await;
    assert_eq!(steered(&scene), [key(8)]);
}

#[tokio::test(start_paused = true)]
async fn counters_of_the_path_are_in_the_status() {
    let scene = Scene::with_tunnel(&[7, 8]).await;
    let packets = scene.status().await.packets.unwrap();
    assert_eq!(packets["sent_packets"], 2);
    assert_eq!(packets["no_route"], 0);
}
