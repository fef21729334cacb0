//! Drift repair: objects that another program deletes or changes are restored within one second,
//! without touching others.

use heddle_lab::{Families, Monitor, Signal, wait_until};
use heddle_tests::{Cluster, HEALED, NETWORK_FOR_PEERS, Node, Peer, SOON, Snapshot};
use serde_json::Value;

/// A node with two peers. All changes are made to objects of the first.
struct Scene {
    /// Dropped before the cluster, which it belongs to.
    node: Node,
    peers: Vec<Peer>,
    _cluster: Cluster,
}

impl Scene {
    fn new() -> Self {
        let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
        let peers = Peer::range(1, 2);
        cluster.etcd().put_all(&Peer::leases(&peers), 2).unwrap();
        let node = cluster.node("a");
        Self { node, peers, _cluster: cluster }
    }

    fn everything(&self) -> Snapshot {
        Snapshot::of(&self.node)
    }

    fn index(&self) -> Value {
        self.node.link("flannel.1")["ifindex"].clone()
    }

    /// Waits until the state equals the snapshot.
    fn wait_for(&self, before: &Snapshot) {
        before.wait(&self.node, HEALED);
    }

    /// Changes one object, and asserts that the repair causes kernel events only about objects
    /// whose line contains `named`.
    fn heals_alone(&self, harm: impl FnOnce(&Node), named: &str) {
        let before = self.everything();
        let index = self.index();
        let monitor = Monitor::start(self.node.host.namespace()).unwrap();
        harm(&self.node);
        self.wait_for(&before);
        // Leave time for needless repairs to happen.
        std::thread::sleep(HEALED);
        let lines = monitor.drain(self.node.host.namespace()).unwrap();
        let (its, others): (Vec<_>, Vec<_>) = lines
            .into_iter()
            // The kernel assigns the device's link-local address asynchronously.
            .filter(|line| !line.contains(" fe80:"))
            .filter(|line| line.contains("flannel.1") || line.contains(named))
            .partition(|line| line.contains(named));
        // At least two events: the change and its repair.
        assert!(its.len() >= 2, "{its:#?}");
        assert!(others.is_empty(), "{others:#?}");
        assert_eq!(self.everything(), before);
        assert_eq!(self.index(), index);
    }

    /// Changes the device itself, which removes other objects with it, and asserts that all are
    /// restored.
    fn heals(&self, harm: impl FnOnce(&Node)) {
        let before = self.everything();
        harm(&self.node);
        self.wait_for(&before);
        std::thread::sleep(HEALED);
        assert_eq!(self.everything(), before);
    }
}

#[test]
fn deleted_route_is_restored() {
    let scene = Scene::new();
    let subnet = scene.peers[0].subnet().to_string();
    scene.heals_alone(|node| drop(node.ip(&format!("route del {subnet}/24"))), &subnet);
}

#[test]
fn changed_route_is_restored() {
    let scene = Scene::new();
    let subnet = scene.peers[0].subnet().to_string();
    let line = format!("route replace {subnet}/24 via 192.168.255.254 dev eth0");
    scene.heals_alone(|node| drop(node.ip(&line)), &subnet);
}

#[test]
fn deleted_neighbour_is_restored() {
    let scene = Scene::new();
    let subnet = scene.peers[0].subnet().to_string();
    scene.heals_alone(|node| drop(node.ip(&format!("neigh del {subnet} dev flannel.1"))), &subnet);
}

#[test]
fn changed_neighbour_is_restored() {
    let scene = Scene::new();
    let subnet = scene.peers[0].subnet().to_string();
    let line =
        format!("neigh replace {subnet} lladdr 02:00:00:00:66:66 dev flannel.1 nud permanent");
    scene.heals_alone(|node| drop(node.ip(&line)), &subnet);
}

#[test]
fn deleted_fdb_entry_is_restored() {
    let scene = Scene::new();
    let mac = scene.peers[0].mac();
    let line = format!("fdb del {mac} dev flannel.1 self");
    scene.heals_alone(|node| drop(node.bridge(&line)), &mac);
}

#[test]
fn changed_fdb_entry_is_restored() {
    let scene = Scene::new();
    let mac = scene.peers[0].mac();
    let line = format!("fdb replace {mac} dev flannel.1 dst 172.30.0.1 self permanent");
    scene.heals_alone(|node| drop(node.bridge(&line)), &mac);
}

#[test]
fn deleted_address_is_restored() {
    let scene = Scene::new();
    let address = scene.node.objects("eth0");
    assert!(!address.is_empty());
    let device = scene.node.link("flannel.1");
    let info = &device["addr_info"]
        .as_array()
        .unwrap()
        .iter()
        .find(|a| a["family"] == "inet")
        .unwrap()["local"];
    let own = info.as_str().unwrap().to_owned();
    scene.heals(|node| drop(node.ip(&format!("addr del {own}/32 dev flannel.1"))));
}

#[test]
fn deleted_device_is_restored_with_its_objects() {
    let scene = Scene::new();
    scene.heals(|node| drop(node.ip("link del flannel.1")));
}

#[test]
fn foreign_device_of_same_name_is_reported_and_kept() {
    let mut scene = Scene::new();
    let before = scene.everything();
    scene.node.signal(Signal::STOP);
    scene.node.ip("link del flannel.1");
    scene.node.ip("link add name flannel.1 type bridge");
    let bridge = scene.node.link("flannel.1");
    scene.node.signal(Signal::CONT);
    scene.node.daemon().wait_log(&["ERROR", "flannel.1", "bridge"], SOON).unwrap();
    std::thread::sleep(HEALED);
    assert_eq!(scene.node.link("flannel.1"), bridge);
    assert_eq!(scene.node.objects("flannel.1").len(), 0);

    scene.node.ip("link del flannel.1");
    scene.wait_for(&before);
    let log = scene.node.daemon().log();
    assert!(log.lines().count() < 100, "{} lines of log", log.lines().count());
}

#[test]
fn changed_mtu_is_restored() {
    let scene = Scene::new();
    scene.heals_alone(|node| drop(node.ip("link set flannel.1 mtu 1300")), "flannel.1");
}

#[test]
fn changed_device_mac_is_restored() {
    let scene = Scene::new();
    scene.heals(|node| drop(node.ip("link set flannel.1 address 02:00:00:00:66:66")));
}

#[test]
fn device_set_down_is_set_up_with_its_objects() {
    let scene = Scene::new();
    scene.heals(|node| drop(node.ip("link set flannel.1 down")));
}

#[test]
fn flapping_underlay_leaves_state_unchanged() {
    let scene = Scene::new();
    let before = scene.everything();
    scene.node.ip("link set eth0 down");
    scene.node.ip("link set eth0 up");
    scene.node.ip("route add default via 192.168.255.254 dev eth0");
    scene.wait_for(&before);
}

#[test]
fn two_hundred_deleted_routes_are_restored_together() {
    let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
    let peers = Peer::range(0, 200);
    cluster.etcd().put_all(&Peer::leases(&peers), 100).unwrap();
    let node = cluster.node("a");
    let before = node.host.kernel_state().unwrap();
    node.ip("route flush dev flannel.1");
    wait_until("all routes", HEALED, || {
        let now = node.host.kernel_state().unwrap();
        if now == before { Ok(()) } else { Err(format!("{} routes", now.routes.len())) }
    })
    .unwrap();
}
