//! The kernel's side of the loop: drift, refusals, lost events, devices and restarts.

use std::time::Duration;

use heddle_control::{EventKind, PeerState};
use heddle_core::address::Family;
use heddle_core::diff::ObjectChange;
use heddle_core::object::{Address, Object, ObjectKey, Sysctl};
use heddle_node::readiness::Condition;
use heddle_sim::kernel::{Maker, Mark, UNDERLAY, name};
use heddle_sim::plugin::DEVICE;
use heddle_sim::scene::{Scene, device, foreign_route, key, net, route};

/// Returns the number of drift repairs of a kind of object.
async fn repairs(scene: &Scene, kind: &str) -> u64 {
    scene.status().await.changes.repairs[kind]
}

fn refuse(scene: &Scene, key: ObjectKey, count: u32) {
    scene.kernel.with(|state| state.refuse.insert(key, count));
}

fn looks(scene: &Scene) -> u64 {
    scene.kernel.with(|state| state.looks)
}

#[tokio::test(start_paused = true)]
async fn device_is_made_before_what_is_on_it() {
    let mut scene = Scene::new();
    scene.add_peer(7);
    scene.record();
    scene.start();
    scene.ready().await;
    let asked = scene.asked();
    let kinds: Vec<_> = asked.iter().map(|change| change.object().key().kind()).collect();
    assert_eq!(kinds, ["link", "address", "fdb", "neighbour", "route"]);
}

