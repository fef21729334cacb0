//! A hostile writer with write access to etcd.

use std::time::{Duration, Instant};

use heddle_lab::{Daemon, Families, Host, KernelState, PREFIX, Signal, wait_until};
use heddle_tests::{Cluster, NETWORK_FOR_PEERS, Node, Peer, Random, Victim, recovered};
use ipnet::Ipv4Net;
use serde_json::Value;

/// Time limit for reading all of the records on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Number of records of random bytes.
const RANDOM: usize = 300;

/// A little less than etcd accepts in one request (`--max-request-bytes`), in bytes.
const HUGE: usize = 1_500_000;

type Record = (Vec<u8>, Vec<u8>);

/// Returns a record below `subnets/`.
fn record(key: impl AsRef<[u8]>, value: impl Into<Vec<u8>>) -> Record {
    ([format!("{PREFIX}/subnets/").as_bytes(), key.as_ref()].concat(), value.into())
}

/// Returns a lease like those of the vxlan backend.
fn lease(key: &str, public: &str, mac: &str) -> Record {
    let value = format!(
        r#"{{"PublicIP":"{public}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{mac}"}}}}"#
    );
    record(key, value)
}

/// Returns records that are not leases, by key or by value.
fn garbage() -> Vec<Record> {
    let mut random = Random::new(1);
    let mut bytes = || {
        let length = random.below(200);
        random.bytes(length)
    };
    let mut records = Vec::new();
    for number in 0..RANDOM {
        let some = bytes();
        records.push(match number % 3 {
            0 => record(some, bytes()),
            1 => record(format!("10.200.{}.0-24", number % 256), some),
            _ => {
                record([&some[..], b"-24"].concat(), lease("", "172.16.9.9", "02:00:00:00:09:09").1)
            }
        });
    }
    let deep = |open: &str, close: &str| {
        let depth = HUGE / (open.len() + close.len()) - 100;
        open.repeat(depth) + "1" + &close.repeat(depth)
    };
    let in_data = |data: &str| {
        format!(r#"{{"PublicIP":"172.16.9.1","BackendType":"vxlan","BackendData":{data}}}"#)
    };
    records.extend([
        record("10.201.0.0-24", vec![0; HUGE]),
        record("10.201.1.0-24", vec![0xff; HUGE]),
        record("10.201.2.0-24", deep("[", "]")),
        record("10.201.3.0-24", deep(r#"{"a":"#, "}")),
        record("10.201.4.0-24", in_data(&deep("[", "]"))),
        record("10.201.5.0-24", in_data(&format!(r#"{{"VtepMAC":{}}}"#, deep("[", "]")))),
        record("10.201.6.0-24", in_data(&format!("\"{}\"", "x".repeat(HUGE)))),
        record("10.201.7.0-24", format!(r#"{{"PublicIP":{}1}}"#, "9".repeat(HUGE))),
        record(
            "10.201.8.0-24",
            format!(r#"{{"NodeName":"{}","PublicIP":"172.16.9.2"}}"#, "\\u001b[2J".repeat(9000)),
        ),
        record("9".repeat(HUGE / 2), "{}"),
        record([0xff, 0xfe, 0x00, b'\n'], "\u{1b}[31m"),
        record("10.201.9.0-24\n10.201.9.0-24", "{}"),
        record("", "{}"),
        record("/", "{}"),
        record("../config", "{}"),
        (format!("{PREFIX}/subnets").into(), b"{}".into()),
        (format!("{PREFIX}/subnets-old/10.202.0.0-24").into(), Peer(7).value().into()),
        (format!("{PREFIX}/subnets0").into(), Peer(7).value().into()),
        (format!("{PREFIX}/\u{0}").into(), b"\xff".into()),
    ]);
    records
}

/// Returns leases whose subnets would divert traffic outside of the overlay.
fn greedy_subnets() -> Vec<Record> {
    let networks = [
        // All addresses, in one subnet and in two.
        "0.0.0.0-0",
        "0.0.0.0-1",
        "128.0.0.0-1",
        // The overlay itself, and a larger network.
        "10.0.0.0-8",
        "8.0.0.0-7",
        // This host, multicast groups, the underlay, its router, etcd's host, and the victim's
        // other networks.
        "127.0.0.0-8",
        "127.0.0.1-32",
        "224.0.0.0-4",
        "255.255.255.255-32",
        "169.254.0.0-16",
        "192.168.0.0-16",
        "192.168.255.254-32",
        "192.168.0.1-32",
        "172.30.0.0-24",
        "198.51.100.0-24",
        "203.0.113.0-24",
        "192.0.2.1-32",
        // The victim's networks inside the overlay: a network, parts of it, and one behind a
        // router.
        "10.210.0.0-24",
        "10.210.0.128-25",
        "10.210.0.9-32",
        "10.211.0.0-24",
        "10.211.77.0-24",
        // Other families.
        "0.0.0.0-0&::-0",
        "0.0.0.0-0&fe80::-64",
        "0.0.0.0-0&ff00::-8",
        "10.203.0.0-24&::-0",
    ];
    networks.map(|network| lease(network, "172.16.9.3", "02:00:00:00:09:03")).into()
}

/// Returns leases that claim resources of the victim or its healthy peer: their addresses, their
/// MACs, and subnets that overlap theirs. Their own keys are not touched.
fn claims(own: &Claimed, peer: &Claimed) -> Vec<Record> {
    let mut records = Vec::new();
    for (index, claimed) in [own, peer].into_iter().enumerate() {
        let Claimed { first, public, mac } = claimed;
        let half = first.trim_end_matches('0').to_owned() + "128";
        records.extend([
            // Subnets inside theirs and around them.
            lease(&format!("{first}-25"), "172.16.9.4", "02:00:00:00:09:04"),
            lease(&format!("{half}-25"), "172.16.9.5", "02:00:00:00:09:05"),
            lease(&format!("{first}-32"), "172.16.9.6", "02:00:00:00:09:06"),
            lease("10.0.0.0-9", "172.16.9.7", "02:00:00:00:09:07"),
            lease("10.0.0.0-17", "172.16.9.8", "02:00:00:00:09:08"),
            // Their MAC at another address, their address with another MAC, and both: before their keys and after them.
            lease(&format!("10.0.0.{}-32", index * 4), "172.16.9.9", mac),
            lease(&format!("10.0.0.{}-32", index * 4 + 1), public, "02:00:00:00:09:0a"),
            lease(&format!("10.204.{}.0-24", index * 4), "172.16.9.10", mac),
            lease(&format!("10.204.{}.0-24", index * 4 + 1), public, "02:00:00:00:09:0b"),
            lease(&format!("10.204.{}.0-24", index * 4 + 2), public, mac),
        ]);
    }
    records
}

/// Returns leases with addresses and MACs that no peer can have.
fn impossible_peers() -> Vec<Record> {
    let addresses = [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "192.168.255.254",
        "192.168.255.255",
        "10.0.1.1",
        "169.254.0.1",
    ];
    let macs = ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "33:33:00:00:00:01", "00:00:00:00:00:00"];
    let by_address = addresses.iter().enumerate().map(|(index, address)| {
        lease(&format!("10.205.{index}.0-24"), address, &format!("02:00:00:00:0a:{index:02x}"))
    });
    let by_mac = macs.iter().enumerate().map(|(index, mac)| {
        lease(&format!("10.206.{index}.0-24"), &format!("172.16.10.{index}"), mac)
    });
    by_address.chain(by_mac).collect()
}

/// Identity of a node: first address of its subnet, public address, MAC.
struct Claimed {
    first: String,
    public: String,
    mac: String,
}

impl Claimed {
    fn of(cluster: &Cluster, host: &Host) -> Self {
        let lease = cluster.lease_of(host).unwrap();
        let value: Value = serde_json::from_str(&lease.value).unwrap();
        let (_, key) = lease.key.rsplit_once('/').unwrap();
        Self {
            first: key.trim_end_matches("-24").to_owned(),
            public: host.v4().to_string(),
            mac: value["BackendData"]["VtepMAC"].as_str().unwrap().to_owned(),
        }
    }
}

/// Returns all attacks, by name.
fn attacks(own: &Claimed, healthy: &Claimed) -> [(&'static str, Vec<Record>); 4] {
    [
        ("garbage", garbage()),
        ("greedy subnets", greedy_subnets()),
        ("claims", claims(own, healthy)),
        ("impossible peers", impossible_peers()),
    ]
}

/// Networks of the victim's inside the overlay.
const INSIDE: &str = "\
link add name br1 type bridge
link set br1 up
address add 10.210.0.1/24 dev br1
route add 10.211.0.0/16 via 192.168.255.254 proto static
";

/// The answer of `/readyz` while the host has the networks of [`INSIDE`] and no peer has a fault.
const WARNING: &str = "ok\nwarning: 10.0.0.0/8 overlaps 10.210.0.0/24, which is connected to br1: leases inside \
    10.210.0.0/24 are not programmed; exclude it with SubnetMin and SubnetMax, or choose another Network\n";

/// A host with state to protect, and a healthy node.
struct Siege {
    daemon: Daemon,
    victim: Victim,
    peer: Node,
    own: Claimed,
    healthy: Claimed,
    cluster: Cluster,
}

impl Siege {
    fn new() -> Self {
        let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
        let host = cluster.host("victim");
        host.namespace().batch("ip", INSIDE).unwrap();
        let victim = Victim::new(host);
        let mut daemon = victim.host.start(cluster.heddled(&victim.host)).unwrap();
        daemon.wait_ready().unwrap();
        let peer = cluster.node("peer");
        let own = Claimed::of(&cluster, &victim.host);
        let healthy = Claimed::of(&cluster, &peer.host);
        let siege = Self { daemon, victim, peer, own, healthy, cluster };
        siege.wait_exact();
        siege.victim.check(false);
        siege
    }

    fn kernel(&self) -> KernelState {
        self.victim.host.kernel_state().unwrap().on("flannel.1")
    }

    /// Waits until the victim has exactly the objects for the leases.
    fn wait_exact(&self) {
        wait_until("the plan", LIMIT, || {
            let (found, planned) = (self.kernel(), self.cluster.planned(&self.victim.host));
            if found == planned { Ok(()) } else { Err(format!("{found:#?}")) }
        })
        .unwrap();
    }

    /// Returns the objects for the healthy peer, and any others inside its subnet.
    fn way_to_peer(&self) -> KernelState {
        let subnet: Ipv4Net = format!("{}/24", self.healthy.first).parse().unwrap();
        let inside = |text: &str| {
            let network = text.parse().or_else(|_| format!("{text}/32").parse::<Ipv4Net>());
            network.is_ok_and(|network| subnet.contains(&network))
        };
        let mut kernel = self.kernel();
        kernel.routes.retain(|route| inside(&route.dst));
        kernel.neighbours.retain(|neighbour| inside(&neighbour.dst));
        kernel.fdb.retain(|entry| entry.mac == self.healthy.mac);
        kernel
    }

    fn write(&self, records: &[Record]) {
        for (key, value) in records {
            self.cluster.etcd().put(key, value).unwrap();
        }
    }

    /// Asserts that the victim and its daemon are unharmed.
    fn check(&mut self, when: &str) {
        self.victim.check(false);
        self.daemon.check_running().unwrap();
        self.peer.daemon().check_running().unwrap();
        let (code, body) = self.daemon.health("/readyz").unwrap();
        let of_peers = body.strip_prefix(WARNING).unwrap_or_else(|| panic!("{when}: {body}"));
        assert_eq!(code, 200, "{when}: {body}");
        assert!(
            of_peers.lines().all(|line| line.starts_with("warning: peers: ")),
            "{when}: {body}"
        );
        let log = self.daemon.log();
        assert!(!log.contains("panicked") && !log.contains('\u{1b}'), "{log}");
        assert!(log.len() < 1 << 20, "{} bytes of log", log.len());
    }
}

#[test]
fn hostile_writer_harms_only_nodes_whose_key_it_takes() {
    let mut siege = Siege::new();
    let container = siege.peer.host.container().unwrap();
    let pings = siege.victim.host.namespace().ping_stream(container.addresses()[0]).unwrap();
    pings.wait_answers(10).unwrap();
    let before = siege.way_to_peer();
    assert_eq!(before.len(), 3);

    let attacks = attacks(&siege.own, &siege.healthy);
    for (number, (what, records)) in (0..).zip(&attacks) {
        siege.write(records);
        // This peer is written after the records, so its route shows that all of them have been
        // read.
        let mark = Peer(1000 + number);
        siege.cluster.put_lease(&mark.lease_key(), &mark.value());
        wait_until(format!("the peer after {what}"), LIMIT, || {
            let found = siege.kernel();
            found.route(&format!("{}/24", mark.subnet())).map(drop).ok_or(found.len())
        })
        .unwrap();
        assert_eq!(siege.way_to_peer(), before, "after {what}");
        siege.check(what);
    }

    let since = Instant::now();
    for (key, _) in attacks.iter().flat_map(|(_, records)| records) {
        siege.cluster.etcd().delete(key).unwrap();
    }
    siege.wait_exact();
    recovered("hostile writer", since.elapsed());
    let pings = pings.finish().unwrap();
    assert!(pings.lost.is_empty(), "{pings:?}");
    assert_eq!(siege.cluster.etcd().leases().unwrap().len(), 2 + attacks.len());
}

#[test]
fn daemon_starts_with_any_records_of_hostile_writer() {
    let mut siege = Siege::new();
    let lease = |siege: &Siege| siege.cluster.lease_of(&siege.victim.host).unwrap();
    let (before, own) = (siege.way_to_peer(), lease(&siege));
    for (_, records) in attacks(&siege.own, &siege.healthy) {
        siege.write(&records);
    }
    let command = siege.cluster.heddled(&siege.victim.host);
    siege.daemon.signal(Signal::KILL).unwrap();
    siege.daemon.wait_exit(LIMIT).unwrap();
    siege.daemon = siege.victim.host.start(command).unwrap();
    siege.daemon.wait_ready().unwrap();
    siege.check("after a start");
    let now = siege.way_to_peer();
    assert_eq!((now.routes, now.neighbours), (before.routes, before.neighbours));
    assert_eq!(lease(&siege), own);
}
