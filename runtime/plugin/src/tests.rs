//! Tests of real components in the real host: the embedded plugins, and one that misbehaves.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use heddle_core::config::{BackendConfig, NetworkConfig, OverlayNetwork};
use heddle_core::lease::{Lease, LeaseFamily};
use heddle_core::node::{Node, Underlay};
use heddle_core::object::Plan;
use heddle_core::site::{NoLease, Site};

use crate::engine::{Runtime, TrustedCode};
use crate::plugin::Admitted;
use crate::*;

mod packets;

fn config() -> NetworkConfig {
    NetworkConfig {
        networks: [OverlayNetwork {
            network: "10.0.0.0/8".parse().unwrap(),
            subnet_length: 24,
            subnet_min: "10.0.1.0".parse().unwrap(),
            subnet_max: "10.255.255.0".parse().unwrap(),
        }]
        .into(),
        nftables: false,
        backend: BackendConfig { kind: "vxlan".into(), json: r#"{"Type":"vxlan"}"#.into() },
    }
}

fn node() -> Node {
    Node {
        id: "node-a".parse().unwrap(),
        underlay: Underlay {
            link: "eth0".parse().unwrap(),
            mtu: 1500,
            addresses: vec!["192.168.0.72/24".parse().unwrap()],
            public_addresses: ["192.168.0.72".parse::<std::net::IpAddr>().unwrap()].into(),
        },
        links: vec![],
    }
}

fn site() -> Arc<Site> {
    site_of(config())
}

fn site_of(config: NetworkConfig) -> Arc<Site> {
    Arc::new(Site::new(config, node()).with_lease(own()))
}

fn unleased() -> Site<NoLease> {
    Site::new(config(), node())
}

fn lease(subnet: &str, public: &str, kind: &str) -> Lease {
    Lease {
        key: subnet.replace('/', "-").parse().unwrap(),
        families: [LeaseFamily {
            subnet: subnet.parse().unwrap(),
            public_address: public.parse().unwrap(),
            backend_data: Some(r#"{"VNI":1,"VtepMAC":"3a:8b:71:f2:2e:de"}"#.into()),
        }]
        .into(),
        backend_type: Some(kind.into()),
        node_id: None,
        node_name: None,
    }
}

fn own() -> Lease {
    lease("10.244.8.0/24", "192.168.0.72", "vxlan")
}

fn peer(number: usize, kind: &str) -> Lease {
    let (high, low) = (number / 256, number % 256);
    lease(&format!("10.{high}.{low}.0/24"), &format!("172.16.{high}.{low}"), kind)
}

fn catalogue() -> Catalogue {
    Catalogue::new(vec![], Some(compiler()), "/nonexistent/heddle-cache".into()).unwrap()
}

/// Returns the path of the compiler that the build script built. Cargo puts tests in a directory
/// below that of the binaries.
fn compiler() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().with_file_name("heddle-compiler")
}

/// Returns the code of the misbehaving plugin, built and compiled once for all tests.
fn misbehaving_code() -> &'static [u8] {
    static CODE: OnceLock<Vec<u8>> = OnceLock::new();
    CODE.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let built =
            guests::build(&root, &root.join("target/guests"), &["heddle-misbehaving"]).unwrap();
        compile(&fs::read(&built[0]).unwrap(), Some(&compiler())).unwrap()
    })
}

/// Links native code as a plugin of this world.
fn linked(native: &[u8], world: World, runtime: &Runtime) -> Plugin {
    let component = runtime.load(TrustedCode::vouch(native)).unwrap();
    let manifest = Manifest {
        name: "misbehaving".into(),
        version: semver::Version::new(0, 1, 0),
        wit: WIT_VERSION,
        world,
        capabilities: Capabilities::usual(),
        keys: None,
    };
    let source = PluginSource::File(PathBuf::from("misbehaving.wasm"));
    let admitted = Admitted { manifest, source, digest: String::new(), limits: Limits::default() };
    Plugin::link(admitted, runtime.clone(), &component).unwrap()
}

fn misbehaving_plugin(world: World) -> Plugin {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    linked(misbehaving_code(), world, RUNTIME.get_or_init(|| Runtime::new().unwrap()))
}

