//! A deterministic simulation of several nodes. One seed is one history: of leases, of faults of kernels, plugins and the
//! store, and of crashes. After each history everything is healthy again, and every node has to be as it should be.
//!
//! The nodes are [`heddle_node::Node`], unchanged; models stand behind its ports. Time is tokio's paused clock, so that an
//! hour takes milliseconds. Everything runs on one thread, and every choice comes out of one generator of random numbers, so
//! that a seed replays exactly.
//!
//! | module | job |
//! | --- | --- |
//! | [`world`] | the nodes, the faults, and what has to hold |
//! | [`kernel`] | a model of a host's kernel |
//! | [`store`] | a lease store that several nodes share |
//! | [`plugin`] | a scripted backend, emitter and firewall |
//! | [`scene`] | one node among scripted models, for tests of single behaviours |
//! | [`campaign`] | many seeds on all processors |
//! | [`trace`] | the history of a run |

#![forbid(unsafe_code)]

pub mod campaign;
pub mod kernel;
pub mod plugin;
pub mod scene;
pub mod store;
pub mod trace;
pub mod world;

pub use campaign::{Report, run_all};
pub use world::{Outcome, run};
