//! Tests of running paths between hosts in network namespaces. Needs root.

mod carrying;
mod device;
mod dropping;
mod errors;
mod overlay;
mod plugins;