fn misbehaving(limits: Limits) -> Backend {
    misbehaving_plugin(World::BackendPlugin).limited(limits).backend().unwrap()
}

/// Returns limits for calls that end by themselves, generous enough for a busy machine.
fn patient() -> Limits {
    let long = Duration::from_secs(10);
    Limits { call: long, packet_call: long, ..Limits::default() }
}

/// Returns limits for calls that do not end by themselves.
fn quick() -> Limits {
    Limits { call: Duration::from_millis(200), ..Limits::default() }
}

async fn plan(backend: &Backend, peers: Vec<Lease>) -> Vec<Result<Plan, CallError>> {
    let links = vec!["flannel.1".parse().unwrap()];
    backend.plan_peers(&site(), links, peers).await
}

/// Returns the reason why a call failed for a peer that makes the plugin misbehave. Checks that the
/// two good peers around it do not suffer.
async fn reason(kind: &str) -> Reason {
    let backend = misbehaving(if kind == "loop" { quick() } else { patient() });
    let peers = vec![peer(1, "good"), peer(2, kind), peer(3, "good")];
    let mut answers = plan(&backend, peers).await;
    assert_eq!(answers.len(), 3);
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    let error = answers.remove(1).unwrap_err();
    let message = error.to_string();
    let start = "plugin misbehaving, plan-peer for lease 10.0.2.0-24 of 172.16.0.2: ";
    assert!(message.starts_with(start), "{message}");
    error.reason
}

#[test]
fn embedded_plugins_weigh_little() {
    use heddle_grant::weight;
    for name in ["vxlan", "udp", "vxlan-tun", "cni-conf"] {
        let weight = weight::of(embedded_component(name).unwrap()).unwrap();
        assert!((1..weight::LIMIT / 50).contains(&weight), "{name}: {weight}");
    }
}

#[tokio::test]
async fn embedded_vxlan_backend_plans_like_flannel() {
    let plugin = catalogue().find("vxlan", Role::Backend).unwrap();
    assert_eq!((plugin.source(), &plugin.manifest().wit), (&PluginSource::Embedded, &WIT_VERSION));
    assert_eq!(plugin.digest(), inspect(embedded_component("vxlan").unwrap()).unwrap().digest);
    let backend = plugin.backend().unwrap();

    let advertisements = backend.advertise(&unleased()).await.unwrap();
    assert_eq!(advertisements.backend_type.as_deref(), Some("vxlan"));
    let data = advertisements.backend_data.v4.unwrap();
    assert!(data.starts_with(r#"{"VNI":1,"VtepMAC":""#), "{data}");

    let node_plan = backend.plan_node(&site()).await.unwrap();
    assert_eq!(node_plan.mtu, 1450);
    let shown: Vec<_> = node_plan.plan.objects.iter().map(ToString::to_string).collect();
    assert!(shown[0].starts_with("link flannel.1 type vxlan mtu 1450 address "), "{shown:?}");
    assert!(shown[0].ends_with("id 1 local 192.168.0.72 dev eth0 dstport 8472 nolearning up"));
    assert_eq!(shown[1], "sysctl net.ipv6.conf.flannel.1.accept_ra = 0");
    assert_eq!(shown[2], "address 10.244.8.0/32 dev flannel.1");

    let peers = vec![peer(1, "vxlan"), peer(2, "host-gw")];
    let answers = backend.plan_peers(&site(), node_plan.links(), peers).await;
    let shown: Vec<_> =
        answers[0].as_ref().unwrap().objects.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "fdb 3a:8b:71:f2:2e:de dev flannel.1 dst 172.16.0.1",
            "neighbour 10.0.1.0 dev flannel.1 lladdr 3a:8b:71:f2:2e:de",
            "route 10.0.1.0/24 via 10.0.1.0 dev flannel.1 onlink",
        ]
    );
    assert_eq!(answers[1].as_ref().unwrap_err().reason, Reason::OtherBackend("host-gw".into()));
    assert_eq!((backend.metrics().calls(), backend.metrics().failures()), (4, 0));
    assert!(!backend.metrics().time().is_zero());
}

