//! Plugins in other languages: the examples of `sdk/examples`, built by their own scripts and run
//! by the daemon.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use heddle_lab::{
    Container, Error, Families, FdbEntry, KernelState, Neighbour, Route, Signal, transfer,
    wait_until,
};
use heddle_tests::{Cluster, Node, Overlay, PROTOCOL, SOON, heddle, status};
use serde_json::{Value, json};

const DUAL: &[Overlay] = &[Overlay::V4, Overlay::V6];

/// Time limit for the daemon to compile a plugin of many megabytes on a loaded machine, and to be
/// ready.
const COMPILED: Duration = Duration::from_secs(90);

/// Size in bytes of the transferred file, which must arrive intact.
const BYTES: u64 = 20_000_000;

/// Builds the component of an example with its own script.
fn example(language: &str, plugin: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/examples").join(language);
    let output = Command::new(directory.join("build")).env("HEDDLE", heddle()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "sdk/examples/{language}/build failed:\n\n{errors}");
    directory.join("target").join(plugin).with_extension("wasm")
}

/// Returns the backend in JavaScript, building it on first use.
fn javascript() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| example("javascript", "vxlan-js"))
}

/// Returns the packet backend in C, building it on first use.
fn c() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| example("c", "udp-c"))
}

/// A cluster whose nodes load one plugin from a directory.
struct Place {
    cluster: Cluster,
    flags: Vec<String>,
    plugin: PathBuf,
}

impl Place {
    /// Installs a plugin, with this network config.
    fn new(component: &Path, config: &str) -> Self {
        let cluster = Cluster::with_config(Families::Dual, Some(config));
        let directory = cluster.lab().directory();
        let (plugins, cache) = (directory.join("plugins"), directory.join("cache"));
        fs::create_dir(&plugins).unwrap();
        let plugin = plugins.join(component.file_name().unwrap());
        fs::copy(component, &plugin).unwrap();
        // With a common cache, the first node compiles it and all others load it.
        let flags = [("--plugin-dir", plugins), ("--cache-dir", cache)]
            .map(|(flag, directory)| format!("{flag}={}", directory.display()));
        Self { flags: flags.into(), plugin, cluster }
    }

    /// Creates a host and starts its daemon with additional flags, without waiting.
    fn starting_node(&self, name: &str, flags: &[&str]) -> Node {
        let flags: Vec<_> =
            self.flags.iter().map(String::as_str).chain(flags.iter().copied()).collect();
        self.cluster.starting_node(name, &flags)
    }

    /// Starts two nodes, and waits until they are ready.
    fn pair(&self) -> [Node; 2] {
        ["a", "b"].map(|name| {
            let mut node = self.starting_node(name, &[]);
            wait_compiled(&mut node);
            node
        })
    }

    /// Asserts that a status reports this plugin's source and no failed calls.
    fn check_metrics(&self, plugin: &Value) {
        assert_eq!(plugin["source"], json!({ "path": self.plugin }), "{plugin:#}");
        assert_eq!(
            (&plugin["failures"], &plugin["refusals"]),
            (&json!(0), &json!(0)),
            "{plugin:#}"
        );
        assert!(plugin["calls"].as_u64().unwrap() > 0, "{plugin:#}");
    }
}

