//! The node's answers: status, leases, and the sign of life for the watchdog.

use std::time::Duration;

use heddle_control::{PeerState, PluginSource, RulesMode};
use heddle_node::readiness::Condition;
use heddle_sim::scene::{CONFIG, Scene, key};

#[tokio::test(start_paused = true)]
async fn status_before_membership_has_what_is_known() {
    let mut scene = Scene::new();
    scene.store.set_config(None);
    scene.start();
    scene.unmet_by(Condition::Config, "does not exist").await;
    let status = scene.status().await;
    assert!(!status.ready);
    assert_eq!((status.node.id.as_str(), status.node.name.as_deref()), ("node-1", Some("n1")));
    assert_eq!(status.network, "/coreos.com/network");
    assert_eq!(status.unmet[0].condition, "network config");
    assert_eq!(status.unmet.len(), status.conditions.len() - 1, "all but the store");
    assert_eq!((status.lease, status.backend, status.underlay), (None, None, None));
}

#[tokio::test(start_paused = true)]
async fn status_of_a_member_has_lease_underlay_and_backend() {
    let scene = Scene::started().await;
    let status = scene.status().await;
    assert!(status.ready && status.unmet.is_empty());
    let lease = status.lease.unwrap();
    assert_eq!((lease.key.as_str(), lease.mtu), ("10.244.1.0-24", 1450));
    assert_eq!(lease.backend.as_deref(), Some("vxlan"));
    let underlay = status.underlay.unwrap();
    assert_eq!((underlay.interface.as_str(), underlay.mtu), ("eth0", 1500));
    let backend = status.backend.unwrap();
    assert_eq!((backend.name.as_str(), backend.source), ("vxlan", PluginSource::Embedded));
}

#[tokio::test(start_paused = true)]
async fn status_lists_planned_devices_and_rules() {
    let scene = Scene::started().await;
    let status = scene.status().await;
    assert_eq!(status.devices.len(), 1);
    let device = &status.devices[0];
    assert_eq!((device.name.as_str(), device.kind.as_str()), ("flannel.1", "vxlan"));
    let rules = status.rules.unwrap();
    assert_eq!((rules.mode, rules.masquerade, rules.forward), (RulesMode::Iptables, true, true));
    assert_eq!(rules.problem, None);
}

#[tokio::test(start_paused = true)]
async fn status_lists_peers_with_their_objects() {
    let scene = Scene::with_peers(&[7, 8]).await;
    let peers = scene.status().await.peers;
    let keys: Vec<_> = peers.iter().map(|peer| peer.key.as_str()).collect();
    assert_eq!(keys, ["10.244.7.0-24", "10.244.8.0-24"]);
    assert!(peers.iter().all(|peer| peer.objects == 3 && peer.state == PeerState::InKernel));
    assert_eq!(peers[0].public_addresses, [std::net::IpAddr::from([192, 168, 0, 7])]);
}

#[tokio::test(start_paused = true)]
async fn status_says_since_when_the_watch_is_stale() {
    let mut scene = Scene::started().await;
    assert_eq!(scene.status().await.watch.unwrap().stale, None);
    scene.store.set_down(0, true);
    scene.unmet_by(Condition::Watch, "refuses").await;
    let stale = scene.status().await.watch.unwrap().stale.unwrap();
    assert!(stale.contains("refuses connections"), "{stale}");
}

#[tokio::test(start_paused = true)]
async fn age_and_rest_of_the_lease_follow_its_renewals() {
    let scene = Scene::started().await;
    scene.pass(100.0).await;
    let lease = scene.status().await.lease.unwrap();
    assert!((99..=101).contains(&lease.age), "{lease:?}");
    assert!((79..=81).contains(&lease.remaining.unwrap()), "{lease:?}");
    scene.pass(30.0).await;
    let lease = scene.status().await.lease.unwrap();
    assert!(lease.age < 15 && lease.remaining.unwrap() > 165, "{lease:?}");
}

