//! The steps, from the network config to the plan.

use std::ops::Deref;
use std::sync::Arc;

use heddle_core::allocation::{Claimant, Holders, HostMarks};
use heddle_core::config::NetworkConfig;
use heddle_core::host_network::HostNetwork;
use heddle_core::lease::{Lease, LeaseKey};
use heddle_core::object::Plan;
use heddle_core::site::{NoLease, Site};
use heddle_plugin::{Advertisements, CallError, NodePlan};

use crate::{Obstacle, Planner};

/// Parses the value of the network config's key.
///
/// # Errors
///
/// [`Obstacle::NoConfig`] or [`Obstacle::Config`].
pub fn network_config(key: &str, value: Option<&[u8]>) -> Result<NetworkConfig, Obstacle> {
    let value = value.ok_or_else(|| Obstacle::NoConfig(key.to_owned()))?;
    NetworkConfig::parse(value).map_err(|error| Obstacle::Config { key: key.to_owned(), error })
}

/// A node with a running backend. `P` points to the [`Planner`].
#[derive(Clone, Debug)]
pub struct Loaded<P> {
    /// The node, which has no lease yet.
    pub site: Site<NoLease>,
    /// The backend.
    pub planner: P,
}

/// A node whose backend has said what to publish in its lease.
#[derive(Clone, Debug)]
pub struct Advertised<P> {
    loaded: Loaded<P>,
    advertisements: Advertisements,
}

/// A node with a lease.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Leased<P> {
    /// The node with its lease.
    pub site: Arc<Site>,
    /// The backend.
    pub planner: P,
}

/// A node with a plan for itself, which can have plans for its peers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Planned<P> {
    /// The node with its lease.
    pub site: Arc<Site>,
    /// The backend.
    pub planner: P,
    /// The plan for the node itself.
    pub plan: NodePlan,
}

impl<P: Deref<Target: Planner>> Loaded<P> {
    /// Asks the backend what to publish.
    ///
    /// # Errors
    ///
    /// If the config is wrong or the call failed.
    pub async fn advertise(self) -> Result<Advertised<P>, CallError> {
        let advertisements = self.planner.advertise(&self.site).await?;
        Ok(Advertised { loaded: self, advertisements })
    }
}

impl<P> Advertised<P> {
    /// Returns the backend's answer.
    pub fn advertisements(&self) -> &Advertisements {
        &self.advertisements
    }

    /// Returns the node, which has no lease yet.
    pub fn site(&self) -> &Site<NoLease> {
        &self.loaded.site
    }

    /// Returns the lease to publish for these subnets.
    pub fn lease(&self, key: LeaseKey, node_name: Option<String>) -> Lease {
        self.advertisements.lease(key, &self.loaded.site.node, node_name)
    }

    /// Returns the node as one that wants a subnet. `previous` are the subnets that it had before,
    /// and `holders` those that have been asked.
    pub fn claimant<'a>(
        &'a self,
        previous: Option<LeaseKey>,
        host: &'a HostNetwork,
        marks: &'a HostMarks,
        holders: &'a Holders,
    ) -> Claimant<'a> {
        let node = &self.loaded.site.node;
        Claimant {
            id: &node.id,
            public_addresses: node.underlay.public_addresses,
            previous,
            host,
            underlay: node.underlay.link,
            marks,
            holders,
        }
    }

    /// Takes the lease that the node got.
    pub fn with_lease(self, lease: Lease) -> Leased<P> {
        let Loaded { site, planner } = self.loaded;
        Leased { site: Arc::new(site.with_lease(lease)), planner }
    }
}

impl<P: Deref<Target: Planner>> Leased<P> {
    /// Asks the backend for the node's plan.
    ///
    /// # Errors
    ///
    /// If the config is wrong, the plan was refused or the call failed.
    pub async fn plan(self) -> Result<Planned<P>, CallError> {
        let plan = self.planner.plan_node(&self.site).await?;
        Ok(Planned { site: self.site, planner: self.planner, plan })
    }
}

impl<P: Deref<Target: Planner>> Planned<P> {
    /// Returns the backend's plan for each peer, in the order of `peers`.
    pub async fn plan_peers(&self, peers: Vec<Lease>) -> Vec<Result<Plan, CallError>> {
        self.planner.plan_peers(&self.site, self.plan.links(), peers).await
    }
}

#[cfg(test)]
mod tests;
