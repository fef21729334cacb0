use std::net::IpAddr;
use std::sync::Arc;

use heddle_lab::{Families, Lab};
use heddle_packet::{Forwarding, Steer, Table, TableSteering, Transform, Transforms};
use heddle_requires::requires;

use crate::dropping::udp;
use crate::overlay::{Node, PINGS, Pair, Plain, table, v4, v6};

/// Steers by the table this many times, then fails.
struct Failing {
    left: usize,
    steering: TableSteering,
}

impl Steer for Failing {
    fn steer(
        &mut self,
        destinations: &[IpAddr],
        answers: &mut Vec<Option<u32>>,
    ) -> Result<(), String> {
        self.left = self.left.checked_sub(1).ok_or("it trapped")?;
        self.steering.steer(destinations, answers)
    }
}

/// Prepends four bytes to each packet and inverts its bytes.
struct Disguise(TableSteering);

const MARK: &[u8; 4] = b"HDL!";

impl Steer for Disguise {
    fn steer(
        &mut self,
        destinations: &[IpAddr],
        answers: &mut Vec<Option<u32>>,
    ) -> Result<(), String> {
        self.0.steer(destinations, answers)
    }
}

/// Splits the bytes into packets by their lengths, transforms each, and concatenates the results.
fn each(
    mut bytes: &[u8],
    lengths: &[u32],
    change: impl Fn(&[u8]) -> Vec<u8>,
) -> (Vec<u8>, Vec<u32>) {
    let (mut changed, mut changed_lengths) = (Vec::new(), Vec::new());
    for &length in lengths {
        let (packet, rest) = bytes.split_at(length as usize);
        let packet = change(packet);
        changed_lengths.push(packet.len().try_into().unwrap());
        changed.extend(packet);
        bytes = rest;
    }
    (changed, changed_lengths)
}

fn turned(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.iter().map(|byte| !byte)
}

impl Transform for Disguise {
    fn encapsulate(
        &mut self,
        _: u32,
        bytes: &[u8],
        lengths: &[u32],
    ) -> Result<(Vec<u8>, Vec<u32>), String> {
        Ok(each(bytes, lengths, |packet| MARK.iter().copied().chain(turned(packet)).collect()))
    }

    fn decapsulate(
        &mut self,
        _: u32,
        bytes: &[u8],
        lengths: &[u32],
    ) -> Result<(Vec<u8>, Vec<u32>), String> {
        let undo = |payload: &[u8]| {
            payload.strip_prefix(MARK).map_or(Vec::new(), |rest| turned(rest).collect())
        };
        Ok(each(bytes, lengths, undo))
    }
}

fn disguised(table: Arc<Table>) -> Forwarding {
    let make = || Box::new(Disguise(TableSteering(Arc::clone(&table)))) as Box<dyn Transform>;
    let transform = Transforms { overhead: 4, out: make(), inbound: vec![make(), make()] };
    Forwarding { transform: Some(transform), steering: None, table }
}

fn failing(table: Arc<Table>, left: usize) -> Forwarding {
    let steering = Box::new(Failing { left, steering: TableSteering(Arc::clone(&table)) });
    Forwarding { steering: Some(steering), transform: None, table }
}

#[test]
fn table_steers_when_plugin_fails() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let pair = Pair::new();
    let (one, two) = (&pair.one, &pair.two);
    let before = one.running.counters().plugin;
    one.running.set(failing(table(&[(2, &two.host)]), 3));
    let pings = one.namespace().ping_stream(v4(2)).unwrap();
    pings.wait_answers(10).unwrap();
    let pings = pings.finish().unwrap();
    assert!(pings.lost.is_empty(), "{pings:?}");
    assert_eq!(*one.failures.lock().unwrap(), ["it trapped"]);
    let counters = one.running.counters();
    assert!(counters.fallback >= 7 && counters.plugin == before, "{counters:?}");
    // A new plugin takes over.
    one.running.set(failing(table(&[(2, &two.host)]), usize::MAX));
    one.ping(&format!("-c 3 -i 0.05 -W 3 {}", v4(2)));
    assert_eq!(one.running.counters().fallback, counters.fallback);
}

#[test]
fn packets_are_dropped_without_a_plugin() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let lab = Lab::new(Families::Dual).unwrap();
    let node = Node::start(1, lab.host("one").unwrap());
    let peer = lab.host("two").unwrap();
    node.running.set(Forwarding { table: table(&[(2, &peer)]), ..Forwarding::default() });
    let printed = node.ping(&format!("-c 2 -i 0.1 -W 1 {}", v4(2)));
    assert!(printed.contains("100% packet loss"), "{printed}");
    let counters = node.running.counters();
    assert!(counters.plugin >= 2 && counters.sent_packets == 0, "{counters:?}");
}

