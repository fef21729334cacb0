use std::net::UdpSocket;

use heddle_lab::{Families, Lab, wait_until};
use heddle_requires::requires;

use crate::overlay::{DEVICE, Node, PINGS, PORT, Pair, SOON, open, v4};

#[test]
fn existing_device_is_left_alone() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let lab = Lab::new(Families::V4).unwrap();
    let host = lab.host("one").unwrap();
    host.namespace().ip(&format!("tuntap add name {DEVICE} mode tun")).unwrap();
    let error = open(1, &host).unwrap_err().to_string();
    assert!(error.contains("device flannel0 exists already"), "{error}");
    assert!(error.contains("`ip link delete flannel0`"), "{error}");
}

#[test]
fn port_in_use_is_named_and_device_removed() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let lab = Lab::new(Families::V4).unwrap();
    let host = lab.host("one").unwrap();
    let _taken: UdpSocket = host.namespace().udp_socket((host.v4(), PORT).into()).unwrap();
    let error = open(1, &host).unwrap_err().to_string();
    assert!(error.contains(&format!("UDP {}:{PORT}", host.v4())), "{error}");
    assert!(host.namespace().ip(&format!("link show {DEVICE}")).is_err());
}

#[test]
fn dropped_path_removes_device() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let lab = Lab::new(Families::Dual).unwrap();
    let Node { running, host, .. } = Node::start(1, lab.host("one").unwrap());
    drop(running);
    // A program that another test is just starting holds copies of all descriptors until its
    // `execve`.
    wait_until("no device", SOON, || match host.namespace().ip(&format!("link show {DEVICE}")) {
        Ok(shown) => Err(shown),
        Err(_) => Ok(()),
    })
    .unwrap();
    wait_until("a free port", SOON, || open(1, &host).map(drop)).unwrap();
}

#[test]
fn deleted_device_is_recreated() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let pair = Pair::new();
    let one = &pair.one;
    one.ip(&format!("link delete {DEVICE}"));
    wait_until("the device", SOON, || {
        match one.host.namespace().ip(&format!("link show {DEVICE}")).map_err(|e| e.to_string())? {
            link if link.contains(&format!("mtu {}", crate::overlay::MTU)) => Ok(()),
            link => Err(link),
        }
    })
    .unwrap();
    one.configure();
    let printed = one.ping(&format!("{PINGS} {}", v4(2)));
    assert!(printed.contains(" 0% packet loss"), "{printed}");
    assert_eq!(one.running.counters().device_errors, 1);
}

#[test]
fn device_down_only_drops_packets() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let pair = Pair::new();
    let (one, two) = (&pair.one, &pair.two);
    two.ip(&format!("link set {DEVICE} down"));
    let printed = one.ping(&format!("-c 3 -i 0.1 -W 1 {}", v4(2)));
    assert!(printed.contains("100% packet loss"), "{printed}");
    two.wait_for("lost packets", |counters| counters.device_errors >= 3);
    two.ip(&format!("link set {DEVICE} up"));
    two.ip(&format!("route add 10.244.0.0/16 dev {DEVICE} src {}", v4(2)));
    let printed = one.ping(&format!("{PINGS} {}", v4(2)));
    assert!(printed.contains(" 0% packet loss"), "{printed}");
}
