//! Tests of running paths between hosts in network namespaces. Needs root.

#![allow(clippy::disallowed_methods, reason = "tests may run programs, wait and read files")]

mod carrying;
mod device;
mod dropping;
mod errors;
mod overlay;
mod plugins;
