//! From the start to membership: config, plugins, interface, subnet, packet path.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use heddle_core::object::{Metric, ObjectKey};
use heddle_node::ports::StartError;
use heddle_node::readiness::Condition;
use heddle_plugin::{CompileError, PluginError, Reason};
use heddle_sim::kernel::{Maker, Mark, UNDERLAY, name};
use heddle_sim::plugin::DEVICE;
use heddle_sim::scene::{CONFIG, Scene, device, foreign_route, key, net};
use tracing_subscriber::util::SubscriberInitExt;

/// A config with room for one subnet: 10.244.1.0/24.
const ONE_SUBNET: &str =
    r#"{"Network":"10.244.0.0/16","SubnetMin":"10.244.1.0","SubnetMax":"10.244.1.0"}"#;

fn not_found() -> StartError {
    let (searched, embedded) = (vec!["/etc/heddle/plugins/vxlan.wasm".into()], vec!["udp"]);
    let name = "vxlan".to_owned();
    StartError::Backend(Box::new(PluginError::NotFound { name, searched, embedded }))
}

fn does_not_compile() -> StartError {
    let error = CompileError::NoCompiler(vec!["/usr/libexec/heddle".into()]);
    StartError::Backend(Box::new(PluginError::Compile { plugin: "vxlan".to_owned(), error }))
}

fn emitter_not_found() -> StartError {
    let (searched, embedded) = (Vec::new(), vec!["docker-opts"]);
    let error = PluginError::NotFound { name: "docker-optz".to_owned(), searched, embedded };
    StartError::Emitter { name: "docker-optz".to_owned(), error: Box::new(error) }
}

