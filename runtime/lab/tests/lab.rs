//! Tests of the lab, without Heddle.

#![allow(clippy::disallowed_methods, reason = "a lab consists of programs, files and waiting")]

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use heddle_lab::{Error, Etcd, Families, Host, Lab, Monitor, PREFIX, Storage, run, transfer};
use heddle_requires::requires;

fn namespaces() -> String {
    run(Command::new("ip").args(["netns", "list"])).unwrap()
}

/// Programs by hand what the daemon would: one device, and three objects for the one peer.
fn overlay_by_hand(
    host: &Host,
    subnet: u8,
    mac: &str,
    peer: &Host,
    peer_subnet: u8,
    peer_mac: &str,
) {
    let namespace = host.namespace();
    for line in [
        format!(
            "link add name flannel.1 address {mac} mtu 1450 type vxlan id 1 local {} dev eth0 dstport 8472 nolearning",
            host.v4()
        ),
        format!("addr add 10.244.{subnet}.0/32 dev flannel.1"),
        "link set flannel.1 up".to_owned(),
        format!(
            "route add 10.244.{peer_subnet}.0/24 via 10.244.{peer_subnet}.0 dev flannel.1 onlink"
        ),
        format!("neigh add 10.244.{peer_subnet}.0 lladdr {peer_mac} dev flannel.1 nud permanent"),
    ] {
        namespace.ip(&line).unwrap();
    }
    namespace
        .bridge(&format!("fdb append {peer_mac} dev flannel.1 dst {} self permanent", peer.v4()))
        .unwrap();
    let file = host.subnet_file();
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, format!("FLANNEL_SUBNET=10.244.{subnet}.1/24\nFLANNEL_MTU=1450\n"))
        .unwrap();
}

#[test]
fn containers_communicate_over_manual_overlay() {
    requires!(Namespaces, Program("ip"), Program("bridge"), Program("ping"), Program("busybox"));
    let lab = Lab::new(Families::V4).unwrap();
    let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
    let (mac_a, mac_b) = ("02:00:00:00:00:0a", "02:00:00:00:00:0b");
    overlay_by_hand(&a, 1, mac_a, &b, 2, mac_b);
    overlay_by_hand(&b, 2, mac_b, &a, 1, mac_a);
    let (from, mut to) = (a.container().unwrap(), b.container().unwrap());
    let target = to.addresses()[0];
    assert_eq!(target, "10.244.2.2".parse::<IpAddr>().unwrap());

    // 1450 bytes, less the IPv4 and ICMP headers, pass unfragmented; one more does not.
    from.ping(target, 1422).unwrap();
    assert!(matches!(from.ping(target, 1423), Err(Error::Failed { .. })));

    let pages = lab.directory().join("pages");
    std::fs::create_dir(&pages).unwrap();
    std::fs::write(pages.join("index.html"), "hello from b\n").unwrap();
    to.serve(&pages).unwrap();
    let page = heddle_lab::wait_until("a page", Duration::from_secs(5), || from.fetch(target, "/"));
    assert_eq!(page.unwrap(), "hello from b\n");

    let state = a.kernel_state().unwrap().on("flannel.1");
    assert_eq!((state.routes.len(), state.neighbours.len(), state.fdb.len()), (1, 1, 1));
    assert_eq!(state.route("10.244.2.0/24").unwrap().flags, ["onlink"]);
}

#[test]
fn lost_pings_are_counted() {
    requires!(Namespaces, Program("ip"), Program("bridge"), Program("ping"));
    let lab = Lab::new(Families::Dual).unwrap();
    let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
    for (host, peer) in [(&a, &b), (&b, &a)] {
        overlay_by_hand(
            host,
            if host.name() == "a" { 1 } else { 2 },
            "02:00:00:00:00:01",
            peer,
            9,
            "02:00:00:00:00:02",
        );
    }
    let container = a.container().unwrap();
    let pings = container.ping_stream("10.244.1.1".parse().unwrap()).unwrap();
    pings.wait_answers(20).unwrap();
    assert!(pings.finish().unwrap().lost.is_empty());

    let pings = container.ping_stream("10.244.1.1".parse().unwrap()).unwrap();
    pings.wait_answers(20).unwrap();
    a.namespace().ip("link set docker0 down").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    a.namespace().ip("link set docker0 up").unwrap();
    pings.wait_answers(20).unwrap();
    let pings = pings.finish().unwrap();
    assert!(pings.answered >= 40 && (5..100).contains(&pings.lost.len()), "{pings:?}");

    let pings = container.ping_stream("10.244.1.1".parse().unwrap()).unwrap();
    pings.wait_answers(20).unwrap();
    a.namespace().ip("link set docker0 down").unwrap();
    assert!(!pings.finish().unwrap().lost.is_empty());
}

