//! The steps of a node from its network config to its plan, for every program that takes them: the
//! daemon, which joins; the doctor and `heddle config check`, which predict; and the conformance
//! rules, which try plugins.
//!
//! Each step is a type, and has the only way to the next one. A program does between two steps what
//! is its own business: it reads the store or a file, acquires a lease or invents one.
//!
//! | step | type | obstacle |
//! | --- | --- | --- |
//! | the network config is valid | [`NetworkConfig`](heddle_core::config::NetworkConfig), by [`network_config`] | [`Obstacle::NoConfig`], [`Obstacle::Config`] |
//! | the underlay is chosen | [`Site<NoLease>`](heddle_core::site::Site) | [`Obstacle::Interface`] |
//! | the backend is loaded | [`Loaded`] | [`Obstacle::Plugin`] |
//! | it has said what to publish | [`Advertised`] | [`Obstacle::Backend`] |
//! | the node has a lease | [`Leased`] | [`Obstacle::Lease`] |
//! | the node has a plan | [`Planned`] | [`Obstacle::Backend`] |

#![forbid(unsafe_code)]

mod obstacle;
mod planner;
mod steps;

pub use obstacle::Obstacle;
pub use planner::Planner;
pub use steps::{Advertised, Leased, Loaded, Planned, network_config};
