//! Traits of backends that carry packets in user space.

use std::net::IpAddr;
use std::ops::{Deref, DerefMut};

use crate::{Backend, ConfigError, Lease, NetworkConfig, Node};

/// A peer on the packet path: the index of its lease among those passed to
/// [`with_peers`](PacketBackend::with_peers).
pub type PeerIndex = u32;

/// A backend that carries packets in user space: its node plan has a TUN device, and it selects the
/// peer for each packet. Exported with [`export_packet_backend!`](crate::export_packet_backend).
///
/// The plugin's type is its table of peers. The host reads and writes the packets; the plugin gets
/// only their destinations, a batch in one call.
pub trait PacketBackend: Backend + 'static {
    /// Creates the table for these peers: the leases of all that [`plan_peer`](Backend::plan_peer)
    /// returned a plan for. Config, node and this node's own lease are those of that plan.
    fn with_peers(config: &NetworkConfig, node: &Node, lease: &Lease, peers: &[Lease]) -> Self;

    /// Returns the peer to send packets for a destination to; None drops them, and the sender gets
    /// an ICMP error.
    ///
    /// The receiving peer accepts a packet only from the address advertised by the lease that
    /// contains the packet's source. Therefore the result must be the peer whose subnet contains
    /// the destination, or None.
    fn steer(&self, destination: IpAddr) -> Option<PeerIndex>;
}

/// A packet backend that defines the format of packets between hosts: encrypted, or with a header
/// of its own. Exported with [`export_transform!`](crate::export_transform).
///
/// Sending and receiving use separate instances, each with the same peers. Nothing may depend on
/// state in one of them: a nonce must be random, not a counter.
pub trait Transform: PacketBackend {
    /// Returns the maximum number of bytes that [`encapsulate`](Transform::encapsulate) adds to a
    /// packet. The host lowers the MTUs of the node's plan by it: that of the TUN device, and that
    /// for containers.
    ///
    /// # Errors
    ///
    /// If one of the backend's keys in the network config is wrong.
    fn overhead(config: &NetworkConfig) -> Result<u32, ConfigError>;

    /// Writes the UDP payload that carries an IP packet to a peer. Writing nothing drops the
    /// packet.
    fn encapsulate(&mut self, peer: PeerIndex, packet: &[u8], payload: &mut Output<'_>);

    /// Writes the IP packet that a UDP payload from a peer contains. Writing nothing drops the
    /// payload, as not being from the peer.
    fn decapsulate(&mut self, peer: PeerIndex, payload: &[u8], packet: &mut Output<'_>);
}

/// Buffer into which a [`Transform`] writes one packet. Dereferences to the bytes written so far,
/// so that a cipher can work in place.
pub struct Output<'a> {
    bytes: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Output<'a> {
    /// Starts a packet at the end of `bytes`. Plugins get one from the host; their tests may create
    /// others.
    pub fn new(bytes: &'a mut Vec<u8>) -> Self {
        let start = bytes.len();
        Self { bytes, start }
    }

    /// Appends to the packet.
    pub fn write(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Shortens the packet to `length` bytes; 0 drops it.
    pub fn truncate(&mut self, length: usize) {
        self.bytes.truncate(self.start + length);
    }
}

impl Deref for Output<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl DerefMut for Output<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_one_packet_after_others() {
        let mut bytes = vec![1, 2];
        let mut output = Output::new(&mut bytes);
        output.write(&[3, 4]);
        output.write(&[5]);
        output[0] = 9;
        assert_eq!(*output, [9, 4, 5]);
        output.truncate(1);
        assert_eq!(bytes, [1, 2, 9]);
        Output::new(&mut bytes).truncate(0);
        assert_eq!(bytes, [1, 2, 9]);
    }
}
