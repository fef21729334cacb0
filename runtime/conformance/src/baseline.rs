//! A plugin's results in an ordinary situation, which other results are compared with.

use std::sync::Arc;

use heddle_core::lease::Lease;
use heddle_core::object::Plan;
use heddle_core::site::Site;
use heddle_plugin::NodePlan;

use crate::Plans;

/// The plugin's results in an ordinary situation.
pub(crate) struct Baseline {
    pub(crate) site: Arc<Site>,
    pub(crate) node: NodePlan,
    pub(crate) peers: Vec<Lease>,
    /// The plans of these peers, in their order.
    pub(crate) plans: Vec<Plan>,
    pub(crate) all: Plans,
}
