//! Read-only HTTP endpoints of the daemon: health for probes, metrics for Prometheus, a status page
//! for people.
//!
//! This crate turns data into text; `heddle_http` serves it. The data is
//! [`Status`](heddle_control::Status), which `heddle status` shows as well, and [`Notes`], which
//! the daemon records while it works. The daemon needs nothing here to do its job.
//!
//! | module | job |
//! | --- | --- |
//! | [`health`](mod@health) | `/healthz`, `/readyz` and `/packets`, at the address of flannel's flags |
//! | [`pages`](mod@pages) | `/`, `/status.json` and `/metrics`, at `--status-address` |
//! | [`metrics`](mod@metrics) | the status as Prometheus metrics |
//! | [`history`] | the most recent events |
//!
//! The page is one file, `page.html`, which polls `/status.json` every two seconds and shows its
//! content. The names and records in it are untrusted, so the page creates no markup from them, and
//! its policy permits nothing else to be loaded.

#![forbid(unsafe_code)]

pub mod health;
pub mod history;
pub mod metrics;
pub mod pages;

mod page;

pub use health::health;
pub use history::History;
pub use metrics::{Timings, metrics};
pub use pages::pages;

/// The daemon's record of events and timings. Clones share the same record.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// The most recent events.
    pub history: History,
    /// Durations of the daemon's work.
    pub timings: Timings,
}
