//! Somebody else deletes or changes what the daemon programmed: it is back within a second, and nothing else is
//! touched on the way.

use heddle_lab::{Families, Monitor, Signal, wait_until};
use heddle_tests::{Cluster, HEALED, NETWORK_FOR_PEERS, Node, Peer, SOON, Snapshot};
use serde_json::Value;

/// A node with two peers. Everything is done to what belongs to the first.
struct Scene {
    /// Dropped before the cluster that it is a part of.
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

    /// Waits until everything is as it was.
    fn wait_for(&self, before: &Snapshot) {
        before.wait(&self.node, HEALED);
    }

    /// Does harm to one thing; the kernel must report changes only of what contains `named`.
    fn heals_alone(&self, harm: impl FnOnce(&Node), named: &str) {
        let before = self.everything();
        let index = self.index();
        let monitor = Monitor::start(self.node.host.namespace()).unwrap();
        harm(&self.node);
        self.wait_for(&before);
        // What would be touched needlessly would be touched now.
        std::thread::sleep(HEALED);
        let lines = monitor.drain(self.node.host.namespace()).unwrap();
        let (its, others): (Vec<_>, Vec<_>) = lines
            .into_iter()
            // The kernel gives the device its link-local address in its own time.
            .filter(|line| !line.contains(" fe80:"))
            .filter(|line| line.contains("flannel.1") || line.contains(named))
            .partition(|line| line.contains(named));
        // What was done, and what undid it.
        assert!(its.len() >= 2, "{its:#?}");
        assert!(others.is_empty(), "{others:#?}");
        assert_eq!(self.everything(), before);
        assert_eq!(self.index(), index);
    }

    /// Does harm to the device itself, which takes other things with it.
    fn heals(&self, harm: impl FnOnce(&Node)) {
        let before = self.everything();
        harm(&self.node);
        self.wait_for(&before);
        std::thread::sleep(HEALED);
        assert_eq!(self.everything(), before);
    }
}

#[test]
fn a_deleted_route_comes_back() {
    let scene = Scene::new();
    let subnet = scene.peers[0].subnet().to_string();
    scene.heals_alone(|node| drop(node.ip(&format!("route del {subnet}/24"))), &subnet);
}

#[test]
fn a_changed_route_is_put_right() {
    let scene = Scene::new();
    let subnet = scene.peers[0].subnet().to_string();
    let line = format!("route replace {subnet}/24 via 192.168.255.254 dev eth0");
    scene.heals_alone(|node| drop(node.ip(&line)), &subnet);
}

#[test]
fn a_deleted_neighbour_comes_back() {
    let scene = Scene::new();
    let subnet = scene.peers[0].subnet().to_string();
    scene.heals_alone(|node| drop(node.ip(&format!("neigh del {subnet} dev flannel.1"))), &subnet);
}

#[test]
fn a_changed_neighbour_is_put_right() {
    let scene = Scene::new();
    let subnet = scene.peers[0].subnet().to_string();
    let line =
        format!("neigh replace {subnet} lladdr 02:00:00:00:66:66 dev flannel.1 nud permanent");
    scene.heals_alone(|node| drop(node.ip(&line)), &subnet);
}

#[test]
fn a_deleted_fdb_entry_comes_back() {
    let scene = Scene::new();
    let mac = scene.peers[0].mac();
    let line = format!("fdb del {mac} dev flannel.1 self");
    scene.heals_alone(|node| drop(node.bridge(&line)), &mac);
}

#[test]
fn a_changed_fdb_entry_is_put_right() {
    let scene = Scene::new();
    let mac = scene.peers[0].mac();
    let line = format!("fdb replace {mac} dev flannel.1 dst 172.30.0.1 self permanent");
    scene.heals_alone(|node| drop(node.bridge(&line)), &mac);
}

#[test]
fn a_deleted_address_comes_back() {
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
fn a_deleted_device_comes_back_with_everything_on_it() {
    let scene = Scene::new();
    scene.heals(|node| drop(node.ip("link del flannel.1")));
}

#[test]
fn somebody_else_s_device_in_its_place_is_named_and_left_alone() {
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
fn a_changed_mtu_is_put_right() {
    let scene = Scene::new();
    scene.heals_alone(|node| drop(node.ip("link set flannel.1 mtu 1300")), "flannel.1");
}

#[test]
fn a_changed_ethernet_address_is_put_right() {
    let scene = Scene::new();
    scene.heals(|node| drop(node.ip("link set flannel.1 address 02:00:00:00:66:66")));
}

#[test]
fn a_device_that_is_set_down_is_set_up_with_everything_on_it() {
    let scene = Scene::new();
    scene.heals(|node| drop(node.ip("link set flannel.1 down")));
}

#[test]
fn a_flapping_underlay_leaves_everything_as_it_was() {
    let scene = Scene::new();
    let before = scene.everything();
    scene.node.ip("link set eth0 down");
    scene.node.ip("link set eth0 up");
    scene.node.ip("route add default via 192.168.255.254 dev eth0");
    scene.wait_for(&before);
}

#[test]
fn two_hundred_deleted_routes_come_back_together() {
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