#[tokio::test]
async fn config_key_invalid_is_named_in_the_error() {
    let backend = catalogue().find("vxlan", Role::Backend).unwrap().backend().unwrap();
    let mut config = config();
    config.backend.json = r#"{"Type":"vxlan","VNI":"one"}"#.into();
    let error = backend.plan_node(&site_of(config)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin vxlan, plan-node: Backend.VNI is \"one\": expected a whole number from 0 to 9999999"
    );
}

#[tokio::test]
async fn embedded_emitter_writes_subnet_env() {
    let plugin = catalogue().find("subnet-env", Role::Emitter).unwrap();
    let emitter = plugin.emitter().unwrap();
    let view = View { site: site(), mtu: 1450, ip_masq: true };
    let setting = Setting { name: "path".into(), value: "/tmp/subnet.env".into() };
    let files = emitter.emit(&view, &[setting]).await.unwrap();
    assert_eq!(files[0].path, Path::new("/tmp/subnet.env"));
    assert_eq!(
        String::from_utf8(files[0].contents.clone()).unwrap(),
        "FLANNEL_NETWORK=10.0.0.0/8\nFLANNEL_SUBNET=10.244.8.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
    );
    let unknown = Setting { name: "pth".into(), value: String::new() };
    let error = emitter.emit(&view, &[unknown]).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin subnet-env, emit: setting `pth` is unknown: expected `path`"
    );
}

#[tokio::test]
async fn plugin_panic_fails_one_peer_with_its_message() {
    let Reason::Trapped(message) = reason("panic").await else { panic!("not a trap") };
    assert!(message.starts_with("`unreachable`") && message.contains("at the disco"), "{message}");
}