fn wait_compiled(node: &mut Node) {
    wait_until(format!("{} to be ready", node.host.name()), COMPILED, || {
        match node.daemon().health("/readyz") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .unwrap();
    node.daemon().wait_ready().unwrap();
}

/// Starts a container on each node, and waits until they answer each other in every family, with
/// packets of the full MTU.
fn reachable_containers(nodes: &[Node; 2]) -> [Container; 2] {
    let containers = nodes.each_ref().map(|node| node.host.container().unwrap());
    let mtu = nodes[0].host.subnet_env().unwrap().mtu.unwrap();
    let [in_a, in_b] = &containers;
    for (from, to) in [(in_a, in_b), (in_b, in_a)] {
        assert_eq!(to.addresses().len(), DUAL.len());
        for &address in to.addresses() {
            let headers = if address.is_ipv4() { 28 } else { 48 };
            from.ping(address, mtu - headers).unwrap();
        }
    }
    containers
}

fn mac(node: &Node, overlay: Overlay) -> String {
    node.link(overlay.device())["address"].as_str().unwrap().to_owned()
}

/// Returns the objects that a VXLAN device should have for a peer, in one family.
fn objects_for(cluster: &Cluster, peer: &Node, overlay: Overlay) -> KernelState {
    let device = overlay.device().to_owned();
    let subnet = cluster.subnet(peer, overlay);
    let route = Route {
        dst: subnet.to_string(),
        gateway: Some(subnet.addr().to_string()),
        dev: Some(device.clone()),
        kind: None,
        protocol: Some(PROTOCOL.into()),
        flags: vec!["onlink".into()],
        // The kernel's default metric for IPv6 is IP6_RT_PRIO_USER.
        metric: (overlay == Overlay::V6).then_some(1024),
    };
    let neighbour = Neighbour {
        dst: subnet.addr().to_string(),
        dev: device.clone(),
        lladdr: Some(mac(peer, overlay)),
        state: vec!["PERMANENT".into()],
    };
    let fdb_entry = FdbEntry {
        mac: mac(peer, overlay),
        ifname: device,
        dst: Some(overlay.address_of(&peer.host).to_string()),
        flags: vec!["self".into()],
        state: "permanent".into(),
    };
    KernelState { routes: [route].into(), neighbours: [neighbour].into(), fdb: [fdb_entry].into() }
}

/// Returns a device's addresses with global scope, as `ip` shows them.
fn global_addresses(node: &Node, device: &str) -> Vec<String> {
    let link = node.link(device);
    let addresses = link["addr_info"].as_array().unwrap().iter();
    addresses
        .filter(|info| info["scope"] == "global")
        .map(|info| format!("{}/{}", info["local"].as_str().unwrap(), info["prefixlen"]))
        .collect()
}

/// Returns the first address of a node's subnet, as a single-address prefix.
fn own_address(cluster: &Cluster, node: &Node, overlay: Overlay) -> String {
    let subnet = cluster.subnet(node, overlay);
    format!("{}/{}", subnet.addr(), subnet.max_prefix_len())
}

/// Checks the whole visible state of a node with vxlan-js.
fn check_vxlan(cluster: &Cluster, node: &Node, peer: &Node) {
    for &overlay in DUAL {
        let device = overlay.device();
        let link = node.link(device);
        let data = &link["linkinfo"]["info_data"];
        let (local, mtu) = if overlay == Overlay::V4 { ("local", 1450) } else { ("local6", 1430) };
        assert_eq!((&data["id"], &data["port"]), (&json!(1), &json!(8472)), "{link:#}");
        assert_eq!(data[local], overlay.address_of(&node.host).to_string(), "{link:#}");
        assert_eq!((&data["link"], &data["learning"]), (&json!("eth0"), &json!(false)), "{link:#}");
        assert_eq!(link["mtu"], mtu, "{link:#}");
        assert_eq!(global_addresses(node, device), [own_address(cluster, node, overlay)]);
        let accept_ra = node.host.namespace().sysctl(&format!("ipv6/conf/{device}/accept_ra"));
        assert_eq!(accept_ra.unwrap(), "0");

        let expected = objects_for(cluster, peer, overlay);
        wait_until("the peer's objects", SOON, || {
            let found = node.objects(device);
            if found == expected { Ok(()) } else { Err(format!("{found:#?}")) }
        })
        .unwrap();
    }
    let data = |overlay| Some(format!(r#"{{"VNI":1,"VtepMAC":"{}"}}"#, mac(node, overlay)));
    assert_eq!(cluster.lease(node).value, node.lease_value(DUAL, Some("vxlan-js"), data));
    let env = fs::read_to_string(node.host.subnet_file()).unwrap();
    assert_eq!(env, cluster.subnet_env(node, 1430));
}

#[test]
fn javascript_backend_connects_containers() {
    let place = Place::new(javascript(), &Families::Dual.config_with("vxlan-js"));
    let cluster = &place.cluster;
    let mut nodes = place.pair();
    let [a, b] = &nodes;
    for (node, peer) in [(a, b), (b, a)] {
        check_vxlan(cluster, node, peer);
    }
    reachable_containers(&nodes);

    // An existing device keeps its MAC, whatever its origin.
    nodes[0].stop(Signal::TERM);
    nodes[0].ip("link set dev flannel.1 address 02:00:00:00:00:17");
    cluster.restart(&mut nodes[0]);
    assert_eq!(mac(&nodes[0], Overlay::V4), "02:00:00:00:00:17");
    let [a, b] = &nodes;
    for (node, peer) in [(a, b), (b, a)] {
        check_vxlan(cluster, node, peer);
        place.check_metrics(&status(&node.host)["backend"]);
    }
    reachable_containers(&nodes);
}

#[test]
fn javascript_backend_reports_errors() {
    let config = |keys: &str| {
        let config = Families::Dual.config_with("vxlan-js");
        config.replace(r#""Type""#, &format!(r#"{keys},"Type""#))
    };
    let place = Place::new(javascript(), &config(r#""vni":10000"#));
    let mut node = place.starting_node("a", &[]);
    let rule = "Backend.VNI is 10000: expected at most 9999";
    node.daemon().wait_log(&[rule], COMPILED).unwrap();

    place.cluster.store().put_config(&config(r#""vni":7,"PORT":4789"#)).unwrap();
    wait_compiled(&mut node);
    for device in ["flannel.7", "flannel-v6.7"] {
        assert_eq!(node.link(device)["linkinfo"]["info_data"]["port"], 4789, "{device}");
    }

    let peer = |data: &str| {
        format!(
            r#"{{"PublicIP":"192.168.100.9","PublicIPv6":null,"BackendType":"vxlan-js","BackendData":{data}}}"#
        )
    };
    for (data, rule) in [
        (r#"{"VNI":1}"#, "BackendData.VNI is 1: expected 7, as in the network config"),
        (
            r#"{"VNI":7,"VtepMAC":"01:00:5e:00:00:01"}"#,
            "BackendData.VtepMAC is 01:00:5e:00:00:01: expected a unicast address",
        ),
        ("null", "BackendData is missing: expected an object"),
    ] {
        place.cluster.put_lease("10.244.250.0-24", &peer(data));
        node.daemon().wait_log(&["10.244.250.0-24", rule], SOON).unwrap();
    }
    assert_eq!(node.routes(), []);
    let good = peer(r#"{"VNI":7,"VtepMAC":"02:00:00:00:00:09"}"#);
    place.cluster.put_lease("10.244.250.0-24", &good);
    wait_until("the peer's route", SOON, || match &node.routes()[..] {
        [route] if route.dst == "10.244.250.0/24" => Ok(()),
        routes => Err(format!("{routes:#?}")),
    })
    .unwrap();
    place.check_metrics(&status(&node.host)["backend"]);
}

/// Checks the whole visible state of a node with udp-c.
fn check_udp(cluster: &Cluster, node: &Node) {
    let device = "flannel0";
    assert_eq!(node.devices(), [device]);
    let link = node.link(device);
    assert_eq!(link["linkinfo"]["info_kind"], "tun", "{link:#}");
    assert_eq!(link["mtu"], 1452, "{link:#}");
    let own = DUAL.iter().map(|&overlay| own_address(cluster, node, overlay));
    assert_eq!(global_addresses(node, device), own.collect::<Vec<_>>());
    let accept_ra = node.host.namespace().sysctl(&format!("ipv6/conf/{device}/accept_ra"));
    assert_eq!(accept_ra.unwrap(), "0");
    let routes: Vec<_> = node.routes().into_iter().map(|route| (route.dst, route.dev)).collect();
    let expected = DUAL.iter().map(|overlay| (overlay.network().to_owned(), Some(device.into())));
    assert_eq!(routes, expected.collect::<Vec<_>>());
    assert_eq!(cluster.lease(node).value, node.lease_value(DUAL, None, |_| None));
    let env = fs::read_to_string(node.host.subnet_file()).unwrap();
    assert_eq!(env, cluster.subnet_env(node, 1452));
}

/// Returns true if a program on the node uses this UDP port.
fn has_port(node: &Node, address: IpAddr, port: u16) -> bool {
    match node.host.namespace().udp_socket(SocketAddr::new(address, port)) {
        Ok(_) => false,
        Err(Error::Io { source, .. }) => {
            assert_eq!(source.kind(), ErrorKind::AddrInUse, "{source}");
            true
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn c_packet_backend_carries_packets_and_files() {
    let place = Place::new(c(), &Families::Dual.config_with("udp-c"));
    let nodes = place.pair();
    // The kernel may have sent packets before the plugin was loaded.
    let early = nodes.each_ref().map(|node| node.counters()["plugin"]);
    for node in &nodes {
        check_udp(&place.cluster, node);
        for &overlay in DUAL {
            assert!(has_port(node, overlay.address_of(&node.host), 8285));
        }
    }

    let [in_a, in_b] = reachable_containers(&nodes);
    for (from, to) in [(&in_a, &in_b), (&in_b, &in_a)] {
        for &address in to.addresses() {
            let moved = transfer(from.namespace(), to.namespace(), address, BYTES, None).unwrap();
            assert!(moved.bytes == BYTES && moved.is_whole(), "{moved:?}");
        }
    }
    for (node, early) in nodes.iter().zip(early) {
        place.check_metrics(&status(&node.host)["backend"]);
        let counters = node.counters();
        assert!(counters["sent_bytes"] > 2 * BYTES, "{counters:#?}");
        // Counters of plugin failures, and of packets that a plugin sent to the wrong peer.
        assert_eq!(counters["plugin"], early, "{counters:#?}");
        for mishap in ["fallback", "spoofed_inner", "spoofed_outer", "send_errors"] {
            assert_eq!(counters[mishap], 0, "{counters:#?}");
        }
    }
    // Inside the overlay, but in no node's subnet.
    let nobody = "10.244.255.1".parse().unwrap();
    assert!(in_a.ping(nobody, 56).is_err());
    assert!(nodes[0].counters()["no_route"] > 0);
}

#[test]
fn c_packet_backend_reports_errors() {
    let config = |port: &str| {
        let config = Families::Dual.config_with("udp-c");
        config.replace(r#""Type""#, &format!(r#""NotPort":[{{"Port":"}}"}}],"pOrT":{port},"Type""#))
    };
    let place = Place::new(c(), &config("65536"));
    let mut node = place.starting_node("a", &[]);
    for (port, found) in [("65536", "65536"), (r#"{"a":[1]}"#, r#"{"a":[1]}"#), ("-1", "-1")] {
        place.cluster.store().put_config(&config(port)).unwrap();
        let rule = format!("Backend.Port is {found}: expected a whole number from 0 to 65535");
        node.daemon().wait_log(&[&rule], SOON).unwrap();
    }
    place.cluster.store().put_config(&config("9000")).unwrap();
    node.daemon().wait_ready().unwrap();
    assert!(has_port(&node, node.host.v4().into(), 9000));
    assert!(!has_port(&node, node.host.v4().into(), 8285));
    place.cluster.put_lease(
        "10.244.250.0-24",
        r#"{"PublicIP":"192.168.100.9","PublicIPv6":null,"BackendType":"vxlan"}"#,
    );
    node.daemon().wait_log(&["10.244.250.0-24", "vxlan"], SOON).unwrap();
    place.check_metrics(&status(&node.host)["backend"]);
}

#[test]
fn c_packet_backend_passes_random_checks() {
    let mut command = Command::new(heddle());
    let output = command.args(["plugin", "check", "--rounds=1000"]).arg(c()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn python_emitter_writes_its_file() {
    let component = example("python", "subnet-json");
    let place = Place::new(&component, &Families::Dual.config());
    let file = place.cluster.lab().directory().join("a/run/flannel/subnet.json");
    let emit = format!("--emit=subnet-json:path={}", file.display());
    let mut node = place.starting_node("a", &["--emit=subnet-env", &emit, "--ip-masq"]);
    wait_compiled(&mut node);

    let text = fs::read_to_string(&file).unwrap();
    let written: Value = serde_json::from_str(&text).unwrap();
    let networks = DUAL.iter().map(|&overlay| {
        let subnet = place.cluster.subnet(&node, overlay);
        let bridge = format!(
            "{}/{}",
            subnet.hosts().find(|host| *host != subnet.addr()).unwrap(),
            subnet.prefix_len()
        );
        json!({ "network": overlay.network(), "subnet": subnet.to_string(), "bridge": bridge })
    });
    let expected =
        json!({ "networks": networks.collect::<Vec<_>>(), "mtu": 1430, "ip-masq": true });
    assert_eq!(written, expected, "{text}");
    assert!(text.ends_with("}\n"), "{text}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o644);
    place.check_metrics(&status(&node.host)["emitters"][1]["plugin"]);

    let mut other = place.starting_node("b", &["--emit=subnet-json:pth=/nowhere"]);
    let rule = "setting `pth` is unknown: expected `path`";
    other.daemon().wait_log(&["subnet-json", rule], COMPILED).unwrap();
}
