//! What the daemon tells others over HTTP, read-only: health for probes, metrics for Prometheus, a status page for people.
//!
//! Data comes in, text goes out; `heddle_http` serves it. The data is [`Status`](heddle_control::Status), which `heddle status` shows as well, and
//! [`Notes`], which the daemon takes while it works. Here is nothing that the daemon needs to do its job.
//!
//! | module | job |
//! | --- | --- |
//! | [`health`] | `/healthz`, `/readyz` and `/packets`, at flannel's flags' address |
//! | [`pages`] | `/`, `/status.json` and `/metrics`, at `--status-address` |
//! | [`metrics`](mod@metrics) | the status as Prometheus reads it |
//! | [`history`] | the last things that happened |
//!
//! The page is one file, `page.html`: what it shows is what `/status.json` says, asked for every two seconds. Names and
//! records in it are other people's, so that it makes no markup of them, and its policy lets nothing else in.

pub mod health;
pub mod history;
pub mod metrics;
pub mod pages;

mod page;

pub use health::health;
pub use history::History;
pub use metrics::{Timings, metrics};
pub use pages::pages;

/// What the daemon takes note of while it works. Clones are of the same notes.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// What lately happened.
    pub history: History,
    /// How long things take.
    pub timings: Timings,
}
