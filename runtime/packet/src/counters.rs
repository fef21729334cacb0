//! Counters of a path.

use std::sync::atomic::{AtomicU64, Ordering};

/// Defines the counters once: as several threads count them, and as they are read.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ident,)+) => {
        /// The counters of a path since it was opened. Packets are inner packets, bytes those of
        /// their IP headers and payloads. A dropped packet is counted under one reason only.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Counters {
            /// Iterates over names and values, in this order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }
        }

        impl Counter {
            /// All counters, in the order of [`Counters::iter`].
            pub const ALL: &[Self] =
                &[$(Self { name: stringify!($name), kind: CounterKind::$kind },)+];
        }

        /// The counters that the threads update.
        #[derive(Debug, Default)]
        pub(crate) struct Tally {
            $(pub(crate) $name: Count,)+
        }

        impl Tally {
            /// Returns the current values.
            pub(crate) fn snapshot(&self) -> Counters {
                Counters { $($name: self.$name.get(),)+ }
            }
        }
    };
}

counters! {
    /// Packets sent to peers.
    sent_packets: Traffic,
    /// Bytes of the packets sent.
    sent_bytes: Traffic,
    /// Packets received from peers and accepted for the device.
    received_packets: Traffic,
    /// Bytes of the packets received.
    received_bytes: Traffic,
    /// Dropped: no peer for the destination, or the peer has no address of the packet's family.
    no_route: Drop,
    /// Dropped: the datagram came from an address that no peer has.
    spoofed_outer: Drop,
    /// Dropped: the packet's source is in no subnet of the peer that sent it.
    spoofed_inner: Drop,
    /// Dropped: the packet's destination is in no subnet of this node or of a peer, and in no
    /// allowed network.
    foreign_destination: Drop,
    /// Dropped: not an IP packet, truncated, or longer than its header says.
    malformed: Drop,
    /// Dropped: longer than the path MTU to the peer, and not to be fragmented.
    too_big: Drop,
    /// Packets sent in fragments. Each fragment also counts as a packet sent.
    fragmented: Event,
    /// Dropped: the time to live has expired.
    ttl_exceeded: Drop,
    /// ICMP errors sent, to containers and to peers.
    icmp: Event,
    /// Packets steered by the table because the plugin failed. Each also counts as sent or
    /// dropped.
    fallback: Event,
    /// Dropped: no plugin to steer or to transform.
    plugin: Drop,
    /// Dropped: the plugin's transform returned nothing for the packet.
    refused: Drop,
    /// Dropped: the kernel did not accept the datagram.
    send_errors: Drop,
    /// Failed attempts to receive datagrams: errors of the socket.
    receive_errors: Event,
    /// Dropped: the receive buffer of the datagram's source was full, as reported with the next
    /// datagram in it.
    buffer_full: Drop,
    /// Sources that were given a receive buffer of their own, because they filled the shared one.
    isolated: Event,
    /// Dropped: accepted but not delivered, or not read, because the device is down or gone.
    device_errors: Drop,
}

/// The description of one of the [`Counters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    name: &'static str,
    kind: CounterKind,
}

/// The kind of event that a counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterKind {
    /// Packets or bytes carried. The name is a direction and a unit: `sent_packets`.
    Traffic,
    /// Packets dropped. The name is the reason.
    Drop,
    /// Other events.
    Event,
}

impl Counter {
    /// Returns the counter of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|counter| counter.name == name)
    }

    /// Returns the name, as in [`Counters::iter`].
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Returns the kind.
    pub fn kind(self) -> CounterKind {
        self.kind
    }
}

/// A counter that several threads increment.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Increments the counter by one.
    pub(crate) fn one(&self) {
        self.add(1);
    }

    /// Adds `count`.
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
    fn counters_read_as_counted() {
        let tally = Tally::default();
        tally.sent_packets.add(3);
        tally.no_route.one();
        let counters = tally.snapshot();
        assert_eq!(counters, Counters { sent_packets: 3, no_route: 1, ..Counters::default() });
        assert_eq!(counters.iter().filter(|(_, number)| *number > 0).count(), 2);
    }

    #[test]
    fn every_counter_has_a_kind() {
        for (name, _) in Counters::default().iter() {
            let counter = Counter::named(name).unwrap();
            assert_eq!(counter.name(), name);
            let is_traffic = name.ends_with("_packets") || name.ends_with("_bytes");
            assert_eq!(counter.kind() == CounterKind::Traffic, is_traffic, "{name}");
        }
        assert_eq!(Counter::ALL.len(), Counters::default().iter().count());
        assert_eq!(Counter::named("unknown"), None);
    }
}
