//! The question which leases are the node's own: after a change of its address or of the config's
//! families, and beside nodes with its id or its address.

use std::net::IpAddr;
use std::time::Duration;

use heddle_control::EventKind;
use heddle_sim::scene::{Scene, key};

const DUAL: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","Backend":{"Type":"vxlan"}}"#;

const V6_ALONE: &str = r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","Backend":{"Type":"vxlan"}}"#;

/// Returns the keys of all leases.
fn keys(scene: &Scene) -> Vec<String> {
    scene.store.records().into_iter().map(|record| record.key).collect()
}

/// Returns the value of a lease of this node's id, at another address.
fn own_at(address: &str) -> String {
    format!(
        r#"{{"PublicIP":"{address}","BackendType":"vxlan","BackendData":{{"VtepMAC":"02:00:00:00:00:44"}},"NodeID":"node-1","NodeName":"n1"}}"#
    )
}

/// Returns the IPv4 address that a lease publishes.
fn published(scene: &Scene, number: u8) -> Option<IpAddr> {
    scene.lease(number)?.public_addresses().v4
}

/// Restarts the node with a second address beside the first, and without its subnet.env.
async fn restart_with_second_address(scene: &mut Scene, flag: &'static str) {
    scene.crash().await;
    scene.plugins.with(|faults| faults.subnet_env.clear());
    scene.set_more_addresses(&["192.168.0.201/24"]);
    scene.flag(flag);
    scene.start();
    scene.ready().await;
}

#[tokio::test(start_paused = true)]
async fn node_started_with_its_other_address_keeps_its_subnet() {
    let mut scene = Scene::with_peers(&[7]).await;
    restart_with_second_address(&mut scene, "--public-ip=192.168.0.201").await;
    assert_eq!(keys(&scene), ["10.244.1.0-24", "10.244.7.0-24"]);
    assert_eq!(published(&scene, 1), Some([192, 168, 0, 201].into()));
    assert_eq!(scene.objects(7), 3);
}

#[tokio::test(start_paused = true)]
async fn node_whose_former_address_is_gone_keeps_its_subnet() {
    let mut scene = Scene::started().await;
    scene.crash().await;
    scene.plugins.with(|faults| faults.subnet_env.clear());
    scene.set_address(Some(9));
    scene.start();
    scene.ready().await;
    assert_eq!(keys(&scene), ["10.244.1.0-24"]);
    assert_eq!(published(&scene, 1), Some([192, 168, 0, 9].into()));
}

#[tokio::test(start_paused = true)]
async fn published_address_is_preferred_to_the_first_one() {
    let mut scene = Scene::started().await;
    scene.crash().await;
    scene.set_address(Some(2));
    scene.set_more_addresses(&["192.168.0.1/24"]);
    scene.start();
    scene.ready().await;
    assert_eq!(keys(&scene), ["10.244.1.0-24"]);
    assert_eq!(published(&scene, 1), Some([192, 168, 0, 1].into()));
    scene.pass(60.0).await;
    assert!(scene.is_ready());
}

