//! Notifies systemd of readiness, status and liveness (sd_notify(3)). Does nothing without systemd.
//!
//! sd_notify blocks once the socket of a stuck manager is full. So each notifier blocks only a
//! thread that nothing else needs, and changes meanwhile are coalesced into the latest state.

use std::sync::Arc;
use std::time::Duration;

use heddle_node::readiness::Unmet;
use heddle_node::status::NodeState;
use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Number of watchdog notifications within systemd's timeout.
const SIGNS: u32 = 4;

/// Maximum delay of the exit for announcing it.
const FAREWELL: Duration = Duration::from_secs(1);

/// Sends watchdog notifications to systemd, if it wants any (`WatchdogSec=`), as long as the loop
/// answers. systemd expects them once the unit is ready.
pub(crate) fn watchdog(state: Arc<NodeState>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let pause = limit / SIGNS;
    tokio::spawn(async move {
        loop {
            // A timeout skips one notification. The loop may have been busy, so it is asked again.
            if state.alive(limit).await {
                tell(&[Message::Alive]).await;
            }
            tokio::time::sleep(pause).await;
        }
    });
}

/// Notifies systemd of every change of readiness: the first reason as the unit's status, and once
/// that it is ready.
pub(crate) fn follow(mut readiness: watch::Receiver<Unmet>) {
    tokio::spawn(async move {
        let mut announced = false;
        loop {
            let first =
                readiness.borrow_and_update().iter().next().map(|(c, r)| format!("{c}: {r}"));
            let status = Message::Status(first.clone().unwrap_or_else(|| "ready".to_owned()));
            if first.is_some() || announced {
                tell(&[status]).await;
            } else {
                tracing::info!("heddled: ready");
                tell(&[Message::Ready, status]).await;
                announced = true;
            }
            if readiness.changed().await.is_err() {
                return;
            }
        }
    });
}

/// Notifies systemd that the daemon ends on request.
pub(crate) async fn stopping() {
    // systemd notices the exit in any case.
    let _ = timeout(FAREWELL, tell(&[Message::Stopping])).await;
}

/// A notification.
#[derive(Clone, Debug)]
enum Message {
    Ready,
    Status(String),
    Alive,
    Stopping,
}

impl Message {
    fn state(&self) -> NotifyState<'_> {
        match self {
            Self::Ready => NotifyState::Ready,
            Self::Status(text) => NotifyState::Status(text),
            Self::Alive => NotifyState::Watchdog,
            Self::Stopping => NotifyState::Stopping,
        }
    }
}

/// Sends notifications. Returns once they are sent.
async fn tell(messages: &[Message]) {
    let messages = messages.to_vec();
    let telling = spawn_blocking(move || {
        let states: Vec<_> = messages.iter().map(Message::state).collect();
        sd_notify::notify(&states)
    });
    if let Ok(Err(error)) = telling.await {
        tracing::warn!(%error, "systemd: notification failed; it shows the unit's previous state");
    }
}
