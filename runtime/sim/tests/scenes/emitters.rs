//! Files for other programs, once all that they promise holds.

use std::time::Duration;

use heddle_node::readiness::Condition;
use heddle_sim::scene::{Scene, device};
use tokio::time::Instant;

fn writes(scene: &Scene) -> u32 {
    scene.plugins.with(|faults| faults.writes)
}

fn fail_for(scene: &Scene, seconds: u64) {
    let until = Instant::now() + Duration::from_secs(seconds);
    scene.plugins.with(|faults| faults.files_until = Some(until));
}

#[tokio::test(start_paused = true)]
async fn files_wait_for_the_plan_in_the_kernel() {
    let mut scene = Scene::new();
    scene.kernel.with(|state| state.refuse.insert(device(), 5));
    scene.start();
    scene.unmet_by(Condition::Kernel, "flannel.1").await;
    scene.pass(5.0).await;
    assert_eq!(writes(&scene), 0);
    assert_eq!(scene.reason(Condition::Emitters), "starting");
    scene.ready().await;
    assert_eq!(writes(&scene), 1);
}

#[tokio::test(start_paused = true)]
async fn files_are_written_once() {
    let mut scene = Scene::started().await;
    scene.pass(3600.0).await;
    scene.plugins.flush_rules();
    scene.remove(&device());
    scene.pass(60.0).await;
    scene.ready().await;
    assert_eq!(writes(&scene), 1);
}

#[tokio::test(start_paused = true)]
async fn files_that_cannot_be_written_keep_the_node_from_ready() {
    let mut scene = Scene::new();
    fail_for(&scene, 20);
    scene.start();
    let reason = scene.unmet_by(Condition::Emitters, "No space left on device").await;
    assert!(reason.starts_with("--emit subnet-env: cannot write /run/flannel/subnet.env"));
    let took = scene.ready().await;
    assert!(took < Duration::from_secs(40), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn emitter_that_traps_is_called_again() {
    let mut scene = Scene::new();
    scene.plugins.with(|faults| faults.emitter_traps = 3);
    scene.start();
    scene.unmet_by(Condition::Emitters, "plugin subnet-env, emit: trapped").await;
    let took = scene.ready().await;
    // After 0.2, 0.4 and 0.8 s.
    assert!((1400..2000).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn failing_emitter_does_not_delay_peers() {
    let mut scene = Scene::new();
    fail_for(&scene, 600);
    scene.start();
    scene.unmet_by(Condition::Emitters, "cannot write").await;
    scene.add_peer(7);
    let took = scene.until("the peer has a route", |scene| scene.has_route(7)).await;
    assert!(took < Duration::from_millis(200), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn written_files_and_problems_are_in_the_status() {
    let mut scene = Scene::new();
    fail_for(&scene, 10);
    scene.start();
    scene.unmet_by(Condition::Emitters, "cannot write").await;
    let emitter = scene.status().await.emitters.remove(0);
    assert_eq!((emitter.plugin.name.as_str(), emitter.files.len()), ("subnet-env", 0));
    assert!(emitter.problem.unwrap().contains("cannot write /run/flannel/subnet.env"));
    scene.ready().await;
    let emitter = scene.status().await.emitters.remove(0);
    assert_eq!(emitter.files, [std::path::PathBuf::from("/run/flannel/subnet.env")]);
    assert_eq!(emitter.problem, None);
}

#[tokio::test(start_paused = true)]
async fn restarted_node_writes_its_files_again() {
    let mut scene = Scene::started().await;
    scene.crash().await;
    scene.start();
    scene.ready().await;
    assert_eq!(writes(&scene), 2);
}
