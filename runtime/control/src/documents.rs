//! The documents that the daemon serves, each serialized once for all readers.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use heddle_core::text;
use heddle_http::{Bytes, Shared};
use serde::Serialize;
use tokio::runtime::Handle;

use crate::{Handler, Status, Unavailable};

/// Maximum age of a status for readers without access control: however many there are, the daemon
/// creates one status a second for them.
pub const RECENT: Duration = Duration::from_secs(1);

/// A status, and its JSON once a reader has requested it. Readers share both.
#[derive(Debug)]
pub struct Snapshot {
    status: Status,
    json: OnceLock<Result<Bytes, Unavailable>>,
}

impl Snapshot {
    /// Returns the status.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Returns the status as JSON; all readers get the same bytes.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] if it cannot be serialized.
    pub fn json(&self) -> Result<Bytes, Unavailable> {
        self.json.get_or_init(|| json(&self.status)).clone()
    }
}

/// Documents that a [`Handler`] creates. Clones share them.
#[derive(Debug)]
pub struct Documents<H> {
    handler: Arc<H>,
    status: Shared<Result<Arc<Snapshot>, Unavailable>>,
    leases: Shared<Result<Bytes, Unavailable>>,
}

impl<H> Clone for Documents<H> {
    fn clone(&self) -> Self {
        let Self { handler, status, leases } = self;
        Self { handler: handler.clone(), status: status.clone(), leases: leases.clone() }
    }
}

impl<H: Handler> Documents<H> {
    /// Returns the documents of a handler. The handler always runs on the current Tokio runtime,
    /// whichever thread a reader is on.
    pub fn new(handler: H) -> Self {
        let runtime = Handle::current();
        let (status, leases) = (Shared::new(runtime.clone()), Shared::new(runtime));
        Self { handler: Arc::new(handler), status, leases }
    }

    /// Returns a status that is not older than `age`.
    ///
    /// # Errors
    ///
    /// The handler's.
    pub async fn status(&self, age: Duration) -> Result<Arc<Snapshot>, Unavailable> {
        let make = || {
            let handler = self.handler.clone();
            async move {
                let status = handler.status().await?;
                Ok(Arc::new(Snapshot { status, json: OnceLock::new() }))
            }
        };
        self.status.get(age, make).await
    }

    /// Returns the leases as JSON, read after the call.
    ///
    /// # Errors
    ///
    /// The handler's.
    pub async fn leases(&self) -> Result<Bytes, Unavailable> {
        let make = || {
            let handler = self.handler.clone();
            async move { handler.leases().await.and_then(|leases| json(&leases)) }
        };
        self.leases.get(Duration::ZERO, make).await
    }
}

/// Serializes a value. Without spare capacity, because readers may hold it for a while, and with
/// hidden characters in foreign texts escaped.
fn json(value: &impl Serialize) -> Result<Bytes, Unavailable> {
    let written = serde_json::to_string(value).map_err(|error| Unavailable(error.to_string()))?;
    Ok(text::json(written).into_bytes().into_boxed_slice().into())
}
