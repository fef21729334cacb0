//! Reasons why a record is not used.

use crate::host_network::Conflict;
use crate::lease::{InvalidLease, InvalidLeaseKey, LeaseKey};

/// The reason why a record is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The key is not a lease key.
    #[error(transparent)]
    Key(#[from] InvalidLeaseKey),
    /// The value is not a valid lease.
    #[error(transparent)]
    Value(#[from] InvalidLease),
    /// The subnet is not part of the overlay network that this config key names.
    #[error("its subnet is outside `{0}`")]
    OutsideNetwork(&'static str),
    /// The subnet overlaps this node's own.
    #[error("its subnet overlaps this node's own, {0}")]
    OverlapsOwn(LeaseKey),
    /// The lease is this node's, which has another one.
    #[error("it is this node's own, by its id or address, and the node uses {0}")]
    Own(LeaseKey),
    /// The subnet overlaps that of a peer whose lease wins the tie-break.
    #[error("its subnet overlaps {key} of {owner}, which is senior")]
    OverlapsPeer {
        /// Key of the peer's lease.
        key: LeaseKey,
        /// Name of the peer.
        owner: String,
    },
    /// The host needs the subnet, or the node cannot be reached outside the overlay.
    #[error(
        "{0}; not programmed. Move the lease, or exclude the range with SubnetMin and SubnetMax"
    )]
    Conflict(Conflict),
}

impl Rejection {
    /// Returns the conflict with the host's own network or with a peer's address, if that is the
    /// reason.
    pub fn conflict(&self) -> Option<&Conflict> {
        match self {
            Self::Conflict(conflict) => Some(conflict),
            _ => None,
        }
    }

    /// Returns true if the rejection depends on other leases or on the host, not on the record
    /// alone.
    pub(super) fn is_relative(&self) -> bool {
        matches!(self, Self::OverlapsPeer { .. } | Self::Conflict(_))
    }
}