/// Returns the only lease of this node.
fn own_key(scene: &Scene) -> String {
    let is_own = |value: &[u8]| String::from_utf8_lossy(value).contains(r#""NodeID":"node-1""#);
    let own = scene.store.records().into_iter().filter(|record| is_own(&record.value));
    let keys: Vec<_> = own.map(|record| record.key).collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys.into_iter().next().unwrap()
}

#[tokio::test(start_paused = true)]
async fn missing_config_is_named_with_an_example() {
    let mut scene = Scene::new();
    scene.store.set_config(None);
    scene.start();
    let reason = scene.unmet_by(Condition::Config, "does not exist").await;
    assert!(reason.starts_with("/coreos.com/network/config does not exist: expected"), "{reason}");
    assert!(reason.contains(r#"{"Network":"10.244.0.0/16"}"#), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn config_in_the_v2_api_is_named_with_the_command() {
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    // A scene runs on the thread of its test.
    let _guard = lines.finish().set_default();
    let mut scene = Scene::new();
    scene.store.set_config(None);
    scene.store.set_v2_config(true, Duration::from_millis(50));
    scene.start();
    let reason = scene.unmet_by(Condition::Config, "v2 API").await;
    assert!(reason.contains("copy it with the leases by `heddle import v2`"), "{reason}");
    scene.pass(170.0).await;
    let asked = scene.store.v2_asked();
    assert_eq!(asked.len(), 3, "at once, and then every minute: {asked:?}");
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.matches("heddle import v2").count(), 1, "{text}");
    // As soon as somebody has copied it, the node joins.
    scene.store.set_config(Some(CONFIG));
    scene.ready().await;
    scene.pass(300.0).await;
    assert_eq!(scene.store.v2_asked().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn v2_api_without_an_answer_holds_up_nothing() {
    let mut scene = Scene::new();
    scene.store.set_config(None);
    scene.store.set_v2_config(true, Duration::from_secs(100_000));
    scene.start();
    let reason = scene.unmet_by(Condition::Config, "does not exist").await;
    assert!(!reason.contains("v2"), "{reason}");
    scene.pass(200.0).await;
    assert_eq!(scene.store.v2_asked().len(), 1);
    scene.store.set_config(Some(CONFIG));
    let took = scene.ready().await;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn v2_api_is_not_asked_while_there_is_a_config() {
    let mut scene = Scene::new();
    scene.store.set_v2_config(true, Duration::ZERO);
    scene.store.set_config(Some("{"));
    scene.start();
    scene.pass(120.0).await;
    scene.store.set_config(Some(CONFIG));
    scene.ready().await;
    assert_eq!(scene.store.v2_asked(), []);
}

/// The log of a scene.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn config_with_unknown_keys_works_and_warns_once() {
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    // A scene runs on the thread of its test.
    let _guard = lines.finish().set_default();
    let mut scene = Scene::new();
    scene.store.set_config(Some(
        r#"{"Network":"10.244.3.7/16","Netwrok":1,"Backend":{"Type":"VXLAN","Prot":1,"vni":1}}"#,
    ));
    scene.plugins.with(|faults| faults.start = Some(not_found));
    scene.start();
    scene.pass(60.0).await;
    scene.plugins.with(|faults| faults.start = None);
    scene.ready().await;
    scene.pass(60.0).await;
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let warnings = log.lines().filter_map(|line| line.split_once("network config: `"));
    let warnings: Vec<_> = warnings.map(|(_, warning)| warning).collect();
    assert_eq!(
        warnings,
        [
            "Netwrok` is not a known key; ignored (did you mean `Network`?)",
            "Network` is 10.244.3.7/16, which has bits after the prefix; 10.244.0.0/16 is used",
            "Backend.Prot` is not a known key of vxlan; ignored (did you mean `Port`?)"
        ],
        "{log}"
    );
}

#[tokio::test(start_paused = true)]
async fn all_errors_of_the_config_are_reported() {
    let mut scene = Scene::new();
    scene.store.set_config(Some(r#"{"Network":"127.0.0.0/8","SubnetLen":33,"EnableIPv6":1}"#));
    scene.start();
    let reason = scene.unmet_by(Condition::Config, "`Network` is 127.0.0.0/8").await;
    for key in ["`SubnetLen` is 33", "`EnableIPv6` is 1"] {
        assert!(reason.contains(key), "{key}: {reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn config_written_after_the_start_is_used_within_two_seconds() {
    let mut scene = Scene::new();
    scene.store.set_config(None);
    scene.start();
    scene.pass(60.0).await;
    scene.store.set_config(Some(CONFIG));
    let took = scene.ready().await;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn invalid_config_is_named_with_its_key_and_corrected() {
    let mut scene = Scene::new();
    scene.store.set_config(Some(r#"{"Network":"nonsense"}"#));
    scene.start();
    let reason = scene.unmet_by(Condition::Config, "`Network`").await;
    assert!(reason.starts_with("/coreos.com/network/config: "), "{reason}");
    scene.store.set_config(Some(CONFIG));
    scene.ready().await;
}

#[tokio::test(start_paused = true)]
async fn invalid_config_keeps_all_later_conditions_unmet() {
    let mut scene = Scene::new();
    scene.store.set_config(Some("{"));
    scene.start();
    scene.unmet_by(Condition::Config, "config: ").await;
    let mut unmet = scene.unmet();
    unmet.remove(&Condition::Config);
    assert!(!unmet.contains_key(&Condition::Store));
    assert_eq!(unmet.len(), Condition::ALL.len() - 2);
    assert!(unmet.values().all(|reason| reason == "starting"), "{unmet:?}");
}

#[tokio::test(start_paused = true)]
async fn store_out_of_reach_at_the_start_is_waited_for() {
    let mut scene = Scene::new();
    scene.store.set_down(0, true);
    scene.start();
    scene.unmet_by(Condition::Store, "http://store:2379").await;
    scene.pass(3600.0).await;
    scene.store.set_down(0, false);
    let took = scene.ready().await;
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn missing_plugin_is_named_and_used_once_it_is_there() {
    let mut scene = Scene::new();
    scene.plugins.with(|faults| faults.start = Some(not_found));
    scene.start();
    let reason = scene.unmet_by(Condition::Plugins, "there is no plugin `vxlan`").await;
    assert!(reason.starts_with("/coreos.com/network/config, `Backend.Type`: "), "{reason}");
    assert!(reason.contains("/etc/heddle/plugins/vxlan.wasm"), "{reason}");
    assert_eq!(scene.reason(Condition::Config), "");
    scene.plugins.with(|faults| faults.start = None);
    scene.ready().await;
}

#[tokio::test(start_paused = true)]
async fn missing_emitter_is_named_with_its_flag() {
    let mut scene = Scene::new();
    scene.plugins.with(|faults| faults.start = Some(emitter_not_found));
    scene.start();
    let reason = scene.unmet_by(Condition::Emitters, "there is no plugin `docker-optz`").await;
    assert!(reason.starts_with("--emit=docker-optz: "), "{reason}");
    let met = [Condition::Store, Condition::Config];
    assert!(met.iter().all(|condition| scene.reason(*condition).is_empty()), "{reason}");
    assert_eq!(scene.reason(Condition::Kernel), "starting");
    scene.plugins.with(|faults| {
        (faults.start, faults.advertise) = (None, Some(Reason::Trapped("oh".to_owned())));
    });
    scene.unmet_by(Condition::Plugins, "trapped: oh").await;
    assert_eq!(scene.reason(Condition::Emitters), "starting");
    scene.plugins.with(|faults| faults.advertise = None);
    scene.ready().await;
}

#[tokio::test(start_paused = true)]
async fn missing_plugin_is_looked_for_every_second() {
    let mut scene = Scene::new();
    scene.plugins.with(|faults| faults.start = Some(not_found));
    scene.start();
    scene.pass(60.0).await;
    let starts = scene.plugins.with(|faults| faults.starts);
    assert!((50..=61).contains(&starts), "{starts}");
}

#[tokio::test(start_paused = true)]
async fn plugin_that_does_not_compile_is_tried_with_backoff() {
    let mut scene = Scene::new();
    scene.plugins.with(|faults| faults.start = Some(does_not_compile));
    scene.start();
    scene.pass(300.0).await;
    // After 0, 1, 3, 7, 15, 31 and 63 s, and every minute from then on.
    assert_eq!(scene.plugins.with(|faults| faults.starts), 10);
}

#[tokio::test(start_paused = true)]
async fn config_that_the_plugin_rejects_is_named_and_replaced() {
    let mut scene = Scene::new();
    let (key, message) = ("Backend.VNI".to_owned(), "is 0: expected 1 to 16777215".to_owned());
    scene.plugins.with(|faults| faults.advertise = Some(Reason::Config { key, message }));
    scene.start();
    let reason = scene.unmet_by(Condition::Config, "Backend.VNI is 0").await;
    assert!(reason.starts_with("plugin vxlan, advertise: "), "{reason}");
    assert_eq!(scene.store.records().len(), 0);
    scene.plugins.with(|faults| faults.advertise = None);
    scene.ready().await;
}

#[tokio::test(start_paused = true)]
async fn plugin_that_traps_at_the_start_is_called_again() {
    let mut scene = Scene::new();
    scene.plugins.with(|faults| faults.advertise = Some(Reason::Trapped("oh".to_owned())));
    scene.start();
    scene.unmet_by(Condition::Plugins, "plugin vxlan, advertise: trapped: oh").await;
    scene.plugins.with(|faults| faults.advertise = None);
    let took = scene.ready().await;
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn failing_node_plan_keeps_the_leased_subnet() {
    let mut scene = Scene::new();
    scene.plugins.with(|faults| faults.plan_node = Some(Reason::Trapped("oh".to_owned())));
    scene.start();
    scene.unmet_by(Condition::Plugins, "plugin vxlan, plan-node: trapped").await;
    assert_eq!(own_key(&scene), "10.244.1.0-24");
    scene.pass(600.0).await;
    assert_eq!(own_key(&scene), "10.244.1.0-24");
    assert_eq!(scene.made(), 0);
    scene.plugins.with(|faults| faults.plan_node = None);
    scene.ready().await;
    assert_eq!(own_key(&scene), "10.244.1.0-24");
}

#[tokio::test(start_paused = true)]
async fn interface_that_does_not_exist_ends_the_node() {
    let mut scene = Scene::new();
    scene.flag("--iface=eth9");
    scene.start();
    let reason = scene.end().await;
    assert!(reason.contains("no interface matches --iface eth9"), "{reason}");
    assert_eq!(scene.store.records().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn host_without_a_default_route_ends_the_node() {
    let mut scene = Scene::new();
    scene.set_underlay(false);
    scene.start();
    let reason = scene.end().await;
    assert!(reason.contains("no IPv4 default route"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn interface_without_an_address_ends_the_node() {
    let mut scene = Scene::new();
    scene.set_address(None);
    scene.start();
    let reason = scene.end().await;
    assert!(reason.contains("eth0 has no IPv4 address"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn kernel_that_cannot_be_read_at_the_start_ends_the_node() {
    let mut scene = Scene::new();
    scene.blind(60);
    scene.start();
    let reason = scene.end().await;
    assert!(reason.starts_with("cannot read the interfaces: "), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn subnet_of_the_earlier_run_is_leased_again() {
    let scene = Scene::started().await;
    assert_eq!(own_key(&scene), "10.244.1.0-24");
}

#[tokio::test(start_paused = true)]
async fn lease_publishes_address_backend_and_identity() {
    let scene = Scene::started().await;
    let lease = scene.lease(1).unwrap();
    assert_eq!(lease.public_addresses(), [heddle_sim::plugin::address(1)].into());
    assert_eq!(lease.backend_type.as_deref(), Some("vxlan"));
    assert_eq!(
        lease.families.v4.as_ref().unwrap().backend_data.as_deref(),
        Some(r#"{"VtepMAC":"02:00:00:00:00:01"}"#)
    );
    assert_eq!(lease.node_id.unwrap().as_str(), "node-1");
    assert_eq!(lease.node_name.as_deref(), Some("n1"));
}

#[tokio::test(start_paused = true)]
async fn node_without_an_earlier_subnet_takes_a_free_one() {
    let mut scene = Scene::new();
    scene.plugins.with(|faults| faults.subnet_env.clear());
    scene.add_peer(7);
    scene.start();
    scene.ready().await;
    assert_ne!(own_key(&scene), "10.244.7.0-24");
    assert_eq!(scene.store.records().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn earlier_subnet_that_another_node_has_is_left_to_it() {
    let mut scene = Scene::new();
    scene.write(1, "192.168.0.50", 50);
    let before = scene.lease(1);
    scene.start();
    scene.ready().await;
    assert_ne!(own_key(&scene), "10.244.1.0-24");
    assert_eq!(scene.lease(1), before);
}

#[tokio::test(start_paused = true)]
async fn lease_with_own_address_precedes_the_earlier_subnet() {
    let mut scene = Scene::new();
    scene.write_value(5, r#"{"PublicIP":"192.168.0.1","BackendType":"udp"}"#);
    scene.start();
    scene.ready().await;
    assert_eq!(own_key(&scene), "10.244.5.0-24");
    assert_eq!(scene.lease(5).unwrap().backend_type.as_deref(), Some("vxlan"));
}

#[tokio::test(start_paused = true)]
async fn reservation_that_is_taken_over_stays_without_an_end() {
    let mut scene = Scene::new();
    scene.write_value(5, r#"{"PublicIP":"192.168.0.1"}"#);
    scene.start();
    scene.ready().await;
    let lease = scene.status().await.lease.unwrap();
    assert_eq!((lease.key.as_str(), lease.remaining), ("10.244.5.0-24", None));
}

#[tokio::test(start_paused = true)]
async fn address_that_another_node_publishes_ends_the_node() {
    let mut scene = Scene::new();
    scene.write_value(5, r#"{"PublicIP":"192.168.0.1","NodeID":"node-2"}"#);
    scene.store.hold(&key(5).to_string());
    scene.start();
    let reason = scene.end().await;
    assert!(reason.starts_with("public address 192.168.0.1 is already published by"), "{reason}");
    assert_eq!(scene.lease(5).unwrap().node_id.unwrap().as_str(), "node-2");
}

#[tokio::test(start_paused = true)]
async fn subnet_that_others_take_first_is_replaced_by_another() {
    let mut scene = Scene::new();
    scene.store.set_rivals(3);
    scene.start();
    scene.ready().await;
    assert_eq!(scene.store.records().len(), 4);
    assert_ne!(own_key(&scene), "10.244.1.0-24");
    assert_eq!(
        scene.lease(1).unwrap().public_addresses(),
        [heddle_sim::plugin::address(99)].into()
    );
}

#[tokio::test(start_paused = true)]
async fn node_without_a_free_subnet_waits_for_one() {
    let mut scene = Scene::new();
    scene.store.set_config(Some(ONE_SUBNET));
    scene.write(1, "192.168.0.50", 50);
    scene.start();
    let reason = scene.unmet_by(Condition::Lease, "no free /24").await;
    assert!(reason.contains("10.244.1.0"), "{reason}");
    assert_eq!(
        (scene.reason(Condition::Config), scene.reason(Condition::Underlay)),
        Default::default()
    );
    scene.pass(600.0).await;
    scene.delete_peer(1);
    let took = scene.ready().await;
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(own_key(&scene), "10.244.1.0-24");
}

#[tokio::test(start_paused = true)]
async fn subnet_inside_a_network_of_the_host_is_not_leased() {
    let mut scene = Scene::new();
    scene.add_network("10.244.1.1/23");
    scene.start();
    scene.ready().await;
    assert_ne!(own_key(&scene), "10.244.1.0-24");
}

#[tokio::test(start_paused = true)]
async fn subnet_with_an_address_of_the_store_is_not_leased() {
    let mut scene = Scene::new();
    scene.store.set_hosts(&["10.244.1.9"]);
    scene.start();
    scene.ready().await;
    assert_ne!(own_key(&scene), "10.244.1.0-24");
}

#[tokio::test(start_paused = true)]
async fn own_lease_that_conflicts_with_the_host_is_released() {
    let mut scene = Scene::new();
    scene.write_value(5, r#"{"PublicIP":"192.168.0.1","NodeID":"node-1"}"#);
    scene.store.set_hosts(&["10.244.5.9"]);
    scene.start();
    scene.ready().await;
    assert_eq!(own_key(&scene), "10.244.1.0-24");
    assert_eq!(scene.store.records().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn packet_path_that_cannot_be_opened_is_tried_every_second() {
    let mut scene = Scene::new();
    scene.plugins.with(|faults| (faults.tunnel, faults.open_failures) = (true, 5));
    scene.start();
    let reason = scene.unmet_by(Condition::Packets, "flannel0").await;
    let met = [Condition::Config, Condition::Underlay, Condition::Lease];
    assert!(met.iter().all(|condition| scene.reason(*condition).is_empty()), "{reason}");
    let took = scene.ready().await;
    assert!((4..7).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn earlier_backends_device_goes_before_the_packet_path_opens() {
    let mut scene = Scene::started().await;
    scene.crash().await;
    assert!(scene.has_device());
    scene.plugins.with(|faults| (faults.tunnel, faults.open_failures) = (true, 1000));
    scene.start();
    scene.unmet_by(Condition::Packets, "flannel0").await;
    assert!(!scene.has_device());
}

#[tokio::test(start_paused = true)]
async fn foreign_device_stays_when_the_packet_path_opens() {
    let mut scene = Scene::new();
    scene.add_device(DEVICE);
    scene.plugins.with(|faults| (faults.tunnel, faults.open_failures) = (true, 1000));
    scene.start();
    scene.unmet_by(Condition::Packets, "flannel0").await;
    let mark = scene.kernel.with(|state| state.devices[&name(DEVICE)].1);
    assert_eq!(mark, Mark::Foreign);
}

#[tokio::test(start_paused = true)]
async fn routes_of_an_earlier_network_are_removed() {
    let mut scene = Scene::new();
    let env = "FLANNEL_NETWORK=10.99.0.0/16\nFLANNEL_SUBNET=10.99.1.1/24\n";
    scene.plugins.with(|faults| faults.subnet_env = env.to_owned());
    let (inside, beside) = (
        foreign_route("10.99.7.0/24", UNDERLAY, Some(7)),
        foreign_route("10.98.7.0/24", UNDERLAY, Some(7)),
    );
    scene.kernel.with(|state| {
        state.put(&inside, Maker::Heddle).unwrap();
        state.put(&beside, Maker::Other).unwrap();
    });
    scene.start();
    scene.ready().await;
    assert_eq!(scene.object(&inside.key()), None);
    assert!(scene.object(&beside.key()).is_some());
}

#[tokio::test(start_paused = true)]
async fn blackhole_route_for_the_own_subnet_is_optional() {
    let last = ObjectKey::Route(net("10.244.1.0/24"), Metric::Last);
    let mut scene = Scene::started().await;
    assert_eq!(scene.object(&last), None);
    scene.crash().await;
    scene.flag("--ip-blackhole-route");
    scene.start();
    scene.ready().await;
    assert!(scene.object(&last).is_some());
}

#[tokio::test(start_paused = true)]
async fn node_changes_nothing_in_the_kernel_before_it_has_a_lease() {
    let mut scene = Scene::new();
    scene.store.set_config(Some(ONE_SUBNET));
    scene.write(1, "192.168.0.50", 50);
    scene.start();
    scene.unmet_by(Condition::Lease, "no free").await;
    scene.pass(120.0).await;
    assert_eq!(scene.made(), 0);
    assert!(!scene.has_device());
    assert_eq!(scene.object(&device()), None);
    assert_eq!(scene.plugins.with(|faults| faults.writes), 0);
    assert_eq!(
        scene.lease(1).unwrap().public_addresses(),
        [heddle_sim::plugin::address(50)].into()
    );
}
