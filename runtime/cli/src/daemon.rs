//! Selection of the daemon to query.

use std::future::Future;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use heddle_control::{Client, socket_of};

/// Selects the daemon to query.
#[derive(Args)]
pub(crate) struct Daemon {
    /// Instance of the daemon, on a host with several networks
    #[arg(short, long, value_name = "NAME")]
    instance: Option<String>,
    /// Control socket of the daemon [default: /run/heddle/heddled.sock, or /run/heddle/NAME.sock of an instance]
    #[arg(long, value_name = "FILE", conflicts_with = "instance")]
    socket: Option<PathBuf>,
}

impl Daemon {
    pub(crate) fn client(&self) -> Client {
        Client::new(self.socket.clone().unwrap_or_else(|| socket_of(self.instance.as_deref())))
    }
}

/// Runs a future on a Tokio runtime to its end.
pub(crate) fn wait_for<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the asynchronous runtime")?.block_on(work)
}
