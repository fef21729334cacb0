//! Peers that come and go do not disturb traffic between the others.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use heddle_lab::{Container, Families, RaisedOnDrop, transfer, wait_until};
use heddle_tests::{Cluster, Node, Overlay, Packet, PlainPeer, SOON, ping};

/// Length of the churn.
const DURATION: Duration = Duration::from_secs(60);

/// Interval between two changes of leases.
const CHANGE: Duration = Duration::from_millis(50);

/// Rate of the transfer during the churn, in bytes per second.
const RATE: u64 = 32 << 20;

/// Number of the peer that comes and goes and receives packets, and of those that consist of a
/// lease only.
const COMING_AND_GOING: u8 = 200;
const LEASES: std::ops::RangeInclusive<u8> = 210..=249;

/// Counters that must not increase, for any destination. Packets for the guest are counted as
/// `no_route` while it is away.
const MISHAPS: [&str; 11] = [
    "spoofed_outer",
    "spoofed_inner",
    "malformed",
    "too_big",
    "ttl_exceeded",
    "fallback",
    "plugin",
    "refused",
    "send_errors",
    "receive_errors",
    "device_errors",
];

/// Returns those counters for each node.
fn mishaps(nodes: &[Node]) -> Vec<[u64; MISHAPS.len()]> {
    nodes
        .iter()
        .map(|node| {
            let counters = node.counters();
            MISHAPS.map(|name| counters[name])
        })
        .collect()
}