#[tokio::test(start_paused = true)]
async fn lease_of_a_dead_holder_with_the_own_id_is_taken_over() {
    let mut scene = Scene::new();
    scene.plugins.with(|faults| faults.subnet_env.clear());
    scene.write_value(5, &own_at("192.168.0.50"));
    scene.start();
    let took = scene.ready().await;
    assert_eq!(keys(&scene), ["10.244.5.0-24"]);
    assert_eq!(published(&scene, 5), Some([192, 168, 0, 1].into()));
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn live_node_with_the_own_id_keeps_its_lease() {
    let mut scene = Scene::new();
    let value = own_at("192.168.0.50");
    scene.write_value(5, &value);
    scene.store.hold(&key(5).to_string());
    scene.start();
    scene.ready().await;
    assert_eq!(keys(&scene), ["10.244.1.0-24", "10.244.5.0-24"]);
    assert_eq!(published(&scene, 5), Some([192, 168, 0, 50].into()));
    // Machines cloned from one image are nodes of their own.
    assert!(scene.has_route(5));
    let events = scene.events(EventKind::Record).await;
    let text = events.iter().map(|event| event.text.as_str()).collect::<String>();
    assert!(text.contains("192.168.0.50") && text.contains("--node-id"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn second_lease_of_the_node_is_no_peer_and_released() {
    let mut scene = Scene::started().await;
    scene.crash().await;
    scene.set_more_addresses(&["192.168.0.201/24"]);
    scene.write_value(5, &own_at("192.168.0.201"));
    let stored = scene.store.records().into_iter().find(|record| record.key == "10.244.5.0-24");
    scene.store.put_with_end("10.244.5.0-24", &stored.unwrap().value);
    scene.start();
    scene.ready().await;
    assert_eq!(keys(&scene), ["10.244.1.0-24"]);
    assert!(!scene.has_route(5));
}

#[tokio::test(start_paused = true)]
async fn lease_of_the_running_node_at_another_subnet_is_no_peer() {
    let scene = Scene::with_peers(&[7]).await;
    let macs = own_at("192.168.0.50").replace("00:44", "00:01");
    scene.write_value(5, &macs);
    scene.write_value(6, r#"{"PublicIP":"192.168.0.1","BackendType":"vxlan","BackendData":{"VtepMAC":"02:00:00:00:00:45"}}"#);
    scene.pass(60.0).await;
    assert!(!scene.has_route(5) && !scene.has_route(6));
    assert_eq!((scene.objects(5), scene.objects(6), scene.objects(7)), (0, 0, 3));
    let peer = scene.peer(5).await.unwrap();
    assert!(peer.reason.unwrap().contains("this node's"), "named in the status");
}

#[tokio::test(start_paused = true)]
async fn added_family_leaves_the_subnet_of_the_other() {
    let mut scene = Scene::with_peers(&[7]).await;
    scene.crash().await;
    scene.plugins.with(|faults| faults.subnet_env.clear());
    scene.store.set_config(Some(DUAL));
    scene.set_more_addresses(&["fd00::1/64"]);
    scene.start();
    scene.ready().await;
    let keys = keys(&scene);
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert!(keys[0].starts_with("10.244.1.0-24&fd00:10:244:"), "{keys:?}");
    assert_eq!(scene.objects(7), 3);
}

#[tokio::test(start_paused = true)]
async fn removed_family_leaves_the_subnet_of_the_other() {
    let mut scene = Scene::new();
    scene.plugins.with(|faults| faults.subnet_env.clear());
    scene.store.set_config(Some(DUAL));
    scene.set_more_addresses(&["fd00::1/64"]);
    scene.store.put(
        "10.244.5.0-24&fd00:10:244:5::-64",
        br#"{"PublicIP":"192.168.0.1","PublicIPv6":"fd00::1","NodeID":"node-1"}"#,
    );
    for (config, expected) in
        [(DUAL, "10.244.5.0-24&fd00:10:244:5::-64"), (heddle_sim::scene::CONFIG, "10.244.5.0-24")]
    {
        scene.store.set_config(Some(config));
        scene.start();
        scene.ready().await;
        assert_eq!(keys(&scene), [expected]);
        // It was made without an end, as a reservation, and stays one.
        assert_eq!(scene.status().await.lease.unwrap().remaining, None);
        scene.crash().await;
    }
}

#[tokio::test(start_paused = true)]
async fn ipv4_beside_ipv6_alone_leaves_the_ipv6_subnet() {
    let mut scene = Scene::new();
    scene.plugins.with(|faults| faults.subnet_env.clear());
    scene.store.set_config(Some(V6_ALONE));
    scene.set_more_addresses(&["fd00::1/64"]);
    scene.start();
    scene.ready().await;
    let before = keys(&scene);
    let v6 = before[0].split_once('&').unwrap().1.to_owned();
    scene.crash().await;
    scene.store.set_config(Some(DUAL));
    scene.start();
    scene.ready().await;
    let after = keys(&scene);
    assert_eq!(after.len(), 1, "{after:?}");
    assert!(after[0].starts_with("10.244.") && after[0].ends_with(&format!("&{v6}")), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn earlier_subnet_of_one_family_is_leased_with_a_new_other() {
    let mut scene = Scene::new();
    scene.store.set_config(Some(DUAL));
    scene.set_more_addresses(&["fd00::1/64"]);
    scene.start();
    scene.ready().await;
    assert!(keys(&scene)[0].starts_with("10.244.1.0-24&fd00:10:244:"), "{:?}", keys(&scene));
}

#[tokio::test(start_paused = true)]
async fn address_of_a_dead_node_is_taken_over_with_its_subnet() {
    let mut scene = Scene::new();
    scene.plugins.with(|faults| faults.subnet_env.clear());
    scene.write_value(5, r#"{"PublicIP":"192.168.0.1","NodeID":"node-2","NodeName":"n2"}"#);
    scene.start();
    let took = scene.ready().await;
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert_eq!(keys(&scene), ["10.244.5.0-24"]);
    assert_eq!(scene.lease(5).unwrap().node_id.unwrap().as_str(), "node-1");
}

#[tokio::test(start_paused = true)]
async fn node_with_the_address_of_a_dead_one_keeps_its_own_subnet() {
    let mut scene = Scene::new();
    scene.plugins.with(|faults| faults.subnet_env.clear());
    scene.write_value(3, &own_at("192.168.0.50"));
    let value = r#"{"PublicIP":"192.168.0.1","PublicIPv6":null,"NodeID":"node-2","NodeName":"n2"}"#;
    scene.write_value(5, value);
    scene.start();
    scene.ready().await;
    assert_eq!(published(&scene, 3), Some([192, 168, 0, 1].into()));
    // The other node may come back at another address. Nobody is left with the question.
    let other = scene.lease(5).unwrap();
    assert_eq!(other.node_id.unwrap().as_str(), "node-2");
    assert_eq!(other.node_name.as_deref(), Some("n2"));
}

#[tokio::test(start_paused = true)]
async fn address_that_is_not_the_hosts_is_not_taken_over() {
    let mut scene = Scene::new();
    scene.write_value(5, r#"{"PublicIP":"203.0.113.5","NodeID":"node-2","NodeName":"n2"}"#);
    let before = scene.store.records();
    scene.flag("--public-ip=203.0.113.5");
    scene.start();
    let reason = scene.end().await;
    assert!(reason.contains("heddle lease release 10.244.5.0/24"), "{reason}");
    assert_eq!(scene.store.records(), before);
}
