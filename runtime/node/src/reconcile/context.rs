//! The desired state with the names that messages about it need.

use heddle_core::desired::{Desired, Owner};
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::object::ObjectKey;
use heddle_core::peers::Peers;

use crate::ports::Planner;

/// The desired state, with the names of its owners and of the plugin.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) desired: &'a Desired,
    peers: &'a Peers,
    plugin: &'a str,
}

impl<'a> Context<'a> {
    pub(super) fn new(desired: &'a Desired, peers: &'a Peers, backend: &'a dyn Planner) -> Self {
        Self { desired, peers, plugin: backend.name() }
    }

    /// Names the plan that an object is in: that for a peer or, if no peer has it, the one for this
    /// node.
    pub(super) fn plan_behind(&self, object: &ObjectKey) -> String {
        let plugin = self.plugin;
        let peer = match self.desired.owner(object) {
            Some(Owner::Peer(key)) => self.peers.get(key),
            Some(Owner::Node) | None => None,
        };
        match peer {
            Some(peer) => {
                format!("plugin {plugin}: plan for peer {} of {}", peer.key, peer.owner())
            }
            None => format!("plugin {plugin}: plan for this node"),
        }
    }

    /// Describes a contested object: it is planned for `peer` and, in another form, for `other`.
    /// Names the owner that has it.
    pub(super) fn dispute(&self, object: &ObjectKey, peer: LeaseKey, other: Owner) -> String {
        let name = |key: LeaseKey| {
            let owner = self.peers.get(key).map_or_else(String::new, Lease::owner);
            format!("{key} of {owner}")
        };
        let plans = format!("plugin {} plans {object} for peer {}", self.plugin, name(peer));
        match (other, self.desired.owner(object)) {
            (Owner::Peer(other), Some(Owner::Peer(has))) => format!(
                "{plans}, and a different one for peer {}; {} has it, because its record publishes the address or is older",
                name(other),
                name(has)
            ),
            (Owner::Peer(_) | Owner::Node, _) => {
                format!("{plans}, which conflicts with this node's own plan; this node keeps it")
            }
        }
    }
}
