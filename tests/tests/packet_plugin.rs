//! A failing packet plugin: packets continue by the table of its last answers while it is
//! restarted, and the daemon's other work continues.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use heddle_lab::{Container, wait_until};
use heddle_tests::{Cluster, Node, Overlay, Packet, PlainPeer, SOON, ping, rogue_udp};

const CONFIG: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"rogue-udp"}}"#;

/// With this config, any packet makes the plugin trap.
const HARMED: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"rogue-udp","Harm":true}}"#;

/// Last byte of an address at which the plugin traps, and of one at which it loops for ever.
const TRAP: u8 = 66;
const HANG: u8 = 99;

/// Longest delay of packets by one hung call: 20 ms, and as much again for the epoch clock that
/// ends it and for waking threads.
const HELD_UP: Duration = Duration::from_millis(60);

/// Time for which the table may stand in for the plugin.
const FALLBACK: Duration = Duration::from_secs(30);

/// Two nodes with a container each, and a plugin from a directory.
struct Pair {
    nodes: [Node; 2],
    containers: [Container; 2],
    /// Packets that the first node dropped before it was ready: the kernel sends some as soon as
    /// there is a device.
    early: u64,
    cluster: Cluster,
}

impl Pair {
    fn new(config: &str) -> Self {
        // Build the component before anything waits for it.
        let plugin = rogue_udp();
        let cluster = Cluster::with_config(heddle_lab::Families::V4, Some(config));
        let plugins = cluster.lab().directory().join("plugins");
        std::fs::create_dir(&plugins).unwrap();
        std::fs::copy(plugin, plugins.join("rogue-udp.wasm")).unwrap();
        let flag = format!("--plugin-dir={}", plugins.display());
        let nodes = ["a", "b"].map(|name| {
            let mut node = cluster.starting_node(name, &[&flag]);
            node.daemon().wait_ready().unwrap();
            node
        });
        let containers = [&nodes[0], &nodes[1]].map(|node| node.host.container().unwrap());
        let early = nodes[0].counters()["plugin"];
        Self { nodes, containers, early, cluster }
    }

    fn counter(&self, name: &str) -> u64 {
        self.nodes[0].counters()[name]
    }

    /// Returns the number of packets that the first node dropped because neither plugin nor table
    /// could steer them.
    fn dropped(&self) -> u64 {
        self.counter("plugin") - self.early
    }

    /// Returns the second container's address.
    fn target(&self) -> IpAddr {
        self.containers[1].addresses()[0]
    }

    /// Returns an address in the second node's subnet with this last byte.
    fn ending_with(&self, last: u8) -> IpAddr {
        let IpAddr::V4(address) = self.target() else { unreachable!("the overlay is IPv4's") };
        let [a, b, c, _] = address.octets();
        [a, b, c, last].into()
    }

    /// Opens a UDP socket in the first container.
    fn socket(&self) -> UdpSocket {
        let address = SocketAddr::new(self.containers[0].addresses()[0], 0);
        self.containers[0].namespace().udp_socket(address).unwrap()
    }

    /// Sends a packet from the first container.
    fn send(&self, socket: &UdpSocket, to: IpAddr) {
        socket.send_to(b"?", SocketAddr::new(to, 9)).unwrap();
    }

    /// Waits until the first node's plugin steers, that is, until the fallback table is unused
    /// although there are packets.
    fn wait_steered(&self) {
        wait_until("packets steered by the plugin", SOON, || {
            let before = self.counter("fallback");
            self.containers[0].ping(self.target(), 56).unwrap();
            thread::sleep(Duration::from_millis(50));
            let steered = self.counter("fallback") - before;
            if steered == 0 { Ok(()) } else { Err(format!("{steered} steered by the table")) }
        })
        .unwrap();
    }

    /// Asserts that both daemons are ready.
    fn check_ready(&mut self) {
        for node in &mut self.nodes {
            let daemon = node.daemon();
            daemon.check_running().unwrap();
            let (status, body) = daemon.health("/readyz").unwrap();
            assert_eq!(status, 200, "{body}");
        }
    }

