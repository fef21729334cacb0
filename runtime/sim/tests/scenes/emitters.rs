//! Files for other programs, once all that they promise holds.

use std::time::Duration;

use heddle_control::EventKind;
use heddle_files::Found;
use heddle_node::readiness::Condition;
use heddle_sim::plugin::{EMITTED, FILE, regular};
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

fn is_as_emitted(scene: &Scene) -> bool {
    scene.plugins.file(FILE) == regular(EMITTED)
}

/// Returns the number of repairs of files.
async fn repairs(scene: &Scene) -> u64 {
    scene.status().await.changes.repairs["file"]
}

#[tokio::test(start_paused = true)]
async fn deleted_or_changed_file_is_restored_within_a_second() {
    let mut scene = Scene::started().await;
    scene.pass(60.0).await;
    let mode = |mode| Found::Regular { mode, contents: Some(EMITTED.into()) };
    let faults = [
        Found::Missing,
        regular("FLANNEL_MTU=1500\n"),
        mode(0o600),
        Found::Other("a symbolic link"),
    ];
    for (number, found) in (1..).zip(faults) {
        scene.plugins.disturb_file(FILE, found);
        let took = scene.until("the file is restored", is_as_emitted).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert!(scene.is_ready());
        scene.pass(1.0).await;
        assert_eq!(repairs(&scene).await, number);
    }
    let drift = scene.events(EventKind::Drift).await;
    let texts: Vec<_> = drift.iter().map(|event| event.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "file /run/flannel/subnet.env: is missing; written again",
            "file /run/flannel/subnet.env: has other contents than written; written again",
            "file /run/flannel/subnet.env: has mode 600 instead of 644; written again",
            "file /run/flannel/subnet.env: is a symbolic link; written again",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn change_without_notification_is_found_by_the_resync() {
    let mut scene = Scene::started().await;
    scene.plugins.with(|faults| faults.files_deaf = true);
    scene.plugins.disturb_file(FILE, Found::Missing);
    let took = scene.until("the file is restored", is_as_emitted).await;
    assert!(took <= Duration::from_secs(31), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn file_that_cannot_be_restored_is_unready_until_it_is() {
    let mut scene = Scene::started().await;
    scene.plugins.disturb_file(FILE, Found::Other("a FIFO"));
    let reason = scene.unmet_by(Condition::Emitters, "a FIFO").await;
    assert!(
        reason.starts_with(
            "--emit subnet-env: /run/flannel/subnet.env is a FIFO: cannot write /run/flannel/subnet.env: "
        ),
        "{reason}"
    );
    let emitter = scene.status().await.emitters.remove(0);
    assert!(emitter.problem.unwrap().contains("is a FIFO"));
    scene.pass(300.0).await;
    assert_eq!(scene.plugins.file(FILE), Found::Other("a FIFO"));
    assert!(!scene.is_ready());
    scene.plugins.disturb_file(FILE, Found::Missing);
    let took = scene.ready().await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(is_as_emitted(&scene));
}

#[tokio::test(start_paused = true)]
async fn program_that_keeps_changing_a_file_has_its_way() {
    let scene = Scene::started().await;
    let before = writes(&scene);
    for _ in 0..6000 {
        scene.plugins.disturb_file(FILE, regular("FLANNEL_MTU=1500\n"));
        scene.pass(0.1).await;
    }
    // Nobody can win, and containers do not depend on it.
    assert!(scene.is_ready());
    assert_eq!(writes(&scene) - before, 5);
    assert_eq!(scene.plugins.file(FILE), regular("FLANNEL_MTU=1500\n"));
    // A file that is missing is in nobody's way.
    scene.plugins.disturb_file(FILE, Found::Missing);
    scene.pass(31.0).await;
    assert!(is_as_emitted(&scene));
    // And when the other program has stopped, the file is kept again.
    scene.pass(300.0).await;
    scene.plugins.disturb_file(FILE, regular("FLANNEL_MTU=1500\n"));
    scene.pass(1.0).await;
    assert!(is_as_emitted(&scene));
}

#[tokio::test(start_paused = true)]
async fn changed_path_removes_the_file_of_the_earlier_run() {
    let mut scene = Scene::started().await;
    scene.crash().await;
    scene.flag("--emit=subnet-env:path=/run/other.env");
    scene.start();
    scene.ready().await;
    assert_eq!(scene.plugins.file("/run/other.env"), regular(EMITTED));
    assert_eq!(scene.plugins.file(FILE), Found::Missing);
}

#[tokio::test(start_paused = true)]
async fn changed_path_leaves_a_file_that_somebody_edited() {
    let mut scene = Scene::started().await;
    scene.crash().await;
    scene.plugins.disturb_file(FILE, regular("mine"));
    scene.flag("--emit=subnet-env:path=/run/other.env");
    scene.start();
    scene.ready().await;
    assert_eq!(scene.plugins.file(FILE), regular("mine"));
}

#[tokio::test(start_paused = true)]
async fn file_of_an_emitter_that_is_gone_is_removed() {
    let mut scene = Scene::new();
    scene.flag("--emit=subnet-env");
    scene.flag("--emit=docker-opts:path=/run/docker.env");
    scene.start();
    scene.ready().await;
    assert_eq!(scene.plugins.file("/run/docker.env"), regular(EMITTED));
    scene.crash().await;
    scene.unflag();
    scene.start();
    scene.ready().await;
    assert_eq!(scene.plugins.file("/run/docker.env"), Found::Missing);
    assert!(is_as_emitted(&scene));
}

#[tokio::test(start_paused = true)]
async fn options_that_a_script_makes_of_subnet_env_are_kept() {
    let mut scene = Scene::started().await;
    let options = regular("DOCKER_OPTS=\" --bip=10.244.1.1/24 --mtu=1450\"\n");
    scene.plugins.disturb_file(FILE, options.clone());
    scene.pass(120.0).await;
    assert_eq!(scene.plugins.file(FILE), options);
    assert_eq!(repairs(&scene).await, 0);
    scene.plugins.disturb_file(FILE, Found::Missing);
    let kept = options.clone();
    scene.until("they are restored", move |scene| scene.plugins.file(FILE) == kept).await;
    let wrong = regular("DOCKER_OPTS=\" --bip=10.244.9.1/24 --mtu=1450\"\n");
    scene.plugins.disturb_file(FILE, wrong);
    scene.until("they are restored", move |scene| scene.plugins.file(FILE) == options).await;
    // The script runs again after the next start.
    scene.crash().await;
    scene.start();
    scene.ready().await;
    assert!(is_as_emitted(&scene));
}
