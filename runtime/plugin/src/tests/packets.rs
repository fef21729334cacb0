//! Tests of plugins in the packet path.

use std::net::IpAddr;
use std::thread;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Returns arbitrary destinations.
fn destinations() -> Vec<IpAddr> {
    ["10.0.1.1", "10.0.2.2", "10.0.3.3"].map(ip).into()
}

fn with_backend(json: &str) -> NetworkConfig {
    let mut config = config();
    config.backend.json = json.into();
    config
}

/// Returns an instance of the misbehaving plugin whose only peer selects how it misbehaves. One
/// that hangs has the daemon's time limits; the others have generous ones, so that they do not fail
/// on a busy machine.
fn instance_of(plugin: Plugin, kind: &str) -> Result<PacketInstance, Reason> {
    let limits = if kind == "loop" { Limits::default() } else { patient() };
    let packets = plugin.limited(limits).packets().unwrap().unwrap();
    packets.instance(&site(), &[peer(1, kind)])
}

fn steering(kind: &str) -> PacketInstance {
    instance_of(misbehaving_plugin(World::PacketBackendPlugin), kind).unwrap()
}

fn transforming(kind: &str) -> PacketInstance {
    instance_of(misbehaving_plugin(World::TransformPlugin), kind).unwrap()
}

/// Returns the reason why a steering call failed.
fn stray(kind: &str) -> Reason {
    steering(kind).steer(&destinations(), &mut Vec::new()).unwrap_err()
}

/// Returns the reason why an encapsulation failed.
fn spoilt(kind: &str) -> Reason {
    transforming(kind).encapsulate(0, b"onetwo", &[3, 3]).unwrap_err()
}