    /// Asserts that a new peer receives its packets.
    fn check_followed(&self, name: &str, number: u8) {
        let peer = PlainPeer::join(&self.cluster, name, number);
        self.wait_reached(&peer, peer.address(Overlay::V4));
    }

    /// Waits until a peer receives a packet that the first container sends to an address, and
    /// asserts that it receives no other.
    fn wait_reached(&self, peer: &PlainPeer, to: IpAddr) {
        let socket = self.socket();
        let start = Instant::now();
        loop {
            // Sending fails while there is no route.
            let _ = socket.send_to(b"?", SocketAddr::new(to, 9));
            if let Some((_, datagram)) = peer.receive(Overlay::V4) {
                return assert_eq!(Packet::parse(&datagram).destination(), to);
            }
            assert!(start.elapsed() < SOON, "{} has got nothing", peer.host.name());
        }
    }
}

#[test]
fn trapping_plugin_loses_no_packet() {
    let mut pair = Pair::new(CONFIG);
    pair.wait_steered();
    let stream = pair.containers[0].ping_stream(pair.target()).unwrap();
    stream.wait_answers(20).unwrap();
    let socket = pair.socket();
    for number in [200, 201, 202] {
        let before = pair.counter("fallback");
        pair.send(&socket, pair.ending_with(TRAP));
        wait_until("packets steered by the table", SOON, || {
            if pair.counter("fallback") > before { Ok(()) } else { Err("none") }
        })
        .unwrap();
        pair.check_ready();
        pair.check_followed(&format!("new-{number}"), number);
        stream.wait_answers(20).unwrap();
    }
    let texts = ["rogue-udp", "packet path", "as was asked for"];
    pair.nodes[0].daemon().wait_log(&texts, SOON).unwrap();
    // The plugin takes over again, once it has restarted.
    wait_until("packets steered by the plugin", SOON, || {
        let before = pair.counter("fallback");
        stream.wait_answers(20).unwrap();
        let steered = pair.counter("fallback") - before;
        if steered == 0 { Ok(()) } else { Err(format!("{steered} steered by the table")) }
    })
    .unwrap();
    let pings = stream.finish().unwrap();
    assert!(pings.lost.is_empty(), "{pings:?}");
    assert_eq!(pair.dropped(), 0);
    pair.check_ready();
}

#[test]
fn hanging_plugin_delays_packets_briefly() {
    let mut pair = Pair::new(CONFIG);
    pair.wait_steered();
    let socket = pair.socket();
    let mut longest = Vec::new();
    for number in [200, 201, 202] {
        pair.wait_steered();
        let before = pair.counter("fallback");
        let stream = pair.containers[0].ping_stream(pair.target()).unwrap();
        stream.wait_answers(20).unwrap();
        pair.send(&socket, pair.ending_with(HANG));
        pair.check_followed(&format!("new-{number}"), number);
        stream.wait_answers(50).unwrap();
        let pings = stream.finish().unwrap();
        assert!(pings.lost.is_empty(), "{pings:?}");
        assert!(pair.counter("fallback") > before);
        pair.check_ready();
        longest.push(pings.longest);
    }
    pair.nodes[0].daemon().wait_log(&["rogue-udp", "packet path", "time limit"], SOON).unwrap();
    assert_eq!(pair.dropped(), 0);
    // A loaded machine delays packets as well, but not in every round.
    let shortest = longest.iter().min().unwrap();
    assert!(*shortest <= HELD_UP, "packets were held up for {longest:?}");
    println!("held up for {longest:?}");
}

