//! Conflicts of the overlay's destinations with the host or with a peer.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::LinkName;

/// Conflict of an overlay destination with the host's own network or with a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The destination is part of a connected network.
    #[error("{destination} overlaps {network}, which is connected to {link}")]
    Connected {
        /// The overlay's destination.
        destination: IpNet,
        /// The connected network.
        network: IpNet,
        /// The device that the network is connected to.
        link: LinkName,
    },
    /// The destination is part of a network that the host has a route for.
    #[error("{destination} is inside {network}, which this host routes {}", through(link.as_ref()))]
    Routed {
        /// The overlay's destination.
        destination: IpNet,
        /// The destination of the host's route.
        network: IpNet,
        /// The device of the host's route.
        link: Option<LinkName>,
    },
    /// The destination contains an address of the lease store.
    #[error("{destination} contains {address}, an address of the lease store")]
    Store {
        /// The overlay's destination.
        destination: IpNet,
        /// The store's address.
        address: IpAddr,
    },
    /// The destination contains this node's public address.
    #[error("{destination} contains {address}, this node's public address")]
    OwnAddress {
        /// The overlay's destination.
        destination: IpNet,
        /// The address.
        address: IpAddr,
    },
    /// The destination contains the address at which a peer is reached.
    #[error("{destination} contains {address}, the public address of {owner}")]
    PeerAddress {
        /// The overlay's destination.
        destination: IpNet,
        /// The peer's address.
        address: IpAddr,
        /// The peer.
        owner: String,
    },
    /// The public address of the lease's node is inside the subnet of an older peer.
    #[error("its public address {address} is inside {subnet}, the subnet of {owner}")]
    InsidePeer {
        /// The address.
        address: IpAddr,
        /// The peer's subnet.
        subnet: IpNet,
        /// The peer.
        owner: String,
    },
}

impl Conflict {
    /// Returns the label for metrics: one of [`KINDS`](Self::KINDS).
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Connected { .. } => "connected",
            Self::Routed { .. } => "route",
            Self::Store { .. } => "store",
            Self::OwnAddress { .. } => "own-address",
            Self::PeerAddress { .. } | Self::InsidePeer { .. } => "peer-address",
        }
    }

    /// Returns the host's network that the destination overlaps. None for conflicts with a single
    /// address.
    pub(super) fn network(&self) -> Option<IpNet> {
        match self {
            Self::Connected { network, .. } | Self::Routed { network, .. } => Some(*network),
            Self::Store { .. }
            | Self::OwnAddress { .. }
            | Self::PeerAddress { .. }
            | Self::InsidePeer { .. } => None,
        }
    }

    /// All values that [`kind`](Self::kind) returns.
    pub const KINDS: [&str; 5] = ["connected", "route", "store", "own-address", "peer-address"];
}

fn through(link: Option<&LinkName>) -> String {
    link.map_or_else(|| "elsewhere".to_owned(), |link| format!("through {link}"))
}
