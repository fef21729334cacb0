//! A network config that the store does not have. Where an older flannel wrote it, it is in the v2
//! API of the same etcd, and the node says so.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use heddle_join::Obstacle;
use heddle_store::LeaseStore;
use tokio::time::{Instant, sleep_until};

/// Interval between two looks at the v2 API.
const INTERVAL: Duration = Duration::from_secs(60);

/// The search for a network config elsewhere, while the store has none.
pub(crate) struct MissingConfig {
    store: Arc<dyn LeaseStore>,
    /// True while the config is missing, which only a failed attempt to join tells.
    missing: bool,
    in_v2: bool,
    looking: Option<Pin<Box<dyn Future<Output = bool> + Send>>>,
    next: Instant,
}

impl MissingConfig {
    pub(crate) fn new(store: Arc<dyn LeaseStore>) -> Self {
        Self { store, missing: false, in_v2: false, looking: None, next: Instant::now() }
    }

    /// Returns the text about a missing config, as far as is known, and has the next call of
    /// [`look_elsewhere`](Self::look_elsewhere) look.
    pub(crate) fn explain(&mut self, obstacle: &Obstacle) -> String {
        self.missing = true;
        match self.in_v2 {
            true => format!(
                "{obstacle} in etcd's v3 API, and does in its v2 API, where flannel up to 0.17 writes it: copy it with \
                 the leases by `heddle import v2`"
            ),
            false => {
                let example = r#"{"Network":"10.244.0.0/16"}"#;
                format!("{obstacle}: expected an object such as {example}")
            }
        }
    }

    /// Looks at the v2 API if the config is missing, at once and then every minute. Returns when the
    /// text has changed. May be dropped and called again, which continues the same look.
    pub(crate) async fn look_elsewhere(&mut self) {
        if !std::mem::take(&mut self.missing) {
            return std::future::pending().await;
        }
        loop {
            if self.looking.is_none() {
                sleep_until(self.next).await;
                self.next = Instant::now() + INTERVAL;
                let store = self.store.clone();
                self.looking = Some(Box::pin(async move { store.has_v2_config().await }));
            }
            let Some(looking) = &mut self.looking else { continue };
            let found = looking.await;
            self.looking = None;
            if std::mem::replace(&mut self.in_v2, found) != found {
                return;
            }
        }
    }
}
