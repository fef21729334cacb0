//! Leases of other nodes: plans, their failures, and records that cannot be used.

use std::time::Duration;

use heddle_control::{EventKind, PeerState};
use heddle_core::object::{Object, ObjectKey};
use heddle_plugin::Reason;
use heddle_sim::kernel::name;
use heddle_sim::plugin::{DEVICE, address};
use heddle_sim::scene::{Scene, key, route};

/// Returns the underlay address that frames for an Ethernet address are sent to.
fn sent_to(scene: &Scene, mac: u8) -> Option<std::net::IpAddr> {
    let mac = format!("02:00:00:00:01:{mac:02x}").parse().unwrap();
    match scene.object(&ObjectKey::FdbEntry(name(DEVICE), mac))? {
        Object::FdbEntry(entry) => Some(entry.destination),
        other => panic!("{other}"),
    }
}

fn trapped() -> Reason {
    Reason::Trapped("unreachable".to_owned())
}

/// Returns the state and the reason of a peer in the status.
async fn state(scene: &Scene, number: u8) -> (PeerState, String) {
    let peer = scene.peer(number).await.expect("a peer in the status");
    (peer.state, peer.reason.unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn new_lease_gets_route_neighbour_and_fdb_entry_at_once() {
    let mut scene = Scene::started().await;
    scene.add_peer(7);
    let took = scene.until("all is there", |scene| scene.objects(7) == 3).await;
    assert!(took < Duration::from_millis(200), "{took:?}");
    assert_eq!(state(&scene, 7).await, (PeerState::InKernel, String::new()));
}

#[tokio::test(start_paused = true)]
async fn removed_lease_takes_its_objects_along_at_once() {
    let mut scene = Scene::with_peers(&[7, 8]).await;
    scene.delete_peer(7);
    let took = scene.until("all is gone", |scene| scene.objects(7) == 0).await;
    assert!(took < Duration::from_millis(200), "{took:?}");
    assert_eq!(scene.objects(8), 3);
    assert_eq!(scene.peer(7).await, None);
}

#[tokio::test(start_paused = true)]
async fn changed_public_address_changes_one_object() {
    let mut scene = Scene::with_peers(&[7, 8]).await;
    scene.record();
    scene.write(7, "192.168.0.77", 7);
    scene.until("frames go there", |scene| sent_to(scene, 7) == Some(address(77))).await;
    scene.pass(1.0).await;
    assert_eq!(scene.asked().len(), 1, "{:?}", scene.asked());
}

#[tokio::test(start_paused = true)]
async fn changed_ethernet_address_leaves_none_of_the_old_one() {
    let mut scene = Scene::with_peers(&[7]).await;
    scene.write(7, "192.168.0.7", 70);
    scene.until("the new one is used", |scene| sent_to(scene, 70) == Some(address(7))).await;
    assert_eq!(sent_to(&scene, 7), None);
    assert_eq!(scene.objects(7), 3);
}

#[tokio::test(start_paused = true)]
async fn rewritten_lease_that_means_the_same_changes_nothing() {
    let scene = Scene::with_peers(&[7]).await;
    let made = scene.made();
    let plans = scene.plugins.with(|faults| faults.asked.len());
    scene.add_peer(7);
    scene.pass(5.0).await;
    assert_eq!(scene.made(), made);
    assert_eq!(scene.plugins.with(|faults| faults.asked.len()), plans);
}

#[tokio::test(start_paused = true)]
async fn lease_moved_to_another_backend_loses_its_objects() {
    let mut scene = Scene::with_peers(&[7]).await;
    scene.write_value(7, r#"{"PublicIP":"192.168.0.7","BackendType":"host-gw"}"#);
    scene.until("all is gone", |scene| scene.objects(7) == 0).await;
    let (state, reason) = state(&scene, 7).await;
    assert_eq!(state, PeerState::NoPlan);
    assert!(reason.contains("the lease is for the backend host-gw"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn lease_for_another_backend_is_not_planned_again() {
    let scene = Scene::started().await;
    scene.write_value(7, r#"{"PublicIP":"192.168.0.7","BackendType":"host-gw"}"#);
    scene.pass(600.0).await;
    assert_eq!(scene.plugins.with(|faults| faults.asked.clone()), [[key(7)]]);
}

#[tokio::test(start_paused = true)]
async fn invalid_lease_keeps_the_plan_of_the_one_before() {
    let scene = Scene::with_peers(&[7]).await;
    scene.write_value(7, r#"{"PublicIP":"192.168.0.7","BackendType":"vxlan"}"#);
    scene.pass(60.0).await;
    assert_eq!(scene.objects(7), 3);
    let (state, reason) = state(&scene, 7).await;
    assert_eq!(state, PeerState::NoPlan);
    assert!(reason.contains("there is no VtepMAC"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn record_that_is_no_lease_keeps_the_lease_before() {
    let scene = Scene::with_peers(&[7]).await;
    scene.write_value(7, "nonsense");
    scene.pass(60.0).await;
    assert_eq!(scene.objects(7), 3);
    let (state, reason) = state(&scene, 7).await;
    assert_eq!(state, PeerState::InKernel);
    assert!(reason.starts_with("the newer record is not used: not a JSON object"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn refused_plan_is_named_and_not_asked_for_again() {
    let scene = Scene::started().await;
    let refusal = Reason::Invalid("its route is outside the overlay".to_owned());
    scene.plugins.with(|faults| faults.no_plan.insert(key(7), refusal));
    scene.add_peer(7);
    scene.pass(600.0).await;
    assert_eq!(scene.plugins.with(|faults| faults.asked.len()), 1);
    assert_eq!(state(&scene, 7).await.0, PeerState::NoPlan);
    assert_eq!(scene.events(EventKind::Plugin).await.len(), 1);
    assert!(scene.is_ready());
}

#[tokio::test(start_paused = true)]
async fn plugin_that_traps_twice_is_asked_after_500_ms_and_1_s() {
    let mut scene = Scene::started().await;
    scene.plugins.with(|faults| faults.traps.insert(key(7), 2));
    scene.add_peer(7);
    let took = scene.until("the peer has a route", |scene| scene.has_route(7)).await;
    assert!((1500..1700).contains(&took.as_millis()), "{took:?}");
    assert_eq!(scene.plugins.with(|faults| faults.asked.len()), 3);
}

#[tokio::test(start_paused = true)]
async fn plugin_that_keeps_trapping_is_asked_once_a_minute() {
    let scene = Scene::started().await;
    scene.plugins.with(|faults| faults.traps.insert(key(7), u32::MAX));
    scene.add_peer(7);
    scene.pass(303.0).await;
    // After 0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5 and 63.5 s, and then once a minute.
    assert_eq!(scene.plugins.with(|faults| faults.asked.len()), 11);
    assert_eq!(scene.events(EventKind::Plugin).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn trap_for_one_peer_delays_no_other() {
    let mut scene = Scene::started().await;
    scene.plugins.with(|faults| faults.traps.insert(key(7), u32::MAX));
    scene.add_peer(7);
    scene.add_peer(8);
    let took = scene.until("the other has a route", |scene| scene.has_route(8)).await;
    assert!(took < Duration::from_millis(200), "{took:?}");
    assert_eq!(scene.objects(7), 0);
    assert!(scene.is_ready());
}

#[tokio::test(start_paused = true)]
async fn trap_at_a_changed_lease_keeps_the_plan_before() {
    let mut scene = Scene::with_peers(&[7]).await;
    scene.plugins.with(|faults| faults.traps.insert(key(7), 3));
    scene.write(7, "192.168.0.77", 7);
    scene.pass(1.0).await;
    assert_eq!(sent_to(&scene, 7), Some(address(7)));
    let (state, reason) = state(&scene, 7).await;
    assert_eq!(state, PeerState::NoPlan);
    assert!(reason.contains("trapped: unreachable"), "{reason}");
    scene.until("the new plan is used", |scene| sent_to(scene, 7) == Some(address(77))).await;
}

#[tokio::test(start_paused = true)]
async fn peer_that_leaves_while_its_plan_fails_is_not_asked_for() {
    let scene = Scene::started().await;
    scene.plugins.with(|faults| faults.traps.insert(key(7), u32::MAX));
    scene.add_peer(7);
    scene.pass(0.2).await;
    scene.delete_peer(7);
    scene.pass(300.0).await;
    assert_eq!(scene.plugins.with(|faults| faults.asked.len()), 1);
    assert_eq!(scene.peer(7).await, None);
}

#[tokio::test(start_paused = true)]
async fn plugin_with_another_reason_is_reported_again() {
    let scene = Scene::started().await;
    scene.plugins.with(|faults| faults.no_plan.insert(key(7), trapped()));
    scene.add_peer(7);
    scene.pass(0.2).await;
    let slow = Reason::TimedOut(Duration::from_secs(1));
    scene.plugins.with(|faults| faults.no_plan.insert(key(7), slow));
    scene.pass(2.0).await;
    let events = scene.events(EventKind::Plugin).await;
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(events[1].text.contains("exceeded the time limit of 1 s"), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn suspended_plugin_is_asked_once_it_is_back() {
    let mut scene = Scene::with_peers(&[7]).await;
    let until = tokio::time::Instant::now() + Duration::from_secs(10);
    scene.plugins.with(|faults| faults.suspended_until = Some(until));
    scene.add_peer(8);
    scene.pass(1.0).await;
    assert_eq!((scene.objects(7), scene.objects(8)), (3, 0));
    assert!(state(&scene, 8).await.1.contains("suspended for another"));
    let took = scene.until("the new one has a route", |scene| scene.has_route(8)).await;
    assert!(took < Duration::from_secs(16), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn one_changed_lease_is_planned_alone() {
    let mut scene = Scene::with_peers(&[7, 8, 9]).await;
    scene.plugins.with(|faults| faults.asked.clear());
    scene.write(8, "192.168.0.88", 8);
    scene.until("it is used", |scene| sent_to(scene, 8) == Some(address(88))).await;
    assert_eq!(scene.plugins.with(|faults| faults.asked.clone()), [[key(8)]]);
}

#[tokio::test(start_paused = true)]
async fn first_snapshot_is_planned_in_one_call() {
    let mut scene = Scene::new();
    (10..60).for_each(|number| scene.add_peer(number));
    scene.start();
    scene.ready().await;
    let expected: Vec<_> = (10..60).map(key).collect();
    assert_eq!(scene.plugins.with(|faults| faults.asked.clone()), [expected]);
    assert!((10..60).all(|number| scene.objects(number) == 3));
}

#[tokio::test(start_paused = true)]
async fn peer_that_traps_at_the_start_does_not_delay_readiness() {
    let mut scene = Scene::new();
    scene.plugins.with(|faults| faults.traps.insert(key(7), u32::MAX));
    scene.add_peer(7);
    scene.add_peer(8);
    scene.start();
    let took = scene.ready().await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!((scene.objects(7), scene.objects(8)), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn overlapping_lease_waits_for_the_older_one() {
    let mut scene = Scene::with_peers(&[8]).await;
    let value = r#"{"PublicIP":"192.168.0.9","BackendType":"vxlan","BackendData":{"VtepMAC":"02:00:00:00:01:09"}}"#;
    scene.store.put("10.244.8.128-25", value.as_bytes());
    scene.pass(1.0).await;
    let status = scene.status().await;
    let peer = status.peers.iter().find(|peer| peer.key == "10.244.8.128-25").unwrap();
    assert_eq!(peer.state, PeerState::NotUsed);
    assert!(peer.reason.as_ref().unwrap().contains("overlaps 10.244.8.0-24"), "{peer:?}");
    assert_eq!((scene.objects(8), sent_to(&scene, 9)), (3, None));
    scene.delete_peer(8);
    scene.until("the younger is used", |scene| sent_to(scene, 9) == Some(address(9))).await;
}

#[tokio::test(start_paused = true)]
async fn lease_over_the_own_subnet_is_not_used() {
    let scene = Scene::started().await;
    let value = r#"{"PublicIP":"192.168.0.9","BackendType":"vxlan","BackendData":{"VtepMAC":"02:00:00:00:01:09"}}"#;
    scene.store.put("10.244.0.0-23", value.as_bytes());
    scene.pass(1.0).await;
    let peers = scene.status().await.peers;
    assert_eq!((peers.len(), peers[0].state), (1, PeerState::NotUsed));
    let reason = peers[0].reason.as_ref().unwrap();
    assert!(reason.contains("overlaps this node's own, 10.244.1.0-24"), "{reason}");
    assert_eq!(sent_to(&scene, 9), None);
    assert!(scene.is_ready());
}

#[tokio::test(start_paused = true)]
async fn lease_outside_the_network_is_not_used() {
    let scene = Scene::started().await;
    scene.store.put("10.99.7.0-24", br#"{"PublicIP":"192.168.0.7","BackendType":"vxlan"}"#);
    scene.pass(1.0).await;
    let peers = scene.status().await.peers;
    assert_eq!(peers[0].state, PeerState::NotUsed);
    assert!(peers[0].reason.as_ref().unwrap().contains("`Network`"), "{peers:?}");
    assert_eq!(scene.plugins.with(|faults| faults.asked.len()), 0);
}

#[tokio::test(start_paused = true)]
async fn record_under_a_key_that_is_no_lease_key_is_named() {
    let scene = Scene::started().await;
    scene.store.put("garbage", b"{}");
    scene.pass(1.0).await;
    let peers = scene.status().await.peers;
    assert_eq!((peers[0].key.as_str(), peers[0].state), ("garbage", PeerState::NotUsed));
    let events = scene.events(EventKind::Record).await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0].text.starts_with("lease garbage: not used: `garbage` is not a lease key"));
}

#[tokio::test(start_paused = true)]
async fn ethernet_address_of_another_peer_stays_with_it() {
    let mut scene = Scene::with_peers(&[7]).await;
    scene.write(8, "192.168.0.8", 7);
    scene.until("the other has a route", |scene| scene.has_route(8)).await;
    assert_eq!(sent_to(&scene, 7), Some(address(7)));
    let events = scene.events(EventKind::Plugin).await;
    assert_eq!(events.len(), 1);
    assert!(events[0].text.contains("a different one for peer 10.244.7.0-24"), "{events:?}");
    scene.delete_peer(7);
    scene.until("the other gets it", |scene| sent_to(scene, 7) == Some(address(8))).await;
}

#[tokio::test(start_paused = true)]
async fn peers_are_reported_as_joined_changed_and_left() {
    let scene = Scene::started().await;
    scene.add_peer(7);
    scene.pass(0.5).await;
    scene.write(7, "192.168.0.77", 7);
    scene.pass(0.5).await;
    scene.delete_peer(7);
    scene.pass(0.5).await;
    for kind in [EventKind::PeerJoined, EventKind::PeerChanged, EventKind::PeerLeft] {
        let events = scene.events(kind).await;
        assert_eq!(events.len(), 1, "{events:?}");
        assert!(events[0].text.starts_with("peer 10.244.7.0-24"), "{events:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_new_peers_are_reported_in_one_event() {
    let mut scene = Scene::new();
    (10..30).for_each(|number| scene.add_peer(number));
    scene.start();
    scene.ready().await;
    assert_eq!(scene.events(EventKind::PeerJoined).await.len(), 0);
    let events = scene.events(EventKind::PeerChanged).await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0].text, "peers: 20 joined or changed, 0 left");
}

#[tokio::test(start_paused = true)]
async fn lease_with_a_bad_address_is_not_used() {
    let scene = Scene::started().await;
    scene.write_value(7, r#"{"PublicIP":"127.0.0.1","BackendType":"vxlan"}"#);
    scene.pass(1.0).await;
    let (state, reason) = state(&scene, 7).await;
    assert_eq!(state, PeerState::NotUsed);
    assert!(reason.contains("`PublicIP` is 127.0.0.1, which is a loopback"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn own_lease_is_no_peer() {
    let scene = Scene::started().await;
    scene.pass(60.0).await;
    assert_eq!(scene.status().await.peers, []);
    assert_eq!(scene.object(&route(1)), None);
}
