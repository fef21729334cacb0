//! Test kit for Heddle plugins.
//!
//! A [`Scenario`] is the input of a plugin: a network config, this node, and others.
//! [`Scenario::plan`] calls a plugin's functions natively, and [`Component::plan`] calls the
//! compiled component through `heddle plugin plan`, and so through the same code of the host that
//! the daemon uses. Both return the same text, so that one expectation covers both:
//!
//! ```
//! # use heddle_sdk::*;
//! # struct Direct;
//! # impl Backend for Direct {
//! #     fn advertise(config: &NetworkConfig, _: &Node) -> Result<Advertisements, ConfigError> {
//! #         let backend_data = vec![None; config.networks.len()];
//! #         Ok(Advertisements { backend_type: Some("direct".into()), backend_data })
//! #     }
//! #     fn plan_node(_: &NetworkConfig, node: &Node, _: &Lease) -> Result<NodePlan, ConfigError> {
//! #         Ok(NodePlan { plan: Plan::default(), mtu: node.underlay.mtu })
//! #     }
//! #     fn plan_peer(_: &NetworkConfig, node: &Node, lease: &Lease, peer: &Lease) -> Result<Plan, PeerError> {
//! #         let mut plan = Plan::default();
//! #         for part in lease.common_families(node, peer)? {
//! #             plan.routes.push(Route::via(part.subnet, part.public_address, &node.underlay.link));
//! #         }
//! #         Ok(plan)
//! #     }
//! # }
//! use heddle_testkit::Scenario;
//!
//! let scenario = Scenario::v4(r#"{"Type":"direct"}"#);
//! assert_eq!(
//!     scenario.plan::<Direct>(),
//!     "advertise\n\
//!      \x20 direct\n\
//!      node\n\
//!      \x20 mtu 1500\n\
//!      peer 10.244.2.0-24\n\
//!      \x20 route 10.244.2.0/24 via 192.168.0.2 dev eth0\n\
//!      peer 10.244.3.0-24\n\
//!      \x20 route 10.244.3.0/24 via 192.168.0.3 dev eth0\n"
//! );
//! ```
//!
//! Custom scenarios are written in JSON, in the formats that etcd has: see [`Scenario::parse`].

#![forbid(unsafe_code)]

mod component;
mod scenario;

pub use component::{Component, heddle};
pub use scenario::Scenario;
