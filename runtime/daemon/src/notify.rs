//! What systemd is told (sd_notify(3)). Without systemd, nothing.

use sd_notify::NotifyState;
use tokio::sync::watch;

use crate::readiness::Unmet;

/// Tells systemd of every change of readiness: its reasons as the unit's status, and once that it is ready.
pub(crate) fn follow(mut readiness: watch::Receiver<Unmet>) {
    tokio::spawn(async move {
        let mut announced = false;
        loop {
            let first =
                readiness.borrow_and_update().iter().next().map(|(c, r)| format!("{c}: {r}"));
            match first {
                Some(reason) => tell(&[NotifyState::Status(&reason)]),
                None if announced => tell(&[NotifyState::Status("ready")]),
                None => {
                    tracing::info!("ready");
                    tell(&[NotifyState::Ready, NotifyState::Status("ready")]);
                    announced = true;
                }
            }
            if readiness.changed().await.is_err() {
                return;
            }
        }
    });
}

/// Tells systemd that the daemon ends on request.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("cannot tell systemd: {error}");
    }
}
