//! Three nodes that can reach each other.

use heddle_lab::{Container, Families, wait_until};

use crate::{Cluster, Flows, Node, SOON, rogue};

/// Nodes `a`, `b` and `c` with a container each. Faults are injected on `a`.
#[derive(Debug)]
pub struct Trio {
    /// Dropped first, because they depend on the nodes.
    pub containers: [Container; 3],
    /// `a`, `b` and `c`.
    pub nodes: [Node; 3],
    /// The cluster with their etcd.
    pub cluster: Cluster,
}

impl Trio {
    /// Creates nodes with the vxlan backend over IPv4 and its defaults. Returns once all know each
    /// other.
    pub fn new() -> Self {
        Self::on(Cluster::new(Families::V4), &[])
    }

    /// Creates the nodes on another cluster, with additional flags.
    pub fn on(cluster: Cluster, flags: &[&str]) -> Self {
        let mut nodes = ["a", "b", "c"].map(|name| cluster.starting_node(name, flags));
        for node in &mut nodes {
            node.daemon().wait_ready().unwrap();
        }
        let containers = nodes.each_ref().map(|node| node.host.container().unwrap());
        let trio = Self { containers, nodes, cluster };
        for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
            wait_until("a ping", SOON, || trio.ping(from, to)).unwrap();
        }
        trio
    }

    /// Creates the nodes with `tests/rogue` as the backend, from a plugin directory.
    pub fn with_rogue() -> Self {
        // Build the component before anything waits for it.
        let component = rogue();
        let config = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"rogue"}}"#;
        let cluster = Cluster::with_config(Families::V4, Some(config));
        let plugins = cluster.lab().directory().join("plugins");
        std::fs::create_dir(&plugins).unwrap();
        std::fs::copy(component, plugins.join("rogue.wasm")).unwrap();
        Self::on(cluster, &[&format!("--plugin-dir={}", plugins.display())])
    }

    fn ping(&self, from: usize, to: usize) -> Result<String, heddle_lab::Error> {
        self.containers[from].ping(self.containers[to].addresses()[0], 56)
    }

    /// Starts traffic between pairs of nodes, given by index.
    pub fn flows(&self, pairs: &[(usize, usize)]) -> Flows {
        let container = |place: usize| &self.containers[place];
        let pairs: Vec<_> = pairs.iter().map(|&(a, b)| (container(a), container(b))).collect();
        Flows::between(&pairs)
    }

    /// Pings another node's container from that of `a`.
    ///
    /// # Errors
    ///
    /// If there is no answer.
    pub fn reaches(&self, place: usize) -> Result<String, heddle_lab::Error> {
        self.ping(0, place)
    }
}

impl Default for Trio {
    fn default() -> Self {
        Self::new()
    }
}
