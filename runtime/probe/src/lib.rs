//! Reachability probes: ICMP echo requests to a set of addresses at a steady pace, and the outcome
//! of the last ones.
//!
//! | module | job |
//! | --- | --- |
//! | [`window`] | reachability, round trip and loss of one address |
//! | [`pace`] | which address is probed next, and when |
//! | [`prober`] | sending the requests and receiving the answers |

#![forbid(unsafe_code)]

pub mod pace;
pub mod prober;
pub mod window;

pub use prober::{News, ProbeError, Prober};
pub use window::{Health, State};
