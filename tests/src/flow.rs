//! Continuous traffic between two nodes, to detect packet loss during a fault.

use heddle_lab::Container;

use crate::{Flows, Node};

/// A container on each of two nodes, and a ping every 10 ms from each to the other.
#[derive(Debug)]
pub struct Flow {
    flows: Flows,
    _containers: [Container; 2],
}

impl Flow {
    /// Starts the pings, and returns once they are answered.
    pub fn between(one: &Node, other: &Node) -> Self {
        let containers = [one, other].map(|node| node.host.container().unwrap());
        let [here, there] = &containers;
        Self { flows: Flows::between(&[(here, there)]), _containers: containers }
    }

    /// Asserts that the traffic still flows.
    pub fn goes_on(&self) {
        self.flows.go_on();
    }

    /// Ends the traffic, and asserts that no packet was lost.
    pub fn end_without_loss(self) {
        self.flows.lost_nothing();
    }
}
