//! The conditions of readiness of a whole node.

use heddle_control::EventKind;
use heddle_node::readiness::Condition;
use heddle_sim::scene::Scene;

/// Starts the node and returns the conditions in the order in which they were met.
async fn met(scene: &mut Scene) -> Vec<Condition> {
    scene.start();
    let mut readiness = scene.readiness();
    let (mut before, mut met) = (readiness.borrow_and_update().clone(), Vec::new());
    while !before.is_empty() {
        readiness.changed().await.unwrap();
        let now = readiness.borrow_and_update().clone();
        met.extend(before.keys().filter(|condition| !now.contains_key(condition)));
        before = now;
    }
    met
}

#[tokio::test(start_paused = true)]
async fn conditions_are_met_in_the_order_of_a_start() {
    use Condition::{
        Config, Emitters, Kernel, Lease, Packets, Plugins, Rules, Store, Underlay, Watch,
    };
    let mut scene = Scene::new();
    scene.add_peer(7);
    let met = met(&mut scene).await;
    assert_eq!(
        met,
        [Store, Config, Plugins, Underlay, Lease, Packets, Watch, Kernel, Rules, Emitters]
    );
}

#[tokio::test(start_paused = true)]
async fn node_is_ready_only_with_everything_in_place() {
    let mut scene = Scene::new();
    scene.add_peer(7);
    met(&mut scene).await;
    assert_eq!(scene.objects(7), 3);
    assert!(scene.plugins.with(|faults| faults.rules_hold && faults.writes == 1));
}

#[tokio::test(start_paused = true)]
async fn readiness_and_its_loss_are_in_the_history() {
    let mut scene = Scene::started().await;
    scene.pass(1.0).await;
    scene.set_underlay(false);
    scene.unmet_by(Condition::Underlay, "is down").await;
    scene.set_underlay(true);
    scene.ready().await;
    scene.pass(1.0).await;
    assert_eq!(scene.events(EventKind::Ready).await.len(), 2);
    let lost = scene.events(EventKind::NotReady).await;
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!(lost[0].text, "underlay: interface eth0 is down");
}

#[tokio::test(start_paused = true)]
async fn several_problems_are_all_named() {
    let mut scene = Scene::started().await;
    scene.set_underlay(false);
    scene.store.set_down(0, true);
    scene.unmet_by(Condition::Underlay, "is down").await;
    scene.unmet_by(Condition::Watch, "refuses").await;
    let unmet: Vec<_> = scene.unmet().into_keys().collect();
    assert_eq!(unmet, [Condition::Underlay, Condition::Watch]);
}

#[tokio::test(start_paused = true)]
async fn healthy_node_stays_ready() {
    let scene = Scene::with_peers(&[7, 8]).await;
    let mut readiness = scene.readiness();
    readiness.mark_unchanged();
    let made = scene.made();
    scene.pass(24.0 * 3600.0).await;
    assert!(!readiness.has_changed().unwrap());
    assert_eq!(scene.made(), made);
}
