//! A host with networks of its own inside the overlay: it keeps them before, during and after the
//! daemon's run.

use std::collections::BTreeMap;
use std::time::Duration;

use heddle_lab::{Etcd, Families, Host, Lab, Signal, wait_until};
use heddle_tests::{Cluster, NETWORK_FOR_PEERS, Node, Peer, status};
use serde_json::Value;

/// Time limit for a change of leases or of the host's network to take effect, on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Networks of host `a`, on devices `lan1`, `lan2` and so on: the host's address in each, and
/// another host's address in each.
const LANS: [(&str, &str); 8] = [
    ("10.11.2.1/24", "10.11.2.77"),
    ("10.12.2.1/28", "10.12.2.9"),
    ("10.13.0.1/16", "10.13.99.5"),
    ("10.14.2.1/25", "10.14.2.100"),
    ("10.15.2.1/30", "10.15.2.2"),
    ("10.16.0.1/20", "10.16.9.9"),
    ("10.17.2.1/32", "10.17.2.1"),
    ("10.18.2.1/23", "10.18.3.3"),
];

/// The same for IPv6.
const LANS_V6: [(&str, &str); 2] =
    [("fd00:0:0:11::1/64", "fd00:0:0:11::77"), ("fd00:0:0:12::1/80", "fd00:0:0:12::9")];

/// Address of etcd, behind the default route.
const STORE: &str = "10.200.0.9";

/// An address inside a network to which host `a` has a static route.
const ROUTED: &str = "10.50.3.5";

/// Lease keys that claim the host's networks, without IPv6.
const GREEDY: [&str; 20] = [
    // The networks of its devices, parts of them, and networks around them.
    "10.11.2.0-24",
    "10.11.2.64-26",
    "10.12.2.0-28",
    "10.12.2.8-29",
    "10.12.2.0-24",
    "10.13.0.0-16",
    "10.13.99.0-24",
    "10.14.2.0-25",
    "10.14.2.100-32",
    "10.15.2.0-30",
    "10.16.9.0-24",
    "10.18.2.0-23",
    "10.18.3.0-24",
    // The underlay, and the node's address on it.
    "10.1.0.0-24",
    "10.1.0.0-25",
    // The store.
    "10.200.0.9-32",
    "10.200.0.0-24",
    "10.200.0.0-16",
    // The network of the static route, and the public address of the peer behind it.
    "10.50.3.0-24",
    "10.50.3.4-30",
];

/// The same for IPv6: the part behind `&`.
const GREEDY_V6: [&str; 4] = ["fd00:0:0:11::-64", "fd00:0:0:12::-80", "fd00::-64", "fd00::1-128"];

struct Scene {
    a: Node,
    b: Node,
    cluster: Cluster,
    backend: &'static str,
    before: BTreeMap<String, String>,
}

impl Scene {
    fn new(backend: &'static str) -> Self {
        let lab = Lab::new(Families::Dual).unwrap();
        let store = lab.host("etcd").unwrap();
        store.namespace().ip(&format!("address add {STORE}/32 dev lo")).unwrap();
        let hosts = ["a", "b"].map(|name| lab.host(name).unwrap());
        for (number, host) in (1..).zip(&hosts) {
            host.namespace().ip(&format!("address add 10.1.0.{number}/24 dev eth0")).unwrap();
            // The store's host is also the router.
            host.namespace().ip(&format!("route replace default via {}", store.v4())).unwrap();
        }
        let a = &hosts[0];
        for (number, (network, _)) in (1..).zip(LANS.iter().chain(&LANS_V6)) {
            lan(a, number, network);
        }
        a.namespace().ip(&format!("route add 10.50.0.0/16 via {}", store.v4())).unwrap();
        let etcd = Etcd::start_on(store, STORE.parse().unwrap()).unwrap();
        let config = format!(
            r#"{{"Network":"10.0.0.0/8","SubnetMin":"10.240.1.0","EnableIPv6":true,"IPv6Network":"fd00::/16","IPv6SubnetMin":"fd00:0:0:1000::","Backend":{{"Type":"{backend}"}}}}"#
        );
        let before = ways(a);
        let cluster = Cluster::with_etcd_and_config(lab, etcd, &config);
        let [a, b] = hosts;
        let start = |host: Host, number| {
            let address = format!("--iface=10.1.0.{number}");
            cluster.starting_node_on(host, &[&address])
        };
        let (mut a, mut b) = (start(a, 1), start(b, 2));
        a.daemon().wait_ready().unwrap();
        b.daemon().wait_ready().unwrap();
        Self { a, b, cluster, backend, before }
    }

