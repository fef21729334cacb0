//! The control socket. The network does not depend on it, so a socket that cannot be listened on is
//! a warning, and tried again.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use heddle_control::{Documents, Socket};
use heddle_node::status::NodeState;
use tokio::sync::watch;

/// The interval at which a socket that cannot be listened on is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// A control socket, and whom it serves.
#[derive(Clone)]
pub(crate) struct ControlSocket {
    pub(crate) path: PathBuf,
    pub(crate) group: Option<String>,
    pub(crate) documents: Documents<Arc<NodeState>>,
    /// Number of clients at a time.
    pub(crate) connections: usize,
}

/// A control socket from the first attempt to listen on. Its file is removed with it.
pub(crate) struct Listening {
    /// The reason why the socket is not available; None while it is.
    pub(crate) unavailable: watch::Receiver<Option<String>>,
    _socket: Arc<OnceLock<Socket>>,
}

impl ControlSocket {
    /// Listens, at once if possible.
    pub(crate) async fn serve(self) -> Listening {
        let (problem, unavailable) = watch::channel(None);
        let socket = Arc::new(OnceLock::new());
        if !self.listen(&problem, &socket).await {
            let socket = socket.clone();
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(RETRY).await;
                    if self.listen(&problem, &socket).await {
                        tracing::info!("control socket: available");
                        return;
                    }
                }
            });
        }
        Listening { unavailable, _socket: socket }
    }

    /// Makes one attempt. Returns true if it succeeded. Logs a reason that is new.
    async fn listen(
        &self,
        problem: &watch::Sender<Option<String>>,
        socket: &OnceLock<Socket>,
    ) -> bool {
        let Self { path, group, documents, connections } = self;
        let served =
            heddle_control::serve(path, group.as_deref(), documents.clone(), *connections).await;
        let reason = match served {
            Ok(served) => socket.set(served).err().map(|_| "it is listened on already".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if problem.send_if_modified(|known| std::mem::replace(known, reason.clone()) != reason)
            && let Some(error) = &reason
        {
            tracing::warn!(
                %error,
                "control socket: unavailable; heddle status and heddle doctor cannot ask this daemon"
            );
        }
        reason.is_none()
    }
}
