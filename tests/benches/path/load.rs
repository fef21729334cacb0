//! What is sent from container to container, by iperf3.

use serde_json::Value;

/// One way to load a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Load {
    /// One TCP connection.
    Stream,
    /// Four TCP connections in the same direction.
    Streams,
    /// One TCP connection in each direction.
    BothWays,
    /// UDP datagrams with a payload of 64 bytes, as many as the sender can send.
    SmallPackets,
}

impl Load {
    pub(crate) const ALL: [Self; 4] =
        [Self::Stream, Self::Streams, Self::BothWays, Self::SmallPackets];

    /// For tables and files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stream => "TCP, one stream",
            Self::Streams => "TCP, four streams",
            Self::BothWays => "TCP, both directions at once",
            Self::SmallPackets => "UDP, 64 bytes",
        }
    }

    /// What iperf3's client is told.
    pub(crate) fn arguments(self) -> &'static str {
        // cubic everywhere: it is what most hosts run, and the default differs.
        match self {
            Self::Stream => "-C cubic",
            Self::Streams => "-C cubic -P 4",
            Self::BothWays => "-C cubic --bidir",
            Self::SmallPackets => "-u -l 64 -b 0",
        }
    }

    /// The unit of [`Received::rate`].
    pub(crate) fn rate_unit(self) -> &'static str {
        match self {
            Self::SmallPackets => "kpps",
            _ => "Gbit/s",
        }
    }

    /// The unit of CPU time per [`Received::amount`].
    pub(crate) fn cost_unit(self) -> &'static str {
        match self {
            Self::SmallPackets => "µs/packet",
            _ => "s/GB",
        }
    }

    /// What arrived, by iperf3's JSON. None where that does not say.
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

/// What arrived at the other end, of TCP and UDP payload.
pub(crate) struct Received {
    /// Per second: in [`Load::rate_unit`].
    pub(crate) rate: f64,
    /// In all: in GB, or in millions of packets.
    pub(crate) amount: f64,
}
