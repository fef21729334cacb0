//! The input that all calls of a backend have in common.

use crate::config::NetworkConfig;
use crate::lease::Lease;
use crate::node::Node;

/// A node in its network: what a plugin plans with, apart from peers.
///
/// A node has no lease until its plugin has advertised what to publish in it. Until then it is a
/// `Site<NoLease>`, which only [`advertise`] takes.
///
/// [`advertise`]: ../../heddle_plugin/struct.Backend.html#method.advertise
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site<L = Lease> {
    /// The cluster's network config.
    pub config: NetworkConfig,
    /// This node.
    pub node: Node,
    /// This node's own lease.
    pub lease: L,
}

/// The state of a node that has no lease yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoLease;

impl Site<NoLease> {
    /// Creates the site of a node without a lease.
    pub fn new(config: NetworkConfig, node: Node) -> Self {
        Self { config, node, lease: NoLease }
    }

    /// Returns the site of the node with its lease.
    pub fn with_lease(self, lease: Lease) -> Site {
        Site { config: self.config, node: self.node, lease }
    }
}
