//! Reloads on SIGHUP: reads the flags again and applies those that can change while the daemon
//! runs.

use heddle_flags::Flags;
use heddle_node::status::NodeState;
use tokio::signal::unix::Signal;

use crate::logging::SetVerbosity;

/// Reloads on every SIGHUP.
pub(crate) struct Reload<'a> {
    hangup: Signal,
    current: Flags,
    state: &'a NodeState,
    set_verbosity: &'a SetVerbosity,
}

impl<'a> Reload<'a> {
    /// Reloads with each `hangup`. `current` are the flags that the daemon was started with.
    pub(crate) fn new(
        hangup: Signal,
        current: Flags,
        state: &'a NodeState,
        set_verbosity: &'a SetVerbosity,
    ) -> Self {
        Self { hangup, current, state, set_verbosity }
    }

    /// Reloads for as long as the daemon runs.
    pub(crate) async fn follow(mut self) {
        while self.hangup.recv().await.is_some() {
            self.reload().await;
        }
        std::future::pending::<()>().await;
    }

    /// Changes the verbosity, and reads the files of the etcd connection again. If the flags cannot
    /// be read, nothing changes.
    async fn reload(&mut self) {
        let flags = match Flags::of_process(std::env::args_os()) {
            Ok(flags) => flags,
            Err(error) => {
                let error = error.to_string();
                let error = error.trim();
                tracing::error!(%error, "SIGHUP: cannot read the flags; keeping the current ones");
                return;
            }
        };
        let verbosity = flags.health.verbosity;
        (self.set_verbosity)(verbosity);
        tracing::info!("SIGHUP: flags read; log level is --v={verbosity}");
        self.current.health.verbosity = verbosity;
        if format!("{flags:?}") != format!("{:?}", self.current) {
            tracing::warn!("SIGHUP: flags other than --v changed; restart heddled to apply them");
        }
        if let Some(store) = self.state.store() {
            match store.reload().await {
                Ok(()) => {
                    tracing::info!("SIGHUP: store reconnected with the current TLS files");
                }
                Err(error) => {
                    tracing::error!(%error, "SIGHUP: cannot reconnect to the store; keeping the connection");
                }
            }
        }
        self.current = flags;
    }
}