    /// Writes a lease as nodes of the backend publish it.
    fn put(&self, key: &str, number: usize) {
        let data = |mac| match self.backend {
            "vxlan" | "vxlan-tun" => {
                format!(r#"{{"VNI":1,"VtepMAC":"02:00:00:{mac}:00:{number:02x}"}}"#)
            }
            _ => "null".to_owned(),
        };
        let kind = match self.backend {
            "udp" => String::new(),
            other => format!(r#""BackendType":"{other}","#),
        };
        let value = format!(
            r#"{{"PublicIP":"10.1.0.{}","PublicIPv6":"fd00::{number:x}",{kind}"BackendData":{},"BackendV6Data":{}}}"#,
            100 + number,
            data("04"),
            data("06"),
        );
        self.cluster.put_lease(key, &value);
    }

    fn greedy_keys() -> Vec<String> {
        let v4 = GREEDY.iter().map(ToString::to_string);
        v4.chain(GREEDY_V6.iter().map(|subnet| format!("0.0.0.0-0&{subnet}"))).collect()
    }

    /// Waits until a lease outside of the host's networks is programmed, which shows that all
    /// leases before it have been read.
    fn mark(&self, number: u8) {
        self.put(&format!("10.230.{number}.0-24"), 60 + usize::from(number));
        wait_until("a peer beside the host's networks", LIMIT, || {
            let way = way(&self.a.host, &format!("10.230.{number}.9"));
            let inside =
                [" dev flannel", " dev vtun", " via 10.1.0."].iter().any(|to| way.contains(to));
            if inside { Ok(()) } else { Err(way) }
        })
        .unwrap();
    }

    fn check(&self, when: &str) {
        assert_eq!(ways(&self.a.host), self.before, "{} {when}", self.backend);
    }

    /// Waits until the host's routes are as they were.
    fn wait(&self, when: &str) {
        wait_until(format!("the host's own ways, {} {when}", self.backend), LIMIT, || {
            let now = ways(&self.a.host);
            if now == self.before { Ok(()) } else { Err(format!("{now:#?}")) }
        })
        .unwrap();
    }

    /// Returns the daemon's reason for not using a record. Panics if the record is used.
    fn reason(&self, key: &str) -> String {
        let status = status(&self.a.host);
        let peers = status["peers"].as_array().unwrap();
        let peer = peers.iter().find(|peer| peer["key"] == key).unwrap_or(&Value::Null);
        assert_eq!(peer["state"], "not-used", "{key}: {peer:#}");
        peer["reason"].as_str().unwrap().to_owned()
    }
}

fn lan(host: &Host, number: usize, network: &str) {
    let namespace = host.namespace();
    namespace.ip(&format!("link add lan{number} type veth peer name far{number}")).unwrap();
    namespace.ip(&format!("link set far{number} up")).unwrap();
    namespace.ip(&format!("link set lan{number} up")).unwrap();
    let nodad = if network.contains(':') { " nodad" } else { "" };
    namespace.ip(&format!("address add {network} dev lan{number}{nodad}")).unwrap();
}

/// Returns the route to an address: device, gateway and source.
fn way(host: &Host, address: &str) -> String {
    let text =
        host.namespace().ip(&format!("route get {address}")).unwrap_or_else(|e| e.to_string());
    let line = text.lines().next().unwrap_or_default();
    line.split(" uid ").next().unwrap_or_default().trim().to_owned()
}

/// Returns the routes to all addresses outside of the overlay.
fn ways(host: &Host) -> BTreeMap<String, String> {
    let lans = LANS
        .iter()
        .chain(&LANS_V6)
        .flat_map(|(own, other)| [own.split_once('/').unwrap().0, *other]);
    let others =
        [STORE, ROUTED, "10.1.0.1", "10.1.0.2", "192.168.255.254", "203.0.113.9", "fd00::1"];
    let addresses = lans.chain(others);
    addresses.map(|address| (address.to_owned(), way(host, address))).collect()
}

#[expect(clippy::too_many_lines, reason = "one scenario, told in order")]
fn host_keeps_its_networks(backend: &'static str) {
    let mut scene = Scene::new(backend);
    scene.check("after the start");
    let text = scene.a.daemon().health("/readyz").unwrap();
    assert_eq!(text.0, 200);
    assert!(text.1.contains("warning: 10.0.0.0/8 overlaps 10.11.2.0/24"), "{text:?}");
    let (one, two) = (scene.a.host.container().unwrap(), scene.b.host.container().unwrap());
    one.ping(two.addresses()[0], 56).unwrap();

    for (number, key) in Scene::greedy_keys().iter().enumerate() {
        scene.put(key, number);
    }
    scene.mark(1);
    scene.check("with hostile leases");
    assert!(scene.reason("10.11.2.64-26").contains("10.11.2.0/24, which is connected to lan1"));
    assert!(scene.reason("10.50.3.0-24").contains("10.50.0.0/16, which this host routes"));
    assert!(scene.reason("10.200.0.0-24").contains("an address of the lease store"));
    one.ping(two.addresses()[0], 56).unwrap();

    // Networks and routes that come and go, and were leased before.
    scene.put("10.98.4.0-24", 98);
    scene.put("10.99.1.0-24", 99);
    let is_own = |address: &str, to: &str| {
        let now = way(&scene.a.host, address);
        if now.contains(to) { Ok(()) } else { Err(now) }
    };
    let overlay = match backend {
        "host-gw" => "via 10.1.0.19",
        "vxlan-tun" => "dev vtun",
        _ => "dev flannel",
    };
    wait_until("a lease", LIMIT, || is_own("10.99.1.9", overlay)).unwrap();
    wait_until("a lease", LIMIT, || is_own("10.98.4.9", overlay)).unwrap();
    lan(&scene.a.host, 99, "10.99.1.1/24");
    scene.a.ip("route add 10.98.0.0/16 via 192.168.255.254");
    wait_until("a new network", LIMIT, || is_own("10.99.1.9", "dev lan99")).unwrap();
    wait_until("a new route", LIMIT, || is_own("10.98.4.9", "via 192.168.255.254")).unwrap();
    wait_until("the reason", LIMIT, || {
        match status(&scene.a.host)
            .to_string()
            .contains("10.99.1.0/24, which is connected to lan99")
        {
            true => Ok(()),
            false => Err("not told"),
        }
    })
    .unwrap();
    scene.check("with networks that have come");
    scene.a.ip("link del lan99");
    scene.a.ip("route del 10.98.0.0/16");
    wait_until("the lease again", LIMIT, || is_own("10.99.1.9", overlay)).unwrap();
    wait_until("the lease again", LIMIT, || is_own("10.98.4.9", overlay)).unwrap();
    scene.check("with networks that have gone");

    // A start finds the same state, plus leftovers of an earlier version.
    scene.a.stop(Signal::KILL);
    scene.a.ip("route replace 10.11.2.0/24 via 10.1.0.77 dev eth0 proto 72");
    scene.a.ip("route add 10.12.2.8/29 via 10.1.0.77 dev eth0 proto 72");
    scene.a.ip("route del 10.13.0.0/16 dev lan3");
    scene.a.ip("route replace 10.1.0.0/24 via 192.168.0.99 dev eth0 proto 72");
    scene.a.ip(&format!("route add {STORE}/32 via 192.168.0.99 dev eth0 proto 72"));
    scene.cluster.restart(&mut scene.a);
    scene.wait("after a start with an earlier version's damage");
    one.ping(two.addresses()[0], 56).unwrap();

    for key in Scene::greedy_keys() {
        scene.cluster.delete_lease(&key);
    }
    scene.mark(2);
    scene.check("when they are gone");
    scene.a.stop(Signal::TERM);
    scene.wait("when the daemon has ended");
    scene.b.daemon().check_running().unwrap();
}

#[test]
fn vxlan_keeps_host_networks() {
    host_keeps_its_networks("vxlan");
}

#[test]
fn host_gw_keeps_host_networks() {
    host_keeps_its_networks("host-gw");
}

#[test]
fn udp_keeps_host_networks() {
    host_keeps_its_networks("udp");
}

#[test]
fn vxlan_tun_keeps_host_networks() {
    host_keeps_its_networks("vxlan-tun");
}

#[test]
fn node_leases_no_subnet_of_its_host() {
    let lab = Lab::new(Families::V4).unwrap();
    let etcd = Etcd::start(&lab).unwrap();
    // Two subnets, one of which is on a device.
    let config =
        r#"{"Network":"10.9.0.0/22","SubnetLen":24,"SubnetMin":"10.9.1.0","SubnetMax":"10.9.2.0"}"#;
    let cluster = Cluster::with_etcd_and_config(lab, etcd, config);
    let hosts = ["a", "b"].map(|name| cluster.host(name));
    for host in &hosts {
        lan(host, 1, "10.9.1.1/26");
    }
    let [a, b] = hosts;
    let a = cluster.node_on(a);
    assert_eq!(cluster.subnets(&a)[0].to_string(), "10.9.2.0/24");
    let mut b = cluster.starting_node_on(b, &[]);
    let log = b.daemon().wait_log(&["ERROR", "10.9.1.0/26", "SubnetMin"], LIMIT).unwrap();
    assert!(log.contains("no free /24"), "{log}");
    let (status, text) = b.daemon().health("/readyz").unwrap();
    assert_eq!(status, 503);
    assert!(
        text.contains("overlaps a network of this host") && text.contains("(10.9.1.0/26)"),
        "{text}"
    );
}

/// Creates a cluster whose store is at [`STORE`], behind the router of its hosts, and a host in it.
fn behind_router(config: &str) -> (Cluster, Host) {
    let lab = Lab::new(Families::V4).unwrap();
    let store = lab.host("etcd").unwrap();
    store.namespace().ip(&format!("address add {STORE}/32 dev lo")).unwrap();
    let host = lab.host("a").unwrap();
    host.namespace().ip(&format!("route replace default via {}", store.v4())).unwrap();
    let etcd = Etcd::start_on(store, STORE.parse().unwrap()).unwrap();
    (Cluster::with_etcd_and_config(lab, etcd, config), host)
}

#[test]
fn network_of_down_device_does_not_hide_store_route() {
    let (cluster, host) = behind_router(NETWORK_FOR_PEERS);
    lan(&host, 1, "10.200.0.1/25");
    host.namespace().ip("link set lan1 down").unwrap();
    let before = way(&host, STORE);
    let node = cluster.node_on(host);
    // The subnet contains the store, and the network of the device that is down.
    let hostile = Peer(9).value();
    cluster.put_lease("10.200.0.0-24", &hostile);
    let is_named = || {
        let found = status(&node.host).to_string();
        if found.contains("10.200.0.0/24 contains 10.200.0.9") { Ok(()) } else { Err(found) }
    };
    wait_until("the conflict", LIMIT, is_named).unwrap();
    assert_eq!(way(&node.host, STORE), before);
}

#[test]
fn leftovers_on_connected_network_are_removed_without_store() {
    let (mut cluster, host) = behind_router(NETWORK_FOR_PEERS);
    let mut node = cluster.node_on(host);
    node.stop(Signal::KILL);
    cluster.etcd_mut().stop();
    lan(&node.host, 1, "10.98.1.1/24");
    lan(&node.host, 2, "10.97.1.1/16");
    let before = ["10.98.1.9", "10.97.3.9"].map(|address| way(&node.host, address));
    // Objects of an earlier run, from a time when the host did not have these networks.
    node.ip("route replace 10.98.1.0/24 via 192.168.0.77 dev eth0 proto 72");
    node.ip("route add 10.97.3.0/24 via 192.168.0.77 dev eth0 proto 72");
    let node = cluster.starting_node_on(node.host, &[]);
    let ways = || ["10.98.1.9", "10.97.3.9"].map(|address| way(&node.host, address));
    let are_back = || if ways() == before { Ok(()) } else { Err(format!("{:?}", ways())) };
    wait_until("the host's networks without a store", LIMIT, are_back).unwrap();
}
