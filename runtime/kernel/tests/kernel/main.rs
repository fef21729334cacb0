//! The crate against a real kernel, compared with what `ip` and `bridge` show. Needs root and iproute2.
//!
//! Every test has a network namespace without a name, which belongs to its thread and goes with it.

mod devices;
mod drift;
mod host;
mod host_network;
mod interfaces;
mod ownership;
mod peers;
mod ruleset;
mod scale;
mod survey;