#[test]
fn fallback_for_always_trapping_plugin_is_limited() {
    rogue_udp();
    // The first packet may be the kernel's, as soon as there is a device.
    let earliest = Instant::now();
    let mut pair = Pair::new(HARMED);
    // The table stands in, for many failed instances of the plugin.
    pair.containers[0].ping(pair.target(), 56).unwrap();
    let latest = Instant::now();
    let margin = Duration::from_secs(5);
    let mut pings = 0;
    while earliest.elapsed() < FALLBACK - margin {
        pair.containers[0].ping(pair.target(), 56).unwrap();
        pings += 1;
        thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(pair.dropped(), 0);
    assert!(pair.counter("fallback") > pings.max(50), "{}", pair.counter("fallback"));
    pair.check_ready();
    pair.check_followed("new", 200);

    let socket = pair.socket();
    let to = pair.target();
    let limit = (FALLBACK + margin).saturating_sub(latest.elapsed());
    wait_until("packets dropped", limit, || {
        pair.send(&socket, to);
        thread::sleep(Duration::from_millis(20));
        if pair.dropped() > 0 { Ok(()) } else { Err("none") }
    })
    .unwrap();
    assert!(earliest.elapsed() >= FALLBACK, "{:?}", earliest.elapsed());
    // No packet gets through.
    let (steered, dropped) = (pair.counter("fallback"), pair.dropped());
    let printed = ping(pair.containers[0].namespace(), &format!("-c 20 -i 0.01 -W 1 {to}"));
    assert!(printed.contains(" 0 received"), "{printed}");
    assert_eq!(pair.counter("fallback"), steered);
    assert!(pair.dropped() >= dropped + 20);
    let daemon = pair.nodes[0].daemon();
    daemon.wait_log(&["rogue-udp", "packet path", "as was asked for"], SOON).unwrap();
    let log = daemon.log();
    assert!(log.lines().count() < 200, "{} lines of log", log.lines().count());
    pair.check_ready();
}

#[test]
fn lease_that_fails_plugin_update_disturbs_no_other_peer() {
    for (harm, reason) in [("trap", "as was asked for"), ("hang", "time limit")] {
        let mut pair = Pair::new(CONFIG);
        let leaving = PlainPeer::join(&pair.cluster, "leaving", 200);
        let moving = PlainPeer::join(&pair.cluster, "moving", 201);
        let elsewhere = PlainPeer::without_lease(&pair.cluster, "elsewhere", 202);
        for peer in [&leaving, &moving] {
            pair.wait_reached(peer, peer.address(Overlay::V4));
        }
        pair.wait_steered();
        let stream = pair.containers[0].ping_stream(pair.target()).unwrap();
        stream.wait_answers(20).unwrap();

        let value =
            format!(r#"{{"PublicIP":"192.168.77.7","PublicIPv6":null,"BackendData":"{harm}"}}"#);
        pair.cluster.put_lease("10.244.230.0-24", &value);
        let texts = ["rogue-udp", "cannot be started for the packet path", reason];
        pair.nodes[0].daemon().wait_log(&texts, SOON).unwrap();
        // The running instance does not know of the following changes. Even so, no packet may go to
        // a peer that has left or moved.
        pair.cluster.delete_lease(&leaving.lease_key());
        pair.cluster.put_lease(&moving.lease_key(), &elsewhere.lease_value());
        for peer in [&leaving, &moving] {
            let to = peer.address(Overlay::V4);
            wait_until(format!("no way to {to}"), SOON, || {
                let printed = ping(pair.containers[0].namespace(), &format!("-c 1 -W 1 {to}"));
                if printed.contains("Net Unreachable") { Ok(()) } else { Err(printed) }
            })
            .unwrap();
            peer.drain(Overlay::V4);
            pair.send(&pair.socket(), to);
            assert_eq!(peer.receive(Overlay::V4), None);
        }
        stream.wait_answers(50).unwrap();
        pair.check_ready();

        // Without that lease, updates of the peers succeed again.
        pair.cluster.delete_lease("10.244.230.0-24");
        pair.wait_reached(&elsewhere, moving.address(Overlay::V4));
        pair.check_followed("new", 203);
        pair.nodes[0]
            .daemon()
            .wait_log(&["plugin rogue-udp: recovered; it steers packets again"], SOON)
            .unwrap();
        let pings = stream.finish().unwrap();
        assert!(pings.lost.is_empty(), "{harm}: {pings:?}");
        assert_eq!(pair.dropped(), 0);
        pair.check_ready();
    }
}
