//! Traffic rules as a condition of readiness and of the files.

use std::time::Duration;

use heddle_control::EventKind;
use heddle_node::readiness::Condition;
use heddle_sim::scene::Scene;
use tokio::time::Instant;

fn fail_for(scene: &Scene, seconds: u64) {
    let until = Instant::now() + Duration::from_secs(seconds);
    scene.plugins.with(|faults| faults.firewall_until = Some(until));
}

#[tokio::test(start_paused = true)]
async fn rules_are_those_of_config_lease_and_flags() {
    let scene = Scene::started().await;
    let rules = scene.plugins.with(|faults| faults.rules.clone()).unwrap();
    assert_eq!(rules.families.len(), 1);
    assert_eq!(rules.families.v4.unwrap().network.to_string(), "10.244.0.0/16");
    assert_eq!(rules.families.v4.unwrap().subnet.to_string(), "10.244.1.0/24");
    assert_eq!(rules.network_name, "/coreos.com/network");
    assert!(rules.masquerade.is_some() && rules.forward);
}

#[tokio::test(start_paused = true)]
async fn node_is_not_ready_before_the_rules_hold() {
    let mut scene = Scene::new();
    fail_for(&scene, 20);
    scene.start();
    scene.unmet_by(Condition::Rules, "iptables-restore failed").await;
    scene.pass(10.0).await;
    let unmet: Vec<_> = scene.unmet().into_keys().collect();
    assert_eq!(unmet, [Condition::Rules, Condition::Emitters]);
    assert_eq!(scene.plugins.with(|faults| faults.writes), 0);
    let took = scene.ready().await;
    assert!(took < Duration::from_secs(17), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn rules_are_not_touched_before_the_plan_was_applied() {
    let mut scene = Scene::new();
    scene.store.set_config(None);
    scene.start();
    scene.pass(600.0).await;
    assert_eq!(scene.plugins.with(|faults| faults.rule_checks), 0);
    assert!(scene.plugins.with(|faults| faults.rules.is_none()));
}

#[tokio::test(start_paused = true)]
async fn flushed_rules_are_back_within_a_second() {
    let mut scene = Scene::started().await;
    scene.pass(2.0).await;
    scene.plugins.flush_rules();
    let holds = |scene: &Scene| scene.plugins.with(|faults| faults.rules_hold);
    let took = scene.until("the rules hold", holds).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    let drift = scene.events(EventKind::Drift).await;
    assert_eq!(drift.len(), 1);
    assert_eq!(drift[0].text, "rules restored");
}

#[tokio::test(start_paused = true)]
async fn rules_that_fail_later_are_named_until_they_hold() {
    let mut scene = Scene::started().await;
    fail_for(&scene, 30);
    scene.plugins.flush_rules();
    scene.unmet_by(Condition::Rules, "iptables-restore failed").await;
    let rules = scene.status().await.rules.unwrap();
    assert_eq!(rules.problem.as_deref(), Some("iptables-restore failed"));
    let took = scene.ready().await;
    assert!(took < Duration::from_secs(36), "{took:?}");
    assert_eq!(scene.status().await.rules.unwrap().problem, None);
}

#[tokio::test(start_paused = true)]
async fn failing_rules_do_not_delay_peers() {
    let mut scene = Scene::started().await;
    fail_for(&scene, 600);
    scene.plugins.flush_rules();
    scene.unmet_by(Condition::Rules, "failed").await;
    scene.add_peer(7);
    let took = scene.until("the peer has a route", |scene| scene.has_route(7)).await;
    assert!(took < Duration::from_millis(200), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn resync_flag_sets_the_interval_of_checks() {
    let mut scene = Scene::new();
    scene.flag("--iptables-resync=60");
    scene.start();
    scene.ready().await;
    scene.pass(600.0).await;
    let checks = scene.plugins.with(|faults| faults.rule_checks);
    assert!((10..=11).contains(&checks), "{checks}");
}