#[tokio::test]
async fn embedded_udp_backend_plans_and_steers_into_a_tunnel() {
    let plugin = catalogue().find("udp", Role::Backend).unwrap().limited(patient());
    assert_eq!(plugin.manifest().world, World::PacketBackendPlugin);
    let backend = plugin.backend().unwrap();
    let site = site_of(with_backend(r#"{"Type":"udp"}"#));
    let plan = backend.plan_node(&site).await.unwrap();
    let (link, local) = ("flannel0".parse().unwrap(), vec![ip("192.168.0.72")]);
    assert_eq!(plan.tunnel, Some(Tunnel { link, local, port: 8285, overhead: 0 }));
    assert_eq!((plan.mtu, plan.links()), (1472, vec![link]));

    let packets = plugin.packets().unwrap().unwrap();
    assert_eq!((packets.name(), packets.transforms()), ("udp", false));
    let peers: Vec<Lease> = (0..3).map(|number| peer(number, "udp")).collect();
    let mut instance = packets.instance(&site, &peers).unwrap();
    let mut answers = vec![Some(7)];
    let destinations = ["10.0.2.9", "10.0.0.1", "10.0.3.1", "fd00::1"].map(ip);
    instance.steer(&destinations, &mut answers).unwrap();
    assert_eq!(answers, [Some(2), Some(0), None, None]);
    instance.steer(&[], &mut answers).unwrap();
    assert_eq!(answers, []);
    assert_eq!((packets.metrics().calls(), packets.metrics().failures()), (3, 0));
}

#[tokio::test]
async fn embedded_vxlan_tun_backend_carries_packets_between_nodes() {
    let plugin = catalogue().find("vxlan-tun", Role::Backend).unwrap().limited(patient());
    let backend = plugin.backend().unwrap();
    let config = with_backend(r#"{"Type":"vxlan-tun"}"#);
    let (here, mut there) = (node(), node());
    there.id = "node-b".parse().unwrap();
    let advertised = async |node: &Node, subnet: &str, public: &str| {
        let site = Site::new(config.clone(), node.clone());
        let advertisements = backend.advertise(&site).await.unwrap();
        let mut lease = lease(subnet, public, &advertisements.backend_type.unwrap());
        lease.families.v4.as_mut().unwrap().backend_data = advertisements.backend_data.v4;
        Arc::new(site.with_lease(lease))
    };
    let here = advertised(&here, "10.244.8.0/24", "192.168.0.72").await;
    let there = advertised(&there, "10.244.9.0/24", "192.168.0.73").await;

    let plan = backend.plan_node(&here).await.unwrap();
    let overhead = plan.tunnel.as_ref().unwrap().overhead;
    // Outer IPv4 and UDP, VXLAN and inner Ethernet headers.
    assert_eq!((overhead, plan.mtu), (8 + 14, 1500 - 50));

    let packets = plugin.packets().unwrap().unwrap();
    assert!(packets.transforms());
    let instance = |site: &Site, peer: &Site| {
        packets.instance(site, std::slice::from_ref(&peer.lease)).unwrap()
    };
    let mut sender = instance(&here, &there);
    let mut receiver = instance(&there, &here);
    let packet = [&[0x45], [1; 19].as_slice()].concat();
    let two = [packet.clone(), packet].concat();
    let (bytes, lengths) = sender.encapsulate(0, &two, &[20, 20]).unwrap();
    assert_eq!(lengths, [20 + overhead; 2]);
    assert_eq!(receiver.decapsulate(0, &bytes, &lengths).unwrap(), (two, vec![20, 20]));
    // Frames for another node are dropped.
    assert_eq!(sender.decapsulate(0, &bytes, &lengths).unwrap(), (vec![], vec![0, 0]));
}

#[tokio::test]
async fn plugin_that_only_plans_has_no_packet_path() {
    let plugin = catalogue().find("vxlan", Role::Backend).unwrap();
    assert!(plugin.packets().unwrap().is_none());
}

#[test]
fn plugin_that_lacks_exports_of_its_world_does_not_fit() {
    let native = compile(embedded_component("vxlan").unwrap(), Some(&compiler())).unwrap();
    let plugin = linked(&native, World::PacketBackendPlugin, &Runtime::new().unwrap());
    let error = plugin.packets().err().unwrap();
    assert!(matches!(error, PluginError::Load { .. }), "{error}");
    assert!(error.to_string().contains("heddle:overlay/steering"), "{error}");
}

#[test]
fn packet_instance_moves_to_another_thread() {
    let mut instance = steering("good");
    let answers = thread::spawn(move || {
        let mut answers = Vec::new();
        instance.steer(&destinations(), &mut answers).unwrap();
        answers
    });
    assert_eq!(answers.join().unwrap(), [Some(0); 3]);
}

#[test]
fn steering_that_panics_fails_with_its_message() {
    let Reason::Trapped(message) = stray("panic") else { panic!("not a trap") };
    assert!(message.starts_with("`unreachable`") && message.contains("at the disco"), "{message}");
    assert!(matches!(stray("hoard"), Reason::OutOfMemory { .. }));
}

#[test]
fn steering_that_hangs_is_stopped_and_others_continue() {
    let (mut bad, mut good) = (steering("loop"), steering("good"));
    let start = Instant::now();
    let reason = bad.steer(&destinations(), &mut Vec::new()).unwrap_err();
    assert_eq!(reason, Reason::TimedOut(Duration::from_millis(20)));
    assert!(start.elapsed() >= Duration::from_millis(20));
    assert!(bad.steer(&destinations(), &mut Vec::new()).is_err());
    assert_eq!(good.steer(&destinations(), &mut Vec::new()), Ok(()));
}

#[test]
fn steering_that_hangs_after_idle_time_is_stopped() {
    let runtime = Runtime::new().unwrap();
    let plugin = linked(misbehaving_code(), World::PacketBackendPlugin, &runtime);
    let mut instance = instance_of(plugin, "loop").unwrap();
    let start = Instant::now();
    while runtime.ticker().awake() {
        assert!(start.elapsed() < Duration::from_secs(60), "the ticker does not go to sleep");
        thread::sleep(Duration::from_millis(20));
    }
    let reason = instance.steer(&destinations(), &mut Vec::new()).unwrap_err();
    assert_eq!(reason, Reason::TimedOut(Duration::from_millis(20)));
}

#[test]
fn steering_answer_invalid_is_refused() {
    for (kind, message) in [
        ("short", "peers for 2 packets: expected 3, one for each"),
        ("long", "peers for 4 packets: expected 3, one for each"),
        ("range", "peer 1: expected one of 1"),
    ] {
        let Reason::Refused(refusal) = stray(kind) else { panic!("{kind} not refused") };
        assert_eq!(refusal.to_string(), message);
    }
    assert_eq!(stray("avalanche"), Reason::TooLong(8 << 20));
}

#[test]
fn plugin_that_fails_to_update_peers_has_no_instance() {
    let plugin = misbehaving_plugin(World::PacketBackendPlugin);
    let reason = instance_of(plugin, "update").err().unwrap();
    assert!(matches!(reason, Reason::Trapped(_)), "{reason}");
}

#[test]
fn output_in_the_packet_path_is_harmless() {
    let mut instance = steering("talk");
    for _ in 0..100 {
        instance.steer(&destinations(), &mut Vec::new()).unwrap();
    }
}

#[test]
fn packets_encapsulated_are_restored_by_decapsulation() {
    let mut instance = transforming("good");
    let (bytes, lengths) = instance.encapsulate(0, b"onethree", &[3, 5]).unwrap();
    assert_eq!((bytes.len(), lengths.as_slice()), (8 + 32, [19, 21].as_slice()));
    assert_eq!(&bytes[..3], b"one");
    let back = instance.decapsulate(0, &bytes, &lengths).unwrap();
    assert_eq!(back, (b"onethree".to_vec(), vec![3, 5]));
    // A payload that is not from the peer is dropped.
    assert_eq!(instance.decapsulate(0, b"forged", &[6]).unwrap(), (vec![], vec![0]));
    assert_eq!(instance.encapsulate(0, &[], &[]).unwrap(), (vec![], vec![]));
    let longest = vec![1; 45 * 1400];
    assert_eq!(instance.encapsulate(0, &longest, &[1400; 45]).unwrap().1, [1416; 45]);
}

#[test]
fn transform_answer_invalid_is_refused() {
    for (kind, message) in [
        ("fewer", "1 packets: expected 2, one for each"),
        ("sum", "packets of 39 bytes: expected 38, the sum of their lengths"),
        ("long", "packet of 20 bytes in place of 3: expected at most 19"),
    ] {
        let Reason::Refused(refusal) = spoilt(kind) else { panic!("{kind} not refused") };
        assert_eq!(refusal.to_string(), message);
    }
    assert_eq!(spoilt("loop"), Reason::TimedOut(Duration::from_millis(20)));
    assert!(matches!(spoilt("panic"), Reason::Trapped(_)));

    let (bytes, lengths) = transforming("good").encapsulate(0, b"one", &[3]).unwrap();
    let reason = transforming("long").decapsulate(0, &bytes, &lengths).unwrap_err();
    assert_eq!(
        reason.to_string(),
        "its answer is refused: packet of 65536 bytes in place of 19: expected at most 65535"
    );
}

#[test]
fn plugin_that_only_steers_does_not_transform() {
    let reason = steering("good").encapsulate(0, b"one", &[3]).unwrap_err();
    assert_eq!(
        reason.to_string(),
        "its answer is refused: misbehaving: expected a plugin of the world transform-plugin"
    );
}

#[tokio::test]
async fn plan_mtu_is_lowered_by_the_transform_overhead() {
    let plan = |world, backend| async move {
        let plugin = misbehaving_plugin(world).backend().unwrap();
        plugin.plan_node(&site_of(with_backend(backend))).await
    };
    let with_room = plan(World::TransformPlugin, "tun").await.unwrap();
    let without = plan(World::PacketBackendPlugin, "tun").await.unwrap();
    assert_eq!((with_room.mtu, without.mtu), (1456, 1472));
    assert_eq!(with_room.tunnel.as_ref().unwrap().overhead, 16);
    let device = with_room.plan.objects[0].to_string();
    assert!(device.starts_with("link flannel0 type tun mtu 1456"), "{device}");

    let error = plan(World::TransformPlugin, "tun huge").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin misbehaving, overhead: its answer is refused: overhead 2000: expected at most 1024 bytes"
    );
    let error = plan(World::TransformPlugin, "tun wrong").await.unwrap_err();
    assert_eq!(error.to_string(), "plugin misbehaving, overhead: Backend.Key is missing");
    let error = plan(World::BackendPlugin, "tun").await.unwrap_err();
    assert!(error.to_string().contains("expected packet-backend-plugin or"), "{error}");
}
