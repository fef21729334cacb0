//! Traffic counters of devices.

use serde::{Deserialize, Serialize};

/// Traffic of a device since its creation (`struct rtnl_link_stats64`, `linux/if_link.h`).
///
/// Part of the status document: fields are only ever added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkCounters {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Malformed packets received.
    pub rx_errors: u64,
    /// Packets received and not processed.
    pub rx_dropped: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets dropped on their way out.
    pub tx_dropped: u64,
}