#[test]
fn etcd_keeps_data_across_kill() {
    requires!(Namespaces, Program("ip"), Program("bridge"), Program("ping"), Program("etcd"));
    let lab = Lab::new(Families::V4).unwrap();
    let mut etcd = Etcd::start(&lab).unwrap();
    let key = |n: usize| format!("{PREFIX}/subnets/{n:03}");
    let pairs: Vec<_> = (0..250).map(|n| (key(n), format!("value {n}"))).collect();
    etcd.put_all(&pairs, 100).unwrap();
    let lease = etcd.grant(500).unwrap();
    etcd.put_with_lease(&key(7), "leased", lease).unwrap();
    assert_eq!(etcd.time_to_live(lease).unwrap().0, 500);
    etcd.delete_all(&[key(1), key(2)]).unwrap();

    etcd.stop();
    assert!(etcd.get(&key(0)).is_err());
    etcd.resume().unwrap();

    assert_eq!(etcd.leases().unwrap().len(), 248);
    let found = etcd.get(&key(7)).unwrap().unwrap();
    assert_eq!((found.value.as_str(), found.lease), ("leased", lease));
    assert_eq!(etcd.get(&key(1)).unwrap(), None);
    etcd.revoke(lease).unwrap();
    assert_eq!(etcd.get(&key(7)).unwrap(), None);
    etcd.compact().unwrap();
}

#[test]
fn transfer_is_hashed_at_both_ends() {
    requires!(Namespaces, Program("ip"), Program("bridge"), Program("ping"));
    let lab = Lab::new(Families::Dual).unwrap();
    let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
    for address in b.addresses() {
        let done = transfer(a.namespace(), b.namespace(), address, 10_000_001, None).unwrap();
        assert!(done.is_whole() && done.bytes == 10_000_001, "{done:?}");
    }
    let rate = Some(1_000_000);
    let slow = transfer(a.namespace(), b.namespace(), b.v4().into(), 500_000, rate).unwrap();
    assert!(slow.is_whole() && slow.took >= Duration::from_millis(400), "{slow:?}");
}

#[test]
fn dropped_lab_leaves_nothing_behind() {
    requires!(Namespaces, Program("ip"), Program("bridge"), Program("ping"));
    let lab = Lab::new(Families::V6).unwrap();
    let directory = lab.directory().to_owned();
    let host = lab.host("a").unwrap();
    let mut sleep = Command::new("sleep");
    sleep.arg("1000");
    let mut sleep = host.namespace().spawn(sleep).unwrap();
    let name = host.namespace().name().to_owned();
    assert!(namespaces().contains(&name));
    drop(host);
    assert!(!sleep.wait().unwrap().success());
    assert!(!namespaces().contains(&name));
    drop(lab);
    assert!(!directory.exists());
}

#[test]
fn etcd_data_is_in_memory_if_there_is_room() {
    requires!(Namespaces, Program("ip"), Program("bridge"), Program("ping"), Program("etcd"));
    let before = Storage::now();
    let lab = Lab::new(Families::V4).unwrap();
    let mut etcd = Etcd::start(&lab).unwrap();
    let data = etcd.host().directory().join("data");
    assert!(data.starts_with(lab.directory()) && data.join("member").is_dir());
    match before {
        Storage::Memory(path) => assert!(data.starts_with(path), "{}", data.display()),
        Storage::Given(path) => assert!(data.starts_with(path), "{}", data.display()),
        Storage::Disk { path, reason } => {
            assert!(data.starts_with(path) && !reason.is_empty(), "{}", data.display());
        }
    }
    // After a kill and a restart, the data is still there.
    etcd.put("/x", "1").unwrap();
    etcd.stop();
    etcd.resume().unwrap();
    assert_eq!(etcd.get("/x").unwrap().unwrap().value, "1");
    drop(etcd);
    drop(lab);
    assert!(!data.exists());
}

#[test]
fn monitor_reports_changes() {
    requires!(Namespaces, Program("ip"), Program("bridge"), Program("ping"));
    let lab = Lab::new(Families::V4).unwrap();
    let host = lab.host("a").unwrap();
    let monitor = Monitor::start(host.namespace()).unwrap();
    host.namespace().ip("route add 10.9.0.0/24 dev eth0").unwrap();
    let lines = monitor.drain(host.namespace()).unwrap();
    assert!(lines.iter().any(|line| line.contains("10.9.0.0/24 dev eth0")), "{lines:?}");
    host.namespace().ip("route del 10.9.0.0/24").unwrap();
    let lines = monitor.drain(host.namespace()).unwrap();
    assert!(lines.iter().any(|line| line.starts_with("Deleted 10.9.0.0/24")), "{lines:?}");
}
