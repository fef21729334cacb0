//! Waits for a daemon's readiness.

use std::time::Duration;

use heddle_lab::{Daemon, wait_until};

/// Waits until `/readyz` answers 200.
pub fn wait_ready(daemon: &Daemon, limit: Duration) {
    wait_until("/readyz answering 200", limit, || match daemon.health("/readyz") {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
}

/// Waits until `/readyz` answers 503 with a body that contains all these texts.
pub fn wait_unready(daemon: &Daemon, texts: &[&str], limit: Duration) {
    wait_until(format!("/readyz answering 503 with {texts:?}"), limit, || {
        match daemon.health("/readyz") {
            Ok((503, body)) if texts.iter().all(|text| body.contains(text)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .unwrap();
}
