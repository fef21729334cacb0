//! Tests against a real kernel, compared with the output of `ip` and `bridge`. Needs root and
//! iproute2.
//!
//! Every test has an unnamed network namespace, which belongs to its thread and is removed with it.

#![allow(clippy::disallowed_methods, reason = "tests may run programs, wait and read files")]

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