#[tokio::test]
async fn plugin_in_an_endless_loop_is_stopped() {
    let start = Instant::now();
    assert_eq!(reason("loop").await, Reason::TimedOut(Duration::from_millis(200)));
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn plugin_in_endless_recursion_is_stopped() {
    let Reason::Trapped(message) = reason("recurse").await else { panic!("not a trap") };
    assert!(message.contains("stack") || message.contains("out of bounds"), "{message}");
}

#[tokio::test]
async fn plugin_beyond_memory_limit_is_stopped() {
    let reason = reason("hoard").await;
    let Reason::OutOfMemory { limit, asked } = reason else { panic!("{reason}") };
    assert_eq!(limit, 64 << 20);
    assert!(asked > limit);
    assert!(reason.to_string().starts_with("exceeded the memory limit of 64 MiB (asked for 6"));
}

#[tokio::test]
async fn plugin_that_sleeps_traps() {
    let start = Instant::now();
    let Reason::Trapped(message) = reason("sleep").await else { panic!("not a trap") };
    assert!(message.contains("cannot wait"), "{message}");
    assert!(start.elapsed() < Duration::from_secs(600));
}

#[tokio::test]
async fn plugin_exit_ends_the_call_and_not_the_host() {
    let Reason::Trapped(message) = reason("exit").await else { panic!("not a trap") };
    assert!(message.contains("exited"), "{message}");
}

#[tokio::test]
async fn answer_that_breaks_a_rule_is_refused_as_a_whole() {
    for (kind, object, rule) in [
        ("twice", "route 10.0.2.0/24", "planned more than once"),
        ("crowd", "65 objects", "expected at most 64"),
        (
            "theft",
            "route 0.0.0.0/0 via 10.0.2.0 dev flannel.1 onlink",
            "expected within 10.0.2.0/24",
        ),
    ] {
        let Reason::Refused(refusal) = reason(kind).await else { panic!("{kind} not refused") };
        assert_eq!((refusal.object.as_str(), refusal.rule.as_str()), (object, rule));
    }
    let backend = misbehaving(patient());
    let error = backend.advertise(&unleased()).await.unwrap_err();
    assert!(error.to_string().contains("expected JSON"), "{error}");
    let error = backend.plan_node(&site()).await.unwrap_err();
    assert!(error.to_string().contains("address 192.168.0.72/24 dev eth0: expected"), "{error}");
    assert_eq!(backend.metrics().refusals(), 2);
}

#[tokio::test]
async fn answer_beyond_size_limit_fails_the_call() {
    let reason = reason("avalanche").await;
    // Whichever limit is reached first.
    assert!(matches!(reason, Reason::TooLong(_) | Reason::OutOfMemory { .. }), "{reason}");
}

#[tokio::test]
async fn plugin_message_is_cut_to_one_short_line() {
    let Reason::OtherBackend(text) = reason("other").await else { panic!("not refused") };
    assert!(!text.chars().any(char::is_control), "{text}");
    assert!(text.chars().count() <= 501);
}

#[tokio::test]
async fn plugin_that_floods_the_log_or_opens_files_is_harmless() {
    let backend = misbehaving(Limits::default());
    let answers = plan(&backend, vec![peer(1, "flood"), peer(2, "open")]).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

#[tokio::test]
async fn one_bad_peer_asked_about_repeatedly_suspends_nothing() {
    let backend = misbehaving(patient());
    for _ in 0..10 {
        let answers = plan(&backend, vec![peer(2, "panic")]).await;
        assert!(matches!(answers[0].as_ref().unwrap_err().reason, Reason::Trapped(_)));
    }
    let answers = plan(&backend, vec![peer(1, "good")]).await;
    assert!(answers[0].is_ok());
    assert_eq!(backend.metrics().failures(), 10);
}

#[tokio::test]
async fn plugin_failing_at_everything_is_suspended_then_good_first() {
    let backend = misbehaving(patient());
    let peers = || -> Vec<Lease> {
        (0..8).map(|n| peer(n, if n < 6 { "panic" } else { "good" })).collect()
    };
    let count = |answers: &[Result<Plan, CallError>]| {
        let mut counts = BTreeMap::<&str, usize>::new();
        for answer in answers {
            let what = match answer.as_ref().map_err(|error| &error.reason) {
                Ok(_) => "planned",
                Err(Reason::Trapped(_)) => "trapped",
                Err(Reason::Suspended { .. }) => "suspended",
                Err(_) => "else",
            };
            *counts.entry(what).or_default() += 1;
        }
        counts
    };
    let answers = plan(&backend, peers()).await;
    assert_eq!(count(&answers), BTreeMap::from([("trapped", 5), ("suspended", 3)]));
    let Reason::Suspended { rest, .. } = answers[7].as_ref().unwrap_err().reason else {
        panic!("{answers:?}")
    };
    assert!(rest <= Duration::from_secs(1));
    tokio::time::sleep(rest).await;
    let answers = plan(&backend, peers()).await;
    assert!(answers[6].is_ok() && answers[7].is_ok(), "{answers:?}");
}

#[test]
fn plugin_name_is_checked_before_the_file_system_is_read() {
    let long = "x".repeat(33);
    for name in ["", "../vxlan", "a/b", "Vxlan", "vx.lan", "vxlan\0", long.as_str()] {
        let error = catalogue().find(name, Role::Backend).err().unwrap();
        assert!(matches!(error, PluginError::Name(_)), "{name}: {error}");
    }
}

#[test]
fn plugin_not_found_error_names_the_searched_files() {
    let dirs = vec![PathBuf::from("/nonexistent/a"), PathBuf::from("/nonexistent/b")];
    let catalogue = Catalogue::new(dirs, None, "/nonexistent/cache".into()).unwrap();
    assert_eq!(
        catalogue.find("wireguard", Role::Backend).err().unwrap().to_string(),
        "there is no plugin `wireguard`: looked for /nonexistent/a/wireguard.wasm, /nonexistent/b/wireguard.wasm; \
         inside the binary are alloc, cni-conf, docker-opts, host-gw, subnet-env, udp, vxlan, vxlan-tun"
    );
}

/// Returns the error for a component that has a manifest and nothing else, in a plugin directory
/// under this name.
fn refused(name: &str, component: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(format!("{name}.wasm")), wat::parse_str(component).unwrap()).unwrap();
    let dirs = vec![dir.path().to_owned()];
    let catalogue = Catalogue::new(dirs, None, dir.path().join("cache")).unwrap();
    let error = catalogue.find(name, Role::Backend).err().unwrap();
    assert!(matches!(error, PluginError::Manifest { .. }), "{error}");
    error.to_string()
}

#[test]
fn file_not_for_this_host_is_refused_before_compilation() {
    let component = |name: &str, wit: &str, world: &str| {
        let manifest = format!(
            r#"{{\"name\":\"{name}\",\"version\":\"1.0.0\",\"wit\":\"{wit}\",\"world\":\"{world}\"}}"#
        );
        format!(r#"(component (core module (@custom "heddle:manifest" "{manifest}")))"#)
    };
    let newer = refused("new", &component("new", "0.2.0", "backend-plugin"));
    assert!(newer.contains("was built for WIT 0.2.0, and this host supports 0.1.0"), "{newer}");
    let renamed = refused("new", &component("old", "0.1.0", "backend-plugin"));
    assert!(renamed.contains("has the name `old`: expected `new`"), "{renamed}");
    let emitter = refused("new", &component("new", "0.1.0", "emitter-plugin"));
    assert!(emitter.contains("world emitter-plugin: expected backend-plugin"), "{emitter}");
    assert!(refused("new", "(component)").contains("has no manifest"));
    assert!(refused("new", "(module)").contains("not a WebAssembly component"));
}

#[test]
fn component_that_imports_a_newer_interface_does_not_fit() {
    let component = GOOD_MANIFEST.replace('"', "\\\"");
    let component = format!(
        r#"(component (import "heddle:overlay/log@0.2.0" (instance (export "flush" (func)))) (core module (@custom "heddle:manifest" "{component}")))"#
    );
    let bytes = wat::parse_str(component).unwrap();
    let opened = catalogue().open_component(PluginSource::File("new.wasm".into()), &bytes);
    let error = opened.err().unwrap().to_string();
    assert!(error.contains("cannot be loaded") && error.contains("log@0.2.0"), "{error}");
}

const GOOD_MANIFEST: &str =
    r#"{"name":"new","version":"1.0.0","wit":"0.1.0","world":"backend-plugin"}"#;

#[test]
fn file_unusable_does_not_fall_back_to_the_embedded_plugin() {
    assert!(refused("vxlan", "(component)").contains("has no manifest"));
}

/// Loads a component that was built when this version of the interface was finished.
fn fixture(version: &str, name: &str) -> Plugin {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let plugin = catalogue().open(&fixtures.join(version).join(format!("{name}.wasm"))).unwrap();
    plugin.limited(patient())
}

#[tokio::test]
async fn component_built_for_0_1_0_still_loads_and_answers() {
    for (name, world, mtu) in [
        ("vxlan", World::BackendPlugin, 1450),
        ("udp", World::PacketBackendPlugin, 1472),
        ("vxlan-tun", World::TransformPlugin, 1450),
    ] {
        let plugin = fixture("0.1.0", name);
        assert_eq!(plugin.manifest().wit, semver::Version::new(0, 1, 0));
        assert_eq!(plugin.manifest().world, world);
        let backend = plugin.backend().unwrap();
        let planned = backend.plan_node(&site()).await.unwrap();
        assert_eq!(planned.mtu, mtu, "{name}");
        let advertised = backend.advertise(&unleased()).await.unwrap();
        let peer = Lease { backend_type: advertised.backend_type, ..peer(1, "") };
        let peers = vec![peer.clone()];
        let plans = backend.plan_peers(&site(), planned.links(), peers).await;
        assert!(plans[0].is_ok(), "{name}: {plans:?}");
        let Some(packets) = plugin.packets().unwrap() else { continue };
        let mut instance = packets.instance(&site(), &[peer]).unwrap();
        let mut answers = Vec::new();
        instance.steer(&["10.0.1.9".parse().unwrap()], &mut answers).unwrap();
        assert_eq!(answers, [Some(0)], "{name}");
        if packets.transforms() {
            let (sent, _) = instance.encapsulate(0, &[0x45; 60], &[60]).unwrap();
            assert_eq!(sent.len(), 60 + 22, "{name}");
        }
    }
    let emitter = fixture("0.1.0", "subnet-env").emitter().unwrap();
    let view = View { site: site(), mtu: 1450, ip_masq: false };
    let files = emitter.emit(&view, &[]).await.unwrap();
    assert_eq!(files[0].path, Path::new("/run/flannel/subnet.env"));
}
