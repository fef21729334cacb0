//! Healthy clusters, one of each backend, whose nodes join, restart and leave all the time: no
//! surface of a node may report a problem.
//!
//! `MINUTES` sets the length, 10 by default. Fails at the first report.

use std::thread;
use std::time::{Duration, Instant};

use heddle_lab::{Families, Signal};
use heddle_tests::measurement::setting;
use heddle_tests::surfaces::{Surfaces, WATCHED};
use heddle_tests::{Cluster, Node};

const BACKENDS: [&str; 5] = ["vxlan", "host-gw", "udp", "vxlan-tun", "alloc"];

/// Time limit for a cluster to come to rest before the run.
const AT_REST: Duration = Duration::from_secs(60);

/// Time between two changes.
const INTERVAL: Duration = Duration::from_secs(4);

fn main() {
    let length = Duration::from_secs(60 * setting("MINUTES").unwrap_or(10));
    let runs = BACKENDS.map(|backend| {
        let name = backend.to_owned();
        thread::Builder::new().name(name).spawn(move || Quiet::new(backend).run(length)).unwrap()
    });
    for (backend, run) in BACKENDS.into_iter().zip(runs) {
        let (changes, looks) = run.join().unwrap_or_else(|_| panic!("{backend} is not quiet"));
        println!("{backend}: {changes} changes, {looks} looks at five surfaces, no report");
    }
}

/// A cluster of two nodes that stay, and one that comes and goes.
struct Quiet {
    cluster: Cluster,
    watched: Node,
    restarting: Node,
    surfaces: Surfaces,
    config: String,
    looks: u32,
}

impl Quiet {
    fn new(backend: &str) -> Self {
        let cluster = Cluster::with_backend(Families::Dual, backend);
        let [mut watched, mut restarting] =
            ["a", "b"].map(|name| cluster.starting_node(name, &WATCHED));
        for node in [&mut watched, &mut restarting] {
            node.daemon().wait_ready().unwrap();
        }
        let mut surfaces = Surfaces::of(&cluster, &watched);
        surfaces.wait_quiet(&mut watched, AT_REST);
        let config = Families::Dual.config_with(backend);
        Self { cluster, watched, restarting, surfaces, config, looks: 0 }
    }

    /// Returns the number of changes, and of looks at all surfaces.
    fn run(mut self, length: Duration) -> (u32, u32) {
        let began = Instant::now();
        let mut changes = 0;
        let mut guest: Option<Node> = None;
        while began.elapsed() < length {
            match (changes % 4, guest.take()) {
                (0 | 2, None) => {
                    let name = format!("guest{changes}");
                    let mut node = self.cluster.starting_node(&name, &WATCHED);
                    node.daemon().wait_ready().unwrap();
                    guest = Some(node);
                }
                (0 | 2, Some(mut node)) => {
                    node.stop(Signal::TERM);
                    self.cluster.delete_lease_of(&node.host);
                }
                (1, node) => {
                    self.restarting.stop(Signal::TERM);
                    self.cluster.restart(&mut self.restarting);
                    guest = node;
                }
                (_, node) => {
                    // Written again with the same meaning; and history that nobody needs.
                    self.config.push(' ');
                    self.cluster.store().put_config(&self.config).unwrap();
                    self.cluster.etcd().compact().unwrap();
                    guest = node;
                }
            }
            changes += 1;
            self.stay_quiet(INTERVAL);
        }
        (changes, self.looks)
    }

    fn stay_quiet(&mut self, span: Duration) {
        let until = Instant::now() + span;
        while Instant::now() < until {
            let reports = self.surfaces.look(&mut self.watched);
            assert!(reports.is_empty(), "{reports:#?}");
            self.looks += 1;
            thread::sleep(Duration::from_millis(500));
        }
    }
}