#[tokio::test(start_paused = true)]
async fn status_is_answered_while_the_plugin_plans() {
    let scene = Scene::started().await;
    scene.plugins.with(|faults| faults.planning = Duration::from_secs(60));
    scene.add_peer(7);
    scene.pass(1.0).await;
    let begun = tokio::time::Instant::now();
    let status = scene.status().await;
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    assert!(status.ready);
    assert_eq!(status.peers.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn loop_that_hangs_in_a_plugin_gives_no_sign_of_life() {
    let scene = Scene::started().await;
    assert!(scene.is_alive(1).await);
    scene.plugins.with(|faults| faults.planning = Duration::from_secs(600));
    scene.add_peer(7);
    scene.pass(1.0).await;
    // The first check has nothing to compare the number of calls with.
    assert!(scene.is_alive(1).await);
    assert!(!scene.is_alive(10).await);
    scene.pass(600.0).await;
    assert!(scene.is_alive(1).await);
}

#[tokio::test(start_paused = true)]
async fn node_without_membership_gives_no_sign_of_life() {
    let mut scene = Scene::new();
    scene.store.set_config(None);
    scene.start();
    scene.pass(1.0).await;
    // The loop does not run before there is a membership.
    assert!(!scene.is_alive(1).await);
    scene.store.set_config(Some(CONFIG));
    scene.ready().await;
    assert!(scene.is_alive(1).await);
}

#[tokio::test(start_paused = true)]
async fn leases_name_the_own_one_and_reservations() {
    let scene = Scene::with_peers(&[7]).await;
    let leases = scene.leases().await.unwrap();
    let found: Vec<_> = leases
        .records
        .iter()
        .map(|record| (record.key.as_str(), record.own, record.reservation, &record.problem))
        .collect();
    assert_eq!(
        found,
        [("10.244.1.0-24", true, false, &None), ("10.244.7.0-24", false, true, &None)]
    );
}

#[tokio::test(start_paused = true)]
async fn leases_say_why_a_record_is_not_used() {
    let scene = Scene::with_peers(&[7]).await;
    scene.store.put("garbage", b"{}");
    scene.store.put("10.244.7.0-25", br#"{"PublicIP":"192.168.0.9"}"#);
    scene.store.put("10.99.0.0-24", br#"{"PublicIP":"192.168.0.9"}"#);
    scene.add_network("10.244.9.1/24");
    scene.add_peer(9);
    scene.pass(1.0).await;
    let leases = scene.leases().await.unwrap();
    let problem = |key: &str| {
        let record = leases.records.iter().find(|record| record.key == key).unwrap();
        record.problem.clone().unwrap_or_default()
    };
    assert!(problem("garbage").contains("is not a lease key"));
    assert!(problem("10.244.7.0-25").contains("overlaps 10.244.7.0-24"));
    assert!(problem("10.99.0.0-24").contains("`Network`"));
    assert!(problem("10.244.9.0-24").contains("connected to lan0"));
    assert_eq!(problem("10.244.7.0-24"), "");
}

#[tokio::test(start_paused = true)]
async fn leases_are_available_before_membership() {
    let mut scene = Scene::new();
    scene.store.set_config(None);
    scene.add_peer(7);
    scene.start();
    scene.pass(1.0).await;
    let leases = scene.leases().await.unwrap();
    assert_eq!(leases.records.len(), 1);
    assert_eq!((leases.records[0].key.clone(), leases.records[0].own), (key(7).to_string(), false));
}

#[tokio::test(start_paused = true)]
async fn leases_without_the_store_are_an_error_that_names_it() {
    let scene = Scene::started().await;
    scene.store.set_down(0, true);
    let error = scene.leases().await.unwrap_err();
    assert!(error.contains("http://store:2379"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn loop_that_hangs_in_the_kernel_is_named_and_not_ready() {
    let scene = Scene::with_peers(&[7]).await;
    scene.kernel.with(|state| state.slow = Duration::from_secs(600));
    scene.add_peer(8);
    scene.pass(1.0).await;
    let begun = tokio::time::Instant::now();
    let status = scene.status().await;
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    assert!(!status.ready);
    assert_eq!(status.unmet[0].condition, "loop");
    assert_eq!(status.unmet[0].reason, "no answer within 5 s");
    // What is known without the loop is there.
    assert_eq!(status.lease.unwrap().key, "10.244.1.0-24");
    let error = scene.leases().await.unwrap_err();
    assert_eq!(error, "no answer from the daemon's loop within 5 s");
}
