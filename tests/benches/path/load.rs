//! Traffic sent from container to container by iperf3.

use serde_json::Value;

/// A load on the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Load {
    /// One TCP connection.
    Stream,
    /// Four TCP connections in the same direction.
    Streams,
    /// One TCP connection in each direction.
    BothWays,
    /// UDP datagrams with a payload of 64 bytes, as fast as the sender can send.
    SmallPackets,
}

impl Load {
    pub(crate) const ALL: [Self; 4] =
        [Self::Stream, Self::Streams, Self::BothWays, Self::SmallPackets];

    /// Returns the label used in tables and files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stream => "TCP, one stream",
            Self::Streams => "TCP, four streams",
            Self::BothWays => "TCP, both directions at once",
            Self::SmallPackets => "UDP, 64 bytes",
        }
    }

    /// Returns the arguments of iperf3's client for this load.
    pub(crate) fn arguments(self) -> &'static str {
        // cubic everywhere: most hosts run it, and the default congestion control differs between
        // systems.
        match self {
            Self::Stream => "-C cubic",
            Self::Streams => "-C cubic -P 4",
            Self::BothWays => "-C cubic --bidir",
            Self::SmallPackets => "-u -l 64 -b 0",
        }
    }

    /// Returns the unit of [`Received::rate`].
    pub(crate) fn rate_unit(self) -> &'static str {
        match self {
            Self::SmallPackets => "kpps",
            _ => "Gbit/s",
        }
    }

    /// Returns the unit of CPU time per [`Received::amount`].
    pub(crate) fn cost_unit(self) -> &'static str {
        match self {
            Self::SmallPackets => "µs/packet",
            _ => "s/GB",
        }
    }

    /// Parses the received traffic from iperf3's JSON report; None if the report lacks it.
    pub(crate) fn received(self, report: &Value) -> Option<Received> {
        let forward = &report["end"]["sum_received"];
        let seconds = forward["seconds"].as_f64()?;
        let mut bytes = forward["bytes"].as_f64()?;
        if self == Self::BothWays {
            bytes += report["end"]["sum_received_bidir_reverse"]["bytes"].as_f64()?;
        }
        Some(match self {
            Self::SmallPackets => {
                let packets = bytes / 64.0;
                Received { rate: packets / seconds / 1e3, amount: packets / 1e6 }
            }
            _ => Received { rate: 8.0 * bytes / seconds / 1e9, amount: bytes / 1e9 },
        })
    }
}

/// TCP or UDP payload received at the other end.
pub(crate) struct Received {
    /// Rate in [`Load::rate_unit`].
    pub(crate) rate: f64,
    /// Total, in GB or in millions of packets.
    pub(crate) amount: f64,
}
