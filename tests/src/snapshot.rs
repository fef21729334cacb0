//! All of a node that is watched over, to be compared.

use std::time::Duration;

use heddle_lab::{KernelState, wait_until};
use serde_json::Value;

use crate::Node;

/// What a VXLAN node has in the kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The device and its addresses.
    pub device: Value,
    /// Routes, neighbours and FDB entries, whoever made them.
    pub objects: KernelState,
    /// A setting of the device; empty where there is no device.
    pub accept_ra: String,
}

impl Snapshot {
    /// What there is now on `flannel.1`.
    pub fn of(node: &Node) -> Self {
        let mut device = node.link("flannel.1");
        // The kernel numbers a new device anew, and gives it a link-local address in its own time.
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

    /// Whether a node is as it was.
    ///
    /// # Errors
    ///
    /// How it differs.
    pub fn compare(&self, node: &Node) -> Result<(), String> {
        let now = Self::of(node);
        if now == *self { Ok(()) } else { Err(format!("{now:#?}\ninstead of {self:#?}")) }
    }

    /// Waits until a node is as it was.
    pub fn wait(&self, node: &Node, limit: Duration) {
        wait_until("everything as it was", limit, || self.compare(node)).unwrap();
    }
}
