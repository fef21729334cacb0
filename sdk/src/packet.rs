//! What backends that carry packets in user space do beside planning.

use std::net::IpAddr;
use std::ops::{Deref, DerefMut};

use crate::{Backend, ConfigError, Lease, NetworkConfig, Node};

/// A peer on the packet path: the position of its lease among those that
/// [`with_peers`](PacketBackend::with_peers) was given.
pub type PeerIndex = u32;

/// A backend that carries packets in user space: its node plan has a TUN device, and it says which peer a packet goes
/// to. Exported with [`export_packet_backend!`](crate::export_packet_backend).
///
/// The plugin's type is its table of peers. The host reads and writes the packets; destinations alone reach the
/// plugin, a batch of them in one call.
pub trait PacketBackend: Backend + 'static {
    /// The table for these peers: the leases of all that [`plan_peer`](Backend::plan_peer) gave a plan for. Config,
    /// node and this node's own lease are those that the plan was made for.
    fn with_peers(config: &NetworkConfig, node: &Node, lease: &Lease, peers: &[Lease]) -> Self;

    /// The peer that packets for a destination are sent to; none where they go nowhere, which their sender is told by
    /// ICMP.
    ///
    /// A peer takes a packet only from the address that the lease around the packet's source advertises, so the
    /// answer can be the peer whose subnet has the destination, or none.
    fn steer(&self, destination: IpAddr) -> Option<PeerIndex>;
}

/// A packet backend that says what packets look like between hosts: encrypted, or behind a header of its own. Exported
/// with [`export_transform!`](crate::export_transform).
///
/// Sending and receiving have instances of their own, each with the same peers. Nothing may rest on what one of them
/// remembers: a nonce has to be random, not counted.
pub trait Transform: PacketBackend {
    /// The most bytes that [`encapsulate`](Transform::encapsulate) adds to a packet. The host lowers the MTUs of the
    /// node's plan by it: that of the TUN device, and that for containers.
    ///
    /// # Errors
    ///
    /// A complaint about one of the backend's keys in the network config.
    fn overhead(config: &NetworkConfig) -> Result<u32, ConfigError>;

    /// Writes what is sent to a peer as UDP payload in place of an IP packet. To write nothing drops the packet.
    fn encapsulate(&mut self, peer: PeerIndex, packet: &[u8], payload: &mut Output<'_>);

    /// Writes the IP packet in a UDP payload from a peer. To write nothing drops the payload: it is none of the
    /// peer's.
    fn decapsulate(&mut self, peer: PeerIndex, payload: &[u8], packet: &mut Output<'_>);
}

/// Where a [`Transform`] writes one packet. It is a slice of what was written to it so far, so that a cipher can work in
/// place.
pub struct Output<'a> {
    bytes: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Output<'a> {
    /// A packet that begins where `bytes` ends. Plugins are handed one; their tests may want another.
    pub fn new(bytes: &'a mut Vec<u8>) -> Self {
        let start = bytes.len();
        Self { bytes, start }
    }

    /// Adds to the packet.
    pub fn write(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes back what was written from `length` on: all of it for 0, which drops the packet.
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
    fn an_output_is_one_packet_behind_others() {
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
