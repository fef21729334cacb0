//! The host's own network and the store's addresses, which the overlay leaves to the host.

use std::time::Duration;

use heddle_control::{EventKind, PeerState};
use heddle_core::object::{Metric, ObjectKey};
use heddle_sim::kernel::{Maker, UNDERLAY, name};
use heddle_sim::plugin::TUNNEL;
use heddle_sim::scene::{Scene, foreign_route, net, route};

/// The route of the tunnel to the whole overlay.
fn whole() -> ObjectKey {
    ObjectKey::Route(net("10.244.0.0/16"), Metric::Default)
}

#[tokio::test(start_paused = true)]
async fn new_network_of_the_host_takes_the_place_of_a_peer() {
    let mut scene = Scene::with_peers(&[7, 8]).await;
    scene.add_network("10.244.7.1/23");
    scene.until("the route is withdrawn", |scene| !scene.has_route(7)).await;
    scene.pass(1.0).await;
    assert_eq!(scene.objects(8), 3);
    let peer = scene.peer(7).await.unwrap();
    assert_eq!((peer.state, peer.conflict.as_deref()), (PeerState::NotUsed, Some("connected")));
    assert!(scene.is_ready());
}

#[tokio::test(start_paused = true)]
async fn peer_is_back_once_the_network_of_the_host_is_gone() {
    let mut scene = Scene::with_peers(&[7]).await;
    scene.add_network("10.244.7.1/23");
    scene.until("the route is withdrawn", |scene| !scene.has_route(7)).await;
    scene.remove(&ObjectKey::Link(name("lan0")));
    let took = scene.until("the peer is back", |scene| scene.objects(7) == 3).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn overlapping_network_is_a_warning_for_as_long_as_it_is_there() {
    let scene = Scene::started().await;
    assert_eq!(scene.warnings(), [""; 0]);
    scene.add_network("10.244.7.1/24");
    scene.pass(1.0).await;
    let warnings = scene.warnings();
    assert!(warnings[0].starts_with("10.244.0.0/16 overlaps 10.244.7.0/24"), "{warnings:?}");
    assert_eq!(scene.status().await.warnings, warnings);
    assert_eq!(scene.events(EventKind::Network).await.len(), 1);
    scene.remove(&ObjectKey::Link(name("lan0")));
    scene.pass(1.0).await;
    assert_eq!(scene.warnings(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn network_that_was_there_at_the_start_is_left_alone() {
    let mut scene = Scene::new();
    scene.add_network("10.244.7.1/24");
    scene.add_peer(7);
    scene.start();
    scene.ready().await;
    assert!(!scene.has_route(7));
    let (_, maker) = scene.kernel.with(|state| state.entries[&route(7)].clone());
    assert_eq!(maker, Maker::Kernel);
}

#[tokio::test(start_paused = true)]
async fn static_route_of_the_host_keeps_the_subnets_inside_it() {
    let mut scene = Scene::with_peers(&[16]).await;
    let theirs = foreign_route("10.244.16.0/20", UNDERLAY, Some(9));
    scene.add(&theirs);
    scene.until("the route is withdrawn", |scene| !scene.has_route(16)).await;
    assert_eq!(scene.peer(16).await.unwrap().conflict.as_deref(), Some("route"));
    scene.remove(&theirs.key());
    scene.until("the peer is back", |scene| scene.objects(16) == 3).await;
}

#[tokio::test(start_paused = true)]
async fn subnet_with_a_new_address_of_the_store_is_withdrawn() {
    let mut scene = Scene::with_peers(&[7, 8]).await;
    scene.pass(20.0).await;
    // Causes a resync, so that the next one without an event is half a minute away.
    scene.remove(&route(8));
    scene.until("the route is back", |scene| scene.has_route(8)).await;
    scene.store.set_hosts(&["10.244.7.5"]);
    let took = scene.until("the route is withdrawn", |scene| !scene.has_route(7)).await;
    assert!(took <= Duration::from_secs(11), "{took:?}");
    scene.pass(1.0).await;
    assert_eq!(scene.objects(8), 3);
    assert_eq!(scene.peer(7).await.unwrap().conflict.as_deref(), Some("store"));
}

#[tokio::test(start_paused = true)]
async fn leftover_route_that_cuts_off_the_store_is_removed_first() {
    let mut scene = Scene::new();
    let left = foreign_route("10.244.7.0/24", UNDERLAY, Some(7));
    scene.kernel.with(|state| state.put(&left, Maker::Heddle).unwrap());
    scene.store.set_hosts(&["10.244.7.5"]);
    scene.store.set_down(0, true);
    scene.start();
    scene.until("it is gone", |scene| scene.object(&left.key()).is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn leftover_route_that_harms_nothing_stays_until_the_first_plan() {
    let mut scene = Scene::new();
    let left = foreign_route("10.244.7.0/24", UNDERLAY, Some(7));
    scene.kernel.with(|state| state.put(&left, Maker::Heddle).unwrap());
    scene.store.set_hosts(&["10.200.7.5"]);
    scene.store.set_down(0, true);
    scene.start();
    scene.pass(600.0).await;
    assert!(scene.object(&left.key()).is_some());
    scene.store.set_down(0, false);
    scene.ready().await;
    assert_eq!(scene.object(&left.key()), None);
}

#[tokio::test(start_paused = true)]
async fn tunnel_has_one_route_to_the_whole_overlay() {
    let scene = Scene::with_tunnel(&[7, 8]).await;
    assert_eq!(scene.object(&whole()).unwrap().link(), Some(name(TUNNEL)));
    assert_eq!((scene.object(&route(7)), scene.object(&route(8))), (None, None));
}

#[tokio::test(start_paused = true)]
async fn whole_route_that_covers_the_store_is_split_among_peers() {
    let mut scene = Scene::with_tunnel(&[7, 8]).await;
    scene.store.set_hosts(&["10.244.200.5"]);
    scene.until("it is withheld", |scene| scene.object(&whole()).is_none()).await;
    assert!(scene.has_route(7) && scene.has_route(8));
    assert!(scene.is_ready());
    scene.add_peer(9);
    scene.until("a new peer has a route", |scene| scene.has_route(9)).await;
}

#[tokio::test(start_paused = true)]
async fn peers_have_routes_before_the_whole_one_is_removed() {
    let mut scene = Scene::with_tunnel(&[7, 8]).await;
    scene.record();
    scene.store.set_hosts(&["10.244.200.5"]);
    scene.until("it is withheld", |scene| scene.object(&whole()).is_none()).await;
    let keys: Vec<_> = scene.asked().iter().map(|change| change.object().key()).collect();
    assert_eq!(keys, [route(7), route(8), whole()]);
}

#[tokio::test(start_paused = true)]
async fn split_route_stays_split_until_the_next_start() {
    let mut scene = Scene::with_tunnel(&[7]).await;
    let theirs = foreign_route("10.244.0.0/15", UNDERLAY, Some(9));
    let inside = foreign_route("10.244.0.0/16", UNDERLAY, Some(9));
    scene.crash().await;
    scene.kernel.with(|state| state.delete(name(TUNNEL)));
    scene.add(&inside);
    scene.add(&theirs);
    scene.start();
    scene.ready().await;
    assert!(scene.has_route(7));
    assert_eq!(scene.object(&whole()), Some(inside.clone()));
    scene.remove(&inside.key());
    scene.pass(120.0).await;
    assert_eq!(scene.object(&whole()), None);
    scene.crash().await;
    scene.start();
    scene.ready().await;
    assert_eq!(scene.object(&whole()).unwrap().link(), Some(name(TUNNEL)));
    assert!(!scene.has_route(7));
}

#[tokio::test(start_paused = true)]
async fn peer_whose_address_is_inside_the_overlay_splits_the_route() {
    let mut scene = Scene::with_tunnel(&[7]).await;
    scene.write(8, "10.244.200.8", 8);
    scene.until("it is withheld", |scene| scene.object(&whole()).is_none()).await;
    assert!(scene.has_route(7) && scene.has_route(8));
}

#[tokio::test(start_paused = true)]
async fn lease_over_a_peers_public_address_is_not_used() {
    let scene = Scene::with_peers(&[7]).await;
    scene.write(8, "10.244.9.8", 8);
    scene.add_peer(9);
    scene.pass(1.0).await;
    assert_eq!((scene.objects(7), scene.has_route(8), scene.has_route(9)), (3, true, false));
    assert_eq!(scene.peer(9).await.unwrap().conflict.as_deref(), Some("peer-address"));
}