#[test]
fn transformed_packets_arrive() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let pair = Pair::new();
    let (one, two) = (&pair.one, &pair.two);
    one.running.set(disguised(table(&[(2, &two.host)])));
    two.running.set(disguised(table(&[(1, &one.host)])));
    for address in [v4(2), v6(2)] {
        let printed = one.ping(&format!("{PINGS} {address}"));
        assert!(printed.contains(" 0% packet loss"), "{printed}");
        let sent =
            heddle_lab::transfer(one.namespace(), two.namespace(), address, 50_000_000, None)
                .unwrap();
        assert!(sent.is_whole(), "{sent:?}");
    }
}

#[test]
fn failed_transform_never_leaks_bare_packets() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let plain = Plain::new();
    let node = &plain.node;
    node.running.set(disguised(table(&[(2, &plain.other)])));
    node.ping(&format!("-c 1 -W 1 {}", v4(2)));
    plain.receive(|datagram| datagram.strip_prefix(MARK).map(|_| ()));
    // The plugin does not accept bare packets.
    plain.send(&[0x45; 60]);
    node.wait_for("a refused datagram", |counters| counters.refused == 1);

    // New peers without a new plugin: the current one stays.
    let alone = || Forwarding { table: table(&[(2, &plain.other)]), ..Forwarding::default() };
    node.running.set(alone());
    node.ping(&format!("-c 1 -W 1 {}", v4(2)));
    plain.receive(|datagram| datagram.strip_prefix(MARK).map(|_| ()));

    // A failing plugin, and then none: nothing is sent or delivered.
    let transform =
        Transforms { overhead: 0, out: Box::new(Broken), inbound: vec![Box::new(Broken)] };
    node.running.set(Forwarding { transform: Some(transform), ..alone() });
    node.ping(&format!("-c 1 -W 1 {}", v4(2)));
    plain.send(&[0x45; 60]);
    node.wait_for("failures", |counters| counters.plugin >= 2);
    node.running.set(alone());
    let sent = node.running.counters().sent_packets;
    node.ping(&format!("-c 2 -i 0.1 -W 1 {}", v4(2)));
    plain.send(&[0x45; 60]);
    let counters = node.wait_for("drops", |counters| counters.plugin >= 5);
    assert_eq!((counters.sent_packets, counters.fallback), (sent, 0));
}

/// Steers, but fails to transform any packet.
struct Broken;

impl Steer for Broken {
    fn steer(
        &mut self,
        destinations: &[IpAddr],
        answers: &mut Vec<Option<u32>>,
    ) -> Result<(), String> {
        answers.extend(destinations.iter().map(|_| Some(0)));
        Ok(())
    }
}

impl Transform for Broken {
    fn encapsulate(&mut self, _: u32, _: &[u8], _: &[u32]) -> Result<(Vec<u8>, Vec<u32>), String> {
        Err("broken".to_owned())
    }

    fn decapsulate(&mut self, _: u32, _: &[u8], _: &[u32]) -> Result<(Vec<u8>, Vec<u32>), String> {
        Err("broken".to_owned())
    }
}

/// Prepends the peer's index to each packet, and drops payloads with another index.
struct Keyed(TableSteering);

impl Steer for Keyed {
    fn steer(
        &mut self,
        destinations: &[IpAddr],
        answers: &mut Vec<Option<u32>>,
    ) -> Result<(), String> {
        self.0.steer(destinations, answers)
    }
}

impl Transform for Keyed {
    fn encapsulate(
        &mut self,
        peer: u32,
        bytes: &[u8],
        lengths: &[u32],
    ) -> Result<(Vec<u8>, Vec<u32>), String> {
        let key = u8::try_from(peer).unwrap();
        Ok(each(bytes, lengths, |packet| [&[key], packet].concat()))
    }

    fn decapsulate(
        &mut self,
        peer: u32,
        bytes: &[u8],
        lengths: &[u32],
    ) -> Result<(Vec<u8>, Vec<u32>), String> {
        let key = u8::try_from(peer).unwrap();
        let undo = |payload: &[u8]| payload.strip_prefix(&[key]).map_or(Vec::new(), <[u8]>::to_vec);
        Ok(each(bytes, lengths, undo))
    }
}

#[test]
fn peers_behind_one_address_are_identified_by_transform() {
    requires!(Namespaces, TunDevice, Program("ip"), Program("ping"));
    let plain = Plain::new();
    // Like two hosts behind a NAT.
    let table = table(&[(2, &plain.other), (3, &plain.other)]);
    let make = || Box::new(Keyed(TableSteering(Arc::clone(&table)))) as Box<dyn Transform>;
    let transform = Transforms { overhead: 1, out: make(), inbound: vec![make(), make()] };
    let table = Arc::clone(&table);
    plain.node.running.set(Forwarding { transform: Some(transform), steering: None, table });
    let send = |key: u8, subnet| {
        let packet = udp([10, 244, subnet, 1], b"hello");
        plain.send(&[&[key], &packet[..]].concat());
    };
    send(0, 2);
    send(1, 3);
    plain.node.wait_for("both packets", |counters| counters.received_packets == 2);
    // Neither can spoof the other.
    send(0, 3);
    send(1, 2);
    send(2, 2);
    let counters = plain
        .node
        .wait_for("three drops", |counters| counters.refused + counters.spoofed_inner == 3);
    assert_eq!(counters.received_packets, 2);
}
