//! Snapshots of a node's managed state, to compare.

use std::time::Duration;

use heddle_lab::{KernelState, wait_until};
use serde_json::Value;

use crate::Node;

/// A VXLAN node's state in the kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The device and its addresses.
    pub device: Value,
    /// Routes, neighbours and FDB entries of any origin.
    pub objects: KernelState,
    /// Value of the device's `accept_ra`; empty if there is no device.
    pub accept_ra: String,
}

impl Snapshot {
    /// Takes a snapshot of `flannel.1`.
    pub fn of(node: &Node) -> Self {
        let mut device = node.link("flannel.1");
        // A new device gets a new index, and a link-local address at some later time, so both are
        // dropped.
        if let Some(device) = device.as_object_mut() {
            device.remove("ifindex");
            if let Some(addresses) = device["addr_info"].as_array_mut() {
                addresses.retain(|address| address["scope"] == "global");
            }
        }
        let setting = node.host.namespace().sysctl("ipv6/conf/flannel.1/accept_ra");
        Self {
            device,
            objects: node.host.kernel_state().unwrap(),
            accept_ra: setting.unwrap_or_default(),
        }
    }

    /// Compares a node's current state with the snapshot.
    ///
    /// # Errors
    ///
    /// The difference.
    pub fn compare(&self, node: &Node) -> Result<(), String> {
        let now = Self::of(node);
        if now == *self { Ok(()) } else { Err(format!("{now:#?}\ninstead of {self:#?}")) }
    }

    /// Waits until a node's state equals the snapshot.
    pub fn wait(&self, node: &Node, limit: Duration) {
        wait_until("everything as it was", limit, || self.compare(node)).unwrap();
    }
}
