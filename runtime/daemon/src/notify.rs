//! What systemd is told (sd_notify(3)). Without systemd, nothing.

use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::sync::watch;

use crate::control::Facts;
use crate::readiness::Unmet;

/// How many signs of life there are in the time that systemd waits for one.
const SIGNS: u32 = 4;

/// Gives systemd signs of life, if it wants any (`WatchdogSec=`): only while the loop answers. From readiness on systemd
/// waits for them.
pub(crate) fn watchdog(facts: Arc<Facts>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let pause = limit / SIGNS;
    tokio::spawn(async move {
        loop {
            // What takes longer is asked for once more: the loop may have been busy.
            if facts.alive(limit).await {
                tell(&[NotifyState::Watchdog]);
            }
            tokio::time::sleep(pause).await;
        }
    });
}

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
