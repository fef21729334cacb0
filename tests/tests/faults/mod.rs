//! What users of such daemons live with, and what is promised here instead: each row of `docs/reliability.md` is a test
//! that makes the fault happen to real nodes, and measures how long it takes until everything is as it should be.

mod boot;
mod crowd;
mod files;
mod kernel;
mod plugins;
mod store;
mod underlay;
mod writer;
