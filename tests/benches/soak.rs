//! Random faults, one after another or several at once, with leases that change all the time and traffic that none of it is
//! any business of. At the end nothing may be lost or different: the kernels hold exactly what the leases in etcd come to,
//! each node has the subnet that it had, and not one packet of the traffic is missing.
//!
//! `MINUTES` says for how long, 10 by default; `SEED` repeats a run's choices. It fails at the first thing that is wrong.

use std::thread;
use std::time::{Duration, Instant};

use heddle_lab::{Families, Signal, Storage, wait_until};
use heddle_tests::measurement::setting;
use heddle_tests::{
    Cluster, Flow, Loss, NETWORK_FOR_PEERS, Node, Peer, SOON, cut, heal, wait_ready,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Peers that are leases and nothing else, and change.
const PEERS: u16 = 200;

/// How long it may take at the end until everything is as it should be: a store that lost data is not believed for two
/// minutes about what it lacks.
const AT_REST: Duration = Duration::from_secs(180);

fn main() {
    let length = Duration::from_secs(60 * setting("MINUTES").unwrap_or(10));
    let seed = setting("SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    println!("SEED={seed}, {} s, etcd's data in {}", length.as_secs(), Storage::now());
    Soak::new(seed).run(length);
}

struct Soak {
    cluster: Cluster,
    /// The first two carry the traffic. What happens to a single node happens to the others.
    nodes: [Node; 4],
    flow: Flow,
    leases: Vec<String>,
    random: StdRng,
    faults: u32,
    changes: u32,
}

impl Soak {
    fn new(seed: u64) -> Self {
        let cluster = Cluster::with_config(Families::V4, Some(NETWORK_FOR_PEERS));
        let peers = Peer::range(0, PEERS);
        cluster.etcd().put_all(&Peer::leases(&peers), 100).unwrap();
        let nodes = cluster.nodes(["a", "b", "c", "d"]);
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
            // The last fault may have been etcd's, which a daemon tries to reach ten seconds later at most.
            wait_ready(node.daemon(), AT_REST);
            assert_eq!(self.cluster.lease(node).key, *lease, "{}", node.host.name());
        }
        self.flow.end_without_loss();
        println!(
            "{} faults and {} changes of leases: no packet lost, no difference {rested:?} after the last",
            self.faults, self.changes
        );
    }

    /// Does something bad, lets leases change meanwhile, and puts it right again.
    fn fault(&mut self, at: Duration) {
        self.faults += 1;
        let which = self.random.random_range(0..12);
        let victim = self.random.random_range(2..4);
        let span = Duration::from_millis(self.random.random_range(200..8_000));
        let name = self.nodes[victim].host.name().to_owned();
        if (6..=9).contains(&which) {
            // It may be gone by an earlier fault, on a busy machine.
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
                self.churn(span);
                heal(&self.nodes[victim].host);
            }
            4 | 5 => {
                let signal = if which == 4 { Signal::KILL } else { Signal::TERM };
                say(&format!("{name}'s daemon gets {signal:?}"));
                self.nodes[victim].stop(signal);
                self.churn(span);
                self.cluster.restart(&mut self.nodes[victim]);
            }
            6 => {
                say(&format!("{name}'s daemon is paused, and its device loses what is on it"));
                self.nodes[victim].signal(Signal::STOP);
                self.flush(victim);
                self.churn(span);
                self.nodes[victim].signal(Signal::CONT);
            }
            7 => {
                say(&format!("{name}'s device loses what is on it"));
                self.flush(victim);
                self.churn(span);
            }
            8 => {
                say(&format!("{name}'s device goes"));
                self.nodes[victim].ip("link del flannel.1");
                self.churn(span);
            }
            9 => {
                say(&format!("{name}'s device gets another MAC and is set down"));
                self.nodes[victim].ip("link set flannel.1 down address 02:00:00:00:99:99");
                self.churn(span);
            }
            10 => {
                say("somebody writes nonsense, and history is forgotten");
                for (key, value) in
                    [("nonsense", "{}"), ("10.200.0.0-24", "\u{1}"), ("10.128.0.0-25", "[]")]
                {
                    self.cluster.put_lease(key, value);
                }
                self.cluster.etcd().compact().unwrap();
                self.churn(span);
                for key in ["nonsense", "10.200.0.0-24", "10.128.0.0-25"] {
                    self.cluster.delete_lease(key);
                }
            }
            _ => {
                say("leases change");
                self.churn(span);
            }
        }
    }

    fn flush(&self, victim: usize) {
        for what in
            ["route flush dev flannel.1 proto 72", "neigh flush dev flannel.1 nud permanent"]
        {
            // The daemon may take one of them at the same time, with which `ip` fails.
            wait_until(what, SOON, || self.nodes[victim].host.namespace().ip(what)).unwrap();
        }
    }

    /// For so long, peers come, move and go.
    fn churn(&mut self, span: Duration) {
        let until = Instant::now() + span;
        while Instant::now() < until {
            let peer = Peer(self.random.random_range(0..PEERS));
            let value = match self.random.random_range(0..3) {
                0 => None,
                1 => Some(peer.value()),
                _ => Some(Peer(peer.0 + 10_000).value()),
            };
            let etcd = self.cluster.etcd();
            // A disk may be busy for longer than etcd waits for it.
            wait_until("a change in etcd", AT_REST, || match &value {
                None => etcd.delete(&peer.etcd_key()),
                Some(value) => etcd.put(&peer.etcd_key(), value),
            })
            .unwrap();
            self.changes += 1;
            thread::sleep(Duration::from_millis(self.random.random_range(1..40)));
        }
    }
}
