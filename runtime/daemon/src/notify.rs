//! What systemd is told (sd_notify(3)). Without systemd, nothing.
//!
//! A manager that does not read what it is told makes whoever tells it wait once its socket is full. So each of those who tell
//! waits for itself, on a thread that nothing else needs, and what changes meanwhile is told in its last state.

use std::sync::Arc;
use std::time::Duration;

use heddle_node::readiness::Unmet;
use heddle_node::status::NodeState;
use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How many signs of life there are in the time that systemd waits for one.
const SIGNS: u32 = 4;

/// How long an end is put off to announce it.
const FAREWELL: Duration = Duration::from_secs(1);

/// Gives systemd signs of life, if it wants any (`WatchdogSec=`): only while the loop answers. From readiness on systemd
/// waits for them.
pub(crate) fn watchdog(state: Arc<NodeState>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let pause = limit / SIGNS;
    tokio::spawn(async move {
        loop {
            // What takes longer is asked for once more: the loop may have been busy.
            if state.alive(limit).await {
                tell(&[Message::Alive]).await;
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
            let status = Message::Status(first.clone().unwrap_or_else(|| "ready".to_owned()));
            if first.is_some() || announced {
                tell(&[status]).await;
            } else {
                tracing::info!("ready");
                tell(&[Message::Ready, status]).await;
                announced = true;
            }
            if readiness.changed().await.is_err() {
                return;
            }
        }
    });
}

/// Tells systemd that the daemon ends on request.
pub(crate) async fn stopping() {
    // It sees that anyway.
    let _ = timeout(FAREWELL, tell(&[Message::Stopping])).await;
}

/// What there is to tell.
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

/// Returns when it was told.
async fn tell(messages: &[Message]) {
    let messages = messages.to_vec();
    let telling = spawn_blocking(move || {
        let states: Vec<_> = messages.iter().map(Message::state).collect();
        sd_notify::notify(&states)
    });
    if let Ok(Err(error)) = telling.await {
        tracing::warn!("cannot tell systemd: {error}");
    }
}
