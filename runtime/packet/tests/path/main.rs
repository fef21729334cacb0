//! Paths at work, between hosts that are network namespaces. Needs root.

mod carrying;
mod device;
mod dropping;
mod errors;
mod overlay;
mod plugins;
