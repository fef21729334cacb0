//! Soak test: random faults, sequential or overlapping, with continuous lease changes and with
//! traffic that none of them concerns. At the end, the kernels must hold exactly the objects that
//! the leases in etcd call for, each node must have its original subnet, and no packet of the
//! traffic may be lost.
//!
//! `MINUTES` sets the length, 10 by default; `SEED` repeats a run's choices. Fails at the first
//! deviation.

use std::thread;
use std::time::{Duration, Instant};

use heddle_lab::{Etcd, Families, Lab, Signal, Storage, wait_until};
use heddle_tests::crowd::{besieged, crowd};
use heddle_tests::measurement::setting;
use heddle_tests::{
    Cluster, Flow, Loss, NETWORK_FOR_PEERS, Node, Peer, SOON, cut, heal, wait_ready,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Port of the nodes' status pages.
const STATUS_PORT: u16 = 9981;

/// Number of oversized records, and their length in bytes.
const GARBAGE: usize = 40;
const HUGE: usize = 1_400_000;

/// Number of peers that consist of a lease only, and change.
const PEERS: u16 = 200;

/// Time limit at the end for everything to converge. A store that lost data is not trusted for two
/// minutes about missing leases.
const AT_REST: Duration = Duration::from_secs(180);

fn main() {
    let length = Duration::from_secs(60 * setting("MINUTES").unwrap_or(10));
    let seed = setting("SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    println!("SEED={seed}, {} s, etcd's data in {}", length.as_secs(), Storage::now());
    Soak::new(seed).run(length);
}

struct Soak {
    cluster: Cluster,
    /// The first two carry the traffic. Faults of a single node hit the other two.
    nodes: [Node; 4],
    flow: Flow,
    leases: Vec<String>,
    random: StdRng,
    faults: u32,
    changes: u32,
}

impl Soak {
    fn new(seed: u64) -> Self {
        let lab = Lab::new(Families::V4).unwrap();
        let etcd = Etcd::start_with_room(&lab, 8 << 30).unwrap();
        let cluster = Cluster::with_etcd_and_config(lab, etcd, NETWORK_FOR_PEERS);
        let peers = Peer::range(0, PEERS);
        cluster.etcd().put_all(&Peer::leases(&peers), 100).unwrap();
        let nodes = ["a", "b", "c", "d"].map(|name| {
            let mut node = cluster.starting_node(name, &["--status-address=9981"]);
            node.daemon().wait_ready().unwrap();
            node
        });
        let flow = Flow::between(&nodes[0], &nodes[1]);
        let leases = nodes.iter().map(|node| cluster.lease(node).key).collect();
        let random = StdRng::seed_from_u64(seed);
        Self { cluster, nodes, flow, leases, random, faults: 0, changes: 0 }
    }

    fn run(mut self, length: Duration) {
        let began = Instant::now();
        while began.elapsed() < length {
            self.fault(began.elapsed());
            self.flow.goes_on();
        }
        let resting = Instant::now();
        let exact = || {
            for node in &self.nodes {
                let found = node.host.kernel_state().unwrap().on("flannel.1");
                let planned = self.cluster.planned(&node.host);
                if found != planned {
                    let (found, planned) = (found.len(), planned.len());
                    return Err(format!("{}: {found} objects of {planned}", node.host.name()));
                }
            }
            Ok(())
        };
        wait_until("exactly the leases in every kernel", AT_REST, exact).unwrap();
        let rested = resting.elapsed();
        for (node, lease) in self.nodes.iter_mut().zip(&self.leases) {
            node.daemon().check_running().unwrap();
            // The last fault may have been etcd's; daemons reconnect within ten seconds.
            wait_ready(node.daemon(), AT_REST);
            assert_eq!(self.cluster.lease(node).key, *lease, "{}", node.host.name());
        }
        self.flow.end_without_loss();
        println!(
            "{} faults and {} changes of leases: no packet lost, no difference {rested:?} after the last",
            self.faults, self.changes
        );
    }

    /// Injects a fault, lets leases change meanwhile, and repairs it.
    #[expect(clippy::too_many_lines, reason = "one arm for each fault")]
    fn fault(&mut self, at: Duration) {
        self.faults += 1;
        let which = self.random.random_range(0..15);
        let victim = self.random.random_range(2..4);
        let span = Duration::from_millis(self.random.random_range(200..8_000));
        let name = self.nodes[victim].host.name().to_owned();
        if (6..=9).contains(&which) {
            // On a busy machine, an earlier fault may have left the device missing.
            wait_until("a device", SOON, || {
                self.nodes[victim].host.namespace().ip("link show flannel.1")
            })
            .unwrap();
        }
        let say = |what: &str| println!("{:>6.1} s  {what}, {span:?}", at.as_secs_f64());
        match which {
            0 => {
                say("etcd is paused");
                self.cluster.etcd().signal(Signal::STOP).unwrap();
                thread::sleep(span);
                self.cluster.etcd().signal(Signal::CONT).unwrap();
            }
            1 => {
                say("etcd is killed");
                self.cluster.etcd_mut().stop();
                thread::sleep(span);
                self.cluster.etcd_mut().resume().unwrap();
            }
            2 | 3 => {
                let loss = if which == 2 { Loss::Silent } else { Loss::Refused };
                say(&format!("{name} is cut off from etcd ({loss:?})"));
                let address = self.cluster.etcd().host().v4().into();
                cut(&self.nodes[victim].host, address, loss);
                self.changes += churn(&self.cluster, &mut self.random, span);
                heal(&self.nodes[victim].host);
            }
            4 | 5 => {
                let signal = if which == 4 { Signal::KILL } else { Signal::TERM };
                say(&format!("{name}'s daemon gets {signal:?}"));
                self.nodes[victim].stop(signal);
                self.changes += churn(&self.cluster, &mut self.random, span);
                self.cluster.restart(&mut self.nodes[victim]);
            }
            6 => {
                say(&format!("{name}'s daemon is paused, and its device loses what is on it"));
                self.nodes[victim].signal(Signal::STOP);
                self.flush(victim);
                self.changes += churn(&self.cluster, &mut self.random, span);
                self.nodes[victim].signal(Signal::CONT);
            }
            7 => {
                say(&format!("{name}'s device loses what is on it"));
                self.flush(victim);
                self.changes += churn(&self.cluster, &mut self.random, span);
            }
            8 => {
                say(&format!("{name}'s device goes"));
                self.nodes[victim].ip("link del flannel.1");
                self.changes += churn(&self.cluster, &mut self.random, span);
            }
            9 => {
                say(&format!("{name}'s device gets another MAC and is set down"));
                self.nodes[victim].ip("link set flannel.1 down address 02:00:00:00:99:99");
                self.changes += churn(&self.cluster, &mut self.random, span);
            }
            10 => {
                say("somebody writes nonsense, and history is forgotten");
                for (key, value) in
                    [("nonsense", "{}"), ("10.200.0.0-24", "\u{1}"), ("10.128.0.0-25", "[]")]
                {
                    self.cluster.put_lease(key, value);
                }
                self.cluster.etcd().compact().unwrap();
                self.changes += churn(&self.cluster, &mut self.random, span);
                for key in ["nonsense", "10.200.0.0-24", "10.128.0.0-25"] {
                    self.cluster.delete_lease(key);
                }
            }
            11 => {
                say(&format!("{name} has 3,000 slow clients and 60 stalled readers"));
                let (cluster, random) = (&self.cluster, &mut self.random);
                let host = &self.nodes[victim].host;
                self.changes += besieged(host, crowd(STATUS_PORT), || churn(cluster, random, span));
            }
            12 => {
                say("somebody writes records that are too long");
                let keys = self.garbage();
                self.changes += churn(&self.cluster, &mut self.random, span);
                keys.iter().for_each(|key| self.cluster.delete_lease(key));
            }
            13 => {
                say(&format!("somebody leases a network of {name}'s"));
                self.own_network(victim, span);
            }
            _ => {
                say("leases change");
                self.changes += churn(&self.cluster, &mut self.random, span);
            }
        }
    }

    fn flush(&self, victim: usize) {
        for what in
            ["route flush dev flannel.1 proto 72", "neigh flush dev flannel.1 nud permanent"]
        {
            // The daemon may remove one of them at the same time, which makes `ip` fail.
            wait_until(what, SOON, || self.nodes[victim].host.namespace().ip(what)).unwrap();
        }
    }

    /// Fills the prefix with oversized records, and with records that have oversized names.
    fn garbage(&self) -> Vec<String> {
        let long = "x".repeat(HUGE);
        let named = format!(
            r#"{{"PublicIP":"172.16.9.9","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:09:09"}},"NodeName":"{long}"}}"#
        );
        let keys = (0..GARBAGE).map(|number| format!("10.120.{number}.0-24"));
        let keys: Vec<_> = keys.collect();
        for (number, key) in keys.iter().enumerate() {
            self.cluster.put_lease(key, if number % 2 == 0 { &long } else { &named });
        }
        keys
    }

    /// Gives a host a network inside the overlay for a time. Other nodes lease that network or
    /// parts of it, before and after.
    fn own_network(&mut self, victim: usize, span: Duration) {
        const LEASES: [&str; 3] = ["10.127.7.0-24", "10.127.7.128-25", "10.127.7.9-32"];
        let value = Peer(20_000).value();
        let way = |node: &Node| node.ip("route get 10.127.7.9");
        LEASES[..1].iter().for_each(|key| self.cluster.put_lease(key, &value));
        self.changes += churn(&self.cluster, &mut self.random, span / 2);
        let host = &self.nodes[victim].host;
        host.namespace().batch("ip", LAN).unwrap();
        LEASES.iter().for_each(|key| self.cluster.put_lease(key, &value));
        let is_own = || {
            let way = way(&self.nodes[victim]);
            if way.contains("dev lan0") { Ok(()) } else { Err(way) }
        };
        wait_until("the host's own network", AT_REST, is_own).unwrap();
        self.changes += churn(&self.cluster, &mut self.random, span / 2);
        let way = way(&self.nodes[victim]);
        assert!(way.contains("dev lan0"), "{way}");
        LEASES.iter().for_each(|key| self.cluster.delete_lease(key));
        self.nodes[victim].ip("link del lan0");
    }
}

/// A host network inside the overlay.
const LAN: &str = "\
link add name lan0 type bridge
link set lan0 up
address add 10.127.7.1/24 dev lan0
";

/// Adds, moves and removes peers for `span`. Returns the number of changes.
fn churn(cluster: &Cluster, random: &mut StdRng, span: Duration) -> u32 {
    let until = Instant::now() + span;
    let mut changes = 0;
    while Instant::now() < until {
        let peer = Peer(random.random_range(0..PEERS));
        let value = match random.random_range(0..3) {
            0 => None,
            1 => Some(peer.value()),
            _ => Some(Peer(peer.0 + 10_000).value()),
        };
        let etcd = cluster.etcd();
        // A busy disk may stall etcd beyond its own timeout.
        wait_until("a change in etcd", AT_REST, || match &value {
            None => etcd.delete(&peer.etcd_key()),
            Some(value) => etcd.put(&peer.etcd_key(), value),
        })
        .unwrap();
        changes += 1;
        thread::sleep(Duration::from_millis(random.random_range(1..40)));
    }
    changes
}
