//! The backend, as far as the steps call it.

use std::sync::Arc;

use async_trait::async_trait;
use heddle_core::address::LinkName;
use heddle_core::lease::Lease;
use heddle_core::object::Plan;
use heddle_core::site::{NoLease, Site};
use heddle_plugin::{Advertisements, Backend, CallError, Metrics, NodePlan};

/// A backend: computes plans and changes nothing.
#[async_trait]
pub trait Planner: Send + Sync {
    /// Returns the plugin's name.
    fn name(&self) -> &str;

    /// Returns the counters of the plugin's calls.
    fn metrics(&self) -> &Arc<Metrics>;

    /// Returns the data that this node's lease should publish.
    ///
    /// # Errors
    ///
    /// If the config is wrong or the call failed.
    async fn advertise(&self, site: &Site<NoLease>) -> Result<Advertisements, CallError>;

    /// Returns the plan for this node itself.
    ///
    /// # Errors
    ///
    /// If the config is wrong, the plan was refused or the call failed.
    async fn plan_node(&self, site: &Arc<Site>) -> Result<NodePlan, CallError>;

    /// Returns the plan for each peer, in the order of `peers`. `links` are the devices of the
    /// node's plan.
    async fn plan_peers(
        &self,
        site: &Arc<Site>,
        links: Vec<LinkName>,
        peers: Vec<Lease>,
    ) -> Vec<Result<Plan, CallError>>;
}

#[async_trait]
impl Planner for Backend {
    fn name(&self) -> &str {
        self.name()
    }

    fn metrics(&self) -> &Arc<Metrics> {
        self.metrics()
    }

    async fn advertise(&self, site: &Site<NoLease>) -> Result<Advertisements, CallError> {
        self.advertise(site).await
    }

    async fn plan_node(&self, site: &Arc<Site>) -> Result<NodePlan, CallError> {
        self.plan_node(site).await
    }

    async fn plan_peers(
        &self,
        site: &Arc<Site>,
        links: Vec<LinkName>,
        peers: Vec<Lease>,
    ) -> Vec<Result<Plan, CallError>> {
        self.plan_peers(site, links, peers).await
    }
}
