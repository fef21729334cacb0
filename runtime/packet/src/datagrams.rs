//! Datagrams that refer to their payload in place, without copying it.

use std::iter::FusedIterator;

/// One datagram in two pieces, to be sent as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The bytes made for this datagram. Empty if the packet is sent unchanged.
    pub header: &'a [u8],
    /// A part of the original packet.
    pub payload: &'a [u8],
}

impl Datagram<'_> {
    /// Returns the length of both pieces, in bytes.
    pub fn length(&self) -> usize {
        self.header.len() + self.payload.len()
    }
}

/// The datagrams of one packet, in order. All have about the same length, except that the last may
/// be shorter.
#[derive(Clone, Debug)]
pub struct Datagrams<'a> {
    headers: &'a [u8],
    payload: &'a [u8],
    remaining: usize,
    next: Pieces,
    others: Pieces,
}

/// The lengths of a datagram's pieces, in bytes. The last datagram may have a shorter payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pieces {
    pub(crate) header: usize,
    pub(crate) payload: usize,
}

impl<'a> Datagrams<'a> {
    /// Wraps a whole packet as one datagram.
    pub(crate) fn whole(packet: &'a [u8]) -> Self {
        let pieces = Pieces { header: 0, payload: packet.len() };
        Self { headers: &[], payload: packet, remaining: 1, next: pieces, others: pieces }
    }

    /// Divides a payload into pieces, each after its header. The headers are contiguous.
    pub(crate) fn new(headers: &'a [u8], payload: &'a [u8], first: Pieces, others: Pieces) -> Self {
        let behind = payload.len().saturating_sub(first.payload);
        let remaining = 1 + behind.div_ceil(others.payload);
        Self { headers, payload, remaining, next: first, others }
    }
}

impl<'a> Iterator for Datagrams<'a> {
    type Item = Datagram<'a>;

    fn next(&mut self) -> Option<Datagram<'a>> {
        self.remaining = self.remaining.checked_sub(1)?;
        let (header, headers) = self.headers.split_at(self.next.header);
        let (payload, rest) = self.payload.split_at(self.next.payload.min(self.payload.len()));
        (self.headers, self.payload, self.next) = (headers, rest, self.others);
        Some(Datagram { header, payload })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for Datagrams<'_> {}

impl FusedIterator for Datagrams<'_> {}
