//! Changes of the interface that carries the overlay. All plans depend on its state at the start.

use std::time::Duration;

use heddle_lab::{Daemon, Families, Signal, wait_until};
use heddle_tests::{Cluster, HEALED, Node, Recovery, SOON, Snapshot, Trio, ping, wait_unready};

/// Time for which a change must last before the daemon acts on it, plus an allowance for a slow
/// machine.
const SETTLED: Duration = Duration::from_secs(30);

fn is_ready(daemon: &Daemon) -> Result<(), String> {
    match daemon.health("/readyz") {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// Restores the default route, which the kernel removes with the interface.
fn route_back(node: &Node) {
    node.ip("route add default via 192.168.255.254 dev eth0");
}

#[test]
fn fault_the_underlay_is_down_for_a_while() {
    let mut trio = Trio::new();
    let before = Snapshot::of(&trio.nodes[0]);
    let flows = trio.flows(&[(1, 2)]);
    trio.nodes[0].ip("link set eth0 down");
    wait_unready(trio.nodes[0].daemon(), &["underlay: interface eth0 is down"], SOON);
    // Longer than a change must last before the daemon acts on it.
    std::thread::sleep(Duration::from_secs(15));
    trio.nodes[0].daemon().check_running().unwrap();
    trio.nodes[0].ip("link set eth0 up");
    route_back(&trio.nodes[0]);
    let recovery = Recovery::from("underlay down");
    recovery
        .wait("all objects after the interface is up", HEALED, || before.compare(&trio.nodes[0]));
    wait_until("readiness", SOON, || is_ready(trio.nodes[0].daemon())).unwrap();
    wait_until("a ping", SOON, || trio.reaches(1)).unwrap();
    trio.nodes[0].daemon().check_running().unwrap();
    flows.lost_nothing();
    let log = trio.nodes[0].daemon().log();
    assert_eq!(log.matches("underlay: interface eth0 is down").count(), 1, "{log}");
}

#[test]
fn fault_the_underlay_has_another_mtu() {
    let mut trio = Trio::new();
    let before = Snapshot::of(&trio.nodes[0]);
    let flows = trio.flows(&[(0, 1), (1, 2)]);
    trio.nodes[0].ip("link set eth0 mtu 1400");
    let told = ["WARN", "MTU of eth0 is 1400, and heddled was started with 1500"];
    trio.nodes[0].daemon().wait_log(&told, SOON).unwrap();
    is_ready(trio.nodes[0].daemon()).unwrap();
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operation.md");
    let page = std::fs::read_to_string(page).unwrap();
    let shown = page.lines().find_map(|line| line.strip_prefix("WARN underlay: MTU of"));
    let log = trio.nodes[0].daemon().log();
    assert!(log.contains(shown.expect("the line in operation.md")), "{log}");
    trio.nodes[0].ip("link set eth0 mtu 1500");
    trio.nodes[0].daemon().wait_log(&["INFO", "MTU of eth0 is 1500 again"], SOON).unwrap();
    before.compare(&trio.nodes[0]).unwrap();
    trio.nodes[0].daemon().check_running().unwrap();
    let log = trio.nodes[0].daemon().log();
    assert_eq!(log.matches("MTU of eth0 is 1400").count(), 1, "{log}");
    flows.lost_nothing();
}

#[test]
fn fault_the_device_is_lost_while_the_underlay_is_narrower() {
    let mut trio = Trio::new();
    let before = Snapshot::of(&trio.nodes[0]);
    let flows = trio.flows(&[(1, 2)]);
    trio.nodes[0].ip("link set eth0 mtu 1400");
    trio.nodes[0].ip("link delete flannel.1");
    // The kernel creates the device, but refuses the MTU that containers were given.
    let recovery = Recovery::from("device lost, underlay narrower");
    recovery.wait("all peers", HEALED, || {
        let found = trio.nodes[0].host.kernel_state().unwrap();
        if found == before.objects { Ok(()) } else { Err(format!("{found:#?}")) }
    });
    wait_unready(trio.nodes[0].daemon(), &["kernel: ", "flannel.1", "MTU"], SOON);
    wait_until("a ping", SOON, || trio.reaches(1)).unwrap();
    trio.nodes[0].ip("link set eth0 mtu 1500");
    wait_until("readiness", SOON, || is_ready(trio.nodes[0].daemon())).unwrap();
    before.compare(&trio.nodes[0]).unwrap();
    flows.lost_nothing();
}

#[test]
fn fault_the_underlay_is_without_its_address_for_a_moment() {
    let mut trio = Trio::new();
    let before = Snapshot::of(&trio.nodes[0]);
    let address = trio.nodes[0].host.v4();
    let flows = trio.flows(&[(1, 2)]);
    // Like a network reconfiguration, during which there is another address.
    trio.nodes[0].ip("addr add 192.168.99.99/16 dev eth0");
    trio.nodes[0].ip(&format!("addr del {address}/16 dev eth0"));
    wait_unready(
        trio.nodes[0].daemon(),
        &[&format!("underlay: interface eth0 has lost {address}")],
        SOON,
    );
    trio.nodes[0].ip("addr flush dev eth0");
    trio.nodes[0].ip(&format!("addr add {address}/16 dev eth0"));
    route_back(&trio.nodes[0]);
    let recovery = Recovery::from("underlay flushed");
    recovery
        .wait("all objects after the address is back", HEALED, || before.compare(&trio.nodes[0]));
    wait_until("readiness", SOON, || is_ready(trio.nodes[0].daemon())).unwrap();
    wait_until("a ping", SOON, || trio.reaches(1)).unwrap();
    std::thread::sleep(Duration::from_secs(12));
    trio.nodes[0].daemon().check_running().unwrap();
    flows.lost_nothing();
}

#[test]
fn fault_the_underlay_has_another_address() {
    let mut trio = Trio::new();
    let old = trio.nodes[0].host.v4();
    let before = trio.cluster.lease(&trio.nodes[0]);
    let flows = trio.flows(&[(1, 2)]);
    trio.nodes[0].ip(&format!("addr del {old}/16 dev eth0"));
    trio.nodes[0].ip("addr add 192.168.99.99/16 dev eth0");
    route_back(&trio.nodes[0]);
    let recovery = Recovery::from("underlay readdressed");
    // The daemon logs the reason, then exits, so that systemd restarts it.
    let (code, log) = trio.nodes[0].ended(SETTLED);
    assert_eq!(code, Some(1));
    let said = format!(
        "underlay: interface eth0 has lost {old}: this daemon was started with eth0 with {old}, \
         and the next one would use eth0 with 192.168.99.99"
    );
    assert!(log.contains(&format!("WARN {said}")), "{log}");
    assert!(log.contains(&format!("ERROR {said}; exiting for a restart")), "{log}");
    assert!(log.contains(": released; the next start can take it again"), "{log}");
    trio.cluster.restart(&mut trio.nodes[0]);
    let lease = trio.cluster.lease(&trio.nodes[0]);
    assert!(lease.value.contains(r#""PublicIP":"192.168.99.99""#), "{lease:?}");
    // The subnet is kept, so that containers keep their addresses.
    assert_eq!(lease.key, before.key);
    assert_eq!(trio.cluster.etcd().leases().unwrap().len(), 3);
    let reached = || {
        let state = trio.nodes[1].host.kernel_state().unwrap();
        let found = state.fdb.iter().any(|entry| entry.dst.as_deref() == Some("192.168.99.99"));
        if found { Ok(()) } else { Err(format!("{:#?}", state.fdb)) }
    };
    recovery.wait("peers know the new address", SOON, reached);
    for place in [1, 2] {
        wait_until("a ping", SOON, || trio.reaches(place)).unwrap();
    }
    flows.lost_nothing();
}

/// The lease was not released: other nodes still send packets for the subnet to the old address.
#[test]
fn fault_the_underlay_has_another_address_at_start() {
    let mut trio = Trio::new();
    let flows = trio.flows(&[(1, 2)]);
    let [old, address] = [trio.nodes[0].host.v4().to_string(), "192.168.99.99".to_owned()];
    trio.nodes[0].stop(Signal::KILL);
    trio.nodes[0].ip(&format!("addr del {old}/16 dev eth0"));
    trio.nodes[0].ip(&format!("addr add {address}/16 dev eth0"));
    route_back(&trio.nodes[0]);
    let recovery = Recovery::from("underlay readdressed");
    trio.cluster.restart(&mut trio.nodes[0]);
    // The device has another MAC, so that it is reachable even if another host has the old one.
    let mac = trio.nodes[0].link("flannel.1")["address"].as_str().unwrap().to_owned();
    let own = trio.nodes[0].link("flannel.1")["addr_info"][0]["local"].as_str().unwrap().to_owned();
    recovery.wait("peers know the new address, after a start with it", SOON, || {
        let fdb = trio.nodes[1].host.kernel_state().unwrap().fdb;
        let known = |mac: Option<&str>, to: &str| {
            fdb.iter().any(|entry| {
                entry.dst.as_deref() == Some(to) && mac.is_none_or(|mac| entry.mac == mac)
            })
        };
        let moved = known(Some(&mac), &address) && !known(None, &old);
        if moved { Ok(()) } else { Err(format!("{fdb:#?}")) }
    });
    let answers = ping(trio.nodes[1].host.namespace(), &format!("-c 1 -W 5 {own}"));
    assert!(answers.contains("1 received"), "{answers}");
    let log = trio.nodes[1].daemon().log();
    assert!(!log.contains("both want"), "{log}");
    flows.lost_nothing();
}

#[test]
fn fault_the_underlay_is_renamed() {
    let mut trio = Trio::new();
    let before = Snapshot::of(&trio.nodes[0]);
    let leases = trio.cluster.etcd().leases().unwrap();
    // The kernel's objects refer to the interface by index, so even the node's own traffic
    // continues.
    let flows = trio.flows(&[(0, 1), (0, 2), (1, 2)]);
    trio.nodes[0].ip("link set eth0 name lan0");
    let recovery = Recovery::from("underlay renamed");
    wait_unready(trio.nodes[0].daemon(), &["underlay: interface eth0 is gone"], SOON);
    assert_eq!(trio.nodes[0].ended(SETTLED).0, Some(1));
    flows.go_on();
    trio.cluster.restart(&mut trio.nodes[0]);
    recovery.done("the next daemon is ready");
    let as_before = |mut now: Snapshot| {
        let link = before.device.pointer("/linkinfo/info_data/link").cloned().unwrap();
        *now.device.pointer_mut("/linkinfo/info_data/link").unwrap() = link;
        let routes = now.objects.routes.into_iter().map(|mut route| {
            if route.dev.as_deref() == Some("lan0") {
                route.dev = Some("eth0".into());
            }
            route
        });
        now.objects.routes = routes.collect();
        now
    };
    assert_eq!(as_before(Snapshot::of(&trio.nodes[0])), before);
    assert_eq!(trio.cluster.etcd().leases().unwrap(), leases);
    flows.lost_nothing();
}

#[test]
fn fault_the_underlay_is_renamed_although_a_flag_names_it() {
    let mut trio = Trio::on(Cluster::new(Families::V4), &["--iface=eth0"]);
    let before = Snapshot::of(&trio.nodes[0]);
    let flows = trio.flows(&[(0, 1), (1, 2)]);
    trio.nodes[0].ip("link set eth0 name lan0");
    let says = "no interface matches --iface eth0; there are";
    wait_unready(trio.nodes[0].daemon(), &[says], SOON);
    // A restart would not help, so the daemon keeps running in the working state.
    std::thread::sleep(Duration::from_secs(15));
    trio.nodes[0].daemon().check_running().unwrap();
    flows.go_on();
    trio.nodes[0].ip("link set lan0 name eth0");
    let recovery = Recovery::from("underlay renamed");
    recovery.wait("ready after the name is back", SOON, || is_ready(trio.nodes[0].daemon()));
    before.wait(&trio.nodes[0], HEALED);
    flows.lost_nothing();
}

#[test]
fn fault_the_underlay_is_unplugged() {
    let mut trio = Trio::new();
    let before = Snapshot::of(&trio.nodes[0]);
    let flows = trio.flows(&[(1, 2)]);
    let mac = trio.nodes[0].link("eth0")["address"].as_str().unwrap().to_owned();
    trio.nodes[0].ip("link del eth0");
    wait_unready(trio.nodes[0].daemon(), &["underlay: interface eth0 is gone"], SOON);
    std::thread::sleep(Duration::from_secs(12));
    trio.nodes[0].daemon().check_running().unwrap();
    let host = &trio.nodes[0].host;
    trio.cluster.lab().connect(host, "eth0", &[format!("{}/16", host.v4())]).unwrap();
    trio.nodes[0].ip(&format!("link set eth0 address {mac}"));
    route_back(&trio.nodes[0]);
    let recovery = Recovery::from("underlay unplugged");
    recovery.wait("the device with all that is on it", SOON, || before.compare(&trio.nodes[0]));
    wait_until("readiness", SOON, || is_ready(trio.nodes[0].daemon())).unwrap();
    wait_until("a ping", SOON, || trio.reaches(1)).unwrap();
    flows.lost_nothing();
}
