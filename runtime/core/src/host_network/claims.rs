//! The destinations that plans may have routes to.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::scope::{Scope, meet};

/// The destinations that plans may have routes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// The overlay's networks.
    pub overlay: Vec<IpNet>,
    /// Networks outside the overlay that the plugin is granted.
    pub granted: Vec<IpNet>,
    /// The ranges that the operator restricts subnets to, by their first and last address.
    pub reserved: Vec<(IpAddr, IpAddr)>,
    /// This node's own subnets. Networks inside them belong to containers.
    pub own: Vec<IpNet>,
}

impl Claims {
    /// Returns the claims of a scope.
    pub fn of(scope: &Scope) -> Self {
        Self {
            overlay: scope.networks.clone(),
            granted: scope.granted.clone(),
            reserved: scope.reserved.clone(),
            own: scope.own.clone(),
        }
    }

    /// Returns true if a network of the host can be in the way.
    pub(super) fn meet(&self, network: IpNet) -> bool {
        meet(&self.overlay, &self.granted, &self.own, network)
    }

    /// Keeps only the addresses that an overlay destination can contain.
    pub(super) fn retain(&self, addresses: &mut BTreeSet<IpAddr>) {
        let claimed = self.overlay.iter().chain(&self.granted);
        addresses.retain(|address| claimed.clone().any(|claimed| claimed.contains(address)));
    }
}
