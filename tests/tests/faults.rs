//! Known failure modes of such daemons, and the behaviour that Heddle guarantees: for each row of
//! `docs/reliability.md`, a test injects the fault into real nodes and measures the time to full
//! recovery.

mod boot;
mod crowd;
mod files;
mod kernel;
mod plugins;
mod store;
mod underlay;
mod writer;
