//! What goes wrong on real hosts, done to real nodes: what worked goes on, and what was broken is put right.
//!
//! `docs/reliability.md` has a row for each of these tests, and their numbers and names are the same.

mod files;
mod kernel;
mod plugins;
mod underlay;