/// Writes a lease without a node behind it. Even numbers have an address on the hosts' own network,
/// odd ones behind its router.
fn put_lease(cluster: &Cluster, number: u8) {
    let network = if number.is_multiple_of(2) { "192.168.77" } else { "172.16.77" };
    let value = format!(r#"{{"PublicIP":"{network}.{number}","PublicIPv6":null}}"#);
    cluster.put_lease(&lease_key(number), &value);
}

fn lease_key(number: u8) -> String {
    format!("10.244.{number}.0-24")
}

/// Waits until the container's node reports an address as unreachable.
fn wait_unreachable(container: &Container, address: IpAddr) {
    wait_until(format!("no way to {address}"), SOON, || {
        let printed = ping(container.namespace(), &format!("-c 1 -W 1 {address}"));
        if printed.contains("Net Unreachable") { Ok(()) } else { Err(printed) }
    })
    .unwrap();
}

/// Waits until the peer receives a packet that the container sends to an address.
fn wait_received(peer: &PlainPeer, container: &Container, to: IpAddr) {
    let socket = container.namespace().udp_socket((container.addresses()[0], 0).into()).unwrap();
    let start = Instant::now();
    loop {
        // Sending fails while there is no route.
        let _ = socket.send_to(b"?", (to, 9));
        while let Some((_, datagram)) = peer.receive(Overlay::V4) {
            if Packet::parse(&datagram).destination() == to {
                return;
            }
        }
        assert!(start.elapsed() < SOON, "{} has got nothing for {to}", peer.host.name());
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one scenario, told in order")]
fn peers_coming_and_going_disturb_no_traffic_and_leave_no_state() {
    let cluster = Cluster::with_backend(Families::V4, "udp");
    let nodes = cluster.nodes(["a", "b", "c"]);
    let containers = nodes.each_ref().map(|node| node.host.container().unwrap());
    let [in_a, in_b, in_c] = &containers;
    let pairs = [(in_a, in_b), (in_b, in_c), (in_c, in_a)];
    for (from, to) in pairs {
        from.ping(to.addresses()[0], 56).unwrap();
    }
    let guest = PlainPeer::join(&cluster, "guest", COMING_AND_GOING);
    let at_guest = guest.address(Overlay::V4);
    for container in &containers {
        wait_received(&guest, container, at_guest);
    }

    let before = mishaps(&nodes);
    let streams = pairs.map(|(from, to)| from.ping_stream(to.addresses()[0]).unwrap());
    let stop = AtomicBool::new(false);
    let (transferred, changes) = thread::scope(|scope| {
        let transfer = scope.spawn(|| {
            let bytes = RATE * DURATION.as_secs();
            let (from, to) = (in_b.namespace(), in_a.namespace());
            transfer(from, to, in_a.addresses()[0], bytes, Some(RATE)).unwrap()
        });
        // Packets for the guest are sent whether it is present or not.
        let nagging = scope.spawn(|| {
            let from = (in_c.addresses()[0], 0).into();
            let socket = in_c.namespace().udp_socket(from).unwrap();
            while !stop.load(Ordering::Relaxed) {
                // Sending fails while the guest is away.
                let _ = socket.send_to(b"?", (at_guest, 9));
                thread::sleep(Duration::from_millis(5));
            }
        });
        let over = RaisedOnDrop(&stop);
        let start = Instant::now();
        let mut changes = 0;
        for (number, former) in LEASES.cycle().zip(LEASES.cycle().skip(LEASES.count() / 2)) {
            if start.elapsed() > DURATION {
                break;
            }
            put_lease(&cluster, number);
            cluster.delete_lease(&lease_key(former));
            if changes % 2 == 0 {
                cluster.delete_lease(&guest.lease_key());
            } else {
                cluster.put_lease(&guest.lease_key(), &guest.lease_value());
            }
            changes += 1;
            thread::sleep(CHANGE);
        }
        drop(over);
        nagging.join().unwrap();
        (transfer.join().unwrap(), changes)
    });
    for stream in streams {
        let pings = stream.finish().unwrap();
        assert!(pings.lost.is_empty() && pings.answered > 1000, "{pings:?}");
    }
    assert!(transferred.is_whole(), "{transferred:?}");
    println!("{changes} changes, {transferred:?}");
    assert!(changes > 100, "{changes} changes");
    assert_eq!(mishaps(&nodes), before, "{MISHAPS:?}");

    cluster.delete_lease(&guest.lease_key());
    for number in LEASES {
        cluster.delete_lease(&lease_key(number));
    }
    check_gone(&nodes, &containers, &guest, at_guest);
}

/// Asserts that no node sends packets for an address to the guest any more.
fn check_gone(nodes: &[Node], containers: &[Container], guest: &PlainPeer, address: IpAddr) {
    for container in containers {
        wait_unreachable(container, address);
    }
    guest.drain(Overlay::V4);
    for (node, container) in nodes.iter().zip(containers) {
        let before = node.counters()["no_route"];
        let printed = ping(container.namespace(), &format!("-c 20 -i 0.01 -W 1 {address}"));
        assert!(printed.contains(" 0 received"), "{printed}");
        assert!(node.counters()["no_route"] >= before + 20);
    }
    assert_eq!(guest.receive(Overlay::V4), None);
}

#[test]
fn peer_with_new_public_address_receives_its_packets() {
    let cluster = Cluster::with_backend(Families::V4, "udp");
    let nodes = cluster.nodes(["a", "b", "c"]);
    let containers = nodes.each_ref().map(|node| node.host.container().unwrap());
    let old = PlainPeer::join(&cluster, "old", 200);
    let new = PlainPeer::without_lease(&cluster, "new", 201);
    let address = old.address(Overlay::V4);
    for container in &containers {
        wait_received(&old, container, address);
    }
    // The same subnet with another public address.
    cluster.put_lease(&old.lease_key(), &new.lease_value());
    for container in &containers {
        wait_received(&new, container, address);
    }
    old.drain(Overlay::V4);
    for (node, container) in nodes.iter().zip(&containers) {
        let inside = container.addresses()[0];
        let request = Packet::echo_request(address, inside, 5, b"from there");
        let before = node.counters()["spoofed_outer"];
        old.send_packet(node, &request);
        wait_until("its former address counted as nobody's", SOON, || {
            let count = node.counters()["spoofed_outer"];
            if count == before + 1 { Ok(()) } else { Err(count.to_string()) }
        })
        .unwrap();
        new.send_packet(node, &request);
        new.wait_packet(Overlay::V4, "the answer", |packet| {
            (packet.source() == inside && packet.payload == b"from there").then_some(())
        });
    }
    assert_eq!(old.receive(Overlay::V4), None);

    // Once the lease is deleted, neither receives packets.
    cluster.delete_lease(&old.lease_key());
    check_gone(&nodes, &containers, &new, address);
    assert_eq!(old.receive(Overlay::V4), None);
}
