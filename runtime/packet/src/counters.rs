//! What a path did, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// Defines the numbers once: as they are counted, by several threads, and as they are read.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What a path did since it was opened. Packets are inner packets, bytes those of their IP headers and what
        /// follows; a packet is counted under one reason only.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Counters {
            /// Names and numbers, in this order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }
        }

        /// Where the threads count.
        #[derive(Debug, Default)]
        pub(crate) struct Tally {
            $(pub(crate) $name: Count,)+
        }

        impl Tally {
            /// The numbers at this moment.
            pub(crate) fn snapshot(&self) -> Counters {
                Counters { $($name: self.$name.get(),)+ }
            }
        }
    };
}

counters! {
    /// Packets sent to peers.
    sent_packets,
    /// Their bytes.
    sent_bytes,
    /// Packets received from peers and accepted for the device.
    received_packets,
    /// Their bytes.
    received_bytes,
    /// Dropped: no peer for the destination, or the peer has no address of the packet's family.
    no_route,
    /// Dropped: the datagram came from an address that no peer has.
    spoofed_outer,
    /// Dropped: the packet's source is in no subnet of the peer that sent it.
    spoofed_inner,
    /// Dropped: the packet's destination is in no subnet of this node or of a peer, and not allowed besides.
    foreign_destination,
    /// Dropped: not an IP packet, cut off, or longer than it says.
    malformed,
    /// Dropped: longer than what fits the path to the peer, and not to be fragmented.
    too_big,
    /// Sent in fragments. Each fragment counts among the packets sent.
    fragmented,
    /// Dropped: its time to live is over.
    ttl_exceeded,
    /// ICMP errors sent, to containers and to peers.
    icmp,
    /// Steered by the table in place of a plugin that failed. Counted besides what became of the packet.
    fallback,
    /// Dropped: no plugin to steer or to transform.
    plugin,
    /// Dropped: the plugin's transform gave nothing for it.
    refused,
    /// Dropped: the kernel did not take the datagram.
    send_errors,
    /// Datagrams that could not be received: errors of the socket.
    receive_errors,
    /// Dropped: the receive buffer of the datagram's source was full, as found with the next datagram in it.
    buffer_full,
    /// Sources that were given a receive buffer of their own, because they filled the shared one.
    isolated,
    /// Accepted and not delivered, or not read: the device is down or gone.
    device_errors,
}

/// A number that several threads add to.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// One more.
    pub(crate) fn one(&self) {
        self.add(1);
    }

    /// So many more.
    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_were_counted() {
        let tally = Tally::default();
        tally.sent_packets.add(3);
        tally.no_route.one();
        let counters = tally.snapshot();
        assert_eq!(counters, Counters { sent_packets: 3, no_route: 1, ..Counters::default() });
        assert_eq!(counters.iter().filter(|(_, number)| *number > 0).count(), 2);
    }
}