#[tokio::test(start_paused = true)]
async fn removed_route_is_back_at_once() {
    let mut scene = Scene::with_peers(&[7]).await;
    scene.pass(5.0).await;
    scene.remove(&route(7));
    let took = scene.until("it is back", |scene| scene.has_route(7)).await;
    assert!(took < Duration::from_millis(300), "{took:?}");
    assert_eq!(repairs(&scene, "route").await, 1);
    let events = scene.events(EventKind::Drift).await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0].text.starts_with("route 10.244.7.0/24"), "{events:?}");
    assert!(events[0].text.ends_with(": restored"), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn deleted_device_is_made_again_with_everything_on_it() {
    let mut scene = Scene::with_peers(&[7, 8]).await;
    scene.remove(&device());
    let back = |scene: &Scene| scene.has_device() && scene.objects(7) + scene.objects(8) == 6;
    let took = scene.until("all is back", back).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(repairs(&scene, "link").await, 1);
    assert_eq!(repairs(&scene, "route").await, 2);
}

#[tokio::test(start_paused = true)]
async fn changed_mtu_of_the_device_is_put_right() {
    let mut scene = Scene::started().await;
    let mtu = |scene: &Scene| scene.kernel.with(|state| state.devices[&name(DEVICE)].0.mtu);
    assert_eq!(mtu(&scene), 1450);
    scene.kernel.disturb("the MTU changes", |state| {
        state.devices.get_mut(&name(DEVICE)).unwrap().0.mtu = 1280;
        vec![device()]
    });
    let took = scene.until("it is right", |scene| mtu(scene) == 1450).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn stray_address_on_the_device_is_removed() {
    let mut scene = Scene::started().await;
    let stray = Object::Address(Address { link: name(DEVICE), network: net("10.244.9.9/32") });
    scene.add(&stray);
    scene.until("it is gone", |scene| scene.object(&stray.key()).is_none()).await;
    let events = scene.events(EventKind::Drift).await;
    assert!(events[0].text.ends_with(": removed, because no plan has it"), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn routes_beside_the_overlay_are_left_alone() {
    let scene = Scene::with_peers(&[7]).await;
    let beside = foreign_route("10.99.0.0/16", UNDERLAY, Some(9));
    scene.add(&beside);
    let made = scene.made();
    scene.pass(70.0).await;
    assert_eq!(scene.object(&beside.key()), Some(beside));
    assert_eq!(scene.made(), made);
}

#[tokio::test(start_paused = true)]
async fn unplanned_route_of_another_program_is_left_alone() {
    let scene = Scene::started().await;
    let theirs = foreign_route("10.244.99.0/24", UNDERLAY, Some(9));
    scene.add(&theirs);
    scene.pass(70.0).await;
    assert_eq!(scene.object(&theirs.key()), Some(theirs));
}

#[tokio::test(start_paused = true)]
async fn foreign_route_to_exactly_a_subnet_is_replaced() {
    let mut scene = Scene::started().await;
    scene.add(&foreign_route("10.244.7.0/24", UNDERLAY, Some(9)));
    scene.add_peer(7);
    scene.until("the route is the overlay's", |scene| scene.has_route(7)).await;
    assert_eq!(scene.object(&route(7)).unwrap().link(), Some(name(DEVICE)));
}

#[tokio::test(start_paused = true)]
async fn own_leftover_route_is_removed_with_the_first_plan() {
    let mut scene = Scene::new();
    let left = foreign_route("10.244.50.0/24", UNDERLAY, Some(9));
    scene.kernel.with(|state| state.put(&left, Maker::Heddle).unwrap());
    scene.start();
    scene.ready().await;
    assert_eq!(scene.object(&left.key()), None);
    assert_eq!(scene.events(EventKind::Drift).await, []);
}

#[tokio::test(start_paused = true)]
async fn own_changes_cause_no_resync() {
    let mut scene = Scene::started().await;
    scene.pass(1.0).await;
    let before = looks(&scene);
    for number in 10..30 {
        scene.add_peer(number);
    }
    scene.until("all have routes", |scene| (10..30).all(|number| scene.has_route(number))).await;
    scene.pass(1.0).await;
    assert_eq!(looks(&scene), before);
}

#[tokio::test(start_paused = true)]
async fn kernel_is_compared_every_half_minute() {
    let scene = Scene::started().await;
    scene.pass(1.0).await;
    let before = looks(&scene);
    scene.pass(301.0).await;
    assert_eq!(looks(&scene) - before, 10);
}

#[tokio::test(start_paused = true)]
async fn lost_events_lead_to_a_resync() {
    let mut scene = Scene::with_peers(&[7]).await;
    scene.pass(1.0).await;
    scene.kernel.set_deaf(true);
    scene.remove(&route(7));
    scene.pass(3.0).await;
    assert!(!scene.has_route(7));
    scene.kernel.set_deaf(false);
    let took = scene.until("it is back", |scene| scene.has_route(7)).await;
    assert!(took < Duration::from_millis(300), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn drift_without_an_event_is_repaired_within_half_a_minute() {
    let mut scene = Scene::with_peers(&[7]).await;
    scene.kernel.set_deaf(true);
    scene.remove(&route(7));
    let took = scene.until("it is back", |scene| scene.has_route(7)).await;
    assert!(took <= Duration::from_secs(31), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn events_without_end_cost_ten_resyncs_a_second_at_most() {
    let scene = Scene::started().await;
    let stray = Object::Address(Address { link: name(DEVICE), network: net("10.244.9.9/32") });
    let before = looks(&scene);
    for _ in 0..200 {
        if scene.object(&stray.key()).is_none() {
            scene.add(&stray);
        }
        scene.pass(0.01).await;
    }
    let looked = looks(&scene) - before;
    assert!((10..=21).contains(&looked), "{looked}");
}

#[tokio::test(start_paused = true)]
async fn refused_route_is_tried_again_after_half_a_second() {
    let mut scene = Scene::started().await;
    refuse(&scene, route(7), 1);
    scene.add_peer(7);
    let took = scene.until("it is there", |scene| scene.has_route(7)).await;
    assert!((500..700).contains(&took.as_millis()), "{took:?}");
    assert_eq!(scene.status().await.changes.refused, 1);
}

#[tokio::test(start_paused = true)]
async fn refused_route_is_tried_with_backoff() {
    let scene = Scene::started().await;
    scene.record();
    refuse(&scene, route(7), u32::MAX);
    scene.add_peer(7);
    scene.pass(303.0).await;
    // After 0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5 and 63.5 s, and then once a minute.
    assert_eq!(scene.attempts(&route(7)), 11);
    assert_eq!(scene.events(EventKind::Refused).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn refusal_for_a_peer_does_not_affect_readiness() {
    let scene = Scene::started().await;
    refuse(&scene, route(7), u32::MAX);
    scene.add_peer(7);
    scene.pass(1.0).await;
    assert!(scene.is_ready());
    let peer = scene.peer(7).await.unwrap();
    assert_eq!(peer.state, PeerState::Incomplete);
    let reason = peer.reason.unwrap();
    assert!(reason.starts_with("plugin vxlan: plan for peer 10.244.7.0-24 of"), "{reason}");
    assert!(reason.contains("cannot put route 10.244.7.0/24"), "{reason}");
    assert_eq!(scene.objects(7), 2);
}

#[tokio::test(start_paused = true)]
async fn refusal_for_the_node_itself_is_named_until_it_ends() {
    let mut scene = Scene::new();
    let address = ObjectKey::Address(name(DEVICE), net("10.244.1.0/32"));
    refuse(&scene, address, 3);
    scene.start();
    let reason = scene.unmet_by(Condition::Kernel, "cannot put address").await;
    assert!(reason.starts_with("plugin vxlan: plan for this node: "), "{reason}");
    let took = scene.ready().await;
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn objects_wait_for_a_refused_device() {
    let mut scene = Scene::new();
    scene.add_peer(7);
    scene.record();
    refuse(&scene, device(), 4);
    scene.start();
    scene.unmet_by(Condition::Kernel, "cannot put link flannel.1").await;
    scene.pass(3.0).await;
    assert!(scene.asked().iter().all(|change| change.object().key() == device()));
    scene.ready().await;
    assert_eq!(scene.objects(7), 3);
    assert_eq!(scene.kernel.with(|state| state.violations.clone()), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn retry_of_a_refused_device_is_no_repair() {
    let mut scene = Scene::new();
    scene.add_peer(7);
    refuse(&scene, device(), 2);
    scene.start();
    scene.unmet_by(Condition::Kernel, "flannel.1").await;
    scene.ready().await;
    assert_eq!(scene.objects(7), 3);
    let repairs = scene.status().await.changes.repairs;
    assert!(repairs.values().all(|count| *count == 0), "{repairs:?}");
    assert_eq!(scene.events(EventKind::Drift).await, []);
}

#[tokio::test(start_paused = true)]
async fn refused_setting_of_the_device_holds_nothing_up() {
    let mut scene = Scene::started().await;
    refuse(&scene, device(), u32::MAX);
    scene.kernel.disturb("the MTU changes", |state| {
        state.devices.get_mut(&name(DEVICE)).unwrap().0.mtu = 1280;
        vec![device()]
    });
    scene.unmet_by(Condition::Kernel, "flannel.1").await;
    scene.add_peer(7);
    let took = scene.until("the peer has a route", |scene| scene.has_route(7)).await;
    assert!(took < Duration::from_millis(300), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn changed_lease_is_applied_without_regard_to_the_backoff() {
    let mut scene = Scene::started().await;
    refuse(&scene, route(7), 8);
    scene.add_peer(7);
    scene.pass(70.0).await;
    assert!(!scene.has_route(7));
    refuse(&scene, route(7), 0);
    scene.write(7, "192.168.0.77", 7);
    let took = scene.until("the peer has a route", |scene| scene.has_route(7)).await;
    assert!(took < Duration::from_millis(300), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn refused_removal_is_tried_again() {
    let mut scene = Scene::with_peers(&[7]).await;
    refuse(&scene, route(7), 2);
    scene.delete_peer(7);
    let took = scene.until("it is gone", |scene| !scene.has_route(7)).await;
    assert!((1500..1700).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn refused_removal_is_void_once_the_peer_is_back() {
    let mut scene = Scene::with_peers(&[7]).await;
    refuse(&scene, route(7), 1);
    scene.delete_peer(7);
    scene.pass(0.1).await;
    scene.add_peer(7);
    scene.until("all is there", |scene| scene.objects(7) == 3).await;
    scene.record();
    scene.pass(120.0).await;
    assert_eq!(scene.asked(), []);
    assert!(scene.has_route(7));
}

#[tokio::test(start_paused = true)]
async fn refused_removal_is_void_while_the_plugin_fails() {
    let scene = Scene::with_peers(&[7]).await;
    refuse(&scene, route(7), 1);
    scene.delete_peer(7);
    scene.pass(0.1).await;
    scene.plugins.with(|faults| faults.traps.insert(key(7), u32::MAX));
    scene.add_peer(7);
    scene.pass(120.0).await;
    assert!(scene.has_route(7));
}

#[tokio::test(start_paused = true)]
async fn foreign_device_with_the_planned_name_is_named_and_kept() {
    let mut scene = Scene::new();
    scene.add_device(DEVICE);
    scene.start();
    let reason = scene.unmet_by(Condition::Kernel, "that heddled did not").await;
    assert!(reason.contains("ip link delete flannel.1"), "{reason}");
    scene.pass(300.0).await;
    assert_eq!(scene.kernel.with(|state| state.devices[&name(DEVICE)].1), Mark::Foreign);
    scene.remove(&device());
    let took = scene.ready().await;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn unreadable_kernel_is_named_until_it_can_be_read() {
    let mut scene = Scene::with_peers(&[7]).await;
    scene.blind(40);
    scene.unmet_by(Condition::Kernel, "cannot read links, addresses").await;
    assert!(scene.has_route(7));
    let took = scene.ready().await;
    assert!(took < Duration::from_secs(42), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn lease_is_applied_while_the_kernel_cannot_be_read() {
    let mut scene = Scene::started().await;
    scene.blind(40);
    scene.unmet_by(Condition::Kernel, "cannot read").await;
    scene.add_peer(7);
    let took = scene.until("the peer has a route", |scene| scene.has_route(7)).await;
    assert!(took < Duration::from_millis(300), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn kernel_readable_again_is_compared_within_seconds() {
    let scene = Scene::with_peers(&[7]).await;
    refuse(&scene, device(), 1);
    scene.remove(&device());
    scene.blind(20);
    let before = looks(&scene);
    scene.pass(19.0).await;
    // No resync gets through.
    assert_eq!(looks(&scene), before);
    scene.pass(3.0).await;
    assert!(scene.is_ready(), "{:?}", scene.unmet());
}

#[tokio::test(start_paused = true)]
async fn restarted_node_changes_nothing_that_is_right() {
    let mut scene = Scene::with_peers(&[7, 8]).await;
    scene.crash().await;
    scene.record();
    scene.start();
    scene.ready().await;
    scene.pass(60.0).await;
    assert_eq!(scene.asked(), []);
}

#[tokio::test(start_paused = true)]
async fn restarted_node_removes_peers_that_left_meanwhile() {
    let mut scene = Scene::with_peers(&[7, 8]).await;
    scene.crash().await;
    scene.delete_peer(7);
    scene.record();
    scene.start();
    scene.ready().await;
    assert_eq!((scene.objects(7), scene.objects(8)), (0, 3));
    assert!(scene.asked().iter().all(|change| matches!(change, ObjectChange::Remove(_))));
}

#[tokio::test(start_paused = true)]
async fn restarted_node_keeps_routes_of_peers_without_a_plan() {
    let mut scene = Scene::with_peers(&[7, 8]).await;
    scene.crash().await;
    scene.plugins.with(|faults| faults.traps.insert(heddle_sim::scene::key(7), 8));
    scene.start();
    scene.ready().await;
    scene.pass(40.0).await;
    assert_eq!((scene.objects(7), scene.objects(8)), (3, 3));
    // Kept for a peer: with its lease, what was kept goes.
    scene.delete_peer(7);
    let took = scene.until("it is gone", |scene| scene.objects(7) == 0).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn restarted_node_waits_for_a_suspended_plugin() {
    let mut scene = Scene::with_peers(&[7]).await;
    scene.crash().await;
    let until = tokio::time::Instant::now() + Duration::from_millis(700);
    scene.plugins.with(|faults| faults.suspended_until = Some(until));
    scene.record();
    scene.start();
    let took = scene.ready().await;
    assert!((700..3000).contains(&took.as_millis()), "{took:?}");
    assert_eq!(scene.asked(), []);
}

#[tokio::test(start_paused = true)]
async fn suspension_without_an_end_does_not_keep_the_node_from_ready() {
    let mut scene = Scene::with_peers(&[7]).await;
    scene.crash().await;
    let until = tokio::time::Instant::now() + Duration::from_secs(600);
    scene.plugins.with(|faults| faults.suspended_until = Some(until));
    scene.start();
    let took = scene.ready().await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(scene.objects(7), 3);
}

#[tokio::test(start_paused = true)]
async fn changes_are_counted_by_kind() {
    let mut scene = Scene::with_peers(&[7]).await;
    let before = scene.status().await.changes;
    scene.delete_peer(7);
    scene.until("all is gone", |scene| scene.objects(7) == 0).await;
    let after = scene.status().await.changes;
    assert_eq!((after.put, after.removed), (before.put, before.removed + 3));
    assert!(after.repairs.values().all(|count| *count == 0), "{after:?}");
}

/// Starts a node whose plan has a setting of the device, which cannot be written.
async fn with_unwritable(setting: &str) -> (Scene, ObjectKey) {
    let sysctl = Sysctl {
        link: name(DEVICE),
        family: Family::V6,
        name: setting.to_owned(),
        value: "0".to_owned(),
    };
    let key = Object::Sysctl(sysctl.clone()).key();
    let mut scene = Scene::new();
    scene.plugins.with(|faults| faults.sysctls.push(sysctl));
    refuse(&scene, key.clone(), u32::MAX);
    scene.add_peer(7);
    scene.start();
    (scene, key)
}

#[tokio::test(start_paused = true)]
async fn unwritable_setting_that_packets_do_not_need_is_a_warning() {
    let (mut scene, key) = with_unwritable("accept_ra").await;
    scene.ready().await;
    scene.pass(600.0).await;
    assert!(scene.is_ready());
    assert_eq!(scene.objects(7), 3);
    let warnings = scene.warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("accept_ra = 0"), "{warnings:?}");
    assert_eq!(scene.status().await.warnings, warnings);
    let events = scene.events(EventKind::Refused).await;
    assert_eq!(events.len(), 1, "{events:?}");
    // It is tried again, and the warning ends with it.
    refuse(&scene, key.clone(), 0);
    scene.until("it is set", |scene| scene.object(&key).is_some()).await;
    scene.until("no warning", |scene| scene.warnings().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn unwritable_setting_that_packets_need_is_an_error() {
    for setting in ["forwarding", "disable_ipv6", "rp_filter"] {
        let (mut scene, key) = with_unwritable(setting).await;
        let reason = scene.unmet_by(Condition::Kernel, setting).await;
        assert!(reason.contains(" = 0"), "{reason}");
        assert_eq!(scene.warnings(), [""; 0]);
        refuse(&scene, key, 0);
        scene.ready().await;
    }
}
