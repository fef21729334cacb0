//! Probes of peers over the overlay.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use heddle_control::EventKind;
use heddle_probe::{Health, News, State};
use heddle_sim::scene::Scene;

/// The address at which a peer is probed: that of its VXLAN device.
fn place(number: u8) -> IpAddr {
    [10, 244, number, 0].into()
}

async fn probing(numbers: &[u8]) -> Scene {
    let mut scene = Scene::new();
    scene.flag("--probe-interval=1");
    numbers.iter().for_each(|number| scene.add_peer(*number));
    scene.start();
    scene.ready().await;
    scene.pass(1.0).await;
    scene
}

async fn report(scene: &Scene, number: u8, state: State) {
    let health = Health { state, since: SystemTime::now(), round_trip: None, loss: 0.5 };
    let sender = scene.plugins.with(|faults| {
        faults.health.insert(place(number), health);
        faults.news.clone()
    });
    sender.unwrap().send(News { address: place(number), state }).await.unwrap();
    scene.pass(0.1).await;
}

fn probed(scene: &Scene) -> Vec<IpAddr> {
    scene.plugins.with(|faults| faults.probed.iter().copied().collect())
}

#[tokio::test(start_paused = true)]
async fn nothing_is_probed_without_the_flag() {
    let scene = Scene::with_peers(&[7]).await;
    assert!(scene.plugins.with(|faults| faults.news.is_none()));
    assert_eq!(scene.peer(7).await.unwrap().health, None);
}

#[tokio::test(start_paused = true)]
async fn peers_are_probed_at_the_address_of_their_device() {
    let scene = probing(&[7, 8]).await;
    assert_eq!(probed(&scene), [place(7), place(8)]);
}

#[tokio::test(start_paused = true)]
async fn probed_addresses_follow_the_leases_after_half_a_second() {
    let scene = probing(&[7]).await;
    scene.delete_peer(7);
    scene.add_peer(8);
    scene.pass(0.4).await;
    assert_eq!(probed(&scene), [place(7)]);
    scene.pass(0.2).await;
    assert_eq!(probed(&scene), [place(8)]);
}

#[tokio::test(start_paused = true)]
async fn peer_that_stops_answering_is_named_and_keeps_its_plan() {
    let scene = probing(&[7]).await;
    report(&scene, 7, State::Unreachable).await;
    let events = scene.events(EventKind::PeerSilent).await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0].text.ends_with("does not answer at 10.244.7.0 over the overlay"));
    assert_eq!(scene.objects(7), 3);
    assert!(scene.is_ready());
    let health = scene.peer(7).await.unwrap().health.unwrap();
    assert!(!health.reachable);
    assert!((health.loss_percent - 50.0).abs() < f64::EPSILON);
}

#[tokio::test(start_paused = true)]
async fn peer_that_answers_again_is_named() {
    let scene = probing(&[7]).await;
    report(&scene, 7, State::Unreachable).await;
    report(&scene, 7, State::Reachable).await;
    let events = scene.events(EventKind::PeerAnswers).await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(scene.peer(7).await.unwrap().health.unwrap().reachable);
}

#[tokio::test(start_paused = true)]
async fn many_silent_peers_are_summed_up_after_five_seconds() {
    let numbers: Vec<u8> = (10..30).collect();
    let scene = probing(&numbers).await;
    for number in numbers {
        report(&scene, number, State::Unreachable).await;
    }
    let named = scene.events(EventKind::PeerSilent).await.len();
    assert!(named < 10, "{named}");
    scene.pass(6.0).await;
    let events = scene.events(EventKind::PeerSilent).await;
    let last = &events.last().unwrap().text;
    assert_eq!(last, "peers: 20 of 20 unreachable over the overlay; see \"heddle status\"");
}

#[tokio::test(start_paused = true)]
async fn address_of_no_peer_is_not_reported() {
    let scene = probing(&[7]).await;
    report(&scene, 9, State::Unreachable).await;
    assert_eq!(scene.events(EventKind::PeerSilent).await, []);
}

#[tokio::test(start_paused = true)]
async fn probes_do_not_keep_the_kernel_from_being_compared() {
    let scene = probing(&[7]).await;
    let looks = |scene: &Scene| scene.kernel.with(|state| state.looks);
    let before = looks(&scene);
    scene.pass(Duration::from_secs(301).as_secs_f64()).await;
    assert_eq!(looks(&scene) - before, 10);
}
