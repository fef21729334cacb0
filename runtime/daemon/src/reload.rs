//! Reloads on SIGHUP: reads the flags again and applies those that can change while the daemon
//! runs.

use heddle_flags::Flags;
use heddle_node::status::NodeState;
use tokio::signal::unix::Signal;

use crate::logging::SetVerbosity;

/// Reloads on every SIGHUP.
pub(crate) struct Reload<'a> {
    hangup: Signal,
    started: Flags,
    state: &'a NodeState,
    set_verbosity: &'a SetVerbosity,
}

impl<'a> Reload<'a> {
    /// Reloads with each `hangup`. `started` are the flags that the daemon was started with.
    pub(crate) fn new(
        hangup: Signal,
        started: Flags,
        state: &'a NodeState,
        set_verbosity: &'a SetVerbosity,
    ) -> Self {
        Self { hangup, started, state, set_verbosity }
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
    async fn reload(&self) {
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
        if needs_restart(&self.started, flags) {
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
    }
}

/// Returns true if a daemon that was `started` with these flags would have to restart to run with
/// those that it `read` since.
fn needs_restart(started: &Flags, mut read: Flags) -> bool {
    read.health.verbosity = started.health.verbosity;
    format!("{read:?}") != format!("{started:?}")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn flags(arguments: &[&str]) -> Flags {
        let arguments = ["heddled"].iter().chain(arguments).map(Into::into);
        Flags::read(arguments, |_| None, |_| Err(io::ErrorKind::NotFound.into())).unwrap()
    }

    #[test]
    fn only_a_change_of_verbosity_needs_no_restart() {
        let started = flags(&["--v=1"]);
        assert!(!needs_restart(&started, flags(&["--v=1"])));
        assert!(!needs_restart(&started, flags(&["--v=3"])));
        assert!(needs_restart(&started, flags(&["--v=3", "--ip-masq"])));
    }
}
